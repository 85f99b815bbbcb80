"""Autocast decides the types that enter an operator, and nothing within one."""

import contextlib

import pytest
import timm
import torch
from torch import nn

import kat_zoo  # noqa: F401 (registers the models)
from kat_zoo.kernels import bspline_op, fourier_attention, fourier_attention_op, rational, rational_op, spline_linear
from kat_zoo.layers import GRKAN

from .aot import probe
from .triton_path import triton_path


@contextlib.contextmanager
def without_kernels():
    """The path of a device that has no kernel."""
    library = torch.library.Library("kat_zoo", "IMPL")
    library.impl("rational", rational_op._forward_reference, "CPU", allow_override=True)
    library.impl("rational_backward", rational_op._backward_reference, "CPU", allow_override=True)
    library.impl("fourier_attention", fourier_attention_op._tiled, "CPU", allow_override=True)
    library.impl("fourier_attention_backward", fourier_attention_op._tiled_backward, "CPU", allow_override=True)
    library.impl("spline_contract", bspline_op._formula(bspline_op.spline_contract_reference), "CPU", allow_override=True)
    try:
        yield
    finally:
        library._destroy()


PATHS = {"cpu": contextlib.nullcontext, "triton": triton_path, "formula": without_kernels}


def arguments(operator, dtype, generator):
    """An operator's tensors: activations of dtype, coefficients of float32."""

    def draw(*shape, dtype=torch.float32):
        return torch.randn(shape, generator=generator).to(dtype)

    if operator is rational:
        return [draw(3, 5, 32, dtype=dtype), draw(1, 6), draw(4, 4)]
    if operator is fourier_attention:
        qkv = [draw(2, 2, 20, 16, dtype=dtype) for _ in range(3)]
        return [*qkv, *(0.2 * draw(2, 4, 20, 3) for _ in range(2)), 0.2 * draw(2, 20, 4)]
    return [draw(7, 4), torch.linspace(-2, 2, 12, dtype=torch.float64).repeat(4, 1), draw(4, 8, 5)]


def run(operator, tensors, forward, backward):
    """The result and the gradients, each pass in a context of its own."""
    tensors = [t.clone().requires_grad_(t.dtype != torch.float64) for t in tensors]
    with forward:
        y = operator(*tensors)
    with backward:
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype))
    return [y.detach(), *(t.grad for t in tensors if t.requires_grad)]


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")  # of torch 2.8, where a test puts a kernel in another's place
@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("operator", [rational, fourier_attention, spline_linear], ids=lambda f: f.__name__)
def test_an_operator_computes_the_same_under_autocast(operator, path, inside, generator):
    tensors = arguments(operator, torch.bfloat16, generator)
    plain, autocast = contextlib.nullcontext(), torch.autocast("cpu", torch.bfloat16)
    with PATHS[path]():
        expected = run(operator, tensors, plain, plain)
        found = run(operator, tensors, autocast, autocast if inside else plain)
    for y, right in zip(found, expected, strict=True):
        assert y.dtype == right.dtype and torch.equal(y, right)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_activation_follows_autocast_like_a_linear_layer(dtype, generator):
    x, a, b = arguments(rational, torch.float32, generator)
    with torch.autocast("cpu", dtype):
        y = rational(x, a, b)
        assert rational(x.double(), a, b).dtype == torch.float64 and rational(x.bfloat16(), a, b).dtype == torch.bfloat16
    assert y.dtype == dtype and torch.equal(y, rational(x.to(dtype), a, b))


def saved_bytes(module, x):
    """Bytes of the activations that a module keeps under autocast, each storage once."""
    kept = {}

    def pack(t):
        if t.shape[0] in (len(x), x.shape[:2].numel()):  # weights and their copies are not activations
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    pack.only_looks = True  # see kat_zoo.layers.gr_kan.recompute_in_backward
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        module(x).sum().backward()
    return sum(kept.values())


def test_a_mixer_keeps_no_more_than_that_of_a_vit_under_autocast(generator):
    norm = nn.LayerNorm(64)
    x = torch.randn(4, 50, 64, generator=generator)
    mlp = nn.Sequential(norm, timm.layers.Mlp(64, 256))
    assert saved_bytes(nn.Sequential(norm, GRKAN(64, 256, 64)), x) <= saved_bytes(mlp, x)


MODELS = ["kat_pico_patch4_28", "karat_pico_patch4_28", "vit_kan_pico_patch4_28"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_of_a_model_under_autocast(name, generator):
    """The gradients of the path of GPUs, interpreted, are those of the compiled kernels of the CPU."""
    x = torch.randn(2, 1, 28, 28, generator=generator)
    gradients = []
    for path in (contextlib.nullcontext, triton_path):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=10)
        with path(), torch.autocast("cpu", torch.bfloat16):
            nn.functional.cross_entropy(model(x), torch.tensor([1, 7])).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert gradients[0].norm() > 0
    assert (gradients[0] - gradients[1]).norm() <= 0.02 * gradients[0].norm()


@pytest.mark.slow
def test_every_registered_model_compiles_for_a_gpu_under_autocast():
    found = probe("models")
    names = {name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("kat_zoo.")}
    assert set(found) == names
    for name, operators in found.items():
        expected = {"rational"} if name.startswith(("kat_", "karat_kat")) and name != "kan_mlp_pico_28" else set()
        expected |= {"fourier"} if name.startswith("karat_") else set()
        assert expected <= set(operators), (name, operators)
