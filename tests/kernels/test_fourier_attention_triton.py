"""The Triton kernels in Triton's interpreter (or on a GPU) against the float64 reference."""

import pytest
import torch

from kat_zoo.kernels import fourier_attention_reference
from kat_zoo.kernels.fourier_attention import _backward_cuda, _forward_cuda

NAMES = ("out", "dq", "dk", "dv", "da", "db", "dw")


def inputs(batch, heads, tokens, dim, value_dim, rank, order, dtype):
    g = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, tokens, d) for d in (dim, dim, value_dim)]
    coefficients = [(heads, rank, tokens, order)] * 2 + [(heads, tokens, rank)]
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
def test_triton_matches_float64_reference(size, dtype, ratio):
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


def test_triton_empty_batch():
    tensors, grad = inputs(0, 2, 5, 4, 4, 3, 2, torch.float32)
    got = kernels(tensors, grad)
    assert got[0].shape == (0, 2, 5, 4) and all(t.abs().sum() == 0 for t in got[4:])
