"""Optimizer and schedule: timm's, with the choices that rational coefficients add."""

import difflib
import inspect
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from timm.optim import Muon, create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from kat_zoo._text import one_line

from .config import EmaConfig, OptimizerConfig, ScheduleConfig
from .explain import did_you_mean

RATIONALS = ("weight_numerator", "weight_denominator")
FUSED = ("adam", "adamw", "momentum", "nesterov", "sgd")  # PyTorch's own, whose fused versions skip by themselves


def create_optimizer(model: nn.Module, config: OptimizerConfig, *, fused: bool = False) -> torch.optim.Optimizer:
    """Create the optimizer of timm, its parameter groups split where rational coefficients are treated differently.

    Args:
        model: the bare model; parameters without `requires_grad` are left out.
        config: optimizer settings.
        fused: whether to take PyTorch's fused version of Adam, AdamW and SGD; `config.kwargs` has the last word.

    Returns:
        The optimizer. Each group has `lr_scale`, which timm's schedulers multiply in.

    Raises:
        ValueError: timm does not know it, or it does not take its arguments.
    """
    kwargs = dict(config.kwargs)
    if fused and not kwargs.keys() & {"fused", "foreach"} and config.name.lower() in FUSED:
        kwargs["fused"] = True
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=config.name,
            lr=config.lr,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
            **kwargs,
        )
    except Exception as error:  # of any constructor: they index and unpack what they are given
        raise ValueError(_what_is_wrong(config, error)) from error
    rationals = {id(p) for name, p in model.named_parameters() if name.endswith(RATIONALS)}
    # Rows of coefficients are no matrix: Muon, which would orthogonalise them, has AdamW for what is none.
    fallback = {"use_fallback": True} if isinstance(optimizer, Muon) else {}
    if not rationals or (config.decay_rationals and config.rational_lr_scale == 1.0 and not fallback):
        return optimizer
    split: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        ours = [p for p in group["params"] if id(p) in rationals]
        others = [p for p in group["params"] if id(p) not in rationals]
        scale = group.get("lr_scale", 1.0)
        decay = group["weight_decay"] if config.decay_rationals else 0.0
        split += [{**group, "params": others}] if others else []
        if ours:
            split.append({**group, "params": ours, "lr_scale": scale * config.rational_lr_scale, "weight_decay": decay, **fallback})
    optimizer.param_groups[:] = split
    return optimizer


def _what_is_wrong(config: OptimizerConfig, error: Exception) -> str:
    """The error of an optimizer in a line that names the setting."""
    try:
        kind: Any = get_optimizer_class(config.name.lower().removeprefix("lookahead_"), bind_defaults=False)
    except ValueError:
        near = difflib.get_close_matches(config.name.lower(), map(str, list_optimizers()), 3)
        return f"optimizer.name={config.name!r}: expected the name of one of timm's optimizers{'; ' + did_you_mean(near) if near else ''}"
    wrong = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if wrong and wrong[1] in config.kwargs:
        known = sorted(inspect.signature(kind).parameters.keys() - {"params", "lr", "weight_decay"})
        near = difflib.get_close_matches(wrong[1], known, 1)
        advice = did_you_mean(near) if near else f"expected some of {', '.join(known)}"
        return f"optimizer.kwargs={config.kwargs}: {config.name} has no argument {wrong[1]}; {advice}"
    reason = f"{type(error).__name__}: {one_line(error)[:200]}"
    return f"optimizer.name={config.name!r}, optimizer.kwargs={config.kwargs}: expected arguments that it takes ({reason})"


def first_step(config: OptimizerConfig, ranks: Iterable[int] = (1, 2), device: torch.device | None = None) -> torch.optim.Optimizer:
    """Make the optimizer and let it take a step, of small parameters: some look at their arguments only then.

    Args:
        config: optimizer settings.
        ranks: numbers of dimensions of the parameters, one for each.
        device: device of the parameters; the CPU by default.

    Returns:
        The optimizer, after its step.

    Raises:
        ValueError: timm does not know it, or it does not take its arguments.
    """
    tiny = nn.ParameterDict({f"rank{rank}": torch.zeros((4,) * rank, device=device) for rank in ranks})
    optimizer = create_optimizer(tiny, replace(config, layer_decay=None))
    for parameter in tiny.values():
        parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.step()
    except Exception as error:
        raise ValueError(_what_is_wrong(config, error)) from error
    return optimizer


def skips_by_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer leaves out a step where the tensor `found_inf` is 1, as PyTorch's fused ones do.

    Args:
        optimizer: optimizer that accelerate has prepared.
    """
    return getattr(getattr(optimizer, "optimizer", None), "_step_supports_amp_scaling", False)


@torch.no_grad()
def average(ema: ModelEmaV3, model: nn.Module, step: int, skip: Tensor) -> None:
    """`ema.update(model, step)`, or nothing where the update was skipped, without a look at `skip`.

    Args:
        ema: averaged weights, changed in place.
        model: model whose weights are added.
        step: number of updates done, this one included.
        skip: scalar on the device, 1 where the update was skipped, else 0.
    """
    averages, weights = [], []
    for mean, weight in zip(ema.module.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            averages.append(mean)
            weights.append(weight)
        else:  # counts, which go on
            mean.copy_(weight)
    differences = torch._foreach_sub(weights, averages)
    torch._foreach_mul_(differences, (1 - skip) * (1 - ema.get_decay(step)))
    torch._foreach_add_(averages, differences)


def initial_share(config: EmaConfig, updates: int) -> float:
    """Share of the initial weights in an average of so many updates; 0 with a warmup, or without an average."""
    return 0.0 if config.warmup or not config.decay else config.decay**updates


def create_scheduler(optimizer: torch.optim.Optimizer, config: ScheduleConfig, updates_per_epoch: int) -> Scheduler:
    """Create the scheduler of timm, to be stepped with `step_update(updates done)`; it has no state of its own.

    Args:
        optimizer: its `lr_scale` groups are respected.
        config: schedule settings.
        updates_per_epoch: optimizer updates in one epoch.

    Returns:
        The scheduler; the first learning rates are set.

    Raises:
        ValueError: timm does not know it, or its phases do not fit into the run.
    """
    try:
        scheduler, _ = _create(optimizer, config, updates_per_epoch)
    except ValueError as error:
        raise ValueError(
            f"schedule.name {config.name}, epochs {config.epochs}, warmup_epochs {config.warmup_epochs:g} and decay_epochs "
            f"{config.decay_epochs} with {updates_per_epoch} updates per epoch are refused by timm: {error}"
        ) from error
    scheduler.step_update(0)
    return scheduler


def _create(optimizer: torch.optim.Optimizer, config: ScheduleConfig, updates_per_epoch: int) -> Any:
    return create_scheduler_v2(
        optimizer,
        sched=config.name if config.epochs else "constant",  # without updates no schedule has to fit into the run
        num_epochs=max(1, config.epochs),
        warmup_epochs=config.warmup_epochs,  # type: ignore[arg-type]  # fractions are fine
        warmup_lr=config.warmup_lr,
        min_lr=config.min_lr,
        decay_epochs=config.decay_epochs,
        decay_rate=config.decay_rate,
        decay_milestones=list(config.milestones),  # type: ignore[arg-type]  # fractions are fine
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
