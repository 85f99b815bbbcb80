"""One update on noise, which `kat-zoo train --dry-run` makes for every task."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .config import RunRecipe
from .optim import create_optimizer, create_scheduler, first_step
from .processes import check_shares, check_trackers


def try_update(
    model: nn.Module, recipe: RunRecipe, updates_per_epoch: int, losses: Mapping[str, Tensor], size: str, transform: Any
) -> list[str]:
    """Make one update, and say what --dry-run of every task says of it.

    Args:
        model: model to update.
        recipe: recipe of any task.
        updates_per_epoch: optimizer updates in one epoch.
        losses: losses of the model on noise, name -> scalar; their sum is minimized.
        size: size of the noise, in words.
        transform: transform of the training images.

    Returns:
        A line for each kind of parameter group, and one each for the learning rate over the run, the update and the transform.

    Raises:
        ValueError: the optimizer does not take its arguments, or the processes of `system.processes` cannot share the batch.
    """
    check_trackers(recipe.system.trackers)
    check_shares(recipe, recipe.system.processes or 1)
    first_step(recipe.optimizer)
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
