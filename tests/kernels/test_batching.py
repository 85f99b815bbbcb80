"""torch.vmap over the operators against a loop in Python: every choice of batched arguments, every dimension, nested, with gradients."""

import itertools
import logging

import pytest
import torch
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap

from kat_zoo.kernels import batching, bspline_basis, fourier_attention, rational, spline_linear
from kat_zoo.layers.gr_kan import GRKAN

KNOTS = torch.arange(-3.0, 9.0).double() / 3
SIZE = 3
ORDER = (3, 0)
# Operator: shapes of a sample's tensors, and the arguments after them.
CASES = {
    "rational": (((2, 6, 5), (2, 6), (2, 4)), (1,)),
    "rational_backward": (((2, 6, 5), (2, 6, 5), (2, 6), (2, 4)), (-2,)),
    "fourier_attention": (((2, 2, 4, 3),) * 3 + ((2, 5, 4, 2),) * 2 + ((2, 4, 5),), (0.7,)),
    "fourier_attention_backward": (((2, 2, 4, 3),) * 4 + ((2, 5, 4, 2),) * 2 + ((2, 4, 5), (2, 2, 4, 5)), (0.7,)),
    "bspline_basis": (((4, 2), "knots"), ORDER),
    "spline_contract": (((4, 2), "knots", (2, 8, 3), (4, 2)), ORDER),
    "spline_project": (((4, 3), (4, 2), "knots", (2, 8, 3)), ORDER),
    "spline_accumulate": (((4, 3), (4, 2), "knots", (4, 2)), ORDER),
}
SHARED_ROWS = {
    "rational": (((2, 6, 5), (1, 6), (3, 4)), (1,)),
    "rational_backward": (((2, 6, 5), (2, 6, 5), (2, 3), (1, 2)), (1,)),
}


def draw(shape, generator, samples=None):
    if shape == "knots":
        rows = torch.ones(*(samples or ()), 2, 1, dtype=torch.float64)
        return rows.uniform_(0.9, 1.1, generator=generator) * KNOTS
    return torch.randn(*(samples or ()), *shape, dtype=torch.float64, generator=generator)


def compare(name, shapes, rest, batched, generator):
    """Batch the arguments whose place is in `batched`, each along another dimension."""
    operator = getattr(torch.ops.kat_zoo, name)
    arguments = [draw(shape, generator, (SIZE,) if i in batched else None) for i, shape in enumerate(shapes)]
    dims = [i % t.ndim if i in batched else None for i, t in enumerate(arguments)]
    moved = [t if dim is None else t.movedim(0, dim) for t, dim in zip(arguments, dims, strict=True)]
    ours = vmap(lambda *tensors: operator(*tensors, *rest), tuple(dims))(*moved)
    samples = [operator(*(t[i] if k in batched else t for k, t in enumerate(arguments)), *rest) for i in range(SIZE)]
    expected = torch.stack(samples) if isinstance(samples[0], torch.Tensor) else tuple(map(torch.stack, zip(*samples, strict=True)))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", CASES)
def test_vmap_equals_a_loop(name, generator):
    for shapes, rest in filter(None, (CASES[name], SHARED_ROWS.get(name))):
        places = range(len(shapes))
        for batched in itertools.chain.from_iterable(itertools.combinations(places, n) for n in (1, 2)):
            compare(name, shapes, rest, batched, generator)
        compare(name, shapes, rest, tuple(places), generator)


@pytest.mark.parametrize("name", CASES)
def test_every_operator_has_a_rule(name):
    """Without one PyTorch loops, and asks its users to file an issue."""
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"kat_zoo::{name}", "FuncTorchBatched")


def test_a_loop_is_said_once(caplog, generator):
    batching._announce_loop.cache_clear()
    shapes, rest = CASES["spline_contract"]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            compare("spline_contract", shapes, rest, (0, 2), generator)
        compare("spline_contract", shapes, rest, (0,), generator)
    (record,) = caplog.records
    assert "coefficients of each sample, spline_contract runs once a sample, which is slower" in record.message


def call(name, x, coefficient):
    """An operator of a matrix x, and of numbers that scale its coefficients."""
    if name == "rational":
        return rational(x, coefficient * torch.linspace(-1, 1, 12, dtype=x.dtype).reshape(2, 6), coefficient[:, :4] - 0.2)
    if name == "fourier_attention":
        q = x.reshape(1, 2, 2, -1)
        a = coefficient.reshape(2, 3, 2, 1)
        return fourier_attention(q, 0.3 * q, q.sin(), a, a.cos(), a.squeeze(-1).transpose(1, 2))
    if name == "bspline_basis":
        return bspline_basis(x, KNOTS[None]) * coefficient.sum()
    return spline_linear(x, KNOTS[None], torch.linspace(-1, 1, 8, dtype=x.dtype).reshape(1, 8, 1) * coefficient.reshape(-1, 1, 2)[:4], 3)


@pytest.mark.parametrize("name", ["rational", "fourier_attention", "bspline_basis", "spline_linear"])
@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)])
def test_gradients_through_vmap(name, dims, generator):
    """vmap(grad), and autograd through vmap, against autograd through a loop."""
    x = torch.rand(SIZE, 4, 4, dtype=torch.float64, generator=generator)
    coefficient = torch.rand(SIZE, 2, 6, dtype=torch.float64, generator=generator)
    inputs = tuple(t if dim == 0 else t[0] for t, dim in zip((x, coefficient), dims, strict=True))

    def loss(*sample):
        return call(name, *sample).square().sum()

    def gradients(total, leaves):
        return torch.autograd.grad(total, leaves)

    leaves = [t.clone().requires_grad_() for t in inputs]
    samples = [[t if dim is None else t[i] for t, dim in zip(leaves, dims, strict=True)] for i in range(SIZE)]
    expected = gradients(sum(loss(*sample) for sample in samples), leaves)
    torch.testing.assert_close(gradients(vmap(loss, dims)(*leaves).sum(), leaves), expected)
    each = vmap(grad(loss, argnums=(0, 1)), dims)(*inputs)
    each = tuple(t if dim == 0 else t.sum(0) for t, dim in zip(each, dims, strict=True))
    torch.testing.assert_close(each, expected)


@pytest.mark.parametrize("name", ["rational", "fourier_attention", "spline_linear"])
def test_nested_vmap_and_jacobians(name, generator):
    x = torch.rand(2, SIZE, 4, 4, dtype=torch.float64, generator=generator)
    coefficient = torch.rand(2, 6, dtype=torch.float64, generator=generator)
    nested = vmap(vmap(lambda t: call(name, t, coefficient)), in_dims=1, out_dims=1)(x)
    torch.testing.assert_close(nested, torch.stack([torch.stack([call(name, t, coefficient) for t in row]) for row in x]))
    sample = x[0, 0].requires_grad_()
    y = call(name, sample, coefficient)
    rows = torch.eye(y.numel(), dtype=torch.float64).reshape(-1, *y.shape)
    (batched,) = torch.autograd.grad(y, sample, rows, is_grads_batched=True)
    jacobian = jacrev(lambda t: call(name, t, coefficient))(sample.detach())
    torch.testing.assert_close(batched, jacobian.reshape(-1, *sample.shape))


def test_an_ensemble_of_modules(generator):
    """Parameters of each model, one input: the recipe of PyTorch's tutorial on ensembles."""
    models = [GRKAN(8, 16, num_groups=4).double() for _ in range(SIZE)]
    parameters, buffers = stack_module_state(models)
    x = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    ours = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(ours, torch.stack([model(x) for model in models]))


def test_wrong_arguments_are_those_of_a_sample():
    x, a, b = torch.zeros(3, 8), torch.zeros(2, 6), torch.zeros(2, 4)
    with pytest.raises(ValueError, match="channel_dim=-2: expected -1 to 0 for x of shape \\(8,\\)"):
        vmap(lambda t: torch.ops.kat_zoo.rational(t, a, b, -2))(x)
    with pytest.raises(ValueError, match="coef of shape \\(2, 8, 1\\): expected \\(1, 8, C_out\\)"):
        vmap(lambda t: torch.ops.kat_zoo.spline_contract(t, KNOTS[None], torch.zeros(2, 8, 1), None, 3, 0))(torch.zeros(3, 4, 1))
