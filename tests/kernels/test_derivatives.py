import logging

import pytest
import torch
from torch.autograd import forward_ad

from kat_zoo.kernels import bspline_basis, derivatives, fourier_attention, rational, spline_linear

KNOTS = torch.linspace(-2, 2, 12, dtype=torch.float64)[None]
CASES = {
    "rational": (rational, [(3, 8), (1, 6), (2, 4)]),
    "bspline_basis": (lambda x: bspline_basis(x, KNOTS), [(5, 2)]),
    "spline_linear": (lambda x, coef: spline_linear(x, KNOTS, coef), [(5, 2), (2, 8, 3)]),
    "spline_linear, zero outside": (lambda x, coef: spline_linear(x, KNOTS, coef, extrapolate="zero"), [(5, 2), (2, 8, 3)]),
    "fourier_attention": (fourier_attention, [(1, 2, 3, 4)] * 3 + [(2, 2, 3, 2)] * 2 + [(2, 3, 2)]),
}


@pytest.fixture(params=CASES)
def case(request, generator):
    function, shapes = CASES[request.param]
    return function, tuple(torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in shapes)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("transform", [torch.func.jacfwd, torch.func.jacrev])
def test_jacobians_of_torch_func(case, transform):
    function, inputs = case
    close(transform(function, argnums=tuple(range(len(inputs))))(*inputs), torch.autograd.functional.jacobian(function, inputs))


def test_forward_mode(case):
    """A tangent that an operator drops would make a derivative of zero."""
    function, inputs = case
    tangents = tuple(torch.ones_like(t) for t in inputs)
    expected = torch.autograd.functional.jvp(function, inputs, tangents)[1]  # by reverse mode, twice
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(inputs, tangents, strict=True)]
        close(forward_ad.unpack_dual(function(*duals)).tangent, expected)


def test_hessian_forward_over_reverse(case):
    function, inputs = case

    def scalar(*inputs):
        return function(*inputs).square().sum()

    close(torch.func.jacfwd(torch.func.jacrev(scalar))(*inputs), torch.autograd.functional.hessian(scalar, inputs)[0][0])


def test_forward_mode_through_a_backward(case):
    """The backward's operator meets tangents where the forward had met none."""
    function, inputs = case
    inputs = [t.requires_grad_() for t in inputs]
    y = function(*inputs)
    weight, tangent = torch.ones_like(y).requires_grad_(), torch.linspace(0, 1, y.numel(), dtype=y.dtype).view_as(y)
    expected = torch.autograd.grad(y, inputs, tangent, retain_graph=True)  # linear in the weight
    with forward_ad.dual_level():
        grads = torch.autograd.grad(y, inputs, forward_ad.make_dual(weight, tangent), create_graph=True)
        for ours, theirs in zip(grads, expected, strict=True):
            close(forward_ad.unpack_dual(ours).tangent, theirs)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, of views
def test_vmap_of_a_jacobian():
    x = torch.linspace(-3, 3, 10, dtype=torch.float64).view(5, 2)
    coef = torch.linspace(0, 1, 48, dtype=torch.float64).view(2, 8, 3)
    ours = torch.func.vmap(torch.func.jacrev(lambda row: spline_linear(row, KNOTS, coef)))(x)
    close(ours, torch.stack([torch.autograd.functional.jacobian(lambda row: spline_linear(row, KNOTS, coef), row) for row in x]))


def test_the_slow_path_is_said_once(caplog):
    derivatives._announce.cache_clear()
    x = torch.zeros(1, 2, dtype=torch.float64)
    with caplog.at_level(logging.WARNING, logger="kat_zoo"):
        for _ in range(2):
            torch.func.jacfwd(lambda x: bspline_basis(x, KNOTS))(x)
        bspline_basis(x, KNOTS)
    assert [r.message for r in caplog.records if "bspline_basis" in r.message and "slower" in r.message] == [caplog.messages[0]]
