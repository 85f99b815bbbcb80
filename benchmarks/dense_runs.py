"""Runs of detectors and segmentation models that can be stopped: their CPU seconds, their tables and their curves."""

import csv
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from kat_zoo.train.core.log import read_log

COLORS = {"KAT": "C0", "ViT": "C1", "random": "C7"}
SPENT = "cpu.json"


@contextmanager
def counted(folder: Path) -> Iterator[None]:
    """Add the CPU seconds of the block to those that a run has needed before."""
    path = folder / SPENT
    folder.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text())["seconds"] if path.exists() else 0.0
    begin = time.process_time()
    try:
        yield
    finally:
        path.write_text(json.dumps({"seconds": before + time.process_time() - begin}))


def cpu_minutes(folder: Path) -> float:
    """CPU minutes of all sessions of a run."""
    return float(json.loads((folder / SPENT).read_text())["seconds"]) / 60


def losses(folder: Path) -> Iterator[tuple[int, str]]:
    """Updates of a run with their training loss."""
    for record in read_log(folder / "metrics.jsonl"):
        if "loss" in record:
            yield record["update"], f"{record['loss']:.4f}"


def write_table(path: Path, fields: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([fields, *rows])


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw_losses(axes: Axes, rows: Sequence[dict[str, str]], title: str = "") -> None:
    """Draw the training loss of each backbone and seed.

    Args:
        axes: axes to draw on.
        rows: backbone, seed, update and loss.
        title: title of the axes.
    """
    for backbone, seed in dict.fromkeys((row["backbone"], row["seed"]) for row in rows):
        points = [(int(row["update"]), float(row["loss"])) for row in rows if (row["backbone"], row["seed"]) == (backbone, seed)]
        axes.plot(*zip(*points, strict=True), color=COLORS[backbone], label=backbone if seed == "0" else None, alpha=0.8)
    axes.set(title=title, xlabel="update", ylabel="training loss")
    axes.legend(fontsize=8)
