"""Configuration of the site: `make docs`. It needs no network: fonts, scripts and inventories are local, formulas are MathML."""

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import matplotlib
from sphinx.application import Sphinx

matplotlib.use("agg")
sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "kat_zoo"
author = "the authors of kat_zoo"
version = release = installed_version("kat_zoo")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
exclude_patterns = ["gallery/**"]  # sources of the gallery; its pages are written to auto_gallery/
html_static_path = ["_static"]
html_css_files = ["kat_zoo.css"]
html_title = "kat_zoo"
html_favicon = "../kat_zoo/explore/static/icon.svg"
html_context = {"default_mode": "auto"}  # light or dark as the browser is
html_copy_source = False
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": ["sphinx-version"],
    "pygments_light_style": "tango",
    "pygments_dark_style": "monokai",
}
html_sidebars = {"index": []}
html_math_renderer = "mathml"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

# Written by scikit-learn, with references into its own site.
SKLEARN = "get_metadata_routing, set_fit_request, set_predict_request, set_score_request"
autosummary_generate = False  # one page for each package, with the names that it lists
autodoc_member_order = "groupwise"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": SKLEARN}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False  # "Returns:" begins with a sentence, not with a type, which the signature has
default_role = "code"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

INVENTORIES = Path(__file__).parent / "_inventories"  # a few names each, so that a build needs no network: _inventories/make.py
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", str(INVENTORIES / "python.inv")),
    "torch": ("https://docs.pytorch.org/docs/stable/", str(INVENTORIES / "torch.inv")),
    "numpy": ("https://numpy.org/doc/stable/", str(INVENTORIES / "numpy.inv")),
    "sympy": ("https://docs.sympy.org/latest/", str(INVENTORIES / "sympy.inv")),
    "matplotlib": ("https://matplotlib.org/stable/", str(INVENTORIES / "matplotlib.inv")),
    "sklearn": ("https://scikit-learn.org/stable/", str(INVENTORIES / "sklearn.inv")),
}
nitpick_ignore_regex = [
    (r"py:.*", r"(timm|torchvision)\..*"),  # timm has no Sphinx site; torchvision does not document these classes
    (r"py:class", r"torch\.export\..*"),  # documented under another name
    (r"py:class", r"kat_zoo\..*\.(NetworkT|KANT|dense\.recipe\.Config|runs\.Recipe)"),  # type variables: the class that the call is made on
    (
        r"py:class",
        r"kat_zoo\..*\.(_Noted|SegmentationModel|Float32Boxes|LoadsParts|LoadsGoogle)",
    ),  # bases that share code and have no name of their own to the reader
    (r"py:class", r"kat_zoo\.explore\.(state|server|command)\..*"),  # parts of the page and of its server
    (r"py:(obj|class)", r"(typing\.Literal|dict|tuple|list)\[.*"),  # types of fields, which Sphinx splits at their commas
]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "subsection_order": [f"gallery/{door}" for door in ("science", "vision", "kernels")],
    "filename_pattern": r"/\w+\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "capture_repr": (),  # a page shows pictures and printed lines
    "remove_config_comments": True,
    "image_scrapers": ("matplotlib", "figures.scrape"),
    "matplotlib_animations": False,
    "within_subsection_order": "FileNameSortKey",
    "min_reported_time": 0,
    "write_computation_times": False,
}


# Links that work in the repository and not here: folders and Markdown outside docs/ stay as their names.
OUTSIDE = re.compile(r"\[`?([^\]`]+)`?\]\(\.\./(model_cards|benchmarks/results|[^)#]*\.md)\)")


def name_files_outside(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Write a file's path where the site has no page to link to; in a folder of docs/, "../" leads to a page."""
    if "/" not in docname:
        source[0] = OUTSIDE.sub(lambda link: f"`{link[2]}`", source[0])


def escape_docstring(_app: Sphinx, _kind: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Keep |x| and coef_ of a docstring as they are: to reStructuredText they are references."""
    parts = "\n".join(lines).split("`")
    parts[::2] = [re.sub(r"\b(\w+)_(?!\w)", r"\1\\_", part.replace("|", r"\|")) for part in parts[::2]]
    lines[:] = "`".join(parts).split("\n")


def setup(app: Sphinx) -> None:
    """Connect the hooks."""
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)  # before napoleon
    app.connect("source-read", name_files_outside)
