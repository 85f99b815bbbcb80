"""Curves of a run: training loss, validation loss and accuracy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .output import save


def plot_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """Draw training loss, validation loss and top-1 over the epochs, one line per run.

    Args:
        logs: records of a run's metrics.jsonl by label; training records have `loss`, evaluations `top1` and `eval_loss`,
            and of averaged weights `ema_top1` and `ema_eval_loss`, drawn dashed.
        path: path of the picture (.png).

    Returns:
        The picture's path.
    """
    from matplotlib.figure import Figure

    panels = {"loss": "training loss", "eval_loss": "validation loss", "top1": "validation top-1 (%)"}
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    rows: list[dict[str, Any]] = []
    for i, (label, records) in enumerate(logs.items()):
        for axis, (key, title) in zip(axes, panels.items(), strict=True):
            axis.set(xlabel="epoch", ylabel=title)
            axis.grid(alpha=0.3)
            for metric, style, name in ((key, "-", label), (f"ema_{key}", "--", f"{label}, averaged weights")):
                points = [(r["epoch"], r[metric]) for r in records if metric in r]
                if points:
                    axis.plot(*zip(*points, strict=True), style, color=f"C{i}", label=name, marker="." if key != "loss" else "")
                rows += [{"run": label, "metric": metric, "epoch": x, "value": y} for x, y in points]
    (axes[1] if axes[1].lines else axes[0]).legend()  # the second knows averaged weights too
    return save(figure, rows, path)
