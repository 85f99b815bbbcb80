"""Accuracy, calibration and robustness of a finished run of `compare.py`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from kat_zoo.train.classification.datasets import open_dataset
from kat_zoo.train.classification.loader import data_config
from kat_zoo.train.classification.model import load_model
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.checkpoint import write_atomically
from kat_zoo.train.core.runs import read_run

ROBUST_IMAGES, BINS = 2000, 15


def noise(images: Tensor) -> Tensor:
    """Gaussian noise of deviation 0.2."""
    return (images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def blur(images: Tensor) -> Tensor:
    """Gaussian blur of deviation 1 pixel."""
    return F.gaussian_blur(images, [7, 7], [1.0, 1.0])


def contrast(images: Tensor) -> Tensor:
    """Contrast of 40 % about the mean of each image."""
    return F.adjust_contrast(images, 0.4)


def shift(images: Tensor) -> Tensor:
    """3 pixels to the right and down, black behind; training shifts by at most 2."""
    return F.affine(images, angle=0, translate=[3, 3], scale=1.0, shear=[0.0, 0.0])


CORRUPTIONS = {"noise": noise, "blur": blur, "contrast": contrast, "shift": shift}
RUN_FIELDS = ["row", "seed", "lr", "images", "epochs", "top1", "loss", "ece", *CORRUPTIONS]


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error in percent: 15 equal bins of confidence (Guo et al., arXiv 1706.04599, equation 3)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].sum() - confidence[bins == b].sum()) for b in np.unique(bins)]
    return 100 * float(np.sum(gaps)) / len(labels)


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor, mean: float, std: float) -> Tensor:
    """Logits of (N, 1, 28, 28) images in [0, 1]."""
    return torch.cat([model((batch - mean) / std) for batch in images.split(250)])


def evaluate_run(recipe: Recipe) -> None:
    """Write evaluation.json: float32 figures of the last weights on the test split; of a sweep's run, what the trainer found."""
    folder = Path(recipe.output)
    data = recipe.data
    figures: dict[str, Any] = {"images": data.train_images, "epochs": recipe.schedule.epochs}
    if data.holdout:
        result = json.loads((folder / "result.json").read_text())
        write_figures(folder, figures | {key: result[key] for key in ("top1", "loss")})
        return
    splits = open_dataset(data.dataset, data.root, data.holdout, recipe.seed, data.train_images)
    model = load_model(recipe.model, len(splits.classes))
    model.load_state_dict(read_run(folder).load_weights())
    resolved = data_config(data, model.eval())
    pairs = [splits.test[i] for i in range(len(splits.test))]
    images = torch.from_numpy(np.stack([np.asarray(image) for image, _ in pairs])[:, None].astype(np.float32) / 255)
    labels = torch.tensor([label for _, label in pairs])
    mean, std = resolved["mean"][0], resolved["std"][0]
    logits = logits_of(model, images, mean, std)
    figures |= {
        "top1": 100 * float((logits.argmax(1) == labels).float().mean()),
        "loss": float(nn.functional.cross_entropy(logits, labels)),
        "ece": calibration_error(logits.softmax(1).numpy(), labels.numpy()),
    }
    for name, corrupt in CORRUPTIONS.items():
        predicted = logits_of(model, corrupt(images[:ROBUST_IMAGES]), mean, std).argmax(1)
        figures[name] = 100 * float((predicted == labels[:ROBUST_IMAGES]).float().mean())
    write_figures(folder, figures)


def write_figures(folder: Path, figures: dict[str, float]) -> None:
    rounded = {key: round(value, 4) for key, value in figures.items()}
    write_atomically(folder / "evaluation.json", json.dumps(rounded, indent=2).encode())
