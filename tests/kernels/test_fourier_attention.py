import ctypes
import importlib
import logging
import math

import numpy as np
import pytest
import torch

from kat_zoo.kernels import cpu_library, dispatch, fourier_attention, fourier_attention_reference
from kat_zoo.kernels.fourier_attention_torch import fourier_attention_portable

module = importlib.import_module("kat_zoo.kernels.fourier_attention_op")
NAMES = ("out", "dq", "dk", "dv", "da", "db", "dw")
ISAS = [name for name in cpu_library.ISAS if cpu_library.ISAS.index(name) <= cpu_library.isa()]


def inputs(batch, heads, tokens, dim, value_dim, rank, num_harmonics, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, tokens, d) for d in (dim, dim, value_dim)]
    shapes += [(heads, rank, tokens, num_harmonics)] * 2 + [(heads, tokens, rank)]
    tensors = [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]
    grad = torch.randn(shapes[2], generator=g, dtype=torch.float64)
    return [t.to(dtype) for t in tensors[:3]] + [t.float() if dtype != torch.float64 else t for t in tensors[3:]], grad.to(dtype)


def results(function, tensors, grad, dtype=None, **kwargs):
    leaves = [t.to(dtype or t.dtype).detach().requires_grad_() for t in tensors]
    out = function(*leaves, **kwargs)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def assert_all_close(got, expected, ratio):
    for name, x, y in zip(NAMES, got, expected, strict=True):
        error = (x.double() - y.double()).norm() / (y.double().norm() + 1e-30)
        assert error <= ratio, f"{name}: {error:.2e} > {ratio:.0e}"


SIZES = [
    (2, 3, 197, 64, 64, 12, 3),  # ViT-Tiny
    (1, 1, 1, 1, 1, 1, 1),
    (3, 2, 37, 20, 5, 7, 11),  # nothing a multiple of a vector
    (2, 2, 65, 16, 33, 24, 1),
    (1, 5, 24, 8, 8, 2, 2),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_float64_reference(size, isa):
    tensors, grad = inputs(*size)
    expected = results(fourier_attention_reference, tensors, grad, torch.float64)
    with cpu_library.force_isa(isa):
        assert_all_close(results(fourier_attention, tensors, grad), expected, 2e-6)


@pytest.mark.parametrize(("dtype", "ratio"), [(torch.float64, 1e-14), (torch.bfloat16, 6e-3), (torch.float16, 8e-4)], ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_dtypes(dtype, ratio, isa):
    tensors, grad = inputs(2, 2, 50, 24, 24, 5, 3, dtype)
    expected = results(fourier_attention_reference, tensors, grad, torch.float64)
    with cpu_library.force_isa(isa):
        got = results(fourier_attention, tensors, grad)
    assert [t.dtype for t in got] == [dtype] * 4 + [tensors[3].dtype] * 3
    assert_all_close(got, expected, ratio)


def test_tiled_pytorch_form_equals_the_reference(monkeypatch):
    monkeypatch.setattr(cpu_library, "load", lambda: None)
    tensors, grad = inputs(2, 2, 150, 8, 6, 3, 2)
    expected = results(fourier_attention_reference, tensors, grad, torch.float64)
    assert_all_close(results(fourier_attention, tensors, grad), expected, 2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_the_form_of_exported_models_equals_the_reference(size):
    (q, k, v, a, b, w), _ = inputs(*size, dtype=torch.float64)
    out, z = fourier_attention_portable(q, k, v, a, b, w, 0.3)
    torch.testing.assert_close(out, fourier_attention_reference(q, k, v, a, b, w, 0.3))
    torch.testing.assert_close(z @ (w.mT @ v), out)


def test_scale_is_used():
    tensors, grad = inputs(1, 2, 20, 8, 8, 3, 2)
    expected = results(fourier_attention_reference, tensors, grad, torch.float64, scale=0.7)
    assert_all_close(results(fourier_attention, tensors, grad, scale=0.7), expected, 2e-6)
    assert not torch.allclose(fourier_attention(*tensors), expected[0].float(), atol=1e-2)


def test_any_strides_give_the_same_bits():
    tensors, grad = inputs(2, 3, 30, 16, 16, 4, 2)
    expected = results(fourier_attention, tensors, grad)
    qkv = torch.stack([t.transpose(1, 2) for t in tensors[:3]], 2)  # (B, N, 3, h, d) as timm's attention has it
    views = list(qkv.permute(2, 0, 3, 1, 4).unbind(0))
    odd = [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in tensors]
    gradient = grad.transpose(1, 3).contiguous().transpose(1, 3)
    for case in (views + tensors[3:], odd):
        assert all(torch.equal(x, y) for x, y in zip(results(fourier_attention, case, gradient), expected, strict=True))


def test_expanded_gradient():
    tensors, grad = inputs(2, 2, 20, 8, 8, 3, 2)
    ones = torch.ones(()).expand_as(grad)
    expected = results(fourier_attention_reference, tensors, ones, torch.float64)
    assert_all_close(results(fourier_attention, tensors, ones), expected, 2e-6)


def test_threads_do_not_change_a_bit():
    tensors, grad = inputs(5, 3, 100, 16, 16, 12, 3)
    before = torch.get_num_threads()
    got = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            got.append(results(fourier_attention, tensors, grad))
    finally:
        torch.set_num_threads(before)
    for other in got[1:]:
        assert all(torch.equal(x, y) for x, y in zip(got[0], other, strict=True))


@pytest.mark.parametrize("isa", ISAS)
def test_sine_and_cosine_within_two_ulp(isa):
    g = np.random.default_rng(0)
    near_zeros = np.arange(1, 20000) * (math.pi / 2)  # where a careless range reduction loses all digits
    x = np.concatenate([g.uniform(-s, s, 50_000) for s in (0.8, 30, 3000, 2.0**20)] + [near_zeros, -near_zeros, [0.0, 3e7, -1e20]])
    x = x.astype(np.float32)
    sine, cosine = np.empty_like(x), np.empty_like(x)
    pointers = [t.ctypes.data_as(ctypes.c_void_p) for t in (x, sine, cosine)]
    cpu_library.load().kat_sincos(*pointers, ctypes.c_int64(x.size), cpu_library.ISAS.index(isa))
    for got, exact in ((sine, np.sin(x.astype(np.float64))), (cosine, np.cos(x.astype(np.float64)))):
        ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        assert np.max(np.abs(got - exact) / ulp) <= 2


def test_huge_and_undefined_logits():
    tensors, _grad = inputs(1, 1, 10, 4, 4, 3, 1)
    tensors[0] *= 1e12
    _, _, v, a, b, w = tensors
    # The logits' own rounding decides every phase, so only the amplitudes are left to hold: |z| <= sum over keys and harmonics.
    amplitudes = torch.hypot(a, b).sum((-1, -2))
    bound = torch.einsum("hr,bhrd->bhd", amplitudes, (w.mT @ v).abs())[:, :, None]
    assert (fourier_attention(*tensors, scale=1.0).abs() <= bound * (1 + 1e-5)).all()
    tensors[0][0, 0, 3] = math.nan
    out = fourier_attention(*tensors)
    assert out[0, 0, 3].isnan().all()
    assert out[0, 0, :3].isfinite().all()


def test_gradcheck_first_and_second_order():
    tensors, _ = inputs(1, 2, 4, 3, 2, 2, 2, torch.float64)
    assert torch.autograd.gradcheck(fourier_attention, [t.requires_grad_() for t in tensors])
    tensors, _ = inputs(1, 1, 3, 2, 2, 2, 2, torch.float64)  # its cost grows with the square of the number of inputs
    assert torch.autograd.gradgradcheck(fourier_attention, [t.requires_grad_() for t in tensors])


def test_third_order():
    """The second derivative is itself differentiable, also where the incoming gradient depends on the inputs."""
    tensors, _ = inputs(1, 2, 4, 3, 2, 2, 2, torch.float64)
    thirds = []
    for function in (fourier_attention, fourier_attention_reference):
        leaves = [t.detach().requires_grad_() for t in tensors]
        y = function(*leaves).square().sum()
        for _ in range(2):
            y = torch.autograd.grad(y, leaves[0], create_graph=True)[0].square().sum()
        thirds.append(torch.autograd.grad(y, leaves))
    for got, want in zip(*thirds, strict=True):
        torch.testing.assert_close(got, want)


def test_empty_batch():
    tensors, grad = inputs(0, 2, 5, 4, 4, 3, 2)
    got = results(fourier_attention, tensors, grad)
    assert got[0].shape == (0, 2, 5, 4)
    assert all(t.abs().sum() == 0 for t in got[4:])


def test_memory_of_the_result_joins_heads_without_a_copy():
    tensors, _ = inputs(2, 3, 10, 4, 4, 3, 2)
    out = fourier_attention(*tensors)
    assert out.transpose(1, 2).is_contiguous()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own opcheck asks for it
def test_opcheck():
    tensors, _ = inputs(2, 2, 9, 4, 4, 3, 2)
    torch.library.opcheck(torch.ops.kat_zoo.fourier_attention.default, tuple(t.requires_grad_() for t in tensors))


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        _, _, _, *coefficients = inputs(1, 2, 9, 4, 4, 3, 2)[0]
        self.a, self.b, self.w = (torch.nn.Parameter(t) for t in coefficients)

    def forward(self, q, k, v):
        return torch.ops.kat_zoo.fourier_attention(q, k, v, self.a, self.b, self.w)[0].transpose(1, 2)


@pytest.mark.filterwarnings("ignore:The TorchScript type system")  # fx-generated code under torch.jit.script
@pytest.mark.parametrize("capture", ["script", "fx", "fx+script", "compile", "export"])
def test_graph_capture(capture):
    model = Attention()
    (q, k, v, *_), grad = inputs(2, 2, 9, 4, 4, 3, 2)
    forms = {
        "script": lambda: torch.jit.script(model),
        "fx": lambda: torch.fx.symbolic_trace(model),
        "fx+script": lambda: torch.jit.script(torch.fx.symbolic_trace(model)),
        "compile": lambda: torch.compile(model, backend="aot_eager", fullgraph=True),
        "export": lambda: torch.export.export(model, (q, k, v)).module(),
    }
    captured = forms[capture]()
    expected, got = model(q, k, v), captured(q, k, v)
    assert torch.equal(got, expected)
    grad = grad.transpose(1, 2)
    want = torch.autograd.grad(expected, list(model.parameters()), grad)
    have = torch.autograd.grad(got, list(captured.parameters()), grad)
    assert all(torch.equal(x, y) for x, y in zip(want, have, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: (2, 3, 9)}, "q of shape"),
        ({1: (2, 3, 8, 4)}, "k of shape"),
        ({2: (2, 2, 9, 4)}, "v of shape"),
        ({3: (3, 5, 8, 2)}, "a of shape"),
        ({4: (3, 5, 9, 3)}, "b of shape"),
        ({5: (3, 5, 9)}, "w of shape"),
    ],
)
def test_bad_shapes_name_the_argument(change, message):
    shapes = [(2, 3, 9, 4)] * 3 + [(3, 5, 9, 2)] * 2 + [(3, 9, 5)]
    tensors = [torch.zeros(change.get(i, s)) for i, s in enumerate(shapes)]
    with pytest.raises(ValueError, match=message):
        fourier_attention(*tensors)


def test_bad_dtypes_and_devices():
    tensors, _ = inputs(1, 1, 4, 2, 2, 2, 1)
    with pytest.raises(ValueError, match="k of dtype torch.float64"):
        fourier_attention(tensors[0], tensors[1].double(), *tensors[2:])
    with pytest.raises(ValueError, match="b of dtype torch.int64"):
        fourier_attention(*tensors[:4], tensors[4].long(), tensors[5])
    with pytest.raises(ValueError, match="w on meta"):
        fourier_attention(*tensors[:5], tensors[5].to("meta"))


def test_saves_only_its_inputs_and_z():
    tensors, grad = inputs(2, 2, 400, 8, 8, 4, 1)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        out = fourier_attention(*(t.requires_grad_() for t in tensors))
    out.backward(grad)
    assert saved and max(saved) <= max(t.numel() for t in tensors)


def test_fallback_is_announced_once(caplog):
    dispatch.announce.cache_clear()
    tensors, _ = inputs(1, 1, 4, 2, 2, 2, 1)
    with caplog.at_level(logging.WARNING, logger="kat_zoo"):
        for _ in range(2):
            module._forward_fallback(*tensors)
    assert len([r for r in caplog.records if "fourier_attention runs in plain PyTorch" in r.message]) == 1
