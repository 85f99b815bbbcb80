"""`kat-zoo recipes`: the packaged recipes, as the comments at their beginning describe them."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kat_zoo._arguments import ArgumentParser

from .core.config import RECIPES
from .core.yaml_file import read_settings

KEYS = ("Command", "Hardware", "Expected time", "Seed", "Result", "Run here", "Paper")


@dataclass(frozen=True)
class RecipeFacts:
    """One packaged recipe.

    Attributes:
        name: name for `--config`.
        task: "classification", "detection" or "segmentation".
        data: name of the data.
        expected: figures of its run here, or else of the paper; empty where there are none.
        time: expected time on the hardware that the recipe names.
        run: whether it was run here.
        about: model and data in a sentence.
    """

    name: str
    task: str
    data: str
    expected: str
    time: str
    run: bool
    about: str


def read_recipes() -> list[RecipeFacts]:
    """The packaged recipes, by name."""
    return [_facts(path) for path in sorted(RECIPES.glob("*.yaml"))]


def header(path: Path) -> dict[str, str]:
    """The comments at the beginning of a recipe: key -> text, and under "" what comes before the first key."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    parts = re.split(rf"({'|'.join(KEYS)}):", " ".join(lines))
    texts = [" ".join(part.split()) for part in parts]
    return {"": texts[0]} | dict(zip(texts[1::2], texts[2::2], strict=True))


def _facts(path: Path) -> RecipeFacts:
    comments, settings = header(path), read_settings(path)
    data, task = settings.get("data", {}), str(settings.get("task", "classification"))
    figures = comments.get("Result") or comments.get("Paper", "")
    return RecipeFacts(
        name=path.stem,
        task=task,
        data=str(data.get("dataset") or {"detection": "COCO format", "segmentation": "ADE20K format"}.get(task, "fashion_mnist")),
        expected="" if figures.startswith("none") else re.split(r" on | \(|[;.](?:\s|$)", figures)[0],
        time=re.split(r", | beside | \(|\.(?:\s|$)", comments.get("Expected time", ""))[0],
        run=comments.get("Run here", "").startswith("yes"),
        about=comments[""],
    )


def main(argv: Sequence[str]) -> int:
    """`kat-zoo recipes [WORD ...]`: list the packaged recipes.

    Args:
        argv: words that the name, task, data or description must all have; `--json` prints JSON.

    Returns:
        Exit code.

    Raises:
        ValueError: no recipe has the words.
    """
    parser = ArgumentParser(prog="kat-zoo recipes", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="show recipes with this word alone")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    words = [word.lower() for word in arguments.words]
    found = [facts for facts in read_recipes() if all(word in " ".join(map(str, asdict(facts).values())).lower() for word in words)]
    if not found:
        raise ValueError(f"{' '.join(words)}: expected words of a recipe; `kat-zoo recipes` lists all")
    if arguments.json:
        print(json.dumps([asdict(facts) for facts in found], indent=2))
        return 0
    rows = [("recipe", "task", "data", "expected", "time", "run here")]
    rows += [(f.name, f.task, f.data, f.expected or "-", f.time or "-", "yes" if f.run else "no") for f in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nStart one with `kat-zoo train --config RECIPE`. Expected figures of recipes that were not run here are the paper's.")
    return 0
