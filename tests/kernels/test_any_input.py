"""Every public operator against its reference, in float64, over shapes, strides, dtypes, instruction sets, threads, NaN and infinities.

`make test-sanitizers` runs this with a library that watches its memory and its threads; `slow` tries many more.
"""

import contextlib
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kat_zoo.kernels import (
    bspline_basis,
    bspline_basis_reference,
    cpu_library,
    fourier_attention,
    fourier_attention_reference,
    rational,
    rational_reference,
    spline_linear,
)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ISAS = cpu_library.ISAS[: cpu_library._best_isa() + 1]
# Errors in units of the dtype's rounding, times the size of the largest number: sums of that many terms.
EPS = 64


SETTINGS = {"suppress_health_check": list(HealthCheck)}


@st.composite
def strided(draw, shape, dtype=torch.float64, broken=False):
    """A tensor of normal numbers whose memory lies in any order, with gaps, expanded, or at an odd address; NaN or inf in a few places."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    order = draw(st.permutations(range(len(shape))))
    gap = draw(st.sampled_from([1, 1, 2]))
    memory = torch.randn([shape[d] * (gap if d == order[-1] else 1) for d in order] or [1], generator=generator, dtype=torch.float64)
    x = (memory * draw(st.sampled_from([1.0, 1e-3, 30.0]))).to(dtype)
    x = x[..., ::gap].permute([order.index(d) for d in range(len(shape))]) if shape else x[0]
    if draw(st.booleans()) and shape and shape[0] > 1:
        x = x[:1].expand(shape)
    if broken and x.numel() and draw(st.booleans()):
        x = x.clone(memory_format=torch.preserve_format) if 0 not in x.stride() else x.contiguous()
        place = tuple(draw(st.integers(0, size - 1)) for size in x.shape)
        x[place] = draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    return x


@contextlib.contextmanager
def machine(draw):
    """Any instruction set of this machine, and any number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(draw(st.integers(1, 4)))
    try:
        with cpu_library.force_isa(draw(st.sampled_from(ISAS))):
            yield
    finally:
        torch.set_num_threads(before)


def with_gradients(function, tensors, weights):
    """Result and the gradient of every tensor; zero where the result does not depend on one."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad((y * weights.to(y.dtype)).sum(), leaves, allow_unused=True, materialize_grads=True)]


def compare(found, exact, dtype, terms=1.0):
    """Finite where the reference is, and near it; the reference is in float64, so it may be finite where a narrow type overflows."""
    for ours, expected in zip(found, exact, strict=True):
        assert ours.shape == expected.shape
        expected = expected.double()
        limit = torch.finfo(ours.dtype).max / 1e4
        tame = expected.abs() < limit
        assert not ours[expected.isnan()].isfinite().any()
        if tame.any():
            error = torch.where(tame, ours.double() - expected, 0).abs()
            scale = float(torch.where(tame, expected, 0).abs().max()) + 1e-3
            assert float(error.max()) <= EPS * terms * torch.finfo(dtype).eps * scale


def any_rational(data):
    draw = data.draw
    dtype, groups, m, n = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 4)), draw(st.integers(0, 8)), draw(st.integers(1, 8))
    before, after = draw(st.lists(st.integers(0, 7), max_size=2)), draw(st.lists(st.integers(0, 5), max_size=2))
    shape = (*before, groups * draw(st.sampled_from([0, 1, 3, 8, 17, 40])), *after)
    x = draw(strided(shape, dtype, broken=True)).clamp(-8, 8)  # keeps NaN; powers of 30 leave float16
    rows = [groups if draw(st.booleans()) else 1 for _ in range(2)]
    groups = max(rows)
    a, b = draw(strided((rows[0], m + 1))).clamp(-3, 3), draw(strided((rows[1], n))).clamp(-3, 3)
    if dtype != torch.float64:
        a, b = a.float(), b.float()
    weights = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    with machine(draw):
        found = with_gradients(lambda *t: rational(*t, len(before)), (x, a, b), weights)
    exact = with_gradients(lambda *t: rational_reference(*t, len(before)), [t.double() for t in (x, a, b)], weights)
    narrow = dtype if dtype in (torch.bfloat16, torch.float16) else x.dtype
    compare(found[:2], exact[:2], narrow, 8)
    compare(found[2:], exact[2:], a.dtype, 8 * max(x.numel(), 1) ** 0.5)


def any_fourier_attention(data):
    draw = data.draw
    dtype = draw(st.sampled_from(DTYPES))
    batch, heads, dim, value_dim = (draw(st.sampled_from(s)) for s in ((0, 1, 2), (1, 3), (1, 5, 16), (1, 8, 13)))
    tokens, rank, harmonics = draw(st.sampled_from([1, 2, 17, 40])), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    tensors = [draw(strided((batch, heads, tokens, d), dtype, broken=True)) for d in (dim, dim, value_dim)]
    tensors[:2] = [t.clamp(-3, 3) for t in tensors[:2]]
    tensors += [draw(strided(s)) for s in ((heads, rank, tokens, harmonics),) * 2 + ((heads, tokens, rank),)]
    if dtype != torch.float64:
        tensors[3:] = [t.float() for t in tensors[3:]]
    scale = draw(st.sampled_from([None, 0.1]))
    weights = torch.randn(tensors[2].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    with machine(draw):
        found = with_gradients(lambda *t: fourier_attention(*t, scale), tensors, weights)
    exact = with_gradients(lambda *t: fourier_attention_reference(*t, scale), [t.double() for t in tensors], weights)
    # Logits of up to 9 sqrt(16) x harmonics are rounded before their sine is taken.
    terms = 40.0 * tokens
    compare(found[:4], exact[:4], dtype, terms)
    compare(found[4:], exact[4:], tensors[3].dtype, terms * 4)


def any_spline(data):
    draw = data.draw
    dtype, order, grid = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 7)), draw(st.integers(1, 9))
    channels, outputs = draw(st.sampled_from([1, 2, 9])), draw(st.sampled_from([1, 0, 3, 16, 33]))
    rows = draw(st.lists(st.sampled_from([0, 1, 3, 8, 70]), max_size=2))
    x = draw(strided((*rows, channels), dtype, broken=True))
    knots = (draw(strided((draw(st.sampled_from([1, channels])), grid + 2 * order + 1))).abs() + 0.5).cumsum(1)
    knots = (knots - knots.mean()) / 3
    if draw(st.booleans()):
        knots = torch.linspace(-2, 2, grid + 2 * order + 1, dtype=torch.float64)[None]
    coef = draw(strided((channels, grid + order, outputs), dtype))
    derivative, extrapolate = draw(st.integers(0, order + 1)), draw(st.sampled_from(["linear", "zero"]))
    padded, pad = knots, 0
    if extrapolate == "zero":
        pad = order + 1
        step = (knots[:, -1:] - knots[:, :1]) / (knots.shape[1] - 1) * torch.arange(1, pad + 1)
        padded = torch.cat([knots[:, :1] - step.flip(1), knots, knots[:, -1:] + step], 1)

    def exact_basis(t):
        basis = bspline_basis_reference(t, padded, order, derivative)
        return basis[..., pad : basis.shape[-1] - pad] if pad else basis

    def exact_linear(t, c):
        return torch.einsum("...ij,ijo->...o", exact_basis(t), c)

    with machine(draw):
        basis = bspline_basis(x, knots, order, derivative, extrapolate)
        weights = torch.randn(*rows, outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
        linear = with_gradients(lambda t, c: spline_linear(t, knots, c, order, derivative, extrapolate), (x, coef), weights)
    wide_x = x.double()
    # A rounded position may lie in the next piece, where the highest derivatives differ; float64 alone is compared there.
    assert torch.equal(basis.isnan(), exact_basis(wide_x).isnan())
    exact = with_gradients(exact_linear, (wide_x, coef.double()), weights)
    steep = 0.0 if not x.numel() else float(exact_basis(wide_x).nan_to_num().abs().max())
    if not outputs:  # sums of nothing are zero, those of NaN times nothing are a matter of taste
        return
    assert [bool(t.isnan().any()) for t in linear] == [bool(t.isnan().any()) for t in exact]
    if dtype == torch.float64:
        torch.testing.assert_close(basis, exact_basis(wide_x), rtol=1e-7, atol=1e-9 * (1 + steep), equal_nan=True)
        compare(linear, exact, dtype, 1e4 * 10**order * (1 + steep))
    elif derivative < order - 1:
        compare([linear[0]], [exact[0]], dtype, 100 * 4**order * (1 + steep))


OPERATORS = pytest.mark.parametrize("check", [any_rational, any_fourier_attention, any_spline])


@OPERATORS
def test_an_operator_equals_its_reference(check):
    settings(max_examples=40, **SETTINGS)(given(st.data())(check))()


@pytest.mark.slow
@OPERATORS
def test_an_operator_equals_its_reference_often(check):
    settings(max_examples=1500, **SETTINGS)(given(st.data())(check))()
