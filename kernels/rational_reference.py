"""The group-rational activation in plain PyTorch: the oracle of every other path, and the last resort on devices without one."""

import torch
from torch import Tensor


def positive_abs(x: Tensor) -> Tensor:
    """Absolute value whose derivative at 0 is +1 (`torch.abs` has 0 there).

    The published KAT weights were trained with sign(0) = +1; under `torch.abs` the zero denominators of an
    identity-initialised activation would never move.
    """
    return torch.where(x >= 0, x, -x)


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
        x: any shape, channels along `channel_dim`.
        numerator: (1 or G, m + 1), the a_i.
        denominator: (1 or G, n), the b_j.
        channel_dim: the dimension cut into G contiguous groups.
        compute_dtype: float64 unless given (float32 on devices without it), so that |x| up to 1e30 does not overflow.

    Returns:
        A tensor like x, in x's dtype. Nothing is checked here; `rational` does that.
    """
    if compute_dtype is None:
        compute_dtype = torch.float32 if x.device.type == "mps" else torch.float64
    channel_dim = channel_dim % x.ndim
    groups = max(numerator.shape[0], denominator.shape[0])
    width = x.shape[channel_dim] // groups
    shape = [*x.shape[:channel_dim], groups, width, *x.shape[channel_dim + 1 :]]
    tail = [1] * (x.ndim - channel_dim)
    v = x.to(compute_dtype).reshape(shape)
    magnitude = positive_abs(v)
    a = [c.to(compute_dtype).reshape(-1, *tail) for c in numerator.unbind(1)]
    b = [positive_abs(c.to(compute_dtype)).reshape(-1, *tail) for c in denominator.unbind(1)]
    p = a[-1]
    for coefficient in reversed(a[:-1]):
        p = p * v + coefficient
    q = torch.zeros_like(v)
    for coefficient in reversed(b):
        q = (q + coefficient) * magnitude
    return (p / (q + 1)).to(x.dtype).reshape(x.shape)
