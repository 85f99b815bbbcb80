"""The linear probe: a frozen network's features, and a head fitted to them; the first stage of LP-FT (arXiv 2202.10054).

As its authors did: features of the network in evaluation mode and without augmentation, L2-regularized logistic regression,
its strength chosen on a part of the training split that the fit did not see. Fine-tuning begins with that head.
"""

import json
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list, tqdm
from torch import nn
from torch.utils.data import DataLoader

from ..core.checkpoint import write_atomically
from ..core.images import UnreadableImages
from . import loader as loaders
from .datasets import Images, Stream
from .recipe import DataConfig, Recipe

logger = logging.getLogger("kat_zoo")

STRENGTHS = np.logspace(-7, 2, 10)


@dataclass(frozen=True)
class Probe:
    """A fitted head.

    Attributes:
        weight: (num_classes, num_features) float32.
        bias: (num_classes,) float32.
        strength: the chosen C, the inverse of the regularization.
        accuracies: percent right on the held-out part, for each strength tried.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    accuracies: dict[float, float]


def fit_head(
    recipe: Recipe,
    accelerator: Accelerator,
    model: nn.Module,
    images: "Images | Stream",
    resolved: dict[str, Any],
    stopped: Callable[[], bool],
) -> bool:
    """Fit the classifier of a model to its own features; nothing else of the model changes. Every process calls it.

    The main process holds all features, (images, num_features) float32, and writes probe.json to the run folder. The fit
    depends on model, data and seed only: one that was interrupted is made again, to the same head.

    Args:
        recipe: its `probe`, `data` and `seed` are used.
        accelerator: accelerator of this process.
        model: model on the device.
        images: the training split.
        resolved: preprocessing, as `loader.data_config` resolves it.
        stopped: whether a stop signal has come, the same in all processes.

    Returns:
        Whether the head is fitted; False after a stop signal.

    Raises:
        ValueError: the model's classifier is not one linear layer, or a class has too few images.
    """
    head = model.get_classifier()  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        raise ValueError(f"mode {recipe.mode} needs a model with one linear classifier; {recipe.model.name} has {type(head).__name__}")
    known = getattr(images, "targets", getattr(images, "labels", None))  # before the features are computed
    if known is not None:
        _check_counts(np.asarray(known), head.out_features)
    found = features(accelerator, model, images, recipe.data, resolved, stopped)
    if found is None:
        return False
    probe: Probe | Exception | None = None
    if accelerator.is_main_process:
        try:
            probe = fit(*found, head.out_features, recipe.probe.holdout, recipe.probe.max_iter, recipe.seed)
        except Exception as error:  # the other processes wait below, for hours: they must hear of it
            probe = error
    (probe,) = broadcast_object_list([probe])
    if isinstance(probe, Exception):
        raise probe
    assert probe is not None
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(probe.weight))
        head.bias.copy_(torch.from_numpy(probe.bias))
    if accelerator.is_main_process:
        report = {key: value for key, value in asdict(probe).items() if key in ("strength", "accuracies")}
        Path(recipe.output).mkdir(parents=True, exist_ok=True)
        write_atomically(Path(recipe.output) / "probe.json", json.dumps(report, indent=2).encode())
    best = probe.accuracies[probe.strength]
    accelerator.print(f"linear probe of {len(found[1])} images: C {probe.strength:g}, {best:.2f} % of the held-out part")
    return not stopped()


@torch.no_grad()
def features(
    accelerator: Accelerator,
    model: nn.Module,
    images: "Images | Stream",
    data: DataConfig,
    resolved: dict[str, Any],
    stopped: Callable[[], bool],
) -> tuple[np.ndarray, np.ndarray] | None:
    """The inputs of the classifier of a model: features (N, num_features) float32 and labels (N,), or None after a stop signal.

    The main process alone gets them; the others get none.
    """
    batches: Any = loaders.eval_loader(images, data, resolved, accelerator.num_processes, UnreadableImages(data.max_unreadable))
    if isinstance(batches, DataLoader):  # not accelerator.prepare, which would keep the loader, and its workers, for the whole run
        batches = prepare_data_loader(
            batches, accelerator.device, accelerator.num_processes, accelerator.process_index, split_batches=True, put_on_device=True
        )
    was_training, kept = model.training, []
    model.eval()
    try:
        for x, labels in tqdm(batches, desc="features", unit="batch"):
            with accelerator.autocast():
                found = model.forward_head(model.forward_features(x), pre_logits=True)  # type: ignore[operator]
            found, labels = accelerator.gather_for_metrics((found.float(), labels))
            if accelerator.is_main_process:
                kept.append((found[labels >= 0].cpu().numpy(), labels[labels >= 0].cpu().numpy()))
            if stopped():
                return None
    finally:
        model.train(was_training)
    if not kept:  # not the main process
        return np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
    columns = list(zip(*kept, strict=True))
    return np.concatenate(columns[0]), np.concatenate(columns[1])


def _check_counts(labels: np.ndarray, num_classes: int) -> None:
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() < 2:
        raise ValueError(f"a linear probe needs two training images of each class; class {counts.argmin()} has {counts.min()}")


def fit(x: np.ndarray, labels: np.ndarray, num_classes: int, holdout: float, max_iter: int, seed: int) -> Probe:
    """Logistic regression: each of `STRENGTHS` on a part, the best of them, or of equals the one of the smallest loss, on all.

    Args:
        x: (N, num_features).
        labels: (N,), in [0, num_classes).
        num_classes: each needs two images or more.
        holdout: fraction that the strengths are compared on, in (0, 1).
        max_iter: iterations of L-BFGS.
        seed: seed of the choice of that fraction.

    Raises:
        ValueError: a class has fewer than two images, or the parts would not hold all classes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split

    _check_counts(labels, num_classes)
    held = math.ceil(holdout * len(labels))
    if min(held, len(labels) - held) < num_classes:
        raise ValueError(
            f"probe.holdout {holdout} of {len(labels)} training images is {held}; both parts must hold all {num_classes} classes"
        )
    train, test = train_test_split(np.arange(len(labels)), test_size=holdout, stratify=labels, random_state=seed)

    def regress(strength: float, rows: np.ndarray) -> Any:
        model = LogisticRegression(C=strength, max_iter=max_iter)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(x[rows], labels[rows])
        if caught:
            logger.warning("linear probe, C %g: %s", strength, str(caught[0].message).split("\n")[0])
        return model

    accuracies: dict[float, float] = {}
    likelihoods: dict[float, float] = {}
    for strength in tqdm(STRENGTHS.tolist(), desc="probe", unit="fit"):
        model = regress(strength, train)
        accuracies[strength] = 100 * float(model.score(x[test], labels[test]))
        likelihoods[strength] = -float(log_loss(labels[test], model.predict_proba(x[test]), labels=model.classes_))
    best = max(accuracies, key=lambda strength: (accuracies[strength], likelihoods[strength]))
    final = regress(best, np.arange(len(labels)))
    weight, bias = final.coef_, final.intercept_
    if num_classes == 2:  # one logit, of the second class against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Probe(weight.astype(np.float32), bias.astype(np.float32), best, accuracies)
