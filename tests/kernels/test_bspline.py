import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from kat_zoo.kernels import bspline_basis, bspline_basis_reference, cpu_library, spline_linear
from kat_zoo.kernels.bspline_torch import spline_contract_reference

ISAS = cpu_library.ISAS[: cpu_library._best_isa() + 1]


def make_knots(grid_size, spline_order, channels=1, uniform=True, seed=0):
    steps = torch.arange(-spline_order, grid_size + spline_order + 1, dtype=torch.float64)
    knots = (-1 + 2 * steps / grid_size).repeat(channels, 1)
    if not uniform:
        noise = torch.rand(knots.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        knots += 0.8 / grid_size * noise
    return knots


def make_x(knots, spline_order, rows=37, outside=0.5, seed=1):
    g = torch.Generator().manual_seed(seed)
    low, high = float(knots[0, spline_order]), float(knots[0, -spline_order - 1])
    x = torch.rand(rows, len(knots), generator=g, dtype=torch.float64) * (high - low + 2 * outside) + low - outside
    x[0], x[1] = low, high  # the ends of the grid belong to it
    return x


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("spline_order", range(8))
@pytest.mark.parametrize("grid_size", [1, 5])
def test_agrees_with_scipy_inside_the_grid(grid_size, spline_order, uniform):
    knots = make_knots(grid_size, spline_order, uniform=uniform)
    x = make_x(knots, spline_order, outside=0.0)
    for derivative in range(min(spline_order, 3) + 1):
        ours = bspline_basis(x, knots, spline_order, derivative)[:, 0].numpy()
        for j in range(grid_size + spline_order):
            spline = BSpline(knots[0].numpy(), np.eye(grid_size + spline_order)[j], spline_order)
            theirs = (spline.derivative(derivative) if derivative else spline)(x[:, 0].numpy())
            inner = slice(2, None) if derivative == spline_order else slice(None)  # a jump at the ends: either side is right
            np.testing.assert_allclose(ours[inner, j], theirs[inner], atol=1e-9 * max(1, np.abs(theirs).max()))


def test_clamped_knots():
    knots = torch.tensor([[0.0, 0, 0, 0, 0.2, 0.5, 1, 1, 1, 1]], dtype=torch.float64)
    x = torch.linspace(0, 1, 41, dtype=torch.float64)[:, None]
    theirs = BSpline.design_matrix(x[:, 0].numpy(), knots[0].numpy(), 3).toarray()
    np.testing.assert_allclose(bspline_basis(x, knots)[:, 0].numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("uniform", "spline_order", "grid_size"), [(True, 3, 5), (False, 3, 5), (True, 2, 33), (False, 5, 4), (True, 0, 3)]
)
@pytest.mark.parametrize("derivative", [0, 1, 2])
def test_compiled_agrees_with_reference(isa, dtype, uniform, spline_order, grid_size, derivative):
    knots = make_knots(grid_size, spline_order, 3, uniform)
    x = make_x(knots, spline_order)
    exact = bspline_basis_reference(x, knots, spline_order, derivative)
    with cpu_library.force_isa(isa):
        ours = bspline_basis(x.to(dtype), knots, spline_order, derivative)
    away = torch.ones_like(exact, dtype=torch.bool)
    if dtype == torch.float32:  # a rounded x may fall into the next interval, where the top derivative differs
        distance = (x.unsqueeze(-1) - knots).abs().amin(-1, keepdim=True)
        away &= distance > 1e-5
    tolerance = (2e-6 if dtype == torch.float32 else 1e-13) * float(exact.abs().max() + 1) * 10
    assert float(((ours.double() - exact) * away).abs().max()) < tolerance


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("out", [1, 5, 16, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_contraction_agrees_with_reference(isa, out, dtype):
    knots = make_knots(6, 3, 9)
    x = make_x(knots, 3, rows=131).to(dtype)
    coef = torch.randn(9, 9, out, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    with cpu_library.force_isa(isa):
        y = spline_linear(x, knots, coef)
    exact = spline_contract_reference(x.double(), knots, coef.double(), None, 3, 0)
    assert y.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 1e-2}[dtype]
    assert float((y.double() - exact).abs().max()) < tolerance * float(exact.abs().max())


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("spline_order", [2, 3, 4])
def test_first_and_second_derivatives(spline_order, uniform):
    knots = make_knots(4, spline_order, 2, uniform)
    x = make_x(knots, spline_order, rows=7)[2:].requires_grad_()
    coef = torch.randn(2, 4 + spline_order, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, c: spline_linear(x, knots, c, spline_order), (x, coef))
    assert torch.autograd.gradcheck(lambda x: bspline_basis(x, knots, spline_order), (x,))
    if spline_order > 2:
        assert torch.autograd.gradgradcheck(lambda x, c: spline_linear(x, knots, c, spline_order), (x, coef))


def test_third_derivative_by_autograd():
    knots, coef = (
        make_knots(5, 5),
        torch.randn(1, 10, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    x = make_x(knots, 5, outside=0.0)[2:].requires_grad_()
    y = spline_linear(x, knots, coef, 5)
    for _ in range(3):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    torch.testing.assert_close(y, spline_linear(x, knots, coef, 5, derivative=3), rtol=1e-9, atol=1e-9)


def test_outside_the_grid():
    knots = make_knots(5, 3)
    coef = torch.randn(1, 8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    edge, far = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[3.0]], dtype=torch.float64)
    value, slope = spline_linear(edge, knots, coef), spline_linear(edge, knots, coef, derivative=1)
    torch.testing.assert_close(spline_linear(far, knots, coef), value + 2 * slope)
    assert float(spline_linear(far, knots, coef, extrapolate="zero")) == 0
    inside = make_x(knots, 3, outside=0.0)
    torch.testing.assert_close(spline_linear(inside, knots, coef, extrapolate="zero"), spline_linear(inside, knots, coef))
    assert spline_linear(torch.full((1, 1), torch.nan, dtype=torch.float64), knots, coef).isnan().all()


def test_leading_dimensions_threads_and_empty():
    knots, coef = make_knots(5, 3, 4), torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 3, 4)
    y = spline_linear(x, knots, coef)
    torch.testing.assert_close(y, spline_linear(x.reshape(6, 4), knots, coef).reshape(2, 3, 3))
    torch.testing.assert_close(spline_linear(x.transpose(0, 1), knots, coef), y.transpose(0, 1))
    assert spline_linear(x[:0], knots, coef).shape == (0, 3, 3)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck looks at it itself
def test_operator_contract():
    knots, coef = make_knots(5, 3, 2), torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    x = make_x(knots, 3, rows=6).requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(torch.ops.kat_zoo.spline_contract.default, (x, knots, coef, None, 3, 0), test_utils=checks)
    torch.library.opcheck(torch.ops.kat_zoo.bspline_basis.default, (x, knots, 3, 0), test_utils=checks[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spline_order": 8}, "spline_order=8"),
        ({"derivative": -1}, "derivative=-1"),
        ({"extrapolate": "no"}, "extrapolate='no'"),
        ({"knots": torch.zeros(2, 5)}, "knots"),
        ({"x": torch.tensor(0.0)}, r"x of shape \(\)"),
        ({"x": torch.zeros(3, 4, dtype=torch.int64)}, "dtype"),
        ({"coef": torch.zeros(4, 9, 1)}, "coef of shape"),
        ({"coef": torch.zeros(4, 8, 1).double()}, "coef of dtype"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {
        "x": torch.zeros(3, 4),
        "knots": make_knots(5, 3, 4),
        "coef": torch.zeros(4, 8, 1),
        "spline_order": 3,
    } | change
    with pytest.raises(ValueError, match=message):
        spline_linear(**arguments)


def under_vmap(op, *arguments):
    return torch.vmap(lambda _: op(*arguments))(torch.zeros(2))


@pytest.mark.parametrize("where", ["cpu", "no library", "meta", "vmap"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 5)}, "knots"),
        ({"x": torch.zeros(2, 3, 4)}, "expected rows"),
        ({"x": torch.zeros(3, 4, dtype=torch.bfloat16)}, "x of dtype"),
        ({"knots": torch.zeros(4, 7)}, "knots"),
        ({"coef": torch.zeros(4, 7, 2)}, "coef of shape"),
        ({"coef": torch.zeros(5, 8, 2)}, "coef of shape"),
        ({"coef": torch.zeros(4, 8, 2).double()}, "coef of dtype"),
        ({"scale": torch.zeros(3, 2)}, "scale of shape"),
        ({"scale": torch.zeros(3, 4, dtype=torch.int64)}, "scale of dtype"),
        ({"grad": torch.zeros(2, 2)}, "grad of shape"),
        ({"grad": torch.zeros(3, 2).half()}, "grad of dtype"),
        ({"spline_order": 8}, "spline_order=8"),
    ],
)
def test_operators_refuse_what_would_run_past_a_buffer(change, message, where, monkeypatch):
    good = {"x": torch.zeros(3, 4), "knots": make_knots(5, 3, 4), "coef": torch.zeros(4, 8, 2), "scale": torch.zeros(3, 4)}
    good |= {"grad": torch.zeros(3, 2), "spline_order": 3}
    if where == "no library":
        monkeypatch.setattr(cpu_library, "load", lambda: None)
    ops, tried = torch.ops.kat_zoo, 0
    for op, names in (
        (ops.bspline_basis, ("x", "knots")),
        (ops.spline_contract, ("x", "knots", "coef", "scale")),
        (ops.spline_project, ("grad", "x", "knots", "coef")),
        (ops.spline_accumulate, ("grad", "x", "knots", "scale")),
    ):
        if change.keys() & {*names, "spline_order"} and not (op is ops.bspline_basis and message == "expected rows"):
            tensors = [(good | change)[name] for name in names]
            tensors = [t.to("meta") for t in tensors] if where == "meta" else tensors
            arguments, tried = (*tensors, (good | change)["spline_order"], 0), tried + 1
            with pytest.raises(ValueError, match=message):
                under_vmap(op, *arguments) if where == "vmap" else op(*arguments)
    assert tried


def test_projection_checks_the_outputs():
    with pytest.raises(ValueError, match=r"grad of shape \(3, 5\): expected \(3, 2\)"):
        torch.ops.kat_zoo.spline_project(torch.zeros(3, 5), torch.zeros(3, 4), make_knots(5, 3, 4), torch.zeros(4, 8, 2), 3, 0)


@pytest.mark.parametrize("extrapolate", ["linear", "zero"])
def test_knots_that_require_gradients_get_those_of_the_formula(extrapolate):
    knots = make_knots(4, 3, 2, uniform=False)
    x, coef = make_x(knots, 3, rows=5)[2:], torch.randn(2, 7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    knots.requires_grad_()
    assert torch.autograd.gradcheck(lambda knots: spline_linear(x, knots, coef, 3, 0, extrapolate), knots)
    assert torch.autograd.gradcheck(lambda knots: bspline_basis(x, knots, 3, 1, extrapolate), knots)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spline_order", [0, 1, 3])
def test_the_last_knot_belongs_to_the_support(spline_order, dtype):
    """At the end of a grid whose last knots are equal, SciPy's bases sum to 1."""
    inner = torch.tensor([0, 0.3, 0.5, 1.0], dtype=torch.float64)
    knots = torch.cat([inner[:1].repeat(spline_order), inner, inner[-1:].repeat(spline_order)])[None]
    x = torch.tensor([[0.0], [0.4], [1.0], [1.001]], dtype=dtype)
    found = bspline_basis(x, knots, spline_order, 0, "zero")[:, 0]
    expected = BSpline.design_matrix(x[:3, 0].double().numpy(), knots[0].numpy(), spline_order).toarray()
    np.testing.assert_allclose(found[:3], expected, atol=1e-5)
    assert not found[3].any()
