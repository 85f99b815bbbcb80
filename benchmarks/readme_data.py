"""Reading of the checked-in CSV files, and Markdown tables of them, for `readme.py`."""

import csv
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from kat_zoo.hub import registry

HERE = Path(__file__).parent
Row = dict[str, str]


def rows(name: str) -> list[Row]:
    """Rows of a CSV file in benchmarks/."""
    with (HERE / name).open() as file:
        return list(csv.DictReader(file))


def select(data: Iterable[Row], **where: str) -> list[Row]:
    """The rows that have these values."""
    return [row for row in data if all(row[key] == value for key, value in where.items())]


def one(data: Iterable[Row], **where: str) -> Row:
    """The only row that has these values.

    Raises:
        ValueError: none has them, or several have.
    """
    found = select(data, **where)
    if len(found) != 1:
        raise ValueError(f"{where}: expected one row, found {len(found)}")
    return found[0]


def mean(data: Iterable[Row], key: str, **where: str) -> float:
    return statistics.fmean(float(row[key]) for row in select(data, **where))


def percent(value: float) -> str:
    return f"{value:.1f}"


def shipped(name: str) -> float:
    """Our own top-1 of weights in the package, in percent."""
    (result,) = (result for result in registry.load_results()[name] if result.source == "ours")
    return result.top1


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *lines)]


def prose(text: str) -> list[str]:
    """Lines of a paragraph, whatever the line breaks of `text`."""
    return textwrap.wrap(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)
