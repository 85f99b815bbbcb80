"""Steps that prune the network, change its edges and nodes, and set symbols."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor

from .._checks import is_count, real
from ..kan import KAN
from ..kan.network import Edge
from .outcome import Outcome, Report, edge_of, removed_nodes
from .state import State
from .training import MOST_WIDTH


def _open(state: State, edge: Sequence[int]) -> tuple[KAN, Edge, Tensor]:
    """A copy of the network that a step may change, the edge (l, i, j) of it, and the samples A on its scales."""
    network = copy.deepcopy(state.need_network())
    return network, edge_of(network, edge), state.scales.inputs(state.need_problem().X)


def prune(state: State, report: Report, *, threshold: float) -> Outcome:
    """Remove edges and hidden nodes of a score below a threshold.

    Args:
        state: the state before.
        report: function that takes news.
        threshold: least score of an edge or hidden node that stays.
    """
    threshold = real("threshold", threshold, 0)
    A = state.scales.inputs(state.need_problem().X)
    network = state.need_network().prune(A, threshold, threshold)
    gone = state.need_network().num_edges() - network.num_edges()
    return Outcome(
        state.changed(network), f"Prune below {threshold:g}: {gone} edges go", [f"model = model.prune(A, {threshold!r}, {threshold!r})"]
    )


def remove_edge(state: State, report: Report, *, edge: Sequence[int]) -> Outcome:
    """Remove an edge; its mean stays.

    Args:
        state: the state before.
        report: function that takes news.
        edge: (l, i, j) of the edge.
    """
    network, (layer, i, j), A = _open(state, edge)
    mean = float(network.layers[layer].edges(network.activations(A)[layer])[:, j, i].detach().mean())
    network.remove_edge(layer, i, j, mean)
    return Outcome(state.changed(network), f"Remove edge {layer},{i},{j}", [f"model.remove_edge({layer}, {i}, {j}, mean={mean!r})"])


def restore_edge(state: State, report: Report, *, edge: Sequence[int]) -> Outcome:
    """Make a removed edge numeric again.

    Args:
        state: the state before.
        report: function that takes news.
        edge: (l, i, j) of the edge.
    """
    network, (layer, i, j), A = _open(state, edge)
    network.restore_edge(layer, i, j, A)
    return Outcome(state.changed(network), f"Restore edge {layer},{i},{j}", [f"model.restore_edge({layer}, {i}, {j}, A)"])


def remove_node(state: State, report: Report, *, layer: int, node: int) -> Outcome:
    """Remove the edges that leave a hidden node; their means stay, and `restore_node` brings them back.

    Args:
        state: the state before.
        report: function that takes news.
        layer: number of the layer of nodes, 1 is the first hidden one.
        node: number of the node in its layer.

    Raises:
        ValueError: not a hidden node, one that is removed already, or the last one of its layer.
    """
    network, removed = _open_node(state, layer, node)
    if node in removed or len(removed) == network.nodes[layer] - 1:
        raise ValueError(f"layer={layer}, node={node}: expected one of at least two nodes that are not removed")
    h = network.activations(state.scales.inputs(state.need_problem().X))[layer]
    means = network.layers[layer].edges(h)[:, :, node].detach().mean(0).tolist()
    code = [f"model.remove_edge({layer}, {node}, {j}, mean={mean!r})" for j, mean in enumerate(means)]
    for j, mean in enumerate(means):
        network.remove_edge(layer, node, j, mean)
    return Outcome(state.changed(network), f"Remove node {node} of layer {layer}", code)


def restore_node(state: State, report: Report, *, layer: int, node: int) -> Outcome:
    """Make the edges that leave a removed hidden node numeric again.

    Args:
        state: the state before.
        report: function that takes news.
        layer: number of the layer of nodes, 1 is the first hidden one.
        node: number of the node in its layer.

    Raises:
        ValueError: not a hidden node, or one that is not removed.
    """
    network, removed = _open_node(state, layer, node)
    if node not in removed:
        raise ValueError(f"layer={layer}, node={node}: expected a removed node")
    A, code = state.scales.inputs(state.need_problem().X), []
    for j in range(network.layers[layer].spline.out_features):
        if network.edge_kind(layer, node, j) == "0":  # the last edge of a sub-node, which holds its constant
            network.unfix(layer, node, j, A)
            code.append(f"model.unfix({layer}, {node}, {j}, A)")
        network.restore_edge(layer, node, j, A)
        code.append(f"model.restore_edge({layer}, {node}, {j}, A)")
    return Outcome(state.changed(network), f"Restore node {node} of layer {layer}", code)


def _open_node(state: State, layer: int, node: int) -> tuple[KAN, list[int]]:
    """A copy of the network that a step may change, and the removed nodes of a hidden layer.

    Raises:
        ValueError: there is no such hidden node.
    """
    network = copy.deepcopy(state.need_network())
    layers = len(network.nodes) - 1
    if not is_count(layer) or layer >= layers or not is_count(node, 0) or node >= network.nodes[layer]:
        raise ValueError(f"layer={layer!r}, node={node!r}: expected a hidden node (layers 1 to {layers - 1})")
    return network, removed_nodes(network)[layer]


def add_node(state: State, report: Report, *, layer: int) -> Outcome:
    """Add a node to a hidden layer; the function stays until the next training.

    Args:
        state: the state before.
        report: function that takes news.
        layer: number of the layer of nodes, 1 is the first hidden one.
    """
    network = state.need_network()
    if network.nodes[layer if 0 < layer < len(network.nodes) - 1 else 0] >= MOST_WIDTH:
        raise ValueError(f"layer={layer} has {MOST_WIDTH} nodes: expected fewer to add one")
    return Outcome(state.changed(network.expand_width(layer)), f"Add a node to layer {layer}", [f"model = model.expand_width({layer})"])


def fix(state: State, report: Report, *, edge: Sequence[int], function: str) -> Outcome:
    """Make an edge symbolic.

    Args:
        state: the state before.
        report: function that takes news.
        edge: (l, i, j) of the edge.
        function: name of a function of the library.
    """
    network, (layer, i, j), A = _open(state, edge)
    r2 = network.fix_symbolic(layer, i, j, str(function), A)
    text = f"Edge {layer},{i},{j} becomes {function}, R² {r2:.5f}"
    return Outcome(state.changed(network), text, [f"model.fix_symbolic({layer}, {i}, {j}, {str(function)!r}, A)"])


def unfix(state: State, report: Report, *, edge: Sequence[int]) -> Outcome:
    """Make a symbolic edge numeric again.

    Args:
        state: the state before.
        report: function that takes news.
        edge: (l, i, j) of the edge.
    """
    network, (layer, i, j), A = _open(state, edge)
    network.unfix(layer, i, j, A)
    return Outcome(state.changed(network), f"Edge {layer},{i},{j} becomes a spline again", [f"model.unfix({layer}, {i}, {j}, A)"])


def auto(state: State, report: Report, *, edges: Sequence[Sequence[int]] | None = None) -> Outcome:
    """Make edges symbolic that some function explains, each checked by training the rest.

    Args:
        state: the state before.
        report: function that takes news.
        edges: (l, i, j) of the edges to try; None for all.

    Raises:
        ValueError: no numeric edge among them, or none that a function fits.
    """
    network, problem = copy.deepcopy(state.need_network()), state.need_problem()
    wanted = None if edges is None else [edge_of(network, edge) for edge in edges]
    A, B = state.scales.inputs(problem.X[problem.train]), state.scales.targets(problem.y[problem.train])
    found = network.auto_symbolic(A, B, edges=wanted)
    names = [suggestion.name for suggestion in found.values() if suggestion is not None]
    if not names:
        raise ValueError(
            "no function of the library fits these edges: expected edges that are splines; remove what hardly matters, train on"
        )
    left = len(found) - len(names)
    text = f"Symbols: {', '.join(names[:4])}{', …' if len(names) > 4 else ''}{f'; {left} stay splines' if left else ''}"
    return Outcome(
        state.changed(network), text, [f"model.auto_symbolic(A[train], B[train]{'' if wanted is None else f', edges={wanted}'})"]
    )
