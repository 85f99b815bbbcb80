"""Pictures of the gallery that pyplot does not know: `KAN.plot` returns a figure and leaves pyplot's state alone."""

from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def scrape(_block: tuple, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the `figure` of a block, once, if it is not one of pyplot's."""
    figure = block_vars["example_globals"].get("figure")
    if not isinstance(figure, Figure) or hasattr(figure, "number"):
        return ""
    del block_vars["example_globals"]["figure"]
    path = next(block_vars["image_path_iterator"])
    figure.savefig(path, bbox_inches="tight", dpi=110)
    return figure_rst([path], gallery_conf["src_dir"])
