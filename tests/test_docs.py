"""The site: its API pages list what the packages export, its migration pages name what exists, and nothing of it comes from a network."""

import importlib
import re
import runpy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from kat_zoo.kan import KAN, LAN, KANRegressor
from kat_zoo.train import Recipe

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted((DOCS / "api").glob("kat_zoo.*.rst"))
CLASSES = {"KAN": KAN, "LAN": LAN, "KANRegressor": KANRegressor}

# Public methods of pykan 0.2.8's MultKAN, and its functions that its notebooks call.
PYKAN = """
to width_in width_out n_sum n_mult feature_score initialize_from_another_model log_history refine saveckpt loadckpt copy rewind
checkout update_grid_from_samples update_grid initialize_grid_from_another_model forward set_mode fix_symbolic unfix_symbolic
unfix_symbolic_all get_range plot reg get_reg disable_symbolic_in_fit get_params fit prune_node prune_edge prune prune_input
remove_edge remove_node attribute node_attribute feature_interaction suggest_symbolic auto_symbolic symbolic_formula expand_depth
expand_width perturb module tree speed get_act get_fun history n_edge evaluate swap connection_cost auto_swap_l auto_swap expr2kan
runner1 pareto_frontier detect_separability get_dependence test_symmetry test_separability test_general_separability get_molecule
plot_tree test_symmetry_var create_dataset add_symbolic ex_round augment_input batch_jacobian batch_hessian
create_dataset_from_data get_derivative fit_params get_feynman_dataset batch_grad_normgrad get_tree_node sparse_mask model2param B_batch
coef2curve curve2coef extend_grid
""".split()  # noqa: SIM905 (a paragraph is read more easily)


def exported(module):
    """Public names of a package, or of a module what it defines."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return {name for name in names if not name.startswith("__")}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_an_api_page_lists_what_its_package_exports(page):
    text = page.read_text()
    listed = set(re.findall(r"^\.\. auto(?:class|function|exception):: (\w+)$", text, re.MULTILINE))
    table = set(re.findall(r"^   (\w+)$", text, re.MULTILINE))
    assert listed == table
    assert listed <= exported(importlib.import_module(page.stem))
    if hasattr(importlib.import_module(page.stem), "__all__"):
        assert listed == exported(importlib.import_module(page.stem))


def test_every_package_with_public_names_has_an_api_page():
    packages = {path.parent for folder in ("kat_zoo", "kernels", "train") for path in (DOCS.parent / folder).rglob("__init__.py")}
    public = {path for path in packages if re.search(r"^__all__ =", (path / "__init__.py").read_text(), re.MULTILINE)}
    names = {".".join(path.relative_to(DOCS.parent).parts) for path in public}
    names = {name if name.startswith("kat_zoo") else f"kat_zoo.{name}" for name in names}
    assert names <= {path.stem for path in (DOCS / "api").glob("*.rst")}


@pytest.mark.parametrize("page", sorted((DOCS / "migration").glob("*.md")), ids=lambda path: path.stem)
def test_names_of_migration_pages_exist(page):
    text = page.read_text()
    for name in re.findall(r"`(kat_zoo\.[\w.]+|(?:KAN|LAN|KANRegressor)\.\w+)`", text):
        first, *rest = name.split(".")
        if first in CLASSES:
            documented = CLASSES[first].__doc__ if rest[0].endswith("_") else ""
            assert hasattr(CLASSES[first], rest[0]) or rest[0] in documented or (first == "KAN" and rest[0] == "width"), name
            continue
        module, attribute = name.rsplit(".", 1)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_every_method_of_pykan_has_a_row():
    text = (DOCS / "migration" / "pykan.md").read_text()
    assert [name for name in PYKAN if not re.search(rf"`{name}\b", text)] == []


def test_ways_out_and_back_are_named_where_they_answer():
    """Deployment, the edge that comes back, and timm's scripts: each on the pages whose readers look for it."""
    pages = {path.stem: path.read_text() for path in (DOCS / "migration").glob("*.md")}
    assert "`KAN.restore_edge`" in pages["pykan"]
    for page in ("pykan", "symbolic_regression"):
        assert all(f"`kat_zoo.kan.deploy.{name}`" in pages[page] for name in ("to_c", "to_numpy", "to_int8")), page
    assert "`kat_zoo.timm`" in pages["timm"] and "python -m kat_zoo.timm train.py" in pages["kat"]


def test_options_on_the_page_of_timm_are_those_of_a_recipe():
    rows = re.findall(r"^\| .* \| (.*) \|$", (DOCS / "migration" / "timm.md").read_text(), re.MULTILINE)
    options = [option for row in rows for option in re.findall(r"--([a-z_]+\.[a-z_]+)", row)]
    assert len(options) > 25
    for option in options:
        kind = Recipe
        for name in option.split("."):
            assert is_dataclass(kind), option
            assert name in {field.name for field in fields(kind)}, option
            kind = get_type_hints(kind)[name]


def test_pages_load_nothing_from_a_network():
    """Sources name no script, style or font of another host."""
    sources = [*DOCS.rglob("*.md"), *DOCS.rglob("*.rst"), *DOCS.rglob("*.css"), DOCS / "conf.py"]
    for source in sources:
        assert not re.search(r"<(?:script|link|img)[^>]*https?://|@import|url\(['\"]?https?://", source.read_text()), source


def test_only_links_that_leave_the_site_become_names():
    pytest.importorskip("sphinx")  # of the site alone, and no version of it for Python 3.10
    source = "[a guide](../kan.md), [a table](../benchmarks/results/x.md), [a folder](../model_cards), [data](../benchmarks/x.csv)"
    hook = runpy.run_path(str(DOCS / "conf.py"))["name_files_outside"]
    named = "`kan.md`, `benchmarks/results/x.md`, `model_cards`, [data](../benchmarks/x.csv)"
    for page, expected in (("science/index", source), ("results", named)):
        text = [source]
        hook(None, page, text)
        assert text == [expected]
