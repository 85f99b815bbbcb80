"""Curves of runs of any task: training loss, validation loss where there is one, and the task's own figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .output import save

# Figures that a task is judged by, as its log calls them.
METRICS = {"top1": "validation top-1 (%)", "box_ap": "validation box AP (%)", "miou": "validation mIoU (%)"}


def plot_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """Draw training loss, validation loss and the task's figure over the epochs, one line per run.

    Args:
        logs: records of a run's metrics.jsonl by label; training records have `loss`, evaluations `eval_loss` and one of `METRICS`,
            and of averaged weights the same under `ema_`, drawn dashed.
        path: path of the picture (.png).

    Returns:
        The picture's path.
    """
    from matplotlib.figure import Figure

    found = {key.removeprefix("ema_") for records in logs.values() for record in records for key in record}
    metrics = {key: title for key, title in METRICS.items() if key in found} or {"top1": METRICS["top1"]}
    validation = {} if "top1" not in metrics else {"eval_loss": "validation loss"}
    panels = {"loss": "training loss", **validation, **metrics}
    figure = Figure(figsize=(11 * len(panels) / 3, 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels))
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
