"""`kat-zoo train --dry-run`: build everything a recipe names and run one batch of noise, without data, network or files."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from timm.loss import create_classification_loss
from torch import Tensor, nn

from . import loader as loaders
from .classification_config import Recipe
from .config import RunRecipe
from .distill import create_task
from .model import build_model, check_sizes
from .optim import create_optimizer, create_scheduler

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


def try_update(
    model: nn.Module, recipe: RunRecipe, updates_per_epoch: int, losses: Mapping[str, Tensor], size: str, transform: Any
) -> list[str]:
    """Make one update, and say what --dry-run of every task says of it.

    Args:
        model: to update.
        recipe: of any task.
        updates_per_epoch: optimizer updates in one epoch.
        losses: of the model on noise, name -> scalar; their sum is minimised.
        size: of the noise.
        transform: of the training images.

    Returns:
        A line for each kind of parameter group, and one each for the learning rate over the run, the update and the transform.
    """
    optimizer = create_optimizer(model, recipe.optimizer)
    torch.stack(list(losses.values())).sum().backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    optimizer.step()
    named = ", ".join(f"{name} {float(value.detach()):.3f}" for name, value in losses.items())
    return [
        *_describe_optimizer(optimizer, recipe, updates_per_epoch),
        f"one update on noise of {size}: {named}, gradient norm {float(norm):.3g}",
        f"training transform: {' '.join(str(transform).split())}",
    ]


def _describe_optimizer(optimizer: torch.optim.Optimizer, recipe: RunRecipe, updates_per_epoch: int) -> list[str]:
    """A line for each kind of parameter group and one with the learning rate over the run."""
    groups: Counter[tuple[float, float]] = Counter()
    for group in optimizer.param_groups:
        groups[group["weight_decay"], round(group.get("lr_scale", 1.0), 4)] += len(group["params"])
    scheduler = create_scheduler(optimizer, recipe.schedule, updates_per_epoch)
    rates = []
    for part in (0.0, 0.01, 0.1, 0.5, 0.9, 1.0):
        scheduler.step_update(round(part * max(0, recipe.schedule.epochs * updates_per_epoch - 1)))
        rates.append(f"{part:.0%} {max(group['lr'] for group in optimizer.param_groups):.2g}")
    lines = [f"  {count} tensors with weight decay {decay:g}, learning rate x {scale:g}" for (decay, scale), count in groups.items()]
    return [*lines, f"learning rate: {', '.join(rates)}"]
