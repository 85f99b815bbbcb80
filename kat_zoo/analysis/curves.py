"""Curves of a run (loss, accuracy) and bars of what models cost (time, memory)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .output import save


def plot_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """Draw training loss, validation loss and top-1 over the epochs, one line per run.

    Args:
        logs: label -> records of a run's metrics.jsonl; training records have `loss`, evaluations `top1` and `eval_loss`.
        path: of the picture (.png).

    Returns:
        The picture's path.
    """
    import matplotlib.pyplot as plt

    panels = {"loss": "training loss", "eval_loss": "validation loss", "top1": "validation top-1 (%)"}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    rows: list[dict[str, Any]] = []
    for label, records in logs.items():
        for axis, (key, title) in zip(axes, panels.items(), strict=True):
            points = [(r["epoch"], r[key]) for r in records if key in r]
            axis.plot([x for x, _ in points], [y for _, y in points], label=label, marker="." if key != "loss" else "")
            axis.set(xlabel="epoch", ylabel=title)
            axis.grid(alpha=0.3)
            rows += [{"run": label, "metric": key, "epoch": x, "value": y} for x, y in points]
    axes[0].legend()
    return save(figure, rows, path)


def plot_costs(costs: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw bars of time per step, throughput and peak memory.

    Args:
        costs: a dict per model with the keys model, step_ms, images_per_s and peak_mb.
        path: of the picture (.png).

    Returns:
        The picture's path.
    """
    import matplotlib.pyplot as plt

    panels = {
        "step_ms": "training step (ms)",
        "images_per_s": "training throughput (images / s)",
        "peak_mb": "peak memory of a step (MB)",
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for axis, (key, title) in zip(axes, panels.items(), strict=True):
        bars = axis.bar([c["model"] for c in costs], [c[key] for c in costs], color=[f"C{i}" for i in range(len(costs))])
        axis.bar_label(bars, fmt="%.3g")
        axis.set(ylabel=title)
        axis.tick_params(axis="x", labelrotation=15)
    return save(figure, list(costs), path)
