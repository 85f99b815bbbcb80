"""The variants of KArAt's attention without a kernel."""

import logging

import pytest
import torch
from timm.models import create_feature_extractor
from torch import nn

from kat_zoo.layers.learned_attention.edges import BASE_FUNCTIONS, EDGE_BASES
from kat_zoo.layers.learned_attention.general_heads import GeneralHeads, _announce_general, project_simplex

from .test_karat import X, create


@pytest.mark.parametrize(("basis", "num_harmonics", "densities"), [("fourier", 5, 10), ("rational", 3, 6), ("morlet", 3, 1)])
def test_only_weights_of_edges_are_densities(basis, num_harmonics, densities):
    heads = GeneralHeads(1, 17, num_harmonics=num_harmonics, rank=2, basis=basis)
    nn.init.ones_(heads.inner.coefficients)
    heads.resample((8, 8), (4, 4), 1)
    c = heads.inner.coefficients[..., 1:]
    torch.testing.assert_close(c[:densities], torch.full_like(c[:densities], 0.25))
    torch.testing.assert_close(c[densities:], torch.ones_like(c[densities:]))


GENERAL = (
    [{"basis": basis} for basis in EDGE_BASES if basis != "fourier"]
    + [{"base_function": b} for b in BASE_FUNCTIONS if b != "zero"]
    + [{"operator_order": o} for o in ("phi_w", "phi_phi")]
    + [{"projection": "simplex"}]
)


@pytest.mark.parametrize("options", GENERAL, ids=str)
def test_general_variants_train(options):
    model = create(depth=2, **options)
    y = model(X)
    y.square().mean().backward()
    assert y.isfinite().all()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize(
    "options",
    [
        {"basis": "shannon", "operator_order": "phi_phi"},
        *(pytest.param(o, marks=pytest.mark.slow) for o in ({"basis": "rational"}, {"projection": "simplex"})),
    ],
    ids=str,
)
def test_general_heads_compile_and_export(options, generator):
    """Two tiles of queries; the gradients of the compiled heads as well."""
    torch._dynamo.reset()  # one code object compiles only so many times
    heads = GeneralHeads(2, 17, num_harmonics=2, rank=3, **options)
    q, k, v = inputs = [torch.randn(1, 2, 17, 4, generator=generator, requires_grad=True) for _ in range(3)]
    expected = heads(q, k, v)
    expected_gradients = torch.autograd.grad(expected.square().sum(), [*inputs, *heads.parameters()])
    got = torch.compile(heads, backend="aot_eager", fullgraph=True)(q, k, v)
    torch.testing.assert_close(got, expected)
    for x, y in zip(torch.autograd.grad(got.square().sum(), [*inputs, *heads.parameters()]), expected_gradients, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-4)
    exported = torch.export.export(heads, tuple(t.detach() for t in inputs)).module()
    torch.testing.assert_close(exported(q, k, v), expected)


def test_general_models_export_and_refuse_scripting_and_symbolic_tracing():
    model = create(depth=1, basis="dog", hybrid_heads=1)
    expected = model(X)
    with pytest.raises(ValueError, match=r"basis=dog.* under torch.jit.script: expected"):
        torch.jit.script(model)
    torch.testing.assert_close(torch.export.export(model, (X,)).module()(X), expected)
    with pytest.raises(ValueError, match=r"basis=dog.* under torch.fx.symbolic_trace: expected"):
        torch.fx.symbolic_trace(model)
    features = create_feature_extractor(model, ["blocks.0"])
    torch.testing.assert_close(features(X)["blocks.0"][:, 1:], model.forward_intermediates(X, output_fmt="NLC", intermediates_only=True)[0])


@pytest.mark.parametrize("operator_order", ["w_phi", "phi_w", "phi_phi"])
@pytest.mark.parametrize("basis", ["fourier", "morlet"])
def test_general_heads_are_the_literal_sums(basis, operator_order):
    """Every edge on its own, in a loop: sig_j = sum over the edges, in the operator order in question."""
    heads = GeneralHeads(1, 5, num_harmonics=2, rank=3, basis=basis, operator_order=operator_order, base_function="silu").double()
    rows = torch.randn(1, 1, 2, 5, dtype=torch.float64)

    def apply(edges, x):
        outputs, inputs = edges.coefficients.shape[2:]
        y = torch.zeros(*x.shape[:-1], outputs, dtype=x.dtype)
        for o in range(outputs):
            for i in range(inputs):
                c, t = edges.coefficients[:, 0, o, i], x[..., i]
                value = torch.nn.functional.silu(t)
                if basis == "fourier":
                    value = value + c[0] * t.cos() + c[1] * (2 * t).cos() + c[2] * t.sin() + c[3] * (2 * t).sin()
                else:
                    u = (t - c[1]) / c[2].exp()
                    value = value + c[0] * (5 * u).cos() * (-u * u / 2).exp()
                y[..., o] += value
        return y

    if operator_order == "w_phi":
        expected = apply(heads.inner, rows) @ heads.w[0].T
    elif operator_order == "phi_w":
        expected = apply(heads.outer, rows @ heads.w[0])
    else:
        expected = apply(heads.outer, apply(heads.inner, rows))
    torch.testing.assert_close(heads.attention(rows), expected)


def test_general_path_equals_the_kernel_and_is_announced_once(caplog):
    fast = create()
    _announce_general.cache_clear()
    with caplog.at_level(logging.WARNING, logger="kat_zoo"):
        slow = create(base_function="identity")
        create(base_function="identity")
    assert [r.levelname for r in caplog.records if "base_function=identity" in r.message] == ["WARNING"]
    for a, b in zip(fast.blocks, slow.blocks, strict=True):
        general, kernel = b.attn.operators[0], a.attn.operators[0]
        general.inner.base_function = "zero"
        general.inner.coefficients.data = torch.cat([t.permute(3, 0, 1, 2) for t in (kernel.a.data, kernel.b.data)])
        general.w.data = kernel.w.data
    slow.load_state_dict({**slow.state_dict(), **{k: v for k, v in fast.state_dict().items() if "operators" not in k}})
    torch.testing.assert_close(slow(X), fast(X), atol=1e-4, rtol=1e-4)


def test_simplex_projection():
    x = torch.randn(50, 9, dtype=torch.float64)
    y = project_simplex(x)
    torch.testing.assert_close(y.sum(-1), torch.ones(50, dtype=torch.float64))
    assert (y >= 0).all()
    other = torch.rand(50, 9, dtype=torch.float64)
    other /= other.sum(-1, keepdim=True)
    assert ((x - y) * (other - y)).sum(-1).max() <= 1e-12  # the variational inequality of a projection


def test_projection_of_what_a_dtype_cannot_tell_apart_or_is_not_finite():
    rows = torch.tensor([[512.0, 0, 0], [float("nan"), 0, 0]], dtype=torch.bfloat16)
    first, second = project_simplex(rows)
    assert first.tolist() == [1, 0, 0] and second.isnan().all()
    wide = torch.randn(20, 577, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.testing.assert_close(project_simplex(wide).float(), project_simplex(wide.double()).float(), atol=2e-3, rtol=1e-2)


def test_transforms_of_torch_func():
    model, x = create(depth=1, basis="morlet"), X[:1].clone()
    found = torch.func.grad(lambda x: model(x).square().sum())(x)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
