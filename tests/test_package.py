"""Packages on disk, public names, what importing costs, and the manners of the command; `make lint` holds the direction of imports."""

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from kat_zoo.cli import main as cli
from kat_zoo.hub.samples import SHEET

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
FOLDERS = {"kat_zoo": "kat_zoo", "kat_zoo.kernels": "kernels", "kat_zoo.train": "train"}

# Package -> its public names: __all__, and all that dir() and an editor show.
PUBLIC = {
    "kat_zoo": "__version__ models to_kat vit_to_karat vit_to_kat",
    "kat_zoo.analysis": "AttentionLayer NotApplicable Plane PowerLaw attention_quality capture_attention fit_power_law loss_surface "
    "measure_costs plot_attention_maps plot_costs plot_curves plot_histograms plot_landscape plot_power_law plot_quality plot_spectra "
    "principal_plane singular_values",
    "kat_zoo.dense": "SimpleFeaturePyramid ViTFeatures accept_any_size dpt faster_rcnn fcos mask_rcnn retinanet upernet",
    "kat_zoo.explore": "Session Table example_table explore parse_table read_table",
    "kat_zoo.hub": "convert pull push save_model",
    "kat_zoo.kan": "KAN KANClassifier KANRegressor LAN from_formula register_function",
    "kat_zoo.kernels": "bspline_basis bspline_basis_reference fourier_attention fourier_attention_reference rational rational_reference "
    "spline_linear",
    "kat_zoo.layers": "FourierHeads GRKAN GeneralHeads GroupRational KANLinear KANMlp KArAtAttention fit_rational",
    "kat_zoo.models": "KAT KATMixer KArAt MixerViT PixelClassifier",
    "kat_zoo.train": "DetectionRecipe Recipe SegmentationRecipe read_run train",
    "kat_zoo.transfer": "to_kat vit_to_karat vit_to_kat",
}


def sources():
    for name, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            module = ".".join([name, *parts]).removesuffix(".__init__")
            yield module, path, path.name == "__init__.py"


def test_packages_match_the_disk():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {module for module, _, is_package in sources() if is_package}
    assert listed == found


def test_nothing_is_imported_by_the_name_of_its_folder():
    """From the root of the repository, `import kernels` is not Hugging Face's package of that name, nor ours once it is installed."""
    for _, path, _ in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert not {name.split(".")[0] for name in names} & {"kernels", "train"}, f"{path}:{node.lineno}"


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names(package):
    module = importlib.import_module(package)
    names = PUBLIC[package].split()
    assert sorted(module.__all__) == dir(module) == sorted(names)
    for name in names:
        value = getattr(module, name)
        if importlib.util.find_spec(f"{package}.{name}") is not None:
            assert value is sys.modules[f"{package}.{name}"], f"{package}.{name} is a module and something else"


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_adds_nothing_heavy():
    code = (
        "import sys, timm, timm.models.vision_transformer\nbefore = set(sys.modules)\nimport kat_zoo\n"
        "print(*set(sys.modules) - before, sep='\\n')"
    )
    loaded = run_python(code).split()
    assert {name.split(".")[0] for name in loaded} - sys.stdlib_module_names == {"kat_zoo"}
    rooms = {name.split(".")[1] for name in loaded if name.startswith("kat_zoo.")}
    assert rooms <= {"_checks", "_lazy", "_text", "_weights", "kernels", "layers", "models"}


def _names_no_encoding(call):
    """Whether a call reads or writes text in the encoding of the machine, which is another one on Windows."""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        return False
    mode = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else "r"
    text = call.func.attr in ("read_text", "write_text") or (call.func.attr == "open" and mode in ("w", "a", "x"))
    return text and not any(keyword.arg == "encoding" for keyword in call.keywords)


@pytest.mark.parametrize("package", ["kat_zoo", "kernels", "train"])
def test_text_files_name_their_encoding(package):
    for path in (ROOT / package).rglob("*.py"):
        lines = [node.lineno for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if _names_no_encoding(node)]
        assert not lines, f"{path}, lines {lines}: expected encoding='utf-8'"


def test_version():
    assert importlib.import_module("kat_zoo").__version__ == importlib.metadata.version("kat_zoo")


@pytest.mark.parametrize(
    "argv, message",
    [
        (["nonsense"], "unknown command 'nonsense'"),
        (["predict", "absent.png", "--model", "kat_pico_patch4_28"], "no such image: absent.png"),
        (["predict", str(SHEET), "--model", "kat_nowhere"], "expected a registered model"),
        (["predict", __file__, "--model", "kat_pico_patch4_28"], "is not an image that can be read"),
        (["predict", str(SHEET), "--model", "test_kat"], "no published weights"),
        (["validate", "--data.dataset", "imaginary"], "imaginary"),
        (["train", "--config", "absent.yaml"], "absent.yaml"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv, message, capsys):
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_every_command_has_help(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            cli.main([name, "--help"])
        assert stop.value.code == 0


@pytest.mark.parametrize(
    "name, module, extra",
    [
        ("kat_zoo.kan.KANRegressor", "sklearn", "kan"),
        ("kat_zoo.train.train", "accelerate", "train"),
        ("kat_zoo.explore.explore", "starlette", "explore"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(name, module, extra):
    package, _, attribute = name.rpartition(".")
    code = (
        f"import sys; sys.modules['{module}'] = None; import {package} as package\n"
        f"try: package.{attribute}\nexcept ModuleNotFoundError as error: print(error)\nelse: print('no error')"
    )
    assert f"pip install 'kat_zoo[{extra}]'" in run_python(code)
