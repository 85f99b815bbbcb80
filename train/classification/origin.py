"""Where the model of a run comes from, as its config.json and its card say it."""

from pathlib import Path

from kat_zoo.hub.repository import Origin

from .recipe import Recipe


def origin(recipe: Recipe) -> Origin:
    """The data and the training of a recipe, without paths of the machine it runs on."""
    data = recipe.data
    dataset = {"imagenet": "imagenet-1k"}.get(data.dataset, data.dataset)
    if data.dataset in ("hub", "webdataset", "folder"):
        dataset = Path(data.root or "").resolve().name if Path(data.root or "").exists() else str(data.root)
    start = recipe.model.init_from or recipe.model.checkpoint or ("its published weights" if recipe.model.pretrained else "random weights")
    passes = "the head alone, by logistic regression" if recipe.mode == "linear_probe" else f"{recipe.schedule.epochs} epochs"
    training = (
        f"By `kat-zoo train --config recipe.yaml`: mode {recipe.mode}, from {Path(start).name}, {passes}, seed {recipe.seed}. The log is "
        "metrics.jsonl, drawn in curves.png; the figures are those of the last weights, averaged where the recipe says so."
    )
    return Origin("classification", dataset, "held-out part of train" if data.holdout else "evaluation split", training)
