"""The workload that `kat-zoo plan` counts: for a recipe of any task, its model, its loss on fake images, and the length of an epoch."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..classification import loader as loaders
from ..classification.model import build_model, check_names
from ..classification.recipe import Recipe
from ..classification.rehearsal import count_data, epoch_updates
from ..core.config import RunRecipe
from ..dense.runs import check_names as check_backbone
from ..detection import loop as detection
from ..detection.losses import fullest_losses
from ..detection.recipe import DetectionRecipe
from ..segmentation import loop as segmentation
from ..segmentation.recipe import SegmentationRecipe
from .footprint import Loss

PlannedRecipe = Recipe | SegmentationRecipe | DetectionRecipe
RECIPES: dict[str, type[RunRecipe]] = {"classification": Recipe, "segmentation": SegmentationRecipe, "detection": DetectionRecipe}


@dataclass(frozen=True)
class Workload:
    """One task's work.

    Attributes:
        build: function that makes the model.
        loss: maps (model, batch size) to the loss of fake images.
        image: (channels, height, width) of one of them.
        updates_per_epoch: optimizer updates in one epoch.
        assumed: assumption about the images, a sentence.
    """

    build: Callable[[], nn.Module]
    loss: Loss
    image: tuple[int, ...]
    updates_per_epoch: int
    assumed: str = ""


def workload(recipe: PlannedRecipe) -> Workload:
    """The work of one step of the recipe; no data is opened and no weights are fetched.

    Args:
        recipe: recipe of any task. Data that is not one of known size counts as ImageNet, COCO 2017 or ADE20K.

    Returns:
        Its work.

    Raises:
        ValueError: unknown model, or arguments that do not fit.
    """
    if isinstance(recipe, DetectionRecipe):
        return _detection(recipe)
    return _segmentation(recipe) if isinstance(recipe, SegmentationRecipe) else _classification(recipe)


def _classification(recipe: Recipe) -> Workload:
    """Cross-entropy of the recipe's classifier."""
    classes, images, assumed = count_data(recipe.data)
    check_names(recipe.model)
    kwargs = {**recipe.model.kwargs, "device": "meta"}
    config = dataclasses.replace(recipe.model, kwargs=kwargs, pretrained=False, checkpoint=None, init_from=None)

    def build() -> nn.Module:
        return _set_fused(build_model(config, classes), recipe)

    def loss(model: nn.Module, batch: int) -> Tensor:
        logits = model(torch.empty(batch, *size))
        return nn.functional.cross_entropy(logits.float(), torch.empty(batch, dtype=torch.long))

    size = tuple(loaders.data_config(recipe.data, build())["input_size"])
    if recipe.data.sizes:  # the largest decides what fits, as in `memory.Trial`
        largest = max(recipe.data.sizes.values())
        size = (size[0], *(max(largest, side) for side in size[1:]))
        assumed = " ".join(
            filter(None, (assumed, f"Images are {size[1]} x {size[2]} pixels, the largest of data.sizes and of evaluation."))
        )
    return Workload(build, loss, size, epoch_updates(recipe, images), assumed)


def _segmentation(recipe: SegmentationRecipe) -> Workload:
    """The losses of the recipe's segmentation model on crops."""
    data = recipe.data
    segmentation.check_batch(recipe, 1)  # several GPUs normalize their images together
    classes = data.num_classes or segmentation.ADE20K[0]
    check_backbone(recipe.model)
    config = recipe.model.untrained()

    def build() -> nn.Module:
        return _set_fused(segmentation.build_model(config, classes), recipe)

    def loss(model: nn.Module, batch: int) -> Tensor:
        labels = torch.empty(batch, data.crop, data.crop, dtype=torch.long)
        return torch.stack(list(model(torch.empty(batch, *size), labels).values())).sum()

    size = (build().image_mean.numel(), data.crop, data.crop)  # type: ignore[operator]
    return Workload(build, loss, size, data.updates_per_epoch or segmentation.ADE20K[1] // data.batch_size, "The data counts as ADE20K.")


def _detection(recipe: DetectionRecipe) -> Workload:
    """The losses of the recipe's detector on the largest images that its transform makes, padded as it pads them."""
    classes, images = detection.COCO
    check_backbone(recipe.model)
    config = recipe.model.untrained()

    def build() -> Any:
        return _set_fused(detection.build_model(config, classes, recipe.data), recipe)

    def loss(model: nn.Module, batch: int) -> Tensor:
        return torch.stack(list(fullest_losses(model, torch.empty(batch, *size)).values())).sum()

    jitter = recipe.augment.resize == "jitter"
    sides = recipe.augment.crop if jitter else (max(recipe.data.min_size), recipe.data.max_size)
    transform = build().transform
    size = (len(transform.image_mean), *(-(-side // transform.size_divisible) * transform.size_divisible for side in sides))
    largest = "" if jitter else ", the largest of one orientation: a batch of both is padded to a square"
    assumed = f"Images are {size[1]} x {size[2]} pixels{largest}; each head gets as many boxes as it samples. The data counts as COCO 2017."
    return Workload(build, loss, size, images // recipe.data.batch_size, assumed)


def _set_fused(model: nn.Module, recipe: RunRecipe) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", recipe.system.fused_attention)  # noqa: B010  (typed as a tensor or module)
    return model
