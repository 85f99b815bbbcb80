"""`kat-zoo train --dry-run`: build everything a recipe names and run one batch of noise, without data, network or files."""

import dataclasses

import torch
from timm.loss import create_classification_loss

from ..core.trial import try_update
from . import loader as loaders
from .distill import create_task
from .model import build_model, check_sizes
from .recipe import Recipe

# (classes, training images); for `folder` and `hub`, whose size only the data knows, as ImageNet.
SIZES = {"fashion_mnist": (10, 60_000), "cifar10": (10, 50_000), "cifar100": (100, 50_000)}
IMAGENET = (1000, 1_281_167)


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
    classes, images = SIZES.get(recipe.data.dataset, IMAGENET)
    classes, images = recipe.data.num_classes or classes, recipe.data.samples or recipe.data.train_images or images
    config = dataclasses.replace(recipe.model, pretrained=False, checkpoint=None, init_from=None)
    model = build_model(config, classes).train()
    resolved = loaders.data_config(recipe.data, model)
    check_sizes(model, resolved["input_size"], recipe.data.sizes.values())
    model.train()
    transform = loaders.train_transform(recipe.augment, resolved)
    updates = images // recipe.data.batch_size
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
        *try_update(model, recipe, updates, {"loss": loss}, " x ".join(map(str, x.shape[2:])), transform),
    ]
    return "\n".join(lines)
