"""B-splines on the CPU for any knots: what is written stays in its buffer, and equals the reference."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_zoo.kernels import bspline_basis, bspline_basis_reference, spline_linear

KNOTS = st.one_of(
    st.integers(0, 5).map(float),  # many equal ones
    st.floats(-1e3, 1e3, allow_nan=False),
    st.sampled_from([0.0, 1e-42, 5e-324, 1.0, 1.0 + 1e-12, 1e8, 1e8 + 1e-8]),
)


def operators(x, knots, order, derivative, outputs=3):
    """Results of the four operators on rows x (B, C), and the same by the dense bases of the reference in float64."""
    generator = torch.Generator().manual_seed(0)
    bases = knots.shape[1] - order - 1
    coef = torch.randn(x.shape[1], bases, outputs, generator=generator, dtype=x.dtype)
    grad = torch.randn(len(x), outputs, generator=generator, dtype=x.dtype)
    ops = torch.ops.kat_zoo
    got = (
        ops.bspline_basis(x, knots, order, derivative),
        ops.spline_contract(x, knots, coef, None, order, derivative),
        ops.spline_project(grad, x, knots, coef, order, derivative),
        ops.spline_accumulate(grad, x, knots, None, order, derivative),
    )
    basis = bspline_basis_reference(x.double(), knots.double(), order, derivative)
    coef, grad = coef.double(), grad.double()
    return got, (
        basis,
        torch.einsum("bij,ijo->bo", basis, coef),
        torch.einsum("bij,ijo,bo->bi", basis, coef, grad),
        torch.einsum("bij,bo->ijo", basis, grad),
    )


@given(st.data(), st.integers(0, 7), st.integers(1, 6), st.integers(0, 2))
@settings(max_examples=300)
def test_repeated_and_almost_equal_knots_give_what_the_reference_gives(data, order, grid, derivative):
    count = grid + 2 * order + 1
    knots = torch.tensor(sorted(data.draw(st.lists(KNOTS, min_size=count, max_size=count))), dtype=torch.float64)
    gaps = knots.diff()
    span = float(knots.abs().max()) + 1
    if bool(((gaps > 0) & (gaps < 1e-6 * span)).any()):  # the recurrence divides by them: only that nothing crashes is asked
        operators(knots[:, None].clone(), knots[None], order, derivative)
        return
    x = torch.cat([knots, (knots[1:] + knots[:-1]) / 2, torch.tensor([knots[0] - 1, knots[-1] + 1])])[:, None]
    for got, expected in zip(*operators(x, knots[None], order, derivative), strict=True):
        scale = float(expected.abs().max()) + 1
        torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1e-42, 7.5, 1e30, -1e300])
@pytest.mark.parametrize("order", [0, 1, 3, 7])
def test_equal_knots_do_not_leave_the_buffer(dtype, value, order):
    knots = torch.full((1, 5 + 2 * order + 1), value, dtype=torch.float64)
    x = torch.tensor([0.0, 1.0, -1.0, 1e30, -1e30, math.inf, -math.inf, math.nan] * 9, dtype=dtype)[:, None].repeat(1, 3)
    for result in operators(x, knots, order, 0)[0]:
        assert result.shape[0] in (72, 3)
    assert bspline_basis(x, knots, order).shape == (72, 3, 5 + order)


def test_float32_inputs_beside_knots_that_float32_does_not_tell_apart():
    knots = 1e8 + 1e-8 * torch.arange(-3, 9, dtype=torch.float64)[None]
    x = torch.full((4, 1), 1e8)
    expected = bspline_basis_reference(x.double(), knots, 3)
    torch.testing.assert_close(bspline_basis(x, knots, 3).double(), expected, atol=1e-6, rtol=1e-6)
    years = (2000 + torch.arange(-3, 9, dtype=torch.float64) / 365)[None]
    x = (2000 + torch.arange(0, 5) / 365)[:, None]
    torch.testing.assert_close(bspline_basis(x, years, 3).double(), bspline_basis_reference(x.double(), years, 3), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("knots", [[3.0, 2, 1, 0], [0.0, 1, math.nan, 3], [0.0, 1, 2, math.inf], [-math.inf, 0, 1, 2]])
def test_knots_that_fall_or_are_not_finite_are_refused(knots):
    with pytest.raises(ValueError, match="expected numbers that stay or rise"):
        bspline_basis(torch.zeros(2, 1), torch.tensor([knots], dtype=torch.float64), 1)


def test_no_outputs():
    x = torch.rand(5, 2, requires_grad=True)
    knots = torch.linspace(-1, 2, 12, dtype=torch.float64)[None]
    coef = torch.zeros(2, 8, 0, requires_grad=True)
    y = spline_linear(x, knots, coef, 3)
    y.sum().backward()
    assert y.shape == (5, 0) and torch.equal(x.grad, torch.zeros(5, 2)) and coef.grad.shape == coef.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_knots_do_not_depend_on_the_threads(dtype, threads):
    knots = torch.tensor([[0.0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]], dtype=torch.float64)
    x = torch.linspace(-1, 3, 4000, dtype=dtype)[:, None].repeat(1, 2)
    threads(1)
    one = operators(x, knots, 3, 1)[0]
    threads(2)
    assert all(torch.equal(a, b) for a, b in zip(one, operators(x, knots, 3, 1)[0], strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("extrapolate", ["linear", "zero"])
@pytest.mark.parametrize("order", [0, 1, 3, 5])
@pytest.mark.parametrize("spacing", ["uniform", "uneven", "equal"])
def test_a_position_that_is_not_finite_is_nan_in_every_basis(value, extrapolate, order, spacing):
    steps = torch.ones(6 + 2 * order) if spacing == "uniform" else torch.arange(1.0, 7 + 2 * order)
    knots = (steps.cumsum(0) if spacing != "equal" else torch.zeros(6 + 2 * order)).double()[None]
    x = torch.full((40, 2), float(knots.mean()), dtype=torch.float32)
    x[7, 1] = value
    broken = ~x.isfinite()
    coef = torch.ones(2, 5 + order, 3, requires_grad=True)
    for derivative in (0, 1, 2, order + 1):
        for basis in (
            bspline_basis(x, knots, order, derivative, extrapolate),
            bspline_basis(x.double(), knots, order, derivative, extrapolate),
            bspline_basis_reference(x, knots, order, derivative),
        ):
            assert torch.equal(basis.isnan(), broken[..., None].expand_as(basis))
        x.grad, coef.grad = None, None
        y = spline_linear(x.requires_grad_(), knots, coef, order, derivative, extrapolate)
        y.sum().backward()
        assert torch.equal(y.isnan(), broken.any(1, keepdim=True).expand_as(y))
        assert torch.equal(x.grad.isnan(), broken)
        assert coef.grad[1].isnan().all() and coef.grad[0].isfinite().all()
        x.requires_grad_(False)


@pytest.mark.parametrize(("order", "derivative"), [(3, 0), (3, 3), (0, 0), (1, 2)])
def test_gradients_of_the_reference_are_nan_too(order, derivative):
    x = torch.tensor([[0.5], [math.nan], [math.inf], [-math.inf]], dtype=torch.float64, requires_grad=True)
    bspline_basis_reference(x, torch.arange(-3.0, 9, dtype=torch.float64)[None], order, derivative)[..., 2].sum().backward()
    assert x.grad.isnan().squeeze().tolist() == [False, True, True, True]
