"""The result of a step: a state, and lines of Python that do the same.

The lines use `table`, X (N, inputs) and Y (N, 1) in the units of the table, the rows `train` and `held`, and the network `model` on
A and B, which are X and Y on the network's scales. Text of users stands in them as literals of Python, never as code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..kan import KAN
from ..kan.network import Edge
from .state import Scales, State

Report = Callable[[dict[str, Any]], None]
Lines = list[str]
SPLIT = ("Y = y[:, None]", "train, held = split(np.column_stack([X, Y]), 0.2, 0)", "check = held if len(held) else train")


@dataclass(frozen=True)
class Step:
    """A step that was made.

    Attributes:
        name: name of the function in `STEPS`.
        options: its keyword arguments, as JSON holds them.
        text: a line for the history.
        code: lines of Python that do the same.
    """

    name: str
    options: dict[str, Any]
    text: str
    code: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a step.

    Attributes:
        state: the state after it.
        text: a line for the history.
        code: lines of Python that do the same.
        options: options that replace the given ones, so that the step can be repeated as it was; None where these do.
    """

    state: State
    text: str
    code: Lines
    options: dict[str, Any] | None = None


def scale_lines(scales: Scales) -> Lines:
    """Lines that put X and Y on the network's scales."""
    center, half = f"np.array({list(scales.center)})", f"np.array({list(scales.half)})"
    return [
        f"center, half, shift, spread = {center}, {half}, {scales.shift!r}, {scales.spread!r}",
        "A, B = (X - center) / half, (Y - shift) / spread",
    ]


def edge_of(network: KAN, edge: Sequence[int]) -> Edge:
    """(l, i, j) of an edge that the network has.

    Args:
        network: the network.
        edge: three numbers, as JSON holds them.

    Raises:
        ValueError: there is no such edge.
    """
    if not isinstance(edge, Sequence) or len(edge) != 3:
        raise ValueError(f"edge={edge!r}: expected three numbers, layer, input and output")
    network.check_edge(*edge)
    return edge[0], edge[1], edge[2]


def removed_nodes(network: KAN) -> list[list[int]]:
    """Nodes of each layer of nodes that no edge leaves, but constants; the outputs are never among them.

    Args:
        network: the network.
    """
    alive: list[set[int]] = [set() for _ in network.layers]
    for layer, i, j in network.edges():
        if network.edge_kind(layer, i, j) != "0":
            alive[layer].add(i)
    return [[i for i in range(nodes) if i not in used] for nodes, used in zip(network.nodes, alive, strict=False)] + [[]]
