"""A picture of a network with its functions. The figure is returned, not shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..layer import KANLayer
from ..migration import answers_words
from ..network import Network
from .pruning import attribute

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER = 0.1  # width of a letter of a name, in distances of nodes
BOX = 0.36  # side of a thumbnail; nodes of a layer are 1 apart where thumbnails allow
ROW = 24  # thumbnails side by side; more of a layer stand in further rows
Point = tuple[float, float]
SYMBOLIC, NUMERIC = "#c1440e", "#1f2933"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    # Not pyplot: no global state, no window, safe in threads.
    return Figure(figsize=(width, height), layout="constrained")


def _row(n: int, width: float) -> np.ndarray:
    """X positions of n things centered in `width`."""
    return (np.arange(n) + 0.5) / n * width


@dataclass(frozen=True)
class _Layout:
    """Where nodes and thumbnails are.

    Attributes:
        width: width of the picture.
        rows: number of rows of thumbnails in each layer.
        floors: heights of the layers of nodes, inputs first.
        levels: x positions of the nodes in each of them.
    """

    width: float
    rows: list[int]
    floors: np.ndarray
    levels: list[np.ndarray]

    @classmethod
    def of(cls, nodes: list[int], edges: list[int]) -> _Layout:
        """Room for this many nodes in each layer of nodes, and edges in each layer."""
        width = max(2.0, 0.5 * min(ROW, max(edges)), 0.9 * min(max(nodes), ROW))
        rows = [max(1, math.ceil(n / ROW)) for n in edges]
        floors = np.concatenate([[0.0], np.cumsum([1.5 + 0.55 * (n - 1) for n in rows])])
        return cls(width, rows, floors, [_row(n, width) for n in nodes])

    def centers(self, layer: int, edges: int) -> list[Point]:
        """Centers of the thumbnails of a layer from left to right."""
        rows = self.rows[layer]
        columns = _row(math.ceil(edges / rows), self.width)
        result = []
        for n in range(edges):
            # Neighbors go above each other, so that a wire's thumbnail is near its nodes in every row.
            row, column = n % rows, n // rows
            result.append((columns[column] + (row / rows - 0.5) * (rows > 1) * 0.2, self.floors[layer] + 0.75 + 0.55 * row))
        return result

    def draw_nodes(self, axes: Axes, inputs: list[str], outputs: list[str]) -> None:
        """Draw nodes and the names of the outer ones."""
        for floor, positions in zip(self.floors, self.levels, strict=True):
            axes.scatter(positions, np.full(len(positions), floor), s=26, color=NUMERIC, zorder=4)
        outer = ((inputs, self.levels[0], -0.12, "top"), (outputs, self.levels[-1], self.floors[-1] + 0.1, "bottom"))
        for labels, positions, height, side in outer:
            slanted = _is_crowded(labels, self.width)
            style = {"rotation": 40, "rotation_mode": "anchor", "ha": "right" if side == "top" else "left"} if slanted else {"ha": "center"}
            for position, name in zip(positions, labels, strict=True):
                axes.text(position, height, name, va=side, size=11, **style)
        axes.set(xlim=(0, self.width), ylim=(-0.4, self.floors[-1] + 0.4), aspect="equal")
        axes.axis("off")


def _is_crowded(labels: Sequence[str], width: float) -> bool:
    """Whether names side by side in a picture would run into each other; mathematics is short."""
    return len(labels) > 1 and max(map(_letters, labels)) * LETTER > 0.95 * width / len(labels)


def _letters(name: str) -> int:
    return 2 if name.startswith("$") else len(name)


def _subnode_positions(layer: KANLayer, nodes: np.ndarray) -> np.ndarray:
    """Sub-nodes of a product sit side by side below it."""
    offsets = (np.arange(layer.arity) - (layer.arity - 1) / 2) * 0.12
    products = (nodes[layer.n_sum :, None] + offsets).ravel()
    return np.concatenate([nodes[: layer.n_sum], products])


def _curves(layer: KANLayer, h: Tensor) -> np.ndarray:
    """Values (48, sub-nodes, C_in) of every edge, evenly over the range of its samples h (N, C_in)."""
    low, high = h.min(0).values, h.max(0).values
    grid = low + (high - low) * torch.linspace(0, 1, 48, dtype=h.dtype, device=h.device)[:, None]
    with torch.no_grad():
        values: np.ndarray = layer.edges(grid).double().cpu().numpy()
    return values


@dataclass(eq=False)
class _Drawing:
    """Lines and names of a network's edges, drawn at once: a collection of thousands is as fast as one of a few."""

    wires: list[list[Point]] = field(default_factory=list)
    boxes: list[list[Point]] = field(default_factory=list)
    curves: list[np.ndarray] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    colors: list[str] = field(default_factory=list)
    names: list[tuple[float, float, str, float]] = field(default_factory=list)

    def edge(self, below: Point, center: Point, above: Point, curve: np.ndarray, kind: str, alpha: float) -> None:
        """An edge between two nodes, its function (48 values) in a box at `center`."""
        (x, y), b = center, BOX / 2
        self.wires += [[below, (x, y - b)], [(x, y + b), above]]
        self.boxes.append([(x - b, y - b), (x + b, y - b), (x + b, y + b), (x - b, y + b), (x - b, y - b)])
        span = np.ptp(curve)
        shape = (curve - curve.min()) / span - 0.5 if span > 0 else np.zeros_like(curve)
        self.curves.append(np.column_stack([x + (np.linspace(0, 1, len(curve)) - 0.5) * BOX * 0.84, y + shape * BOX * 0.84]))
        self.alphas.append(alpha)
        self.colors.append(NUMERIC if kind == "numeric" else SYMBOLIC)
        if kind != "numeric":
            self.names.append((x, y - b - 0.03, kind, max(alpha, 0.3)))

    def draw(self, axes: Axes) -> None:
        """Put everything on the axes."""
        from matplotlib.collections import LineCollection

        wire_alphas = [alpha for alpha in self.alphas for _ in range(2)]
        for lines, colors, width, alphas, level in (
            (self.wires, NUMERIC, 0.9, wire_alphas, 1),
            (self.boxes, "#8a94a0", 0.7, self.alphas, 2),
            (self.curves, self.colors or NUMERIC, 1.6, self.alphas, 3),
        ):
            axes.add_collection(LineCollection(lines, colors=colors, linewidths=width, alpha=alphas or None, zorder=level))
        for x, y, name, alpha in self.names:
            axes.text(x, y, name, ha="center", va="top", size=7, color=SYMBOLIC, alpha=alpha)


def _labels(name: str, given: Sequence[str] | None, default: str, count: int) -> list[str]:
    if given is None:
        return [f"${default}_{{{i + 1}}}$" for i in range(count)] if count > 1 or default == "x" else [f"${default}$"]
    if len(given) != count:
        raise ValueError(f"{name}={list(given)}: expected {count} names")
    return list(given)


def plain(names: Sequence[str]) -> list[str]:
    """Names of columns as text: matplotlib would set the part between two dollar signs as mathematics."""
    return [str(name).replace("$", r"\$") for name in names]


@answers_words
def plot(
    model: Network,
    X: Any = None,
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
        variables: names of the inputs, x_1 ... x_n by default.
        outputs: names of the outputs, y_1 ... y_n by default.
        beta: steepness of the opacity.
        threshold: least opacity of an edge that is drawn.
        title: title above the picture, or None.

    Raises:
        ValueError: not one name per input or output, or X as in `attribute`.
    """
    if X is None:
        raise TypeError("plot() without samples: expected plot(X), for a network keeps no data")
    names, answers = _labels("variables", variables, "x", model.nodes[0]), _labels("outputs", outputs, "y", model.nodes[-1])
    x = model.tensor(X)
    opacity = [np.tanh(beta * score.double().cpu().numpy()) for score in attribute(model, x).edges]
    shown = [
        [(i, j) for i, j in layer.active.T.nonzero().tolist() if alpha[j, i] >= threshold]
        for layer, alpha in zip(model.layers, opacity, strict=True)
    ]
    with torch.no_grad():
        activations = model.activations(x)
    layout = _Layout.of(model.nodes, [len(edges) for edges in shown])
    slanted = sum(max(map(_letters, labels)) for labels in (names, answers) if _is_crowded(labels, layout.width))
    figure = new_figure(max(layout.width * 1.1, 3.0), layout.floors[-1] * 1.1 + 0.6 + 0.7 * LETTER * slanted)
    axes, drawing = figure.add_subplot(), _Drawing()
    for number, layer in enumerate(model.layers):
        curves, subnodes = _curves(layer, activations[number]), _subnode_positions(layer, layout.levels[number + 1])
        edges = sorted(shown[number], key=lambda e: (layout.levels[number][e[0]] + subnodes[e[1]], e))
        for (i, j), center in zip(edges, layout.centers(number, len(edges)), strict=True):
            below, above = (layout.levels[number][i], layout.floors[number] + 0.06), (subnodes[j], layout.floors[number + 1] - 0.06)
            drawing.edge(below, center, above, curves[:, j, i], model.edge_kind(number, i, j), opacity[number][j, i])
        for position in layout.levels[number + 1][layer.n_sum :]:
            axes.text(position, layout.floors[number + 1] - 0.14, "×", ha="center", va="center", size=11)
    drawing.draw(axes)
    layout.draw_nodes(axes, names, answers)
    if title:
        axes.set_title(title)
    return figure
