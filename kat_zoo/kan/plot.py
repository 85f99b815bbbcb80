"""Pictures: the network with its functions, one edge, a history, a Pareto front. Figures are returned, not shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .layer import KANLayer
from .network import KAN
from .pruning import attribute

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .training import History

BOX = 0.36  # side of a thumbnail; nodes of a layer are 1 apart where thumbnails allow
SYMBOLIC, NUMERIC = "#c1440e", "#1f2933"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    # Not pyplot: no global state, no window, safe in threads.
    return Figure(figsize=(width, height), layout="constrained")


def _row(n: int, width: float) -> np.ndarray:
    """X positions of n things centred in `width`."""
    return (np.arange(n) + 0.5) / n * width


def _subnode_positions(layer: KANLayer, nodes: np.ndarray) -> np.ndarray:
    """Sub-nodes of a product sit side by side below it."""
    offsets = (np.arange(layer.arity) - (layer.arity - 1) / 2) * 0.12
    products = (nodes[layer.n_sum :, None] + offsets).ravel()
    return np.concatenate([nodes[: layer.n_sum], products])


def plot(
    model: KAN,
    X: Any,  # noqa: N803
    *,
    variables: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    beta: float = 3.0,
    threshold: float = 0.01,
    title: str | None = None,
) -> Figure:
    """Draw the network bottom-up with a thumbnail of every edge's function.

    Edges have opacity tanh(beta * score) (arXiv 2404.19756, section 2.5.1; scores of `attribute`); symbolic edges are
    red and carry their function's name. Save with `.savefig("kan.svg")` or `.savefig("kan.png")`.

    Args:
        model: the network.
        X: (N, inputs) samples for the scores and the functions' ranges.
        variables: names of the inputs.
        outputs: names of the outputs.
        beta: steepness of the opacity.
        threshold: edges with less opacity are left out.
        title: of the picture.

    Raises:
        ValueError: not one name per input or output.
    """
    from matplotlib.collections import LineCollection

    names = list(variables) if variables is not None else [f"$x_{{{i + 1}}}$" for i in range(model.nodes[0])]
    answers = (
        list(outputs)
        if outputs is not None
        else [f"$y_{{{i + 1}}}$" if model.nodes[-1] > 1 else "$y$" for i in range(model.nodes[-1])]
    )
    if len(names) != model.nodes[0] or len(answers) != model.nodes[-1]:
        raise ValueError(
            f"got {len(names)} variables and {len(answers)} outputs; expected {model.nodes[0]} and {model.nodes[-1]}"
        )
    x = model.tensor(X)
    scores = attribute(model, x)
    with torch.no_grad():
        activations = model.activations(x)
    widest = max(int(layer.active.sum()) for layer in model.layers)
    width = max(2.0, 0.5 * widest, 0.9 * max(model.nodes))
    height = 1.5 * len(model.layers)
    figure = _figure(min(max(width * 1.1, 3.0), 24), height * 1.1 + 0.6)
    axes = figure.add_subplot()
    levels = [_row(n, width) for n in model.nodes]
    wires, wire_alpha, curves, curve_alpha, colours, boxes = [], [], [], [], [], []
    for number, layer in enumerate(model.layers):
        h, bottom = activations[number], 1.5 * number
        low, high = h.min(0).values, h.max(0).values
        grid = low + (high - low) * torch.linspace(0, 1, 48, dtype=h.dtype)[:, None]
        with torch.no_grad():
            values = layer.edges(grid).cpu().numpy()
        subnodes = _subnode_positions(layer, levels[number + 1])
        edges = [(int(i), int(j)) for i, j in layer.active.T.nonzero().tolist()]
        edges.sort(key=lambda e: (levels[number][e[0]] + subnodes[e[1]], e))
        for (i, j), centre in zip(edges, _row(max(len(edges), 1), width), strict=False):
            alpha = math.tanh(beta * float(scores.edges[number][j, i]))
            if alpha < threshold:
                continue
            kind = model.edge_kind(number, i, j)
            colour = NUMERIC if kind == "numeric" else SYMBOLIC
            middle = bottom + 0.75
            wires += [
                [(levels[number][i], bottom + 0.06), (centre, middle - BOX / 2)],
                [(centre, middle + BOX / 2), (subnodes[j], bottom + 1.44)],
            ]
            curve = values[:, j, i]
            span = np.ptp(curve)
            shape = (curve - curve.min()) / span - 0.5 if span > 0 else np.zeros_like(curve)
            curves.append(
                np.column_stack([centre + (np.linspace(0, 1, 48) - 0.5) * BOX * 0.84, middle + shape * BOX * 0.84])
            )
            b = BOX / 2
            boxes.append(
                [
                    (centre - b, middle - b),
                    (centre + b, middle - b),
                    (centre + b, middle + b),
                    (centre - b, middle + b),
                    (centre - b, middle - b),
                ]
            )
            wire_alpha += [alpha, alpha]
            curve_alpha.append(alpha)
            colours.append(colour)
            if kind != "numeric":
                axes.text(
                    centre,
                    middle - BOX / 2 - 0.03,
                    kind,
                    ha="center",
                    va="top",
                    size=7,
                    color=colour,
                    alpha=max(alpha, 0.3),
                )
        if layer.n_mult:
            for position in levels[number + 1][layer.n_sum :]:
                axes.text(position, bottom + 1.36, "×", ha="center", va="center", size=11)  # noqa: RUF001
    axes.add_collection(LineCollection(wires, colors=NUMERIC, linewidths=0.9, alpha=wire_alpha or None, zorder=1))
    axes.add_collection(LineCollection(boxes, colors="#8a94a0", linewidths=0.7, alpha=curve_alpha or None, zorder=2))
    axes.add_collection(
        LineCollection(curves, colors=colours or NUMERIC, linewidths=1.6, alpha=curve_alpha or None, zorder=3)
    )
    for level, positions in enumerate(levels):
        axes.scatter(positions, np.full(len(positions), 1.5 * level), s=26, color=NUMERIC, zorder=4)
    for position, name in zip(levels[0], names, strict=True):
        axes.text(position, -0.12, name, ha="center", va="top", size=11)
    for position, name in zip(levels[-1], answers, strict=True):
        axes.text(position, height + 0.1, name, ha="center", va="bottom", size=11)
    axes.set(xlim=(0, width), ylim=(-0.4, height + 0.4), aspect="equal")
    axes.axis("off")
    if title:
        axes.set_title(title)
    return figure


def plot_edge(model: KAN, layer: int, i: int, j: int, X: Any) -> Figure:  # noqa: N803
    """One edge's function over the data's range, with the samples on it and the grid's knots below."""
    module = model.check_edge(layer, i, j)
    with torch.no_grad():
        h = model.activations(X)[layer]
        y = module.edges(h)[:, j, i]
    low, high = float(h[:, i].min()), float(h[:, i].max())
    t = torch.linspace(low, high, 400, dtype=model.dtype)
    figure = _figure(4.5, 3.2)
    axes = figure.add_subplot()
    kind = model.edge_kind(layer, i, j)
    axes.plot(t, model.edge(layer, i, j)[0](t), color=SYMBOLIC if kind not in ("numeric", "pruned") else NUMERIC)
    axes.scatter(h[:, i], y, s=6, alpha=0.25, color=NUMERIC)
    k = module.spline.spline_order
    knots = module.spline.knots[i, k : -k or None].cpu()
    inside = knots[(knots >= low) & (knots <= high)]
    if kind == "numeric":
        axes.plot(
            inside, np.zeros(len(inside)), "|", color="#8a94a0", transform=axes.get_xaxis_transform(), markersize=10
        )
    axes.set(xlabel=f"node ({layer}, {i})", ylabel=r"$\phi$", title=f"edge ({layer}, {i}, {j}): {kind}")
    return figure


def plot_history(history: History) -> Figure:
    """Training and held-out error against steps, grid extensions marked."""
    figure = _figure(5, 3.4)
    axes: Axes = figure.add_subplot()
    axes.semilogy(history.step, history.train, label="training", color=NUMERIC)
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


def plot_pareto(
    points: Sequence[tuple[float, float, str]], xlabel: str = "complexity", ylabel: str = "held-out error"
) -> Figure:
    """Cost against error on logarithmic axes; the front (no cheaper point is as good) is joined.

    Args:
        points: (cost, error, label) each.
        xlabel: of the cost.
        ylabel: of the error.
    """
    figure = _figure(5.2, 3.6)
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
