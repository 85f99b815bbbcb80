"""The losses of torchvision's detectors on tensors that have a shape only, for `kat-zoo plan`.

Which anchors and proposals a detector trains on depends on the pixels, and tensors without pixels cannot tell. Here they are as many as
they can be, and everything that follows has the shape that it has in training.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import roi_align, sigmoid_focal_loss


def fullest_losses(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Losses of a training step in which every sample is full.

    Two-stage detectors: the region proposal network learns from `rpn_batch_size_per_image` anchors an image, the box head from
    `box_batch_size_per_image` proposals, and of both the largest part that may be positive is; those proposals are the mask head's.
    One-stage detectors: the classes of all anchors count, none lies between the thresholds; regression counts up to the
    predicted boxes, for the loss of a few positive anchors is nothing beside that.

    Args:
        model: a detector of `kat_zoo.dense`, in training.
        images: (B, C, H, W), padded; their values do not matter.

    Returns:
        Loss name -> scalar, fit for backward().
    """
    detector: Any = model
    features = detector.backbone(images)
    if hasattr(detector, "roi_heads"):
        return {**_proposal_losses(detector.rpn, features, len(images)), **_region_losses(detector.roi_heads, features, len(images))}
    return _dense_losses(detector.head, list(features.values()))


def _shares(sampler: Any, images: int) -> tuple[int, int]:
    """(samples, positive ones among them) of so many images."""
    size = sampler.batch_size_per_image
    return images * size, images * int(size * sampler.positive_fraction)


def _indices(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.long)


def _proposal_losses(rpn: Any, features: dict[str, Tensor], images: int) -> dict[str, Tensor]:
    objectness, deltas = concat_box_prediction_layers(*rpn.head(list(features.values())))
    samples, positive = _shares(rpn.fg_bg_sampler, images)
    boxes = F.smooth_l1_loss(deltas[_indices(positive)], torch.zeros(positive, 4), beta=1 / 9, reduction="sum")
    objects = F.binary_cross_entropy_with_logits(objectness.flatten()[_indices(samples)], torch.zeros(samples))
    return {"loss_objectness": objects, "loss_rpn_box_reg": boxes}


def _region_losses(heads: Any, features: dict[str, Tensor], images: int) -> dict[str, Tensor]:
    samples, positive = _shares(heads.fg_bg_sampler, images)
    logits, boxes = heads.box_predictor(heads.box_head(_pool(heads.box_roi_pool, features, samples)))
    moved = boxes.reshape(samples, -1, 4)[_indices(positive), _indices(positive)]
    losses = {
        "loss_classifier": F.cross_entropy(logits, _indices(samples)),
        "loss_box_reg": F.smooth_l1_loss(moved, torch.zeros(positive, 4), beta=1 / 9, reduction="sum"),
    }
    if heads.has_mask():
        masks = heads.mask_predictor(heads.mask_head(_pool(heads.mask_roi_pool, features, positive)))
        chosen = masks[_indices(positive), _indices(positive)]
        losses["loss_mask"] = F.binary_cross_entropy_with_logits(chosen, torch.zeros(chosen.shape))
    return losses


def _pool(pooler: Any, features: dict[str, Tensor], regions: int) -> Tensor:
    """Features of regions; from which levels they come makes no difference to what is computed and kept."""
    level = features[pooler.featmap_names[0]]
    pooled = roi_align(level, torch.zeros(regions, 5, dtype=level.dtype), pooler.output_size, 1.0, pooler.sampling_ratio)
    whole = torch.zeros(pooled.shape, dtype=pooled.dtype)
    whole[_indices(regions)] = pooled  # torchvision puts the levels' regions together so
    return whole


def _dense_losses(head: Any, features: list[Tensor]) -> dict[str, Tensor]:
    outputs = head(features)
    logits, boxes = outputs["cls_logits"], outputs["bbox_regression"]
    losses = {"classification": sigmoid_focal_loss(logits, torch.zeros(logits.shape, dtype=logits.dtype), reduction="sum")}
    if "bbox_ctrness" in outputs:  # FCOS, which decodes all boxes
        boxes = head.box_coder.decode(boxes, torch.zeros(boxes.shape))
        losses["bbox_ctrness"] = outputs["bbox_ctrness"][:, :1].sum()
    return {**losses, "bbox_regression": boxes[:, :1].sum()}
