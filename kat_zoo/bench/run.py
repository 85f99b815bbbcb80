"""The loop over all figures: the most important first, until the time is up; what has been measured is not measured again."""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from .._text import one_line
from . import models, operators, table
from .task import DRY, FULL, Scale, Task
from .timing import Timer

logger = logging.getLogger("kat_zoo")

BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"

PARTS = {
    "ceilings": operators.ceilings,
    "rational": operators.rationals,
    "attention": operators.attentions,
    "splines": operators.splines,
    "models": models.tasks,
}


def measure(
    timer: Timer,
    parts: Sequence[str],
    seconds: float,
    csv_file: Path | None = None,
    page_file: Path | None = None,
    sizes: Scale | None = None,
) -> tuple[list[table.Row], int]:
    """Take the figures.

    Args:
        timer: device and its clock.
        parts: names from `PARTS`.
        seconds: time after which no further figure is begun.
        csv_file: file of rows, which is continued, and written after each figure.
        page_file: Markdown page, written after each figure.
        sizes: sizes of all operands; by default `FULL` on a GPU and `DRY` on a CPU.

    Returns:
        All rows, those of earlier calls included, and the number of figures that are left. A figure that failed has no time and says why.

    Raises:
        ValueError: csv_file is another file, or of another device.
    """
    versions, sizes = timer.versions(), sizes or (FULL if timer.device == "cuda" else DRY)
    rows = table.read(csv_file, timer.name, versions) if csv_file else []
    measured = {table.key(row): bool(row["us"]) for row in rows}
    tasks = [task for part in parts for task in PARTS[part](sizes, timer.device) if not measured.get(task.key)]
    tasks.sort(key=lambda task: (task.key in measured, task.rank))  # one that has failed before comes last
    end = time.monotonic() + seconds
    left = len(tasks)
    with tqdm(total=sum(task.seconds for task in tasks), disable=not sys.stderr.isatty(), bar_format=BAR) as bar:
        for task in tasks:
            if time.monotonic() + task.seconds > end:
                logger.warning("%d figures are left, as the time is up: the same command again takes them", left)
                break
            bar.set_description(" ".join(task.key))
            left -= 1
            row = _row(task, timer) | {"device": timer.name, "versions": versions}
            rows = [*(other for other in rows if table.key(other) != task.key), row]
            if csv_file:
                table.write(csv_file, rows)
            if page_file:
                page_file.write_text(table.page(rows, left), encoding="utf-8")
            timer.synchronize()  # raises where the device itself has failed, now that the row is written
            bar.update(task.seconds)
    return rows, left


def _row(task: Task, timer: Timer) -> table.Row:
    row = dict.fromkeys(table.FIELDS, "") | dict(zip(("part", "case", "what", "pass"), task.key, strict=True))
    try:
        found = task.run(timer)
    except Exception as error:  # one that fails, as for want of memory, must not cost the others
        logger.warning("%s: %s", ", ".join(task.key), one_line(error))
        return row | {"note": f"{type(error).__name__}: {one_line(error)}"[:300]}
    clock = timer.clock_mhz()
    figures = {
        "us": f"{found.us:.2f}",
        "host_us": f"{found.host_us:.2f}",
        "peak_mib": "" if found.peak_mib is None else f"{found.peak_mib:.1f}",
        "launches": "" if found.launches is None else str(found.launches),
        "amount": "" if task.amount is None else f"{task.amount:.0f}",
        "error": f"{found.error:.1e}",
        "clock_mhz": "" if clock is None else str(clock),
    }
    return row | figures
