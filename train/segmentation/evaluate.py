"""Exact evaluation of segmentation models: sliding window, every pixel of every image counted once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..core.processes import share_buffers
from .ade20k import IGNORE
from .data import to_size
from .recipe import SegmentationDataConfig

WINDOWS = 8  # windows that go through the model at once


@dataclass(frozen=True)
class SegmentationEvaluation:
    """Figures over all pixels of a split that are not ignored, in percent.

    Attributes:
        samples: images counted.
        miou: mean over classes of intersection over union; classes neither annotated nor predicted anywhere are left out.
        aacc: pixels that are right.
        macc: mean over annotated classes of their pixels that are right.
        iou: intersection over union of each class; NaN for one left out.
    """

    samples: int
    miou: float
    aacc: float
    macc: float
    iou: tuple[float, ...]

    def values(self, prefix: str = "") -> dict[str, float]:
        """The figures of the log, under a prefix."""
        return {f"{prefix}miou": self.miou, f"{prefix}aacc": self.aacc, f"{prefix}macc": self.macc}


def confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count pixels by (annotated, predicted) class.

    Args:
        predicted: classes, any shape.
        labels: classes of the same shape; `IGNORE` is left out.
        num_classes: number of classes of both.

    Returns:
        (num_classes, num_classes) int64.
    """
    kept = labels != IGNORE
    return torch.bincount(labels[kept] * num_classes + predicted[kept], minlength=num_classes**2).view(num_classes, num_classes)


def summarize(matrix: Tensor, samples: int) -> SegmentationEvaluation:
    """The figures of a confusion matrix (annotated, predicted)."""
    matrix = matrix.double()
    right, annotated = matrix.diagonal(), matrix.sum(1)
    iou = 100 * right / (annotated + matrix.sum(0) - right)
    return SegmentationEvaluation(
        samples,
        miou=float(iou.nanmean()),
        aacc=float(100 * right.sum() / annotated.sum()),
        macc=float((100 * right / annotated).nanmean()),
        iou=tuple(iou.tolist()),
    )


def windows(size: Sequence[int], crop: int, stride: int) -> list[tuple[int, int]]:
    """(top, left) of the windows that cover an image, the last row and column moved inside it."""
    starts = [[min(i * stride, max(side - crop, 0)) for i in range(-(-max(side - crop, 0) // stride) + 1)] for side in size]
    return [(top, left) for top in starts[0] for left in starts[1]]


def predict_logits(model: nn.Module, images: Tensor, data: SegmentationDataConfig) -> Tensor:
    """Logits of images, averaged over sliding windows.

    Args:
        model: maps (B, C, h, w) to logits (B, num_classes, h, w).
        images: (B, C, H, W).
        data: crop, stride, and whether to slide.

    Returns:
        (B, num_classes, H, W) float32; where one window covers the image, the model's own logits.
    """
    height, width = images.shape[-2:]
    if data.evaluate == "whole" or max(height, width) <= data.crop:
        return model(images).float()
    places = windows((height, width), data.crop, data.stride)
    logits, count = torch.zeros(0), images.new_zeros(height, width)
    for first in range(0, len(places), WINDOWS):
        part = places[first : first + WINDOWS]
        crops = torch.cat([images[..., top : top + data.crop, left : left + data.crop] for top, left in part])
        answers = model(crops).float().chunk(len(part))
        if not len(logits):
            logits = answers[0].new_zeros(len(images), answers[0].shape[1], height, width)
        for (top, left), answer in zip(part, answers, strict=True):
            logits[..., top : top + data.crop, left : left + data.crop] += answer
            count[top : top + data.crop, left : left + data.crop] += 1
    return logits / count


@torch.no_grad()
def evaluate(
    accelerator: Accelerator,
    model: nn.Module,
    batches: Iterable[list[tuple[Tensor, Tensor]]],
    num_classes: int,
    data: SegmentationDataConfig,
) -> SegmentationEvaluation:
    """Evaluate a segmentation model; every process calls it, and gets the figures of the whole split.

    Args:
        accelerator: accelerator that prepared `batches`.
        model: model that `predict_logits` runs; its mode is put back afterwards.
        batches: loader, prepared, of lists of (image, classes at the size of the file).
        num_classes: number of classes of the logits.
        data: sliding window.

    Returns:
        Figures that do not depend on the number of processes: images that pad the last batch are dropped.

    Raises:
        ValueError: every pixel of the split is ignored.
    """
    was_training = model.training
    model.eval()
    share_buffers(accelerator, model)
    total, samples = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=accelerator.device), 0
    for batch in batches:
        found = []
        for _, group in groupby(batch, key=lambda pair: pair[0].shape):
            pairs = list(group)
            with accelerator.autocast():
                logits = predict_logits(model, torch.stack([image for image, _ in pairs]), data)
            for answer, (_, labels) in zip(logits, pairs, strict=True):
                found.append(confusion(to_size(answer[None], labels.shape)[0].argmax(0), labels, num_classes))
        matrices = accelerator.gather_for_metrics(torch.stack(found))
        total += matrices.sum(0)
        samples += len(matrices)
    model.train(was_training)
    if not int(total.sum()):
        raise ValueError(f"none of the {samples} annotations of the evaluation split has a pixel of a class: all are ignored")
    return summarize(total, samples)
