"""Which edges, nodes and inputs matter, and smaller networks without the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .network import KAN


@dataclass(frozen=True)
class Attribution:
    """Importance scores, passed back from the outputs (each output has score 1).

    Attributes:
        edges: per layer (sub-nodes, inputs).
        nodes: per layer of nodes, inputs first; the outputs' are 1.
    """

    edges: list[Tensor]
    nodes: list[Tensor]

    @property
    def inputs(self) -> Tensor:
        """Scores of the inputs, (inputs,)."""
        return self.nodes[0]


def attribute(model: KAN, X: Any) -> Attribution:  # noqa: N803
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


def _subnodes(n_sum: int, n_mult: int, arity: int, keep: list[int]) -> tuple[list[int], int, int]:
    """Sub-nodes of the kept nodes, and the new n_sum, n_mult."""
    sums = [node for node in keep if node < n_sum]
    products = [node - n_sum for node in keep if node >= n_sum]
    assert not products or n_mult  # noqa: S101  node numbers were checked by the caller
    factors = [n_sum + m * arity + a for m in products for a in range(arity)]
    return [*sums, *factors], len(sums), len(products)


def select(model: KAN, keep: list[list[int]]) -> KAN:
    """New network with only the nodes `keep[l]` (sorted, not empty) of each layer, inputs first."""
    arity = model.mult_arity
    plan = [([*keep[0]], len(keep[0]), 0)]
    plan += [_subnodes(*entry, arity, nodes) for entry, nodes in zip(model.width[1:], keep[1:], strict=True)]
    config = model.config() | {"width": [[n_sum, n_mult] for _, n_sum, n_mult in plan]}
    new = KAN(**config, dtype=model.dtype, device=model.device)
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
    return new.train(model.training)


def remove_edge(model: KAN, layer: int, i: int, j: int, mean: float = 0.0) -> None:
    """Prune edge (l, i, j) in place; removing it twice changes nothing.

    Args:
        model: the network.
        layer: l.
        i: input node.
        j: output sub-node.
        mean: constant that another edge of the same sub-node takes over, such as the removed edge's mean.

    Raises:
        ValueError: there is no such edge.
    """
    module = model.check_edge(layer, i, j)
    with torch.no_grad():
        module.spline.mask[j, i] = 0
        module.function[j, i] = -1
        left = module.active[j].nonzero()[:, 0].tolist()
        if mean and left:
            if int(module.function[j, left[0]]) >= 0:
                module.affine[j, left[0], 3] += mean
            else:
                module.spline.coef[left[0], :, j] += mean  # the bases add up to 1
    module.refresh()


def remove_node(model: KAN, layer: int, node: int) -> KAN:
    """New network without one hidden node.

    Args:
        model: left as it is.
        layer: layer of nodes, 1 is the first hidden one.
        node: its number.

    Raises:
        ValueError: not a hidden node, or the last one of its layer.
    """
    if not 1 <= layer < len(model.nodes) - 1 or not 0 <= node < model.nodes[layer]:
        raise ValueError(f"layer={layer}, node={node}; expected a hidden node (layers 1 to {len(model.nodes) - 2})")
    if model.nodes[layer] == 1:
        raise ValueError(f"layer={layer} has one node; expected at least 2 to remove one")
    keep = [list(range(n)) for n in model.nodes]
    keep[layer].remove(node)
    return select(model, keep)


def drop_dead_nodes(model: KAN) -> KAN:
    """New network without hidden nodes that no edge enters or leaves."""
    while True:
        keep = [list(range(n)) for n in model.nodes]
        for number in range(1, len(model.nodes) - 1):
            before, after = model.layers[number - 1], model.layers[number]
            entered = before.active.any(1)
            alive = entered[: before.n_sum]
            if before.n_mult:
                factors = entered[before.n_sum :].view(before.n_mult, before.arity).all(1)
                alive = torch.cat([alive, factors])
            alive = alive & after.active.any(0)
            if not bool(alive.any()):
                alive[0] = True  # a layer keeps one node: the network is a constant then
            keep[number] = alive.nonzero()[:, 0].tolist()
        if [len(nodes) for nodes in keep] == model.nodes:
            return model
        model = select(model, keep)


def prune(model: KAN, X: Any, node_threshold: float = 1e-2, edge_threshold: float = 3e-2) -> KAN:  # noqa: N803
    """New network without the edges and hidden nodes that hardly matter (arXiv 2404.19756, section 2.5).

    Args:
        model: left as it is.
        X: (N, inputs) samples for the scores.
        node_threshold: hidden nodes with a smaller score (see `attribute`) go.
        edge_threshold: edges with a smaller score go.

    Returns:
        The pruned network; each output keeps its strongest edge and each layer its strongest node.

    Raises:
        ValueError: a negative threshold.
    """
    if not (node_threshold >= 0 and edge_threshold >= 0):
        raise ValueError(f"node_threshold={node_threshold}, edge_threshold={edge_threshold}; expected at least 0")
    pruned = select(model, [list(range(n)) for n in model.nodes])
    _remove_weak(pruned, X, node_threshold, by_node=True)
    _remove_weak(pruned, X, edge_threshold, by_node=False)
    return drop_dead_nodes(pruned)


def _remove_weak(model: KAN, X: Any, threshold: float, by_node: bool) -> None:  # noqa: N803
    """Remove edges with a score below the threshold, or those that leave such a node; their means stay."""
    scores = attribute(model, X)
    with torch.no_grad():
        activations = model.activations(X)
        means = [layer.edges(h).mean(0) for layer, h in zip(model.layers, activations, strict=False)]
    for number, (layer, score) in enumerate(zip(model.layers, scores.edges, strict=True)):
        weak = (scores.nodes[number] < threshold).expand_as(score) if by_node else score < threshold
        if by_node and number == 0:
            continue  # inputs are the business of prune_inputs
        strongest = score.argmax(1).tolist()
        last = number == len(model.layers) - 1
        for j, i in (weak & layer.active).nonzero().tolist():
            if not (last and strongest[j] == i):
                remove_edge(model, number, i, j, float(means[number][j, i]))


def prune_inputs(model: KAN, X: Any, threshold: float = 1e-2) -> tuple[KAN, list[int]]:  # noqa: N803
    """New network without inputs whose score is below the threshold.

    Args:
        model: left as it is.
        X: (N, inputs) samples for the scores.
        threshold: least score of an input that stays; the strongest always does.

    Returns:
        The network and the numbers of the inputs it keeps.

    Raises:
        ValueError: a negative threshold.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold={threshold}; expected at least 0")
    scores = attribute(model, X).inputs
    alive = scores >= threshold
    alive[scores.argmax()] = True
    kept = alive.nonzero()[:, 0].tolist()
    return select(model, [kept, *(list(range(n)) for n in model.nodes[1:])]), kept
