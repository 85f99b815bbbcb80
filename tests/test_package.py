"""The layout: packages on disk, the direction of imports, what importing costs, and the command's manners."""

import ast
import importlib.metadata
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

# Room -> rooms it may import from. Everything at kat_zoo/*.py but cli and samples stands on layers and models.
ALLOWED = {
    "kernels": set(),
    "layers": {"kernels"},
    "kan": {"layers", "kernels", "_arguments", "_checks", "_lazy"},
    "_arguments": set(),
    "models": {"layers", "kernels"},
    "cli": None,  # imports lazily, by name
}
MIDDLE = {"kernels", "layers", "models", "kan"}


def sources():
    for name, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            module = ".".join([name, *parts]).removesuffix(".__init__")
            yield module, path, path.name == "__init__.py"


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "kat_zoo" else ("" if parts[0] == "kat_zoo" else None)


def imported(tree, module, is_package):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".") if is_package else module.split(".")[:-1]
            base = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names) if source == "kat_zoo" else (source,)


def test_packages_match_the_disk():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {module for module, _, is_package in sources() if is_package}
    assert listed == found


@pytest.mark.parametrize("module, path, is_package", [pytest.param(*s, id=s[0]) for s in sources()])
def test_imports_go_one_way(module, path, is_package):
    here = room(module)
    allowed = ALLOWED.get(here, MIDDLE | set(ALLOWED) - {"cli"})
    for name in imported(ast.parse(path.read_text()), module, is_package):
        assert name.split(".")[0] not in ("kernels", "train"), f"{path} imports {name} by its folder's name"
        there = room(name)
        if there in (None, here) or here == "":
            assert here != "" or there in (None, "", "_lazy", "models", "transfer"), f"kat_zoo/__init__ imports {name}"
        elif here == "train":
            assert there != "cli", f"{path} imports {name}"
        elif here != "cli":
            assert there != "train", f"{path} imports {name} of the room above"
            assert here not in ALLOWED or there == "" or there in allowed, f"{path} imports {name}"


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_adds_nothing_heavy():
    code = (
        "import sys, timm, timm.models.vision_transformer\nbefore = set(sys.modules)\nimport kat_zoo\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before}, callable(kat_zoo.vit_to_kat))"
    )
    heavy = {"triton", "scipy", "matplotlib", "sklearn", "accelerate", "datasets", "sympy", "transformers", "rich"}
    loaded = run_python(code).split()
    assert not heavy & set(loaded) and loaded[-1] == "True"


def test_names_of_the_package():
    names = "kat_zoo.__version__, *dir(kat_zoo)"
    version, *found = run_python(f"import kat_zoo; print({names})").split()
    assert version == importlib.metadata.version("kat_zoo")
    assert {"__version__", "vit_to_kat", "vit_to_karat", "models"} <= set(found)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["nonsense"], "unknown command 'nonsense'"),
        (["predict", "absent.png", "--model", "kat_pico_patch4_28"], "no such image: absent.png"),
        (["predict", str(SHEET), "--model", "kat_nowhere"], "not a registered model"),
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
