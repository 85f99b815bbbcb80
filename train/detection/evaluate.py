"""COCO's average precision of a detector, by pycocotools; every image counts once under any number of processes."""

import contextlib
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from .coco import CocoSplit

FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the first of COCOeval.stats, in its order


@dataclass(frozen=True)
class DetectionEvaluation:
    """Figures over a whole split, in percent; NaN where the split has no such objects.

    Attributes:
        images: counted.
        box: `ap` (mean over IoU 0.50 to 0.95), `ap50`, `ap75`, `ap_small` (area below 32^2), `ap_medium`, `ap_large` (above 96^2).
        box_per_class: AP of each class.
        mask: figures of the masks, named like those of the boxes; None for detectors without masks.
        mask_per_class: AP of the masks of each class.
    """

    images: int
    box: dict[str, float]
    box_per_class: tuple[float, ...]
    mask: dict[str, float] | None = None
    mask_per_class: tuple[float, ...] | None = None

    def values(self, prefix: str = "") -> dict[str, float]:
        """All figures but NaN and those of the classes, as box_ap, mask_ap50, ... under a prefix."""
        kinds = {"box": self.box, "mask": self.mask or {}}
        figures = {f"{prefix}{kind}_{name}": value for kind, values in kinds.items() for name, value in values.items()}
        return {name: value for name, value in figures.items() if not math.isnan(value)}


@torch.no_grad()
def evaluate(
    accelerator: Accelerator, model: nn.Module, batches: Iterable[tuple[list[Tensor], list[int]]], split: CocoSplit, masks: bool
) -> DetectionEvaluation:
    """Evaluate a detector; every process calls it, and gets the figures of the whole split.

    Args:
        accelerator: accelerator that prepared `batches`.
        model: a detector of torchvision; its mode is put back afterwards.
        batches: loader, prepared, of images and ids.
        split: split that the images are from.
        masks: whether masks are evaluated too.

    Returns:
        Figures that do not depend on the batch size or the number of processes.
    """
    was_training = model.training
    model.eval()
    found: list[tuple[int, list[dict[str, Any]]]] = []
    for images, ids in batches:
        with accelerator.autocast():
            detections = model(images)
        found += [(i, coco_results(one, i, split.category_ids)) for i, one in zip(ids, detections, strict=True)]
    model.train(was_training)
    # By image id: accelerate repeats some images, so that all processes have equally many.
    by_image = dict(gather_object(found))
    summary: list[Any] = [None]
    if accelerator.is_main_process:
        summary = [summarize(split, [result for i in sorted(by_image) for result in by_image[i]], len(by_image), masks)]
    return broadcast_object_list(summary)[0]


def coco_results(detections: dict[str, Tensor], image_id: int, category_ids: list[int]) -> list[dict[str, Any]]:
    """The findings of a detector of torchvision in an image, in COCO's format of results.

    Args:
        detections: boxes (N, 4) as x0, y0, x1, y1, labels (N,), scores (N,) and perhaps masks (N, 1, H, W) in [0, 1].
        image_id: COCO's.
        category_ids: category ids of labels 1, 2, ...

    Returns:
        N records, less those of label 0, the background, which one-stage detectors may give; masks, cut at 0.5, are compressed RLE.
    """
    detections = {name: value[detections["labels"] > 0] for name, value in detections.items()}
    boxes = detections["boxes"].float().cpu()
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)  # x, y, width, height
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for box, label, score in zip(boxes.tolist(), detections["labels"].tolist(), detections["scores"].float().tolist(), strict=True)
    ]
    if "masks" in detections and results:
        masks = (detections["masks"][:, 0] > 0.5).byte().permute(1, 2, 0).cpu().numpy()
        for result, code in zip(results, rle.encode(np.asfortranarray(masks)), strict=True):
            result["segmentation"] = code
    return results


def summarize(split: CocoSplit, results: list[dict[str, Any]], images: int, masks: bool) -> DetectionEvaluation:
    """COCO's figures of results.

    Args:
        split: the truth.
        results: results of `coco_results`.
        images: ids of the images that were looked at.
        masks: whether masks are evaluated.
    """
    box, box_per_class = _average_precision(split, results, "bbox")
    if not masks:
        return DetectionEvaluation(images, box, box_per_class)
    return DetectionEvaluation(images, box, box_per_class, *_average_precision(split, results, "segm"))


def _average_precision(split: CocoSplit, results: list[dict[str, Any]], kind: str) -> tuple[dict[str, float], tuple[float, ...]]:
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        found = COCO()
        found.dataset = {"images": [], "annotations": [], "categories": []}
        found.createIndex()
        if results:  # a copy: the sizes of objects are those of the boxes or those of the masks, and are written into it
            found = split.api.loadRes([{k: v for k, v in r.items() if kind == "bbox" or k != "bbox"} for r in results])
        evaluation = COCOeval(split.api, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # -1 is pycocotools' word for "no such objects"
    figures = {name: 100 * value if value >= 0 else float("nan") for name, value in zip(FIGURES, evaluation.stats, strict=False)}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class), all areas, 100 detections
    per_class = [values[values > -1] for values in precision.reshape(-1, precision.shape[2]).T]
    return figures, tuple(float(100 * values.mean()) if len(values) else float("nan") for values in per_class)
