"""What a run folder shows of itself: curves.png with its numbers, and a model card."""

from pathlib import Path
from typing import Any

import timm

from kat_zoo.analysis import plot_curves
from kat_zoo.hub import cards
from kat_zoo.hub import registry as zoo

from ..core.checkpoint import write_atomically
from ..core.log import read_log
from .evaluate import Evaluation
from .recipe import Recipe

CARD = "README.md"


def draw_curves(folder: Path) -> None:
    """Draw the run's log so far as curves.png, and write its numbers to curves.csv."""
    plot_curves({folder.name: read_log(folder / "metrics.jsonl")}, folder / "curves.png")


def write_card(folder: Path, recipe: Recipe, resolved: dict[str, Any], classes: tuple[str, ...], result: Evaluation) -> None:
    """Write the model card of a finished run to README.md.

    Args:
        folder: of the run.
        recipe: of the run.
        resolved: from `loader.data_config`.
        classes: their names.
        result: of the last weights.
    """
    data, input_size = recipe.data, tuple(resolved["input_size"])
    arguments = {"num_classes": len(classes), **recipe.model.kwargs}
    size = zoo.measure(timm.create_model(recipe.model.name, device="meta", **arguments), input_size)
    dataset = {"imagenet": "imagenet-1k"}.get(data.dataset, data.dataset)
    if data.dataset in ("hub", "webdataset", "folder"):
        dataset = Path(data.root or "").name if Path(data.root or "").exists() else str(data.root)
    split = "held-out part of train" if data.holdout else "evaluation split"
    start = recipe.model.init_from or recipe.model.checkpoint or ("its published weights" if recipe.model.pretrained else "random weights")
    passes = "the head alone, by logistic regression" if recipe.mode == "linear_probe" else f"{recipe.schedule.epochs} epochs"
    item = zoo.Entry(
        name=recipe.model.name,
        size=size,
        input_size=input_size,
        num_classes=len(classes),
        weights="last.safetensors and best.safetensors, here",
        license="",
        results=(zoo.Result(dataset, split, round(result.top1, 2), "ours", "", "kat-zoo train --config recipe.yaml"),),
    )
    training = (
        f"By `kat-zoo train --config recipe.yaml`: mode {recipe.mode}, from {Path(start).name}, {passes}, seed {recipe.seed}. The log is "
        f"metrics.jsonl, drawn in curves.png; the figure is that of last.safetensors, on {result.samples} images, loss {result.loss:.4f}."
    )
    weights = {"checkpoint_path": "last.safetensors", **arguments}
    load = ", ".join(f"{key}={value!r}" for key, value in weights.items())
    card = cards.render(item, title=folder.name, arguments=load, training=training)
    write_atomically(folder / CARD, card.encode())
