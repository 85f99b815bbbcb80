"""The rows of the benchmark: a CSV file that a later call continues, and a page for readers."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from .._files import replaced

Row = dict[str, str]

FIELDS = (
    *("part", "case", "what", "pass", "us", "host_us", "peak_mib", "launches", "amount", "error"),
    *("clock_mhz", "device", "versions", "note"),
)
TITLES = {
    "ceilings": "Ceilings of the device",
    "rational": "The activation of KAT",
    "attention": "Fourier attention",
    "splines": "KAN layers",
    "models": "Models",
}
# The unit of a rate, and its factor: amounts are bytes, floating-point operations or images in a microsecond.
UNITS = {"copy": ("GB/s", 1e-3), "matmul": ("TFLOP/s", 1e-6), "rational": ("GB/s", 1e-3), "models": ("images/s", 1e6)}
# What a row of a part is compared with, in the same case; a copy has no backward.
BASES = {"rational": ("copy", "GELU"), "attention": ("SDPA",), "splines": ("usual formula",), "models": ("ViT",)}
NOTES = """Times are medians of 20 replays of a CUDA graph over operands that fill the L2 cache four times; a model's step that is not one
graph is timed as it is issued. The host's cost is the time until a call has been issued, without the device's. Every result was
compared with its formula in float64 before it was timed: the largest relative error stands beside it. "of X" is the speed
relative to X; where X is the copy, the share of its bandwidth.

FlashKAT published, of one H200, training images/s of ViT-T/S/B 8,955 / 5,312 / 2,457 and of its KAT-T/S/B 6,318 / 3,742 /
1,802, which is 0.71 / 0.70 / 0.73 of the ViT (arXiv 2505.13813). Our goals: KAT at 0.95 of the ViT or more, KArAt at 0.9; the
rational's forward at 0.90 of a copy, its backward at 0.75.
"""
DRY_NOTE = "**A dry run on a CPU: sizes are tiny, and the times say nothing of a GPU.**"


def key(row: Mapping[str, str]) -> tuple[str, str, str, str]:
    """Part, case, what and pass of a row."""
    return row["part"], row["case"], row["what"], row["pass"]


def read(path: Path, device: str, versions: str) -> list[Row]:
    """The rows of an earlier call.

    Args:
        path: CSV file; it may be absent.
        device: name of the device of this call.
        versions: software of this call.

    Raises:
        ValueError: the file is not of this benchmark, or of another device or other versions.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(f"--csv {path}: expected a file of kat-zoo bench, or none")
        rows = list(reader)
    for row in rows:
        if (row["device"], row["versions"]) != (device, versions):
            raise ValueError(f"--csv {path} holds rows of {row['device']}, {row['versions']}: expected {device}, {versions}, or no file")
    return rows


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows as CSV, aside and then renamed: a call that is killed loses none."""
    with replaced(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def _rate(row: Row) -> float:
    """Amount in a microsecond, or calls where nothing is counted."""
    return float(row["amount"] or 1) / float(row["us"])


def ratio(row: Row, base: str, rows: Sequence[Row]) -> str:
    """Speed of a row relative to another function on the same operands.

    Args:
        row: row with a figure.
        base: name of the other function; a backward is compared with the copy's forward, as a copy has no backward.
        rows: all rows.

    Returns:
        The ratio, or "" where the other has no figure.
    """
    by_key = {key(other): other for other in rows if other["us"]}
    for direction in (row["pass"], "forward") if base == "copy" else (row["pass"],):
        if other := by_key.get((row["part"], row["case"], base, direction)):
            return f"{_rate(row) / _rate(other):.2f}"
    return ""


def _number(text: str, digits: int = 1) -> str:
    return f"{float(text):,.{digits}f}" if text else ""


def _table(part: str, rows: Sequence[Row]) -> list[str]:
    bases = BASES.get(part, ())
    launches = any(row["launches"] for row in rows)
    head = ["case", "function", "pass", "us", "host us", "rate", *(f"of {base}" for base in bases), "peak MiB", "error"]
    lines = [[*head, *(["launches"] if launches else [])]]
    for row in rows:
        unit, factor = UNITS.get(row["what"] if part == "ceilings" else part, ("", 0.0))
        rate = f"{_rate(row) * factor:,.0f} {unit}" if unit else ""
        cells = [row["case"], row["what"], row["pass"], _number(row["us"]), _number(row["host_us"]), rate]
        cells += [ratio(row, base, rows) for base in bases]
        cells += [_number(row["peak_mib"]), row["error"]]
        lines.append([*cells, *([row["launches"]] if launches else [])])
    lines.insert(1, ["---"] * 3 + ["---:"] * (len(lines[0]) - 3))
    return [f"| {' | '.join(line)} |" for line in lines]


def page(rows: Sequence[Row], left: int) -> str:
    """The page for readers.

    Args:
        rows: all rows, in any order.
        left: number of figures that have not been taken.

    Returns:
        Markdown.
    """
    good, bad = [row for row in rows if row["us"]], [row for row in rows if not row["us"]]
    lines = ["# Speed on a GPU", ""]
    if rows:
        clocks = sorted({int(row["clock_mhz"]) for row in rows if row["clock_mhz"]})
        clock = f", {clocks[0]} to {clocks[-1]} MHz" if clocks else ""
        lines += [f"{rows[0]['device']}{clock}; {rows[0]['versions']}. Command: `make bench-gpu`.", ""]
        lines += [DRY_NOTE, ""] if rows[0]["device"].startswith("CPU") else []
    lines += [NOTES]
    if left:
        lines += [f"{left} figures have not been taken yet: the same command again takes them.", ""]
    for part, title in TITLES.items():
        of_part = [row for row in good if row["part"] == part]
        cases = list(dict.fromkeys(row["case"] for row in of_part))
        if of_part:
            lines += [f"## {title}", "", *_table(part, sorted(of_part, key=lambda row: cases.index(row["case"]))), ""]
    if bad:
        lines += ["## Without a figure", "", *(f"* {', '.join(key(row))}: {row['note']}" for row in bad), ""]
    return "\n".join(lines)
