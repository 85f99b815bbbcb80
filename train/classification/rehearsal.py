"""`kat-zoo train --dry-run`: build everything a recipe names and run one batch of noise, without data, network or files."""

import dataclasses
from pathlib import Path

import torch
from timm.loss import create_classification_loss

from ..core.trial import try_update
from . import loader as loaders
from .datasets import check_options, image_folder
from .distill import create_task
from .model import build_model, check_names, check_sizes
from .recipe import DataConfig, Recipe

# (classes, training images)
SIZES = {"fashion_mnist": (10, 60_000), "cifar10": (10, 50_000), "cifar100": (100, 50_000)}
IMAGENET = (1000, 1_281_167)


def count_data(data: DataConfig) -> tuple[int, int, str]:
    """The size of a recipe's data, as far as it is known without fetching or decoding anything.

    Args:
        data: source of the images; a folder of classes that is there is counted.

    Returns:
        (classes, training images, an assumption in a sentence, empty where nothing is assumed).

    Raises:
        ValueError: an unknown dataset, or settings of streams for one that is read by index.
    """
    assumed = ""
    check_options(data.dataset, data.root, vars(data))
    if data.dataset in SIZES:
        classes, images = SIZES[data.dataset]
    elif data.dataset in ("folder", "imagenet") and data.root is not None and Path(data.root).is_dir():
        splits = image_folder(data.root, split=data.holdout > 0)
        classes, images = len(splits.classes), len(splits.train)
    else:
        classes, images = IMAGENET
        if data.dataset != "imagenet" and None in (data.num_classes, data.samples or data.train_images):
            assumed = (
                f"The size of the data ({data.dataset}) is not known here: it is counted as ImageNet, {classes:,} classes and {images:,} "
                "images, where data.num_classes and data.samples do not say otherwise."
            )
    images -= round(data.holdout * images)
    return data.num_classes or classes, data.samples or data.train_images or images, assumed


def epoch_updates(recipe: Recipe, images: int) -> int:
    """Updates in an epoch of so many images; 1 where there are none, for the schedule of a linear probe.

    Raises:
        ValueError: the batch is larger than the data.
    """
    return loaders.count_updates(images, recipe.data.batch_size) if recipe.trains else 1


def rehearse(recipe: Recipe, batch_size: int = 2) -> str:
    """Build model, transforms, optimizer groups and schedule of a recipe, and make one update on noise.

    Args:
        recipe: the whole configuration; published weights are not fetched.
        batch_size: images of noise; even, for mixup.

    Returns:
        A summary: parameters, groups, learning rates over the run, the loss.

    Raises:
        ValueError: whatever would make the run fail before its first update.
    """
    recipe = recipe.after_probe
    classes, images, assumed = count_data(recipe.data)
    check_names(recipe.model)
    config = dataclasses.replace(recipe.model, pretrained=False, checkpoint=None, init_from=None)
    model = build_model(config, classes).train()
    resolved = loaders.data_config(recipe.data, model)
    check_sizes(model, resolved["input_size"], recipe.data.sizes.values())
    model.train()
    transform = loaders.train_transform(recipe.augment, resolved)
    loaders.image_mode(resolved)
    updates = epoch_updates(recipe, images)
    mixup = loaders.mixup(recipe.augment, classes)
    criterion = create_classification_loss(recipe.loss, smoothing=recipe.augment.smoothing, soft_targets=mixup is not None)

    x, y = torch.randn(batch_size, *resolved["input_size"]), torch.randint(classes, (batch_size,))
    if mixup is not None:
        x, y = mixup(x, y)
    loss = create_task(recipe, model, criterion, resolved, x.device, weights=False)(x, y)["loss"]

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lines = [
        f"{recipe.model.name}: {sum(p.numel() for p in model.parameters()):,} parameters, {trained:,} trained",
        f"{recipe.data.dataset}: {classes} classes, input {tuple(resolved['input_size'])}, "
        f"{recipe.schedule.epochs * updates:,} updates of {recipe.data.batch_size} images",
        *([assumed] if assumed else []),
        *try_update(model, recipe, updates, {"loss": loss}, " x ".join(map(str, x.shape[2:])), transform),
    ]
    return "\n".join(lines)
