"""Pictures: the network with its functions, one edge, a history, a Pareto front. Figures are returned, not shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..layer import KANLayer
from .pruning import attribute

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..network import KAN
    from .training import History

BOX = 0.36  # side of a thumbnail; nodes of a layer are 1 apart where thumbnails allow
ROW = 24  # thumbnails side by side; more of a layer stand in further rows
Point = tuple[float, float]
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


@dataclass(eq=False)
class _Drawing:
    """Lines and names of a network's edges, drawn at once: a collection of thousands is as fast as one of a few."""

    wires: list[list[Point]] = field(default_factory=list)
    boxes: list[list[Point]] = field(default_factory=list)
    curves: list[np.ndarray] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)
    names: list[tuple[float, float, str, float]] = field(default_factory=list)

    def edge(self, below: Point, centre: Point, above: Point, curve: np.ndarray, kind: str, alpha: float) -> None:
        """An edge between two nodes, its function (48 values) in a box at `centre`."""
        (x, y), b = centre, BOX / 2
        self.wires += [[below, (x, y - b)], [(x, y + b), above]]
        self.boxes.append([(x - b, y - b), (x + b, y - b), (x + b, y + b), (x - b, y + b), (x - b, y - b)])
        span = np.ptp(curve)
        shape = (curve - curve.min()) / span - 0.5 if span > 0 else np.zeros_like(curve)
        self.curves.append(np.column_stack([x + (np.linspace(0, 1, len(curve)) - 0.5) * BOX * 0.84, y + shape * BOX * 0.84]))
        self.alphas.append(alpha)
        self.colours.append(NUMERIC if kind == "numeric" else SYMBOLIC)
        if kind != "numeric":
            self.names.append((x, y - b - 0.03, kind, max(alpha, 0.3)))

    def draw(self, axes: Axes) -> None:
        """Put everything on the axes."""
        from matplotlib.collections import LineCollection

        wire_alphas = [alpha for alpha in self.alphas for _ in range(2)]
        for lines, colours, width, alphas, order in (
            (self.wires, NUMERIC, 0.9, wire_alphas, 1),
            (self.boxes, "#8a94a0", 0.7, self.alphas, 2),
            (self.curves, self.colours or NUMERIC, 1.6, self.alphas, 3),
        ):
            axes.add_collection(LineCollection(lines, colors=colours, linewidths=width, alpha=alphas or None, zorder=order))
        for x, y, name, alpha in self.names:
            axes.text(x, y, name, ha="center", va="top", size=7, color=SYMBOLIC, alpha=alpha)


def _labels(name: str, given: Sequence[str] | None, default: str, count: int) -> list[str]:
    if given is None:
        return [f"${default}_{{{i + 1}}}$" for i in range(count)] if count > 1 or default == "x" else [f"${default}$"]
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} names; expected {count}")
    return list(given)


def plain(names: Sequence[str]) -> list[str]:
    """Names such as columns have them, of which matplotlib would take what stands between dollars for mathematics."""
    return [str(name).replace("$", r"\$") for name in names]


def plot(
    model: KAN,
    X: Any,
    *,
    variables: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    beta: float = 3.0,
    threshold: float = 0.01,
    title: str | None = None,
) -> Figure:
    """Draw the network bottom-up with a thumbnail of every edge's function.

    Edges have opacity tanh(beta * score) (arXiv 2404.19756, section 2.5.1; scores of `attribute`); symbolic edges are
    red and carry their function's name. A layer of many edges has its thumbnails in several rows. Save with
    `.savefig("kan.svg")` or `.savefig("kan.png")`.

    Args:
        model: the network.
        X: (N, inputs) samples for the scores and the functions' ranges.
        variables: names of the inputs.
        outputs: names of the outputs.
        beta: steepness of the opacity.
        threshold: edges with less opacity are left out.
        title: of the picture.

    Raises:
        ValueError: not one name per input or output, or X as in `attribute`.
    """
    names, answers = _labels("variables", variables, "x", model.nodes[0]), _labels("outputs", outputs, "y", model.nodes[-1])
    x = model.tensor(X)
    scores = attribute(model, x)
    opacity = [np.tanh(beta * score.double().cpu().numpy()) for score in scores.edges]
    shown = [
        [(i, j) for i, j in layer.active.T.nonzero().tolist() if alpha[j, i] >= threshold]
        for layer, alpha in zip(model.layers, opacity, strict=True)
    ]
    with torch.no_grad():
        activations = model.activations(x)
    columns = min(ROW, max(len(edges) for edges in shown))
    width = max(2.0, 0.5 * columns, 0.9 * min(max(model.nodes), ROW))
    rows = [max(1, math.ceil(len(edges) / ROW)) for edges in shown]
    floors = np.concatenate([[0.0], np.cumsum([1.5 + 0.55 * (n - 1) for n in rows])])
    figure = _figure(max(width * 1.1, 3.0), floors[-1] * 1.1 + 0.6)
    axes, drawing = figure.add_subplot(), _Drawing()
    levels = [_row(n, width) for n in model.nodes]
    for number, layer in enumerate(model.layers):
        h, bottom, top = activations[number], floors[number], floors[number + 1]
        low, high = h.min(0).values, h.max(0).values
        grid = low + (high - low) * torch.linspace(0, 1, 48, dtype=h.dtype, device=h.device)[:, None]
        with torch.no_grad():
            values = layer.edges(grid).double().cpu().numpy()
        subnodes = _subnode_positions(layer, levels[number + 1])
        edges = sorted(shown[number], key=lambda e: (levels[number][e[0]] + subnodes[e[1]], e))
        columns = math.ceil(len(edges) / rows[number])
        for n, (i, j) in enumerate(edges):
            # Neighbours go above each other, so that a wire's thumbnail is near its nodes in every row.
            row, column = n % rows[number], n // rows[number]
            centre = (_row(columns, width)[column] + (row / rows[number] - 0.5) * (rows[number] > 1) * 0.2, bottom + 0.75 + 0.55 * row)
            below, above = (levels[number][i], bottom + 0.06), (subnodes[j], top - 0.06)
            drawing.edge(below, centre, above, values[:, j, i], model.edge_kind(number, i, j), opacity[number][j, i])
        for position in levels[number + 1][layer.n_sum :]:
            axes.text(position, top - 0.14, "×", ha="center", va="center", size=11)
    drawing.draw(axes)
    for floor, positions in zip(floors, levels, strict=True):
        axes.scatter(positions, np.full(len(positions), floor), s=26, color=NUMERIC, zorder=4)
    for labels, positions, height, side in ((names, levels[0], -0.12, "top"), (answers, levels[-1], floors[-1] + 0.1, "bottom")):
        for position, name in zip(positions, labels, strict=True):
            axes.text(position, height, name, ha="center", va=side, size=11)
    axes.set(xlim=(0, width), ylim=(-0.4, floors[-1] + 0.4), aspect="equal")
    axes.axis("off")
    if title:
        axes.set_title(title)
    return figure


def plot_edge(model: KAN, layer: int, i: int, j: int, X: Any) -> Figure:
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
    """Training and held-out error against steps, grid extensions marked."""
    figure = _figure(5, 3.4)
    axes: Axes = figure.add_subplot()
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
