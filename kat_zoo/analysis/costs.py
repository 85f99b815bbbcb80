"""Costs of a training step: time, throughput, and memory held for the backward."""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._checks import count
from .output import save

PANELS = {
    "step_ms": "training step (ms, median)",
    "images_per_s": "training throughput (images / s)",
    "saved_mb": "memory held for the backward (MB)",
}


class SavedBytes(AbstractContextManager[Any]):
    """Counts the bytes that autograd saves while it is entered, each storage once.

    Args:
        known: tensors whose storages are not counted, as parameters.
        as_run: whether to leave out the tensors that a GR-KAN computes again in the backward; it keeps them otherwise, as under any
            other hooks.
    """

    def __init__(self, known: Sequence[Tensor] = (), as_run: bool = False) -> None:
        self.seen = {_identity(t) for t in known}
        self.alive: list[Tensor] = []  # a storage that is freed could give its address to another
        self.total = 0

        def pack(t: Tensor) -> Tensor:
            if _identity(t) not in self.seen:
                self.seen.add(_identity(t))
                self.alive.append(t.detach())
                self.total += t.untyped_storage().nbytes()
            return t

        pack.only_looks = as_run  # type: ignore[attr-defined]  # see `recompute_in_backward`
        self._hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)

    def __enter__(self) -> "SavedBytes":
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)


def _identity(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)


def measure_costs(models: Mapping[str, nn.Module], images: Tensor, repeats: int = 5) -> list[dict[str, Any]]:
    """Time training steps of several models in turn, so that a busy machine slows all of them alike.

    Args:
        models: models by label; their gradients are overwritten.
        images: (B, C, H, W), one batch for all.
        repeats: number of timed rounds, after one that warms up.

    Returns:
        A dict per model with the keys model, step_ms (median), step_ms_min, images_per_s, saved_mb.

    Raises:
        ValueError: fewer than one round.
    """
    count("repeats", repeats)
    times: dict[str, list[float]] = {label: [] for label in models}
    for round_number in range(repeats + 1):
        for label, model in models.items():
            start = time.perf_counter()
            model.zero_grad()
            model(images).square().mean().backward()
            if images.device.type != "cpu":
                torch.accelerator.synchronize(images.device)
            if round_number:
                times[label].append(time.perf_counter() - start)
    return [
        {
            "model": label,
            "step_ms": round(1e3 * statistics.median(t), 2),
            "step_ms_min": round(1e3 * min(t), 2),
            "images_per_s": round(len(images) / statistics.median(t), 1),
            "saved_mb": round(_saved(models[label], images) / 1e6, 2),
        }
        for label, t in times.items()
    ]


def _saved(model: nn.Module, images: Tensor) -> int:
    """Return the bytes that autograd holds between forward and backward, parameters apart."""
    with SavedBytes(list(model.parameters()), as_run=True) as saved:
        model(images).square().mean()
    return saved.total


def plot_costs(costs: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the result of `measure_costs` as bars.

    Args:
        costs: result of `measure_costs`.
        path: path of the picture (.png).

    Returns:
        The picture's path.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        colors = [f"C{i}" for i in range(len(costs))]
        bars = axis.bar([c["model"] for c in costs], [c[key] for c in costs], color=colors)
        axis.bar_label(bars, fmt="%.3g")
        axis.margins(y=0.1)  # room for the labels
        axis.set(xlabel="model", ylabel=title)
        axis.tick_params(axis="x", labelrotation=15)
    return save(figure, list(costs), path)
