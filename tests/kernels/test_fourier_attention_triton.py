"""The Triton kernels in Triton's interpreter (or on a GPU) against the float64 reference."""

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from kat_zoo.kernels import fourier_attention_reference, fourier_attention_triton, fourier_attention_triton_kernels
from kat_zoo.kernels.fourier_attention_op import _backward_cuda, _forward_cuda

NAMES = ("out", "dq", "dk", "dv", "da", "db", "dw")


def inputs(batch, heads, tokens, dim, value_dim, rank, num_harmonics, dtype):
    g = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, tokens, d) for d in (dim, dim, value_dim)]
    coefficients = [(heads, rank, tokens, num_harmonics)] * 2 + [(heads, tokens, rank)]
    tensors = [torch.randn(s, generator=g).to(dtype) for s in shapes] + [torch.randn(s, generator=g) for s in coefficients]
    return tensors, torch.randn(shapes[2], generator=g).to(dtype)


def reference(tensors, grad):
    leaves = [t.double().requires_grad_() for t in tensors]
    out = fourier_attention_reference(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.double())]


def kernels(tensors, grad):
    out, z = _forward_cuda(*tensors)
    return [out, *_backward_cuda(grad, *tensors, z)]


@pytest.mark.parametrize(
    ("size", "dtype", "ratio"),
    [
        ((1, 2, 70, 16, 16, 12, 3), torch.float32, 2e-6),
        ((2, 1, 5, 3, 7, 5, 1), torch.float32, 2e-6),
        ((1, 1, 17, 20, 8, 17, 5), torch.float32, 2e-6),  # small key blocks
        ((17, 1, 4, 4, 4, 2, 1), torch.float32, 2e-6),  # more images than parts of the batch
        ((2, 1, 33, 8, 8, 4, 2), torch.bfloat16, 1e-2),
        ((1, 1, 9, 8, 8, 4, 1), torch.float16, 2e-3),
    ],
    ids=str,
)
def test_triton_matches_float64_reference(size, dtype, ratio, monkeypatch):
    monkeypatch.setattr(fourier_attention_triton, "PARTS_OF_HEADS", 16)
    tensors, grad = inputs(*size, dtype)
    for name, x, y in zip(NAMES, kernels(tensors, grad), reference(tensors, grad), strict=True):
        assert x.shape == y.shape
        error = (x.double() - y).norm() / y.norm()
        assert error <= ratio, f"{name}: {error:.1e}"


def test_triton_reads_any_strides():
    tensors, grad = inputs(2, 2, 9, 8, 8, 3, 2, torch.float32)
    views = list(torch.stack([t.transpose(1, 2) for t in tensors[:3]], 2).permute(2, 0, 3, 1, 4).unbind(0))
    odd = [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in tensors]
    expected = kernels(tensors, grad)
    for case in (views + tensors[3:], odd):
        for x, y in zip(kernels(case, grad.transpose(1, 3).contiguous().transpose(1, 3)), expected, strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_a_batch_beyond_the_limit_of_a_grid_is_launched_in_portions(monkeypatch):
    tensors, grad = inputs(5, 2, 9, 4, 4, 3, 1, torch.float32)
    expected, portions = kernels(tensors, grad), []
    split = torch.Tensor.split
    monkeypatch.setattr(torch.Tensor, "split", lambda t, size: portions.append(size) or split(t, size))
    monkeypatch.setattr(fourier_attention_triton, "MAX_PAIRS", 4)
    assert all(torch.equal(x, y) for x, y in zip(kernels(tensors, grad), expected, strict=True))
    assert portions == [2] * 9  # images of two heads; five tensors of the forward kernel, four of the query kernel


def test_triton_empty_batch():
    tensors, grad = inputs(0, 2, 5, 4, 4, 3, 2, torch.float32)
    got = kernels(tensors, grad)
    assert got[0].shape == (0, 2, 5, 4) and all(t.abs().sum() == 0 for t in got[4:])


@triton.jit
def sincos_kernel(p_x, p_sine, p_cosine, n, sincos: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sine, cosine = sincos(tl.load(p_x + offsets, mask=offsets < n))
    tl.store(p_sine + offsets, sine, mask=offsets < n)
    tl.store(p_cosine + offsets, cosine, mask=offsets < n)


@pytest.fixture
def fused(monkeypatch):
    """Multiply-adds that round once, as on every GPU; the interpreter's round twice."""

    def fma(self, x, y, z):
        exact = x.data.astype(np.float64) * y.data + z.data
        return interpreter.TensorHandle(exact.astype(x.data.dtype), x.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", fma)


def test_sine_and_cosine_within_two_ulp(fused, generator):
    near_zeros = torch.arange(1, 20000, dtype=torch.float64) * (math.pi / 2)
    uniform = torch.rand(50_000, generator=generator, dtype=torch.float64) * 2 - 1
    x = torch.cat([uniform * s for s in (0.8, 30, 3000, 2.0**17)] + [near_zeros, -near_zeros]).float()
    sine, cosine = torch.empty_like(x), torch.empty_like(x)
    sincos_kernel[(triton.cdiv(len(x), 1 << 16),)](x, sine, cosine, len(x), fourier_attention_triton_kernels._sincos, 1 << 16)
    for got, exact in ((sine, x.double().sin()), (cosine, x.double().cos())):
        ulp = torch.from_numpy(np.spacing(exact.abs().float().numpy()))
        assert ((got - exact) / ulp).abs().max() <= 2


def test_logits_that_no_attention_reaches_are_not_silently_wrong(fused):
    x = torch.tensor([2.0**18, -3e38, math.nan, 0.0])
    sine, cosine = torch.empty_like(x), torch.empty_like(x)
    sincos_kernel[(1,)](x, sine, cosine, 4, fourier_attention_triton_kernels._sincos, 4)
    assert sine.isnan().tolist() == cosine.isnan().tolist() == [True, True, True, False]
