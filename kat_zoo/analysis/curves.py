"""Curves of a run: training loss, validation loss and accuracy."""

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
