import pytest
import torch

from kat_zoo.kan import KAN
from kat_zoo.kan.operations.structure import detect_separability, hessian, jacobian
from kat_zoo.kan.operations.structure import test_symmetry as symmetric


def points(n=200, d=3, low=0.2):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + low


def test_jacobian_and_hessian_agree_with_torch_func():
    model, x = KAN([3, 4, 2], 5, seed=1), points(7)
    for n in range(7):
        torch.testing.assert_close(jacobian(model, x)[n], torch.autograd.functional.jacobian(model, x[n]))
        for j in range(2):
            expected = torch.autograd.functional.hessian(lambda z, j=j: model(z)[j], x[n])
            torch.testing.assert_close(hessian(model, x)[n, j], expected)


def test_derivatives_of_constants_are_zero():
    x = points(4)
    assert jacobian(lambda z: torch.ones(4, 2, dtype=z.dtype), x).abs().max() == 0
    model = KAN.from_formula(["3", "x_1 + 2"], ["x_1", "x_2", "x_3"])
    torch.testing.assert_close(jacobian(model, x)[:, 1, 0], torch.ones(4, dtype=x.dtype))
    assert jacobian(model, x)[:, 0].abs().max() == 0 and hessian(model, x).abs().max() == 0


def test_second_derivatives_train():
    """A PDE loss needs the gradient of a Laplacian."""
    model, x = KAN([2, 3, 1], 5, seed=1), points(20, 2)
    laplacian = hessian(model, x, create_graph=True)[:, 0].diagonal(dim1=1, dim2=2).sum(-1)
    laplacian.square().mean().backward()
    coef = model.layers[0].spline.coef
    analytic = coef.grad[0, 4, 1].item()
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            coef[0, 4, 1] += step
        values.append(float(hessian(model, x)[:, 0].diagonal(dim1=1, dim2=2).sum(-1).square().mean()))
        with torch.no_grad():
            coef[0, 4, 1] -= step
    assert analytic == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


@pytest.mark.parametrize(
    ("function", "mode", "groups"),
    [
        (lambda x: torch.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3], "add", [[0], [1, 2]]),
        (lambda x: torch.sin(x[:, :1]) + x[:, 1:2] ** 2 + x[:, 2:3], "add", [[0], [1], [2]]),
        (lambda x: torch.sin(x[:, :1]) * (x[:, 1:2] + x[:, 2:3]), "mul", [[0], [1, 2]]),
    ],
)
def test_separability(function, mode, groups):
    assert detect_separability(function, points(), mode).groups == groups


def test_symmetry():
    def function(x):
        return torch.sin((x[:, :1] ** 2 + x[:, 1:2] ** 2) * x[:, 2:3])

    assert symmetric(function, points(), [0, 1])[0]
    assert not symmetric(lambda x: x[:, :1] * x[:, 2:3] + x[:, 1:2], points(), [0, 1])[0]
    with pytest.raises(ValueError, match="group"):
        symmetric(function, points(), [0])
    with pytest.raises(ValueError, match="mode"):
        detect_separability(function, points(), "div")


def test_what_does_not_depend_on_a_group_is_symmetric_in_it():
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert symmetric(lambda z: z[:, 2:] ** 2, x, [0, 1]) == (True, 0.0)
    with pytest.raises(ValueError, match="at least 2 samples"):
        detect_separability(lambda z: z[:, :1], x[:1])


@pytest.mark.parametrize("name", ["J0", "J1", "x^1.5", "sin"])
def test_every_mode_of_differentiation_agrees(name):
    model = KAN([2, 1])
    model.fix_symbolic(0, 0, 0, name, affine=(2, 0, 1, 0))
    model.fix_symbolic(0, 1, 0, name, affine=(1, 0.5, 1, 0))
    x = 3 * torch.rand(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = jacobian(model, x)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacrev(model))(x), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.hessian(model))(x), hessian(model, x))
    torch.testing.assert_close(torch.func.jvp(model, (x,), (torch.ones_like(x),))[1], expected.sum(-1))
    assert bool(torch.isfinite(jacobian(model, 0 * x)).all())
    assert model.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
