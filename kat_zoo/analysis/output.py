"""Writing a picture and, beside it, its numbers."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NotApplicable(ValueError):
    """An analysis has no meaning for a model or a run; `kat-zoo analyze` leaves it out unless it was asked for by name."""


def save(figure: "Figure", rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write `figure` to path (.png) and `rows` to the .csv of the same name.

    Args:
        figure: figure to write.
        rows: numbers, at least one row; the keys of the first are the columns.
        path: path that ends in .png; its folder is made.

    Returns:
        The picture's path.

    Raises:
        ValueError: no rows, or a path that ends in something else.
    """
    if path.suffix != ".png":
        raise ValueError(f"path={str(path)!r}: expected a name that ends in .png")
    if not rows:
        raise ValueError(f"rows of {path.name}: expected at least one, there are no numbers to plot")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
