"""Batching rules: torch.vmap's dimension becomes rows, groups, heads or channels of one call, or a loop where no kernel has room for it.

A rule gets the dimension of each argument that vmap maps over (None: an argument of all samples), and returns the result and the
dimension that holds the samples in it.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

logger = logging.getLogger("kat_zoo")
Dims = tuple[int | None, ...]
Rule = Callable[..., tuple[Any, Any]]


@functools.cache
def _announce_loop(operator: str) -> None:
    logger.warning("kat_zoo: under torch.vmap with coefficients of each sample, %s runs once a sample, which is slower.", operator)


def register_vmap(library: Library, name: str, rule: Rule) -> None:
    """Make torch.vmap batch an operator.

    Args:
        library: library that defines the operator.
        name: name of the operator, which has a kernel for meta tensors that checks its arguments.
        rule: function `rule(operator, size, dims, *args)`, which returns the result for all samples, and the dimension of the samples
            in it.
    """
    operator = getattr(torch.ops.kat_zoo, name).default
    defaults = [argument.default_value for argument in operator._schema.arguments]

    def batched(info: Any, dims: Dims, *args: Any) -> tuple[Any, Any]:
        args = (*args, *defaults[len(args) :])  # the dispatcher leaves out arguments that equal their default
        operator(*(_of_a_sample(arg, dim) for arg, dim in zip(args, (*dims, *[None] * len(args)), strict=False)))  # says what is wrong
        return rule(operator, info.batch_size, dims, *args)

    torch.library.register_vmap(f"kat_zoo::{name}", batched, lib=library)


def _of_a_sample(value: Any, dim: int | None) -> Any:
    """The argument of one sample, without its numbers."""
    if not isinstance(value, Tensor):
        return value
    shape = [size for d, size in enumerate(value.shape) if dim is None or d != dim % value.ndim]
    return torch.empty(shape, dtype=value.dtype, device="meta")


def _folded(t: Tensor, batch_dim: int | None, size: int, dim: int) -> Tensor:
    """Put the samples into dimension `dim` of a sample, as its slower part; a tensor of all samples is repeated."""
    t = t.expand(size, *t.shape) if batch_dim is None else t.movedim(batch_dim, 0)
    return t.movedim(0, dim).flatten(dim, dim + 1)


def _unfolded(t: Tensor, size: int, dim: int) -> Tensor:
    """Undo `_folded`: the samples become dimension `dim`."""
    return t.unflatten(dim, (size, t.shape[dim] // size))


def _loop(operator: Any, size: int, dims: Dims, *args: Any) -> tuple[Tensor, int]:
    """Call an operator for one sample after the other."""
    _announce_loop(operator.overloadpacket.__name__)
    samples = [
        operator(*(arg if dim is None else arg.select(dim, i) for arg, dim in zip(args, (*dims, *[None] * len(args)), strict=False)))
        for i in range(size)
    ]
    return torch.stack(samples), 0


def rational(
    operator: Any, size: int, dims: Dims, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int
) -> tuple[Tensor, int]:
    """More rows where the coefficients are those of all samples, else more groups."""
    if dims[1] is None and dims[2] is None:
        x = x.movedim(dims[0] or 0, 0)
        return operator(x, numerator, denominator, channel_dim % (x.ndim - 1) + 1), 0
    x, channel_dim = _channels(x, dims[0], size, channel_dim)
    numerator, denominator = _groups(size, dims[1:], numerator, denominator)
    return _unfolded(operator(x, numerator, denominator, channel_dim), size, channel_dim), channel_dim


def rational_backward(
    operator: Any, size: int, dims: Dims, grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int
) -> tuple[tuple[Tensor, ...], Dims]:
    """More groups: the gradients of the coefficients are those of each sample."""
    rows = [t.shape[0] if dim is None else t.movedim(dim, 0).shape[1] for t, dim in ((numerator, dims[2]), (denominator, dims[3]))]
    grad, _ = _channels(grad, dims[0], size, channel_dim)
    x, channel_dim = _channels(x, dims[1], size, channel_dim)
    numerator, denominator = _groups(size, dims[2:], numerator, denominator)
    dx, *others = operator(grad, x, numerator, denominator, channel_dim)
    da, db = (_unfolded(t, size, 0) for t in others)
    da, db = (t.sum(1, keepdim=True) if row == 1 and t.shape[1] > 1 else t for t, row in zip((da, db), rows, strict=True))
    return (_unfolded(dx, size, channel_dim), da, db), (channel_dim, 0, 0)


def _channels(x: Tensor, dim: int | None, size: int, channel_dim: int) -> tuple[Tensor, int]:
    channel_dim %= x.ndim - (dim is not None)
    return _folded(x, dim, size, channel_dim), channel_dim


def _groups(size: int, dims: Dims, *coefficients: Tensor) -> list[Tensor]:
    """Coefficients of all groups of all samples: one row for all groups is repeated for each of them."""
    samples = [t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0) for t, dim in zip(coefficients, dims, strict=False)]
    groups = max(t.shape[1] for t in samples)
    return [t.expand(-1, groups, -1).flatten(0, 1) for t in samples]


def fourier_attention(operator: Any, size: int, dims: Dims, *args: Any) -> tuple[tuple[Tensor, ...], Dims]:
    """A larger batch where the coefficients are those of all samples, else more heads."""
    *tensors, scale = args
    if all(dim is None for dim in dims[3:6]):
        folded = [_folded(t, dim, size, 0) for t, dim in zip(tensors[:3], dims, strict=False)]
        return tuple(_unfolded(t, size, 0) for t in operator(*folded, *tensors[3:], scale)), (0, 0)
    return tuple(_unfolded(t, size, 1) for t in operator(*_heads(size, dims, tensors, 3), scale)), (1, 1)


def fourier_attention_backward(operator: Any, size: int, dims: Dims, *args: Any) -> tuple[tuple[Tensor, ...], Dims]:
    """More heads: the gradients of the coefficients are those of each sample."""
    grad, q, k, v, a, b, w, z, scale = args
    order = (0, 1, 2, 3, 7, 4, 5, 6)
    activations_first = _heads(size, tuple(dims[i] for i in order), [grad, q, k, v, z, a, b, w], 5)
    grad, q, k, v, z, a, b, w = activations_first
    gradients = operator(grad, q, k, v, a, b, w, z, scale)
    places = (1, 1, 1, 0, 0, 0)
    return tuple(_unfolded(t, size, place) for t, place in zip(gradients, places, strict=True)), places


def _heads(size: int, dims: Dims, tensors: list[Tensor], activations: int) -> list[Tensor]:
    """Fold the samples into the heads: the second dimension of activations (B, h, ...), the first of coefficients (h, ...)."""
    return [_folded(t, dim, size, 1 if i < activations else 0) for i, (t, dim) in enumerate(zip(tensors, dims, strict=False))]


def bspline_basis(operator: Any, size: int, dims: Dims, x: Tensor, knots: Tensor, spline_order: int, derivative: int) -> tuple[Tensor, int]:
    """More rows where the knots are those of all samples, else more channels."""
    if dims[1] is None:
        return operator(x.movedim(dims[0] or 0, 0), knots, spline_order, derivative), 0
    last = x.ndim - 1 - (dims[0] is not None)
    channels = x.shape[-1] if dims[0] is None else x.movedim(dims[0], 0).shape[-1]
    knots = knots.movedim(dims[1], 0).expand(-1, channels, -1).flatten(0, 1)
    return _unfolded(operator(_folded(x, dims[0], size, last), knots, spline_order, derivative), size, last), last


def spline_contract(
    operator: Any, size: int, dims: Dims, x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, *order: int
) -> tuple[Tensor, int]:
    """More rows where knots and coefficients are those of all samples, more outputs where all else is, otherwise a loop."""
    in_x, in_knots, in_coef, in_scale = dims[:4]
    if in_knots is None and in_coef is None:
        scale = None if scale is None else _folded(scale, in_scale, size, 0)
        return _unfolded(operator(_folded(x, in_x, size, 0), knots, coef, scale, *order), size, 0), 0
    if in_x is None and in_knots is None and in_scale is None:
        return _unfolded(operator(x, knots, _folded(coef, in_coef, size, 2), scale, *order), size, 1), 1
    return _loop(operator, size, dims, x, knots, coef, scale, *order)


def spline_project(
    operator: Any, size: int, dims: Dims, grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, *order: int
) -> tuple[Tensor, int]:
    """More rows where knots and coefficients are those of all samples, otherwise a loop."""
    if dims[2] is None and dims[3] is None:
        rows = [_folded(t, dim, size, 0) for t, dim in ((grad, dims[0]), (x, dims[1]))]
        return _unfolded(operator(*rows, knots, coef, *order), size, 0), 0
    return _loop(operator, size, dims, grad, x, knots, coef, *order)


def spline_accumulate(
    operator: Any, size: int, dims: Dims, grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, *order: int
) -> tuple[Tensor, int]:
    """More outputs where all but the gradient is that of all samples, otherwise a loop."""
    if all(dim is None for dim in dims[1:4]):
        return _unfolded(operator(_folded(grad, dims[0], size, 1), x, knots, scale, *order), size, 2), 2
    return _loop(operator, size, dims, grad, x, knots, scale, *order)
