"""Charts: one edge, a history of training, a Pareto front. Figures are returned, not shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..network import Network
from .fit_run import History
from .plot import NUMERIC, SYMBOLIC, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_edge(model: Network, layer: int, i: int, j: int, X: Any) -> Figure:
    """One edge's function over the data's range, with the samples on it and the grid's knots below.

    Args:
        model: the network.
        layer: number of the layer, 0 is the first.
        i: number of the input node.
        j: number of the output sub-node.
        X: (N, inputs) samples.

    Raises:
        ValueError: there is no such edge, or X is not a table.
    """
    module = model.check_edge(layer, i, j)
    with torch.no_grad():
        h = model.activations(X)[layer]
        y = module.edges(h)[:, j, i]
    low, high = float(h[:, i].min()), float(h[:, i].max())
    t = torch.linspace(low, high, 400, dtype=model.dtype)
    figure = new_figure(4.5, 3.2)
    axes = figure.add_subplot()
    kind = model.edge_kind(layer, i, j)
    axes.plot(t.double(), model.edge(layer, i, j)[0](t).double().cpu(), color=SYMBOLIC if kind not in ("numeric", "pruned") else NUMERIC)
    axes.scatter(h[:, i].double().cpu(), y.double().cpu(), s=6, alpha=0.25, color=NUMERIC)
    k = module.spline.spline_order
    knots = module.spline.knots[i, k : -k or None].cpu()
    inside = knots[(knots >= low) & (knots <= high)]
    if kind == "numeric":
        axes.plot(inside, np.zeros(len(inside)), "|", color="#8a94a0", transform=axes.get_xaxis_transform(), markersize=10)
    axes.set(xlabel=f"node ({layer}, {i})", ylabel=r"$\phi$", title=f"edge ({layer}, {i}, {j}): {kind}")
    return figure


def plot_history(history: History) -> Figure:
    """Training and held-out error against steps, grid extensions marked.

    Args:
        history: result of `fit`.
    """
    figure = new_figure(5, 3.4)
    axes = figure.add_subplot()
    axes.semilogy(history.step, history.train, label="training", color=NUMERIC)
    if history.val != history.train:  # without held-out data they are the same
        axes.semilogy(history.step, history.val, label="held out", color=SYMBOLIC)
    for n in range(1, len(history.step)):
        if history.grid_size[n] != history.grid_size[n - 1]:
            axes.axvline(history.step[n - 1], color="#c9cfd6", linewidth=0.8, zorder=0)
            axes.text(
                history.step[n - 1],
                0.98,
                f" G={history.grid_size[n]}",
                size=7,
                va="top",
                transform=axes.get_xaxis_transform(),
            )
    axes.plot(history.best_step, history.best, "o", color=SYMBOLIC, markersize=5, label="kept")
    axes.set(xlabel="step", ylabel="error")
    axes.legend(frameon=False)
    return figure


def plot_pareto(points: Sequence[tuple[float, float, str]], xlabel: str = "complexity", ylabel: str = "held-out error") -> Figure:
    """Cost against error on logarithmic axes; the front (no cheaper point is as good) is joined.

    Args:
        points: triples (cost, error, label).
        xlabel: label of the cost's axis.
        ylabel: label of the error's axis.
    """
    figure = new_figure(5.2, 3.6)
    axes = figure.add_subplot()
    front: list[tuple[float, float, str]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    axes.loglog([p[0] for p in points], [max(p[1], 1e-17) for p in points], "o", color="#8a94a0", markersize=4)
    axes.loglog(
        [p[0] for p in front],
        [max(p[1], 1e-17) for p in front],
        "-o",
        color=SYMBOLIC,
        markersize=4,
        drawstyle="steps-post",
    )
    for cost, error, label in front:
        axes.annotate(label, (cost, max(error, 1e-17)), textcoords="offset points", xytext=(4, 4), size=6)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(0.12)
    return figure
