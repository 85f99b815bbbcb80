"""The group-rational activation in plain PyTorch: the oracle of every other path, and the last resort on devices without one."""

import torch
from torch import Tensor


def positive_abs(x: Tensor) -> Tensor:
    """Absolute value whose derivative at 0 is +1 (`torch.abs` has 0 there).

    The published KAT weights were trained with sign(0) = +1; under `torch.abs` the zero denominators of an
    identity-initialized activation would never move.
    """
    return torch.where(x >= 0, x, -x)


def _split(
    x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int, dtype: torch.dtype | None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """x as (..., G, C / G, ...), and the a_i and |b_j| shaped to multiply it, all in the dtype to compute in."""
    if dtype is None:
        dtype = torch.float32 if x.device.type == "mps" else torch.float64
    channel_dim = channel_dim % x.ndim
    groups = max(numerator.shape[0], denominator.shape[0])
    tail = [1] * (x.ndim - channel_dim)
    shape = [*x.shape[:channel_dim], groups, x.shape[channel_dim] // groups, *x.shape[channel_dim + 1 :]]
    a = [c.to(dtype).reshape(-1, *tail) for c in numerator.unbind(1)]
    b = [positive_abs(c.to(dtype)).reshape(-1, *tail) for c in denominator.unbind(1)]
    return x.to(dtype).reshape(shape), a, b


def _horner(x: Tensor, coefficients: list[Tensor]) -> Tensor:
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


def rational_reference(
    x: Tensor,
    numerator: Tensor,
    denominator: Tensor,
    channel_dim: int = -1,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Compute y = P(x) / Q(x) per channel group (KAT, arXiv 2409.10594, section 4.2, as the released kernels do).

    P = a_0 + a_1 x + ... + a_m x^m and Q = 1 + |b_1||x| + ... + |b_n||x|^n. Differentiable any number of times by autograd,
    with sign(0) = +1 for x and for b.

    Args:
        x: input of any shape, channels along `channel_dim`.
        numerator: coefficients a_i, (1 or G, m + 1).
        denominator: coefficients b_j, (1 or G, n).
        channel_dim: dimension cut into G contiguous groups.
        compute_dtype: dtype of the arithmetic; by default float64 (float32 on devices without it), in which |x| up to 1e30 does
            not overflow.

    Returns:
        A tensor like x, in x's dtype. Nothing is checked here; `rational` does that.
    """
    v, a, b = _split(x, numerator, denominator, channel_dim, compute_dtype)
    magnitude = positive_abs(v)
    y = _horner(v, a) / (1 + magnitude * _horner(magnitude, b))
    return y.to(x.dtype).reshape(x.shape)


def rational_portable(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> Tensor:
    """The operator `rational` in standard operators, for exported models: 16-bit types are computed in float32, others in their own."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return rational_reference(x, numerator, denominator, channel_dim, dtype)


def rational_backward_reference(
    grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `rational_reference` written out, so that they exist below autograd too; differentiable themselves.

    Args:
        grad: gradient of the result, shape of x.
        x: input of any shape, channels along `channel_dim`.
        numerator: coefficients a_i, (1 or G, m + 1).
        denominator: coefficients b_j, (1 or G, n).
        channel_dim: dimension cut into G contiguous groups.

    Returns:
        Gradients of x, numerator and denominator in their shapes and dtypes.
    """
    channel_dim = channel_dim % x.ndim
    v, a, b = _split(x, numerator, denominator, channel_dim, None)
    g = grad.to(v.dtype).reshape(v.shape)
    magnitude = positive_abs(v)
    reciprocal = 1 / (1 + magnitude * _horner(magnitude, b))
    y = _horner(v, a) * reciprocal
    slope_p = _horner(v, [i * c for i, c in enumerate(a)][1:])
    slope_q = torch.where(v >= 0, 1, -1) * _horner(magnitude, [(j + 1) * c for j, c in enumerate(b)])
    dx = g * (slope_p - y * slope_q) * reciprocal

    others = [d for d in range(v.ndim) if d != channel_dim]

    def per_row(terms: Tensor, coefficients: Tensor) -> Tensor:
        sums = terms.sum(others)
        return sums if coefficients.shape[0] > 1 else sums.sum(0, keepdim=True)

    weight = g * reciprocal
    da = torch.stack([per_row(weight * v**i, numerator) for i in range(len(a))], 1)
    db = torch.stack([per_row(-weight * y * magnitude ** (j + 1), denominator) for j in range(len(b))], 1)
    db = db * torch.where(denominator >= 0, 1, -1)
    return dx.to(x.dtype).reshape(x.shape), da.to(numerator.dtype), db.to(denominator.dtype)
