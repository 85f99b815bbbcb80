"""Inputs whose powers overflow: they alone take the careful formula on CPUs, which costs the rest of their block little."""

import pytest
import torch

from kat_zoo.kernels import cpu_library, rational, rational_reference

ISAS = cpu_library.ISAS[: cpu_library._best_isa() + 1]
GROUPS = 4


def problem(width, dtype, generator):
    """x, the gradient of y, and coefficients; one row of outliers in all groups but the last."""
    x, g = (torch.randn(90, GROUPS * width, generator=generator).to(dtype) for _ in range(2))
    a, b = torch.randn(1, 6, generator=generator), torch.randn(GROUPS, 4, generator=generator)
    far = x.clone()
    far[37, width // 3 : -width : width] = 1e9
    return x, far, g, a, b


def passes(function, x, g, a, b):
    x, a, b = (t.clone().requires_grad_() for t in (x, a, b))
    y = function(x, a, b)
    return y.detach(), *torch.autograd.grad(y, (x, a, b), g)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", [6, 24, 45, 96, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_only_the_outliers_change(isa, width, dtype, generator):
    x, far, g, a, b = problem(width, dtype, generator)
    with cpu_library.force_isa(isa):
        without, found = passes(rational, x, g, a, b), passes(rational, far, g, a, b)
    same = far == x
    for before, after in zip(without[:2], found[:2], strict=True):
        assert torch.equal(before[same], after[same])
    exact = passes(rational_reference, far.double(), g.double(), a.double(), b.double())
    precision = 1e-5 if dtype == torch.float32 else 1e-2
    for name, got, want in zip(("y", "dx"), found[:2], exact[:2], strict=True):
        torch.testing.assert_close(got[~same].double(), want[~same], rtol=precision, atol=0, msg=lambda m, n=name: f"{n}: {m}")
    for name, got, want in zip(("da", "db"), found[2:], exact[2:], strict=True):
        error = (got.double() - want).norm(dim=1) / want.norm(dim=1)
        assert error.max() <= 1e-5, (name, error)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", [6, 24, 45, 96, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_only_the_outliers_take_the_careful_formula(isa, width, dtype):
    """Counted by gradients so small that g / Q is 0: only the careful formula, which has g x^4 / Q at once, adds them to that of a_4."""
    unit = 2.0**-100
    x, g = (torch.full((90, GROUPS * width), value, dtype=dtype) for value in (2.0**20, unit))
    far = x.clone()
    far[37, width // 3 : -width : width] = 2.0**40
    a, b = torch.ones(1, 6), torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(GROUPS, 1)
    with cpu_library.force_isa(isa):
        counts = [torch.ops.kat_zoo.rational_backward(g, inputs, a, b)[1][0, 4] / unit for inputs in (x, far)]
    assert counts == [0, GROUPS - 1]
