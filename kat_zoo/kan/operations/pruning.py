"""Which edges, nodes and inputs matter, and smaller networks without the others."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..._checks import is_real
from ..layer import KANLayer
from ..library import function_index
from ..migration import answers_words
from ..network import Network, NetworkT


@dataclass(frozen=True)
class Attribution:
    """Importance scores, passed back from the outputs (each output has score 1).

    Attributes:
        edges: scores of the edges, a tensor (sub-nodes, inputs) per layer.
        nodes: scores of the nodes, a tensor per layer of nodes, inputs first; the outputs' are 1.
    """

    edges: list[Tensor]
    nodes: list[Tensor]

    @property
    def inputs(self) -> Tensor:
        """Scores of the inputs, (inputs,)."""
        return self.nodes[0]


def attribute(model: Network, X: Any) -> Attribution:
    """Score edges and nodes by their share of the variation behind them (KAN 2.0, arXiv 2408.10205, section 4.1).

    An edge's score is its standard deviation over that of its sub-node, times the sub-node's score; a node's score is
    the sum over its outgoing edges; sub-nodes of a product share its score.

    Args:
        model: the network.
        X: (N, inputs) samples, at least 2.

    Raises:
        ValueError: fewer than 2 samples, another number of columns, or values that are not finite, the network's included.
    """
    x = model.samples(X)
    with torch.no_grad():
        activations = model.finite_activations(x)
        nodes = [torch.ones(model.nodes[-1], dtype=model.dtype, device=model.device)]
        edges: list[Tensor] = []
        for layer, h in zip(reversed(model.layers), reversed(activations[:-1]), strict=True):
            values = layer.edges(h)
            total = values.sum(-1).std(0, correction=0)
            parents = nodes[0][: layer.n_sum]
            if layer.n_mult:
                parents = torch.cat([parents, nodes[0][layer.n_sum :].repeat_interleave(layer.arity)])
            share = values.std(0, correction=0) / total.clamp(min=1e-12)[:, None]
            edges.insert(0, torch.where(layer.active, share * parents[:, None], 0))
            nodes.insert(0, edges[0].sum(0))
    return Attribution(edges, nodes)


def _subnodes(n_sum: int, arity: int, keep: list[int]) -> tuple[list[int], int, int]:
    """Sub-nodes of the kept nodes, and the new n_sum, n_mult."""
    sums = [node for node in keep if node < n_sum]
    products = [node - n_sum for node in keep if node >= n_sum]
    factors = [n_sum + m * arity + a for m in products for a in range(arity)]
    return [*sums, *factors], len(sums), len(products)


def select(model: NetworkT, keep: list[list[int]]) -> NetworkT:
    """New network with only the nodes `keep[l]` (sorted, not empty) of each layer, inputs first."""
    arity = model.mult_arity
    plan = [([*keep[0]], len(keep[0]), 0)]
    plan += [_subnodes(n_sum, arity, nodes) for (n_sum, _), nodes in zip(model.width[1:], keep[1:], strict=True)]
    new = model.like([[n_sum, n_mult] for _, n_sum, n_mult in plan])
    with torch.no_grad():
        for number, (old_layer, layer) in enumerate(zip(model.layers, new.layers, strict=True)):
            ins, outs = torch.tensor(keep[number]), torch.tensor(plan[number + 1][0])
            old, spline = old_layer.spline, layer.spline
            spline.set_grid(old.knots[ins], old.coef[ins][:, :, outs])
            if old.base_weight is not None and spline.base_weight is not None:
                spline.base_weight.copy_(old.base_weight[outs][:, ins])
            spline.set_mask(old.mask[outs][:, ins])
            layer.affine.copy_(old_layer.affine[outs][:, ins])
            layer.function.copy_(old_layer.function[outs][:, ins])
            layer.refresh()
            layer.take_over(old_layer)
    return new


def _replace(layer: KANLayer, gone: Tensor, values: Tensor, hosts: list[int]) -> None:
    """Prune the edges `gone` (sub-nodes, inputs) for constants, `values`, that an edge from the inputs `hosts` takes over."""
    gone = gone & layer.active
    with torch.no_grad():
        constants = torch.where(gone & torch.isfinite(values), values, 0).sum(1)
        layer.spline.mask[gone] = 0
        layer.function[gone] = -1
        for j in constants.nonzero()[:, 0].tolist():
            host = _host(layer, j, hosts)
            i = hosts[0] if host is None else host
            if not bool(layer.active[j, i]):
                layer.function[j, i] = function_index("0")
                layer.affine[j, i] = 0
            if int(layer.function[j, i]) >= 0:
                layer.affine[j, i, 3] += constants[j]
            else:
                layer.spline.coef[i, :, j] += constants[j]  # the bases add up to 1
    layer.refresh()


def _host(layer: KANLayer, j: int, hosts: list[int]) -> int | None:
    """The input among `hosts` whose edge to sub-node j can take a constant: an active edge, or a pruned one that becomes it.

    A spline that is zero outside its grid cannot take one; None where there are no other edges.
    """
    able = (layer.function[j] >= 0) | (layer.active[j] & (layer.spline.extrapolate == "linear"))
    return next((i for wanted in (able, ~layer.active[j]) for i in hosts if bool(wanted[i])), None)


def remove_edge(model: Network, layer: int, i: int, j: int, mean: float = 0.0) -> None:
    """Prune edge (l, i, j) in place; removing it twice changes nothing.

    Args:
        model: the network, changed in place.
        layer: number of the layer, 0 is the first.
        i: number of the input node.
        j: number of the output sub-node.
        mean: constant that another edge of the same sub-node takes over, such as the removed edge's mean; the last edge of
            a sub-node becomes that constant.

    Raises:
        ValueError: there is no such edge, or a mean that is not finite.
    """
    module = model.check_edge(layer, i, j)
    if not math.isfinite(mean):
        raise ValueError(f"mean={mean!r}: expected a finite number")
    gone = torch.zeros_like(module.active)
    gone[j, i] = True
    hosts = [i, *(other for other in range(module.spline.in_features) if other != i)]
    _replace(module, gone, torch.full_like(module.spline.mask, mean), hosts)


def restore_edge(model: Network, layer: int, i: int, j: int, X: Any = None) -> None:
    """Make a pruned edge numeric again, in place; an edge that is not pruned stays as it is.

    Its spline is the one that it had before it was pruned or became symbolic.

    Args:
        model: the network, changed in place.
        layer: number of the layer, 0 is the first.
        i: number of the input node.
        j: number of the output sub-node.
        X: (N, inputs) samples on which the edge's mean becomes zero, so that the mean of the sub-node stays; None to leave it.

    Raises:
        ValueError: there is no such edge, or X as in `attribute`.
    """
    module = model.check_edge(layer, i, j)
    if bool(module.active[j, i]):
        return
    h = None if X is None else model.finite_activations(model.samples(X))[layer]
    with torch.no_grad():
        module.spline.mask[j, i] = 1
        module.refresh()
        if h is not None:
            module.spline.coef[i, :, j] -= module.edges(h)[:, j, i].mean()  # the bases add up to 1
    module.refresh()


def remove_node(model: NetworkT, layer: int, node: int) -> NetworkT:
    """New network without one hidden node and all that it adds to the next layer.

    Args:
        model: the network, which stays as it is.
        layer: number of the layer of nodes, 1 is the first hidden one.
        node: number of the node in its layer.

    Raises:
        ValueError: not a hidden node, or the last one of its layer.
    """
    if not 1 <= layer < len(model.nodes) - 1 or not 0 <= node < model.nodes[layer]:
        raise ValueError(f"layer={layer}, node={node}: expected a hidden node (layers 1 to {len(model.nodes) - 2})")
    if model.nodes[layer] == 1:
        raise ValueError(f"layer={layer} of one node: expected at least 2 nodes to remove one")
    keep = [list(range(n)) for n in model.nodes]
    keep[layer].remove(node)
    return select(model, keep)


def drop_dead_nodes(model: NetworkT) -> NetworkT:
    """New network of the same function without hidden nodes that are constant or that no edge leaves."""
    while True:
        keep = [list(range(n)) for n in model.nodes]
        smaller = copy.deepcopy(model)
        for number in range(1, len(model.nodes) - 1):
            after = smaller.layers[number]
            constant, values = _constants(smaller.layers[number - 1])
            alive = ~constant & after.active.any(0)
            if not bool(alive.any()):
                alive[0] = True  # a layer keeps one node: the network is a constant then
            with torch.no_grad():
                edges = after.edges(values[None])[0]
            for j, node in (after.active & ~alive & (edges != 0)).nonzero().tolist():
                if not math.isfinite(float(edges[j, node])) or _host(after, j, alive.nonzero()[:, 0].tolist()) is None:
                    alive[node] = True  # nothing else can hold this constant
            keep[number] = alive.nonzero()[:, 0].tolist()
            _replace(after, (~alive).expand_as(after.active), edges, keep[number])
        if [len(nodes) for nodes in keep] == model.nodes:
            return model
        model = select(smaller, keep)


def _constants(layer: KANLayer) -> tuple[Tensor, Tensor]:
    """Whether each node (n_sum + n_mult,) is a constant, and its value (0 for the others)."""
    zero = layer.function == function_index("0")
    fixed = ~(layer.active & ~zero).any(1)  # of sub-nodes
    values = torch.where(zero, layer.affine.detach()[..., 3], 0).sum(1)
    none = torch.where(fixed, values, 1) == 0  # a factor that is always 0
    constant = layer.products(fixed.to(values)) > 0
    if layer.n_mult:
        constant[layer.n_sum :] |= none[layer.n_sum :].view(layer.n_mult, layer.arity).any(1)
    return constant, torch.where(constant, layer.products(torch.where(fixed, values, 1)), 0)


@answers_words
def prune(model: NetworkT, X: Any, node_threshold: float = 1e-2, edge_threshold: float = 3e-2) -> NetworkT:
    """New network without the edges and hidden nodes that hardly matter (arXiv 2404.19756, section 2.5).

    Args:
        model: the network, which stays as it is.
        X: (N, inputs) samples for the scores.
        node_threshold: least score, as `attribute` gives it, of a hidden node that stays.
        edge_threshold: least score of an edge that stays.

    Returns:
        The pruned network; each output keeps its strongest edge and each layer its strongest node.

    Raises:
        ValueError: a negative threshold, or X as in `attribute`.
    """
    _check_threshold("node_threshold", node_threshold)
    _check_threshold("edge_threshold", edge_threshold)
    pruned = select(model, [list(range(n)) for n in model.nodes])
    _remove_weak(pruned, X, node_threshold, by_node=True)
    _remove_weak(pruned, X, edge_threshold, by_node=False)
    return drop_dead_nodes(pruned)


def _check_threshold(name: str, value: float) -> None:
    """Raise a ValueError for a negative score; infinity, which no score reaches, is right."""
    if not (is_real(value) and value >= 0):
        raise ValueError(f"{name}={value!r}: expected a number of at least 0")


def _remove_weak(model: Network, X: Any, threshold: float, by_node: bool) -> None:
    """Remove edges with a score below the threshold, or those that leave such a node; their means stay."""
    scores = attribute(model, X)
    with torch.no_grad():
        activations = model.activations(X)
        means = [layer.edges(h).mean(0) for layer, h in zip(model.layers, activations, strict=False)]
    for number, (layer, score) in enumerate(zip(model.layers, scores.edges, strict=True)):
        weak = (scores.nodes[number] < threshold).expand_as(score) if by_node else score < threshold
        if by_node and number == 0:
            continue  # prune_inputs decides about inputs
        if number == len(model.layers) - 1:
            weak = weak.scatter(1, score.argmax(1, keepdim=True), False)  # an output's strongest edge stays
        _replace(layer, weak, means[number], list(range(layer.spline.in_features)))


def prune_inputs(model: NetworkT, X: Any, threshold: float = 1e-2) -> tuple[NetworkT, list[int]]:
    """New network without inputs whose score is below the threshold; the means of their edges stay.

    Args:
        model: the network, which stays as it is.
        X: (N, inputs) samples for the scores.
        threshold: least score of an input that stays; the strongest always does.

    Returns:
        The network and the numbers of the inputs it keeps.

    Raises:
        ValueError: a negative threshold, or X as in `attribute`.
    """
    _check_threshold("threshold", threshold)
    scores = attribute(model, X).inputs
    alive = scores >= threshold
    alive[scores.argmax()] = True
    kept = alive.nonzero()[:, 0].tolist()
    pruned = copy.deepcopy(model)
    first = pruned.layers[0]
    with torch.no_grad():
        means = first.edges(model.tensor(X)).mean(0)
    _replace(first, (~alive).expand_as(first.active), means, kept)
    return select(pruned, [kept, *(list(range(n)) for n in model.nodes[1:])]), kept
