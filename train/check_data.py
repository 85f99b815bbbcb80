"""`kat-zoo check-data`: read all images and annotations of a recipe's data once, and say what is wrong and what training would do."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import tqdm

from kat_zoo._arguments import require_writable
from kat_zoo._text import one_line, printable
from kat_zoo.images import UNREADABLE

from .classification.recipe import Recipe
from .core.config import RunRecipe, parse
from .detection.recipe import DetectionRecipe
from .segmentation.recipe import SegmentationRecipe
from .tasks import find_task

TASKS: dict[str, type[RunRecipe]] = {"classification": Recipe, "detection": DetectionRecipe, "segmentation": SegmentationRecipe}
SHOWN, THREADS = 20, 4

Look = Callable[[], tuple[tuple[int, int], Iterable[str]]]  # reads an example: its (width, height), and the classes in it


@dataclass
class Report:
    """The findings in a split.

    Attributes:
        split: name of the split.
        consequence: words on how training treats an example that cannot be read.
        examples: examples that were read.
        sizes: (width, height) -> number of images.
        classes: name of a class -> number of examples with it.
        problems: a sentence for each example that is wrong.
    """

    split: str
    consequence: str
    examples: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def lines(self, names: Sequence[str]) -> Iterator[str]:
        """The report for people.

        Args:
            names: names of all classes.
        """
        if self.sizes:
            widths, heights = zip(*self.sizes, strict=True)
            pixels = f"{min(widths)} to {max(widths)} pixels wide, {min(heights)} to {max(heights)} high"
            counts = [self.classes[name] for name in names]
            yield f"{self.split}: {self.examples} images, {pixels}; {len(names)} classes, each in {min(counts)} to {max(counts)} images"
        absent = [name for name in names if not self.classes[name]]
        if absent:
            yield f"  no image has {printable(', '.join(absent[:SHOWN]))}{', ...' if len(absent) > SHOWN else ''}"
        if self.problems:
            yield f"  {len(self.problems)} cannot be used; {self.consequence}"
        yield from (f"    {problem}" for problem in self.problems[:SHOWN])
        if len(self.problems) > SHOWN:
            yield f"    and {len(self.problems) - SHOWN} more; --report FILE lists all"


def check(report: Report, looks: Sequence[tuple[str, Look]]) -> Report:
    """Read all examples of a split.

    Args:
        report: report to fill.
        looks: (name of the example, function that reads it).
    """

    def read(item: tuple[str, Look]) -> tuple[str, Any]:
        try:
            return item[0], item[1]()
        except UNREADABLE as error:
            return item[0], error

    with ThreadPoolExecutor(THREADS) as pool:
        for name, found in tqdm(pool.map(read, looks), total=len(looks), desc=report.split, unit="image"):
            if isinstance(found, Exception):
                name, text = printable(name), printable(one_line(found)[:300])
                report.problems.append(text if name in text else f"{name}: {text}")
                continue
            report.examples += 1
            report.sizes[found[0]] += 1
            report.classes.update(set(found[1]))
    return report


def _consequences(limit: int) -> tuple[str, str]:
    """Words on how training and evaluation treat damaged images."""
    return (
        f"training takes others in the place of damaged images, up to data.max_unreadable={limit}, and stops at other faults",
        "evaluation leaves no image out, and stops",
    )


def _classification(recipe: Recipe) -> tuple[Sequence[str], list[Report]]:
    from .classification.datasets import Images, Stream, open_splits
    from .core.images import name_of, to_mode

    splits = open_splits(recipe.data, recipe.seed, look=False)  # all are looked at here
    if isinstance(splits.train, Stream) or isinstance(splits.test, Stream):
        raise ValueError("data.streaming is on, or the data is a webdataset: expected data that is read by index")

    def look(images: Images, index: int) -> tuple[tuple[int, int], list[str]]:
        image, label = images[index]
        to_mode(image, "RGB", name_of(images, index))
        return image.size, [splits.classes[label]]

    reports = []
    limit = recipe.data.max_unreadable
    for name, images, consequence in zip(("training", "evaluation"), (splits.train, splits.test), _consequences(limit), strict=True):
        looks: list[tuple[str, Look]] = [(name_of(images, i), partial(look, images, i)) for i in range(len(images))]
        reports.append(check(Report(name, consequence), looks))
    return splits.classes, reports


def _detection(recipe: DetectionRecipe) -> tuple[Sequence[str], list[Report]]:
    from .detection.coco import CocoSplit
    from .detection.data import open_splits, read_image

    def look(split: CocoSplit, record: dict[str, Any]) -> tuple[tuple[int, int], list[str]]:
        labels = split.labels(split.objects(record["id"])).tolist()
        return read_image(split, record, 3).size, [split.classes[label - 1] for label in labels]

    splits = open_splits(recipe.data, recipe.model.head == "mask_rcnn")
    reports = []
    for name, split, consequence in zip(("training", "evaluation"), splits, _consequences(recipe.data.max_unreadable), strict=True):
        looks: list[tuple[str, Look]] = [(record["file_name"], partial(look, split, record)) for record in split.images]
        reports.append(check(Report(name, consequence), looks))
    return splits[0].classes, reports


def _segmentation(recipe: SegmentationRecipe) -> tuple[Sequence[str], list[Report]]:
    from .segmentation.ade20k import IGNORE, look_at, open_folders, open_picture

    splits = open_folders(recipe.data)
    names = splits.classes

    def look(pair: tuple[Path, Path]) -> tuple[tuple[int, int], list[str]]:
        counts = look_at(pair, recipe.data.reduce_zero_label)
        beyond = {i + recipe.data.reduce_zero_label: int(counts[i]) for i in range(len(names), IGNORE) if counts[i]}
        if beyond:
            raise ValueError(f"{pair[1]} has labels that are not classes: {', '.join(f'{k} ({v} pixels)' for k, v in beyond.items())}")
        return open_picture(pair[0]).size, [name for name, count in zip(names, counts, strict=False) if count]

    reports = []
    for name, pairs, consequence in zip(
        ("training", "evaluation"), (splits.train, splits.test), _consequences(recipe.data.max_unreadable), strict=True
    ):
        looks: list[tuple[str, Look]] = [(str(pair[0]), partial(look, pair)) for pair in pairs]
        reports.append(check(Report(name, consequence), looks))
    return names, reports


CHECKS: dict[str, Callable[[Any], tuple[Sequence[str], list[Report]]]] = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
}


def main(argv: Sequence[str] | None = None) -> int:
    """`kat-zoo check-data`: check the data of a recipe, before anything is trained.

    Args:
        argv: arguments of `kat-zoo train`, as `--data.dataset folder --data.root DIR`, and `--report FILE` for a list of all problems.

    Returns:
        Exit code: 1 where an example cannot be used.

    Raises:
        ValueError: data that training would refuse as a whole.
        FileNotFoundError: data that is not there.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    task = find_task(arguments)
    report = {"type": Path, "help": "file that gets a line for each problem"}
    if not arguments:
        raise ValueError("no data is named: expected --data.dataset folder --data.root DIR, for example, or --config RECIPE (see --help)")
    recipe, flags = parse(TASKS[task], arguments, "kat-zoo check-data", {"output": "unused"}, report=report)
    require_writable("--report", flags.report)
    names, reports = CHECKS[task](recipe)
    for found in reports:
        print("\n".join(found.lines(names)))
    problems = [f"{found.split}: {problem}" for found in reports for problem in found.problems]
    if flags.report is not None:
        flags.report.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
    if not problems:
        print("Every image can be used.")
    return 1 if problems else 0
