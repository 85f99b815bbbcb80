"""Larger networks that compute the same function: more hidden nodes, one more layer."""

from __future__ import annotations

import torch

from ..._checks import count, is_count
from ..layer import KANLayer
from ..library import function_index
from ..network import NetworkT

NOISE = 0.1  # standard deviation of new coefficients where a layer's grid is not the first layer's


def _copy_edges(source: KANLayer, target: KANLayer, outs: list[int], ins: list[int]) -> None:
    """Copy all edges of `source` to sub-nodes `outs` and inputs `ins` of `target`, which has the same grid size."""
    o, i = torch.tensor(outs), torch.tensor(ins)
    old, new = source.spline, target.spline
    with torch.no_grad():
        new.knots[i] = old.knots
        new.coef[i[:, None], :, o] = old.coef.transpose(1, 2)
        if old.base_weight is not None and new.base_weight is not None:
            new.base_weight[o[:, None], i] = old.base_weight
        new.mask[o[:, None], i] = old.mask
        target.affine[o[:, None], i] = source.affine
        target.function[o[:, None], i] = source.function
    target.refresh()
    target.take_over(source)


def _take_grid(source: KANLayer, target: KANLayer, seed: int) -> None:
    """Give new splines, drawn from `seed`, the grid size of the source."""
    old, new = source.spline, target.spline
    generator = torch.Generator(new.coef.device).manual_seed(seed)
    coef = new.coef.new_zeros(new.in_features, old.coef.shape[1], new.out_features).normal_(0, NOISE, generator=generator)
    new.set_grid(old.knots[:1].expand(new.in_features, -1), coef)


def expand_width(model: NetworkT, layer: int, n_sum: int = 1, n_mult: int = 0, seed: int = 0) -> NetworkT:
    """New network of the same function with more nodes in a hidden layer.

    The new nodes have random incoming edges and outgoing splines of zero, so that training can use them at once.

    Args:
        model: the network, which stays as it is.
        layer: number of the hidden layer, 1 is the first.
        n_sum: number of new sums.
        n_mult: number of new products.
        seed: seed of the new edges.

    Raises:
        ValueError: not a hidden layer, or nothing to add.
    """
    if not is_count(layer) or layer > len(model.nodes) - 2:
        raise ValueError(f"layer={layer!r}: expected a hidden layer, 1 to {len(model.nodes) - 2}")
    if not (is_count(n_sum, 0) and is_count(n_mult, 0)) or n_sum + n_mult == 0:
        raise ValueError(f"n_sum={n_sum!r}, n_mult={n_mult!r}: expected integers of at least 0, and at least one node to add")
    width = [list(entry) for entry in model.width]
    old_sum, old_mult = width[layer]
    width[layer] = [old_sum + n_sum, old_mult + n_mult]
    new = model.like(width, count("seed", seed, 0))
    for number, (source, target) in enumerate(zip(model.layers, new.layers, strict=True)):
        if target.spline.grid_size != source.spline.grid_size:
            _take_grid(source, target, seed)
        outs, ins = list(range(source.spline.out_features)), list(range(source.spline.in_features))
        if number == layer - 1:  # products come after all sums
            outs = [o if o < old_sum else o + n_sum for o in outs]
        if number == layer:
            ins = [i if i < old_sum else i + n_sum for i in ins]
            fresh = sorted(set(range(target.spline.in_features)) - set(ins))
            with torch.no_grad():
                target.spline.coef[fresh] = 0
                if target.spline.base_weight is not None:
                    target.spline.base_weight[:, fresh] = 0
        _copy_edges(source, target, outs, ins)
    return new


def expand_depth(model: NetworkT) -> NetworkT:
    """New network of the same function with an identity layer (symbolic edges x) behind the outputs."""
    outputs = model.nodes[-1]
    new = model.like([*(list(entry) for entry in model.width), [outputs, 0]])
    for source, target in zip(model.layers, new.layers, strict=False):
        if target.spline.grid_size != source.spline.grid_size:
            target.spline.set_grid(source.spline.knots, source.spline.coef.detach())
        _copy_edges(source, target, list(range(source.spline.out_features)), list(range(source.spline.in_features)))
    last = new.layers[-1]
    with torch.no_grad():
        last.spline.mask.zero_()
        diagonal = list(range(outputs))
        last.function[diagonal, diagonal] = function_index("x")
        last.affine[diagonal, diagonal] = torch.tensor([1.0, 0, 1, 0], dtype=model.dtype, device=model.device)
    last.refresh()
    return new
