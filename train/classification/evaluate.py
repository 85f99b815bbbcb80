"""Exact evaluation of classifiers, and the `kat-zoo validate` command."""

import csv
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import tqdm
from timm.layers import set_fused_attn
from timm.task import ClassificationEvaluator
from torch import Tensor, nn

from kat_zoo._arguments import require_writable
from kat_zoo._text import printable

from ..core.config import parse, require
from ..core.processes import evaluation, share_buffers
from ..core.ranges import check_ranges
from ..core.runs import read_run
from .datasets import open_splits
from .loader import data_config, eval_loader
from .model import check_classes, load_model
from .probe import features
from .recipe import DataConfig, ModelConfig, Recipe


@dataclass(frozen=True)
class Evaluation:
    """Figures over a whole split, each image counted once.

    Attributes:
        samples: images counted.
        loss: mean cross-entropy, in nats.
        top1: percent right.
        top5: percent with the right class among the five likeliest.
        per_class: percent right of each class; NaN for a class without images.
    """

    samples: int
    loss: float
    top1: float
    top5: float
    per_class: tuple[float, ...]

    def values(self, prefix: str = "") -> dict[str, float]:
        """The figures of the log, under a prefix."""
        return {f"{prefix}top1": self.top1, f"{prefix}top5": self.top5, f"{prefix}eval_loss": self.loss}


@torch.no_grad()
def evaluate(
    accelerator: Accelerator, model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], matrix: Tensor | None = None
) -> Evaluation:
    """Evaluate a classifier; every process calls it, and gets the figures of the whole split.

    Args:
        accelerator: accelerator that prepared `batches`.
        model: maps (B, C, H, W) to (B, num_classes); its mode is put back afterwards.
        batches: loader, prepared, of (images, class indices).
        matrix: (num_classes, num_classes) counts to add to, by right and predicted class.

    Returns:
        Figures that do not depend on the batch size or the number of processes: padding is dropped.
    """
    was_training = model.training
    model.eval()
    share_buffers(accelerator, model)
    evaluator = ClassificationEvaluator(device=accelerator.device)
    totals = rights = torch.zeros(0, dtype=torch.int64, device=accelerator.device)
    for images, labels in batches:
        with accelerator.autocast():
            logits = model(images)
        logits, labels = accelerator.gather_for_metrics((logits.float(), labels))
        logits, labels = logits[labels >= 0], labels[labels >= 0]  # of streams, padding is marked
        evaluator.update(logits, labels)
        counts = torch.bincount(labels, minlength=logits.shape[1])
        if matrix is not None:
            pairs = torch.bincount(labels * logits.shape[1] + logits.argmax(1), minlength=matrix.numel())
            matrix += pairs.view_as(matrix).to(matrix.device)
        right = torch.bincount(labels[logits.argmax(1) == labels], minlength=logits.shape[1])
        totals, rights = (totals + counts, rights + right) if len(totals) else (counts, right)
    model.train(was_training)
    summary = evaluator.compute(distributed=False)
    per_class = (100 * rights.double() / totals).tolist()
    return Evaluation(evaluator.num_samples, summary["loss"], summary["top1"], summary["top5"], tuple(per_class))


@dataclass(frozen=True)
class ValidateConfig:
    """Settings of `kat-zoo validate`.

    Attributes:
        task: classification; other tasks have their own keys.
        run: folder of a run: its last weights, on the images that the run itself was evaluated on; the other keys override its recipe.
        model: the model; `pretrained` or `checkpoint` names its weights.
        data: the data; its test split is evaluated, or with `holdout` that part of the training split.
        seed: seed that chooses that part: without `run`, give the one of the training, or some images are ones that were trained on.
        precision: `no`, `bf16` or `fp16` autocast.
        confusion: CSV file for the number of images by right class (a row each) and predicted class.
        knn: number of neighbors; above 0, the features in front of the classifier are judged too: each image gets the class of its nearest
            training images, weighted by their cosine.
    """

    task: Literal["classification"] = "classification"
    run: str | None = None
    model: ModelConfig = field(default_factory=lambda: ModelConfig(name="kat_pico_patch4_28", pretrained=True))
    data: DataConfig = field(default_factory=lambda: DataConfig(batch_size=256))
    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    confusion: Path | None = None
    knn: int = 0

    ranges: ClassVar[Mapping[str, str]] = {key: interval for key, interval in Recipe.ranges.items() if key.startswith(("data.", "seed"))}

    def __post_init__(self) -> None:
        """Refuse values out of range, settings of training, and weights that are named nowhere.

        Raises:
            ValueError: naming the key, its value and what is right.
        """
        check_ranges(self, {**self.ranges, "knn": "[0, 1e9]"})
        model = self.model
        require(
            *(
                (f"model.{key}", getattr(model, key), getattr(model, key) == none, f"{none!r}: it is a setting of training")
                for key, none in (("init_from", None), ("new_head", False), ("train_only", "all"))
            ),
            (
                "model.pretrained",
                model.pretrained,
                model.pretrained or model.checkpoint is not None,
                "true, for the published weights, or model.checkpoint with a file of weights",
            ),
        )


def nearest(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], neighbors: int) -> float:
    """Percent of test images whose class the nearest training images tell.

    Args:
        train: features (N, C) and classes (N,).
        test: features (M, C) and classes (M,).
        neighbors: number of training images that vote, each with the weight of its cosine.

    Returns:
        Accuracy in percent.
    """
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(
        min(neighbors, len(train[1])), metric="cosine", weights=lambda distance: np.clip(1 - distance, 1e-6, None)
    )
    return 100 * float(voters.fit(*train).score(*test))


def _recipe_of(argv: Sequence[str]) -> dict[str, Any]:
    """The settings of the run in `--run`, which take the place of the defaults; none without a run.

    Raises:
        FileNotFoundError: not the folder of a run.
        ValueError: a run of another task.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--run", type=Path)
    folder = parser.parse_known_args(argv)[0].run
    if folder is None:
        return {}
    run = read_run(folder, "classification")
    recipe = run.recipe(Recipe)
    set_fused_attn(recipe.system.fused_attention)  # fused attention rounds differently: as the run did
    weights = {"checkpoint": str(run.weights), "pretrained": False, "init_from": None, "new_head": False, "train_only": "all"}
    return {
        "model": asdict(recipe.model) | weights, "data": asdict(recipe.data), "seed": recipe.seed, "precision": recipe.system.precision,
    }  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """`kat-zoo validate`: evaluate weights on a dataset's test split and print the figures.

    Args:
        argv: `--run FOLDER`, or `--model.name`, `--model.checkpoint`, `--data.dataset`, ...; a recipe's keys.

    Returns:
        Exit code.
    """
    config, _ = parse(ValidateConfig, argv, "kat-zoo validate", _recipe_of(argv))
    require_writable("--confusion", config.confusion)
    splits = open_splits(config.data, config.seed)
    known = () if config.run is None else read_run(config.run).classes
    if known and known != splits.classes:
        raise ValueError(f"{config.run} knows the classes {', '.join(known)}: expected those of the data, {', '.join(splits.classes)}")
    with evaluation(config.precision) as accelerator:
        if config.model.pretrained and not config.model.checkpoint:
            check_classes(config.model.name, config.data.dataset, len(splits.classes))
        model = load_model(config.model, len(splits.classes))
        resolved = data_config(config.data, model)
        loader = accelerator.prepare(eval_loader(splits.test, config.data, resolved, accelerator.num_processes))
        matrix = torch.zeros(len(splits.classes), len(splits.classes), dtype=torch.int64)
        result = evaluate(accelerator, model.to(accelerator.device), tqdm(loader, desc="validate", unit="batch"), matrix)
        accelerator.print(
            f"{config.model.name} on {config.data.dataset}: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %, "
            f"loss {result.loss:.4f}, {result.samples} images"
        )
        width = max(len(printable(name)) for name in splits.classes)
        for name, share in zip(splits.classes, result.per_class, strict=True):
            accelerator.print(f"  {printable(name):<{width}}  {share:6.2f} %")
        if config.knn:
            parts = [features(accelerator, model, part, config.data, resolved, lambda: False) for part in (splits.train, splits.test)]
            if accelerator.is_main_process and parts[0] and parts[1]:
                print(f"{config.knn} nearest neighbors: top-1 {nearest(parts[0], parts[1], config.knn):.2f} %")
        if config.confusion is not None and accelerator.is_main_process:
            with config.confusion.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                csv.writer(file).writerows([["right \\ predicted", *splits.classes], *zip(splits.classes, *matrix.T.tolist(), strict=True)])
            print(config.confusion)
    return 0
