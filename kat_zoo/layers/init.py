"""Initialization: coefficients of named functions, variance-preserving gains, mimetic attention."""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _checks
from ..kernels import rational_reference
from .rational_fit import Function, fit_rational

# The function that each init approximates on [-6, 6]; "swish" is silu with the coefficients the published KAT weights started from.
FUNCTIONS: dict[str, Function] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
    "gelu": F.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "mish": F.mish,
}
FIT_RANGE = (-6.0, 6.0)

# fit_rational(FUNCTIONS[name], FIT_RANGE) of order (5, 4), tabulated so that the core install needs no scipy; a test
# refits them. Each comment is the largest error on the range.
_TABLE: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "relu": (  # 2.6e-02
        (0.0255008732698, 0.5, 1.39646898722, 1.13654280684, 0.323806089993, 0.0289977879531),
        (0.0, 2.27308561368, 0.0, 0.0579955759062),
    ),
    "leaky_relu": (  # 2.5e-02
        (0.0252458645371, 0.505, 1.38250429734, 1.14790823491, 0.320568029093, 0.0292877658326),
        (0.0, 2.27308561368, 0.0, 0.0579955759062),
    ),
    "gelu": (  # 3.1e-03
        (-0.00308400692613, 0.5, 0.417516916, 0.122934064451, 0.0149347196481, 0.000616493615566),
        (0.0, 0.245868128902, 0.0, 0.00123298723113),
    ),
    "quick_gelu": (  # 1.1e-03
        (0.00109796301455, 0.5, 0.419318462207, 0.139283949993, 0.0211499866727, 0.00121403029157),
        (0.0, 0.278567899985, 0.0, 0.00242806058314),
    ),
    "silu": (  # 9.0e-05
        (8.97880876852e-05, 0.500000130829, 0.249723341899, 0.0520432769561, 0.00531917012535, 0.000221430769875),
        (4.13466522857e-07, 0.104086338156, 4.54813340403e-08, 0.00044285820257),
    ),
    "tanh": (  # 8.4e-05
        (0.0, 1.00112205096, 0.0, 0.0956895623858, 0.0, 0.000526773382678),
        (0.00430657780046, 0.425447002868, 0.0, 0.0111325139359),
    ),
    "sigmoid": (  # 7.0e-07
        (0.5, 0.249998099783, 0.0550986909341, 0.00671819145852, 0.000453255851847, 1.34609133382e-05),
        (0.0, 0.110197381868, 0.0, 0.000906511703694),
    ),
    "mish": (  # 2.1e-03
        (0.000451015523429, 0.606672973611, 0.318419952295, 0.0828970598832, 0.0119740136059, 0.000718752870165),
        (0.00282475563522, 0.176512233359, 0.0, 0.00126929526962),
    ),
    # Upstream's coefficients (arXiv 2409.10594), error 7.7e-3.
    "swish": (
        (
            3.054879741161051e-07,
            0.5000007853744493,
            0.24999783422824703,
            0.05326628273219478,
            0.005803034571292244,
            0.0002751961022402342,
        ),
        (-4.111554955950634e-06, 0.10652899335007572, -1.2690007399796238e-06, 0.0005502331264140556),
    ),
}


@functools.cache
def _coefficients(init: str, order: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    m, n = order
    if init == "identity":
        if m < 1:
            raise ValueError(f"order={order!r} for the identity: expected a numerator of degree 1 at least")
        return tuple(float(i == 1) for i in range(m + 1)), (0.0,) * n
    if order == (5, 4):
        return _TABLE[init]
    numerator, denominator, _ = fit_rational(FUNCTIONS[init], FIT_RANGE, order)
    return tuple(numerator.tolist()), tuple(denominator.tolist())


def rational_coefficients(init: str, order: tuple[int, int] = (5, 4)) -> tuple[Tensor, Tensor]:
    """Return the coefficients of a named function.

    Args:
        init: key of `FUNCTIONS`. "swish" keeps upstream's coefficients, "silu" is the same function fitted better.
        order: degrees (m, n) of numerator and denominator. Orders other than (5, 4) are fitted when asked for, which needs scipy
            (but for the identity).

    Returns:
        (numerator, denominator): float64 tensors (m + 1,) and (n,).

    Raises:
        ValueError: an unknown init or a bad order.
    """
    numerator, denominator = _coefficients(_checks.choice("init", init, FUNCTIONS), _checks.order("order", order))
    return torch.tensor(numerator, dtype=torch.float64), torch.tensor(denominator, dtype=torch.float64)


@functools.cache
def variance_gain(init: str, order: tuple[int, int] = (5, 4)) -> float:
    """Return 1 / E[f(x)^2], x ~ N(0, 1), of the rational f that `init` starts from.

    A linear layer behind f with weights ~ N(0, gain / fan_in) keeps the variance (KAT, arXiv 2409.10594, section 4.4):
    1 for the identity, about 2 for relu, 2.3568 for gelu, 2.8178 for silu.
    """
    numerator, denominator = rational_coefficients(init, order)
    points, weights = np.polynomial.hermite_e.hermegauss(101)
    values = rational_reference(torch.from_numpy(points), numerator[None], denominator[None])
    return float(math.sqrt(2 * math.pi) / (weights @ values.numpy() ** 2))


@torch.no_grad()
def init_attention_mimetic(
    qkv: nn.Linear,
    proj: nn.Linear,
    num_heads: int,
    alpha1: float = 0.7,
    beta1: float = 0.7,
    alpha2: float = 0.4,
    beta2: float = 0.4,
) -> None:
    """Make untrained self-attention look like trained attention (Trockman and Kolter, arXiv 2305.09828, section 3).

    With x W the convention, per head W_q W_k^T is the best approximation of head_dim's rank to alpha1 Z + beta1 I, and
    W_v W_proj = alpha2 Z - beta2 I; Z has N(0, 1/d) entries, fresh for every head and product. Biases become 0.

    Args:
        qkv: linear layer (d, 3 d), rows ordered as in timm: q, k, v, each cut into heads.
        proj: linear layer (d, d).
        num_heads: number of heads, which divides d.
        alpha1: noise in the query-key product.
        beta1: diagonal of the query-key product.
        alpha2: noise in the value-projection product.
        beta2: minus the diagonal of the value-projection product.

    Raises:
        ValueError: shapes that do not fit.
    """
    dim = proj.in_features
    if qkv.weight.shape != (3 * dim, dim) or proj.out_features != dim or dim % num_heads:
        raise ValueError(
            f"qkv of shape {tuple(qkv.weight.shape)} and proj of shape {tuple(proj.weight.shape)} with num_heads={num_heads}: "
            "expected (3 d, d) and (d, d), and a number of heads that divides d"
        )
    for layer in (qkv, proj):
        if layer.bias is not None:
            layer.bias.zero_()
    if qkv.weight.is_meta:
        return
    eye = torch.eye(dim, device=qkv.weight.device)

    def noise() -> Tensor:
        return torch.randn(dim, dim, device=qkv.weight.device) / math.sqrt(dim)

    head_dim = dim // num_heads
    query, key, value = qkv.weight.chunk(3)
    for q, k in zip(query.split(head_dim), key.split(head_dim), strict=True):
        # Randomized subspace iteration: a full SVD for every head would take a minute in a base model.
        u, s, v = torch.svd_lowrank(alpha1 * noise() + beta1 * eye, q=head_dim, niter=4)
        q.copy_((u * s.sqrt()).T)
        k.copy_((v * s.sqrt()).T)
    u, s, vh = torch.linalg.svd(alpha2 * noise() - beta2 * eye)
    value.copy_((u * s.sqrt()).T)
    proj.weight.copy_((s.sqrt()[:, None] * vh).T)
