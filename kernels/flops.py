"""Floating-point operations of our operators, for torch's FlopCounterMode."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from . import bspline_op, fourier_attention_op, rational_op  # noqa: F401  (they register the operators)


def _rational_flops(x: Sequence[int], numerator: Sequence[int], denominator: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Multiply-adds an element: m for P, n for Q, one for the division; ten at order (5, 4)."""
    return 2 * (numerator[1] - 1 + denominator[1] + 1) * math.prod(x)


def _rational_backward_flops(
    grad: Sequence[int], x: Any, numerator: Sequence[int], denominator: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    """Three times the forward: P and Q again (m + n), their derivatives (m + n - 2), dx (4), sums for each coefficient (m + n + 1)."""
    return 3 * _rational_flops(grad, numerator, denominator)


def _fourier_flops(q: Sequence[int], k: Any, v: Any, a: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Logits, 2 G harmonics of r components, and the two products of rank r."""
    batch, heads, tokens, dim = q
    rank, num_harmonics = a[1], a[3]
    return int(2 * batch * heads * tokens * (tokens * dim + 2 * num_harmonics * tokens * rank + 2 * rank * v[3]))


def _fourier_backward_flops(grad: Any, q: Sequence[int], k: Any, v: Any, a: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Logits again and their two products for q and k; the harmonics for the logits, a and b; four products of rank r."""
    batch, heads, tokens, dim = q
    rank, num_harmonics = a[1], a[3]
    return int(2 * batch * heads * tokens * (3 * tokens * dim + 4 * num_harmonics * tokens * rank + 4 * rank * v[3]))


def _spline_flops(x: Sequence[int], knots: Any, coef: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """The product with all bases, as papers count; of them the kernel multiplies the spline_order + 1 that are not zero."""
    return 2 * x[0] * math.prod(coef)


def _spline_project_flops(grad: Any, x: Sequence[int], knots: Any, coef: Sequence[int], *args: Any, **kwargs: Any) -> int:
    """Gradients of the inputs or of their scales: as the forward."""
    return 2 * x[0] * math.prod(coef)


def _spline_accumulate_flops(grad: Any, x: Sequence[int], *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Gradients of the coefficients: as the forward."""
    return int(2 * x[0] * math.prod(out_shape))


# `custom_mapping` of torch's FlopCounterMode.
OPERATOR_FLOPS: dict[Any, Any] = {
    torch.ops.kat_zoo.rational: _rational_flops,
    torch.ops.kat_zoo.rational_backward: _rational_backward_flops,
    torch.ops.kat_zoo.fourier_attention: _fourier_flops,
    torch.ops.kat_zoo.fourier_attention_backward: _fourier_backward_flops,
    torch.ops.kat_zoo.spline_contract: _spline_flops,
    torch.ops.kat_zoo.spline_project: _spline_project_flops,
    torch.ops.kat_zoo.spline_accumulate: _spline_accumulate_flops,
}
