"""The B-spline kernels of GPUs, in Triton's interpreter, against the dense bases in float64."""

import pytest
import torch

from kat_zoo.kernels import bspline_basis, bspline_op, bspline_torch, spline_linear

from .test_bspline import make_knots
from .triton_path import triton_path

REFERENCES = {
    "bspline_basis": bspline_torch.bspline_basis_reference,
    "spline_contract": bspline_torch.spline_contract_reference,
    "spline_project": bspline_torch.spline_project_reference,
    "spline_accumulate": bspline_torch.spline_accumulate_reference,
}
GRIDS = [(5, 3, True), (1, 0, False), (6, 1, False), (40, 2, False), (7, 5, True), (2, 7, False), (70, 3, False)]


def operands(name, rows, channels, outputs, grid, order, uniform, dtype, scaled, seed=0):
    """The tensors of an operator; x lies inside and outside of the grid, and on its ends."""
    generator = torch.Generator().manual_seed(seed)
    knots = make_knots(grid, order, channels, uniform)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    x = (3.2 * torch.rand(rows, channels, generator=generator, dtype=torch.float64) - 1.6).to(dtype)
    x[0], x[-1] = knots[:, order].to(dtype), knots[:, -order - 1].to(dtype)
    scale = draw(rows, channels) if scaled else None
    coef, grad = draw(channels, grid + order, outputs), draw(rows, outputs)
    return {
        "bspline_basis": (x, knots),
        "spline_contract": (x, knots, coef, scale),
        "spline_project": (grad, x, knots, coef),
        "spline_accumulate": (grad, x, knots, scale),
    }[name]


def check(name, tensors, order, derivative):
    found = bspline_op.GPU[name](*tensors, order, derivative)
    expected = REFERENCES[name](*(None if t is None else t.double() for t in tensors), order, derivative)
    size = float(expected.abs().max()) or 1.0
    bound = 1e-12 if found.dtype == torch.float64 else 3e-6
    assert found.shape == expected.shape and float((found - expected).abs().max()) <= bound * size
    assert torch.equal(found, bspline_op.GPU[name](*tensors, order, derivative))


@pytest.mark.parametrize("derivative", [0, 1, 2])
@pytest.mark.parametrize("case", range(len(GRIDS)))
@pytest.mark.parametrize("name", REFERENCES)
def test_matches_the_reference(name, case, derivative):
    dtype, scaled = (torch.float64, torch.float32)[case % 2], case % 3 == 0
    rows, channels, outputs = [(37, 3, 5), (9, 4, 20), (70, 2, 1)][(case + derivative) % 3]
    check(name, operands(name, rows, channels, outputs, *GRIDS[case], dtype, scaled), GRIDS[case][1], derivative)


@pytest.mark.parametrize("name", REFERENCES)
def test_more_rows_than_a_piece_or_a_part(name, monkeypatch):
    from kat_zoo.kernels import bspline_triton

    monkeypatch.setattr(bspline_triton, "PIECE", 256)
    monkeypatch.setattr(bspline_triton, "PART_ROWS", 128)
    for outputs in (2, 17):  # the local form, and matrix products
        check(name, operands(name, 300, 2, outputs, 5, 3, False, torch.float64, True), 3, 0)


def test_derivatives_of_every_order_by_autograd():
    knots = make_knots(4, 3, 2, uniform=False)
    generator = torch.Generator().manual_seed(0)
    x = (1.2 * torch.rand(3, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    coef = torch.randn(2, 7, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    with triton_path():
        assert torch.autograd.gradcheck(lambda x, c: spline_linear(x, knots, c), (x, coef), fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda x, c: spline_linear(x, knots, c), (x, coef), fast_mode=True)
        assert torch.autograd.gradcheck(lambda x: bspline_basis(x, knots), (x,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_computed_in_float32(dtype):
    x, knots, coef, _ = operands("spline_contract", 20, 3, 4, 5, 3, True, dtype, False)
    with triton_path():
        y = spline_linear(x, knots, coef)
    exact = bspline_torch.spline_contract_reference(x.double(), knots, coef.double(), None, 3, 0)
    assert y.dtype == dtype
    torch.testing.assert_close(y, exact.to(dtype))


def test_clamped_repeated_and_nearly_equal_knots():
    rows = [[0.0, 0, 0, 0, 0.2, 0.5, 1, 1, 1, 1], [0.0, 0, 0, 0, 0.5, 0.5, 1, 1, 1, 1], [2000 + 1e-6 * i for i in range(10)]]
    knots = torch.tensor(rows, dtype=torch.float64)
    x = torch.stack([torch.linspace(k[0], k[-1], 41, dtype=torch.float64) for k in knots], 1)
    for name in REFERENCES:
        tensors = [t if t is None or t.shape != x.shape else x for t in operands(name, 41, 3, 4, 3, 3, True, torch.float64, False)]
        tensors = [knots if t is not None and t.shape == knots.shape else t for t in tensors]
        check(name, tensors, 3, 0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_not_finite_numbers_pass_through_as_on_the_cpu():
    x, knots, coef, _ = operands("spline_contract", 6, 2, 3, 5, 3, True, torch.float32, False)
    x[0, 0], x[1, 0], x[2, 1] = torch.nan, torch.inf, -torch.inf
    grad = torch.ones(6, 3)
    for name, tensors in {
        "spline_contract": (x, knots, coef, None),
        "spline_project": (grad, x, knots, coef),
        "spline_accumulate": (grad, x, knots, None),
        "bspline_basis": (x, knots),
    }.items():
        found = bspline_op.GPU[name](*tensors, 3, 0)
        expected = getattr(torch.ops.kat_zoo, name)(*tensors, 3, 0)
        assert found.isnan().any() and torch.equal(found.isnan(), expected.isnan()), name


def test_strides_shared_knots_and_nothing_at_all():
    x, knots, coef, _ = operands("spline_contract", 20, 4, 3, 5, 3, True, torch.float64, False)
    expected = bspline_torch.spline_contract_reference(x, knots, coef, None, 3, 0)
    turned = x.T.contiguous().T
    for given in (knots, knots[:1], knots.float()):
        found = bspline_op.GPU["spline_contract"](turned, given, coef.transpose(0, 2).contiguous().transpose(0, 2), None, 3, 0)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert bspline_op.GPU["spline_contract"](x[:0], knots, coef, None, 3, 0).shape == (0, 3)
    assert not bspline_op.GPU["spline_accumulate"](torch.ones(0, 3).double(), x[:0], knots, None, 3, 0).any()
    assert not bspline_op.GPU["spline_contract"](x, knots, coef, None, 3, 4).any()  # the fourth derivative of a cubic


def test_a_small_layer_takes_three_launches(monkeypatch):
    """Forward and backward of [2, 5]; of matrix products and sums there are none."""
    from kat_zoo.kernels import bspline_triton

    launched = []
    for name in [name for name in dir(bspline_triton) if name.endswith("_kernel")]:
        kernel = getattr(bspline_triton, name)

        class Recorded:
            def __getitem__(self, grid, kernel=kernel, name=name):
                launched.append(name)
                return kernel[grid]

        monkeypatch.setattr(bspline_triton, name, Recorded())
    x = torch.rand(1000, 2, requires_grad=True)
    coef = torch.randn(2, 8, 5, requires_grad=True)
    with triton_path():
        spline_linear(x, make_knots(5, 3, 2), coef).sum().backward()
    assert launched == ["spline_contract_local_kernel", "spline_project_local_kernel", "spline_accumulate_local_kernel"]


def test_more_channels_than_a_launch_takes(monkeypatch):
    from kat_zoo.kernels import bspline_triton

    monkeypatch.setattr(bspline_triton, "MAX_CHANNELS", 2)
    x = torch.rand(9, 5, requires_grad=True)
    coef = torch.randn(5, 8, 3)
    for knots in (make_knots(5, 3, 5, uniform=False), make_knots(5, 3)):
        (expected,) = torch.autograd.grad(spline_linear(x, knots, coef).square().sum(), x)
        with triton_path():
            (found,) = torch.autograd.grad(spline_linear(x, knots, coef).square().sum(), x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
