"""`fourier_attention`: Fourier-KArAt attention as a torch operator; C++ on CPUs, Triton on GPUs, tiled PyTorch elsewhere."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from . import batching, cpu_library, dispatch
from .autocast import register_autocast
from .derivatives import register_autograd, second_order
from .fourier_attention_torch import (
    fourier_attention_portable,
    fourier_attention_reference,
    fourier_attention_tiled,
    fourier_attention_tiled_backward,
)
from .launching import register_traced
from .layout import contiguous_channels, heads_inside

_LIBRARY = torch.library.Library("kat_zoo", "FRAGMENT")
_LIBRARY.define(
    "fourier_attention(Tensor q, Tensor k, Tensor v, Tensor a, Tensor b, Tensor w, float? scale=None) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.define(
    "fourier_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor a, Tensor b, Tensor w, Tensor z, "
    "float? scale=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def fourier_attention(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float | None = None) -> Tensor:
    """Compute z (w^T v), z_kp = sum_q sum_m a_pqm cos(m A_kq) + b_pqm sin(m A_kq), A = scale q k^T, per head.

    The learnable attention of Fourier-KArAt (arXiv 2503.10632, section 4: operator order W Phi(A), rank r, G harmonics), which
    stands where softmax(A) v stood. As z is a sum over keys and w z has rank r, no N x N map is ever held: tiles of A are made,
    used and dropped, forward and backward. The backward keeps q, k, v, the coefficients and z. Deterministic on CPUs,
    for any number of threads. Second derivatives go through the reference, with N x N maps.

    Args:
        q: (B, h, N, d) queries; float32, float64, bfloat16 or float16, any strides. 16-bit types are computed in float32.
        k: (B, h, N, d) keys, as q.
        v: (B, h, N, d_v) values, as q.
        a: (h, r, N, G) coefficients of cos(A), ..., cos(G A); any of the dtypes above, independent of q.
        b: (h, r, N, G) coefficients of sin(A), ..., sin(G A), dtype of a.
        w: (h, N, r) map from the r components back to the N tokens, dtype of a.
        scale: factor of the logits; 1 / sqrt(d) if None.

    Returns:
        (B, h, N, d_v) in q's dtype. In memory it lies as (B, N, h, d_v), so that joining the heads costs no copy.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit each other.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript leaves out the block, whose condition it cannot read)
        if torch.onnx.is_in_onnx_export():  # ONNX has no operators of ours
            return fourier_attention_portable(q, k, v, a, b, w, scale)[0]
    return torch.ops.kat_zoo.fourier_attention(q, k, v, a, b, w, scale)[0]


def _check(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor) -> None:
    """Raise ValueError for arguments that do not fit."""
    for name, t, ndim in (("q", q, 4), ("k", k, 4), ("v", v, 4), ("a", a, 4), ("b", b, 4), ("w", w, 3)):
        if t.ndim != ndim:
            raise ValueError(f"{name} of shape {tuple(t.shape)}: expected {ndim} dimensions")
        if t.device != q.device:
            raise ValueError(f"{name} on {t.device}: expected the device of q, {q.device}")
        like, first = ("q", q) if name in "qkv" else ("a", a)
        if t.dtype not in cpu_library.DTYPES or t.dtype != first.dtype:
            raise ValueError(f"{name} of dtype {t.dtype}: expected that of {like}, one of float32, float64, bfloat16, float16")
    batch, heads, tokens, dim = q.shape
    rank, num_harmonics = a.shape[1], a.shape[3]
    expected = {
        "k": (k, (batch, heads, tokens, dim)),
        "v": (v, (batch, heads, tokens, v.shape[3])),
        "a": (a, (heads, rank, tokens, num_harmonics)),
        "b": (b, (heads, rank, tokens, num_harmonics)),
        "w": (w, (heads, tokens, rank)),
    }
    for name, (t, shape) in expected.items():
        if tuple(t.shape) != shape:
            raise ValueError(
                f"{name} of shape {tuple(t.shape)}: expected {shape} for q of shape {tuple(q.shape)} and a of shape {tuple(a.shape)}"
            )
    if min(rank, num_harmonics) < 1:
        raise ValueError(f"a of shape {tuple(a.shape)}: expected a rank r and a number of harmonics G of at least 1")


def _scale(q: Tensor, scale: float | None) -> float:
    return max(q.shape[-1], 1) ** -0.5 if scale is None else scale


def _compute_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _new_scores(q: Tensor, a: Tensor) -> Tensor:
    return q.new_empty(*q.shape[:3], a.shape[1], dtype=_compute_dtype(q))


def _call(function: Any, sizes: tuple[int, ...], dtype: torch.dtype, views: list[Tensor], pointers: list[Tensor], scale: float) -> None:
    """Call one of the C functions: sizes, the strides of `views`, the addresses of `pointers`."""
    strides = [s for t in views for s in t.stride()[:3]]
    code = function(
        cpu_library.DTYPES[dtype],
        (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_int64 * len(strides))(*strides),
        (ctypes.c_void_p * len(pointers))(*[t.data_ptr() for t in pointers]),
        ctypes.c_double(scale),
        cpu_library.num_threads(),
        cpu_library.isa(),
    )
    cpu_library.check_status(code)


def _sizes(q: Tensor, v: Tensor, a: Tensor) -> tuple[int, ...]:
    """B, h, N, d, d_v, r and G, as the C++ kernel takes them."""
    return (*q.shape, v.shape[3], a.shape[1], a.shape[3])


def _forward_cpu(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    _check(q, k, v, a, b, w)
    library = cpu_library.load()
    if library is None:
        return _tiled(q, k, v, a, b, w, scale)
    out, z = heads_inside(v), _new_scores(q, a)
    if out.numel() or z.numel():
        q, k, v = contiguous_channels(q), contiguous_channels(k), contiguous_channels(v)
        coefficients = [t.detach().to(z.dtype).contiguous() for t in (a, b, w)]
        function = library.kat_fourier_attention_forward
        _call(function, _sizes(q, v, a), q.dtype, [q, k, v, out], [q, k, v, *coefficients, out, z], _scale(q, scale))
    return out, z


def _backward_cpu(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, z: Tensor, scale: float | None = None
) -> tuple[Tensor, ...]:
    _check(q, k, v, a, b, w)
    library = cpu_library.load()
    if library is None:
        return _tiled_backward(grad, q, k, v, a, b, w, z, scale)
    gradients = [heads_inside(t) for t in (q, k, v)]
    dcoefficients = [torch.zeros_like(t, dtype=z.dtype, memory_format=torch.contiguous_format) for t in (a, b, w)]
    if q.numel() or v.numel():
        grad, q, k, v = contiguous_channels(grad), contiguous_channels(q), contiguous_channels(k), contiguous_channels(v)
        coefficients = [t.detach().to(z.dtype).contiguous() for t in (a, b, w)]
        pointers = [q, k, v, *coefficients, grad, z.contiguous(), *gradients, *dcoefficients]
        function = library.kat_fourier_attention_backward
        _call(function, _sizes(q, v, a), q.dtype, [q, k, v, grad, *gradients], pointers, _scale(q, scale))
    return (*gradients, *(t.to(a.dtype) for t in dcoefficients))


def _tiled(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    _check(q, k, v, a, b, w)
    out, z = fourier_attention_tiled(q, k, v, a, b, w, scale)
    return heads_inside(v).copy_(out), z


def _tiled_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, z: Tensor, scale: float | None = None
) -> tuple[Tensor, ...]:
    dq, dk, dv, *rest = fourier_attention_tiled_backward(grad, q, k, v, a, b, w, z, scale)
    return (*(heads_inside(t).copy_(t) for t in (dq, dk, dv)), *(t.contiguous() for t in rest))


def _forward_fallback(
    q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    dispatch.announce("fourier_attention", f"float64 {q.device.type}" if q.dtype == torch.float64 else q.device.type)
    return _tiled(q, k, v, a, b, w, scale)


def _forward_cuda(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    kernels = dispatch.triton_module("fourier_attention_triton")
    if kernels is None or q.dtype == torch.float64:
        return _forward_fallback(q, k, v, a, b, w, scale)
    _check(q, k, v, a, b, w)
    out, z = heads_inside(v), _new_scores(q, a)
    kernels.forward(q, k, v, a, b, w, _scale(q, scale), out, z)
    return out, z


def _backward_cuda(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, z: Tensor, scale: float | None = None
) -> tuple[Tensor, ...]:
    kernels = dispatch.triton_module("fourier_attention_triton")
    if kernels is None or q.dtype == torch.float64:
        return _tiled_backward(grad, q, k, v, a, b, w, z, scale)
    dq, dk = heads_inside(q), heads_inside(k)
    dv, *rest = kernels.backward(grad, q, k, v, a, b, w, z, _scale(q, scale), dq, dk)
    return (dq, dk, heads_inside(v).copy_(dv), *rest)


def _forward_fake(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    _check(q, k, v, a, b, w)
    return heads_inside(v), _new_scores(q, a)


def _backward_fake(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, z: Tensor, scale: float | None = None
) -> tuple[Tensor, ...]:
    contiguous = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (a, b, w))
    return (*(heads_inside(t) for t in (q, k, v)), *contiguous)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])  # kept for the backward, not a result


def _autograd(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    return (*torch.ops.kat_zoo.fourier_attention_backward(grad, *ctx.saved_tensors, ctx.scale), None)


def _backward_formula(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, z: Tensor, scale: float | None
) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        q, k, v, a, b, w = (t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in (q, k, v, a, b, w))
        out = fourier_attention_reference(q, k, v, a, b, w, scale)
        return torch.autograd.grad(out, (q, k, v, a, b, w), grad, create_graph=True)


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, _, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _autograd_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """Second derivatives. z is a function of q, k, a and b, so nothing flows through it."""

    def gradients(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        q, k, v, a, b, w = inputs
        out = fourier_attention_reference(q, k, v, a, b, w, ctx.scale)
        return torch.autograd.grad(out, inputs, grad, create_graph=True)

    return (*second_order(gradients, ctx.saved_tensors, grads), None, None)


for _device, _forward, _backward in (
    ("CPU", _forward_cpu, _backward_cpu),
    ("CUDA", _forward_cuda, _backward_cuda),
    ("XPU", _forward_cuda, _backward_cuda),  # the same Triton kernels
    ("CompositeExplicitAutograd", _forward_fallback, _tiled_backward),
):
    _LIBRARY.impl("fourier_attention", _forward, _device)
    _LIBRARY.impl("fourier_attention_backward", _backward, _device)
torch.library.register_fake("kat_zoo::fourier_attention", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("kat_zoo::fourier_attention_backward", _backward_fake, lib=_LIBRARY)
register_autograd(_LIBRARY, "fourier_attention", _autograd, _setup_context, fourier_attention_tiled)
register_autograd(_LIBRARY, "fourier_attention_backward", _autograd_backward, _setup_context_backward, _backward_formula)
register_traced(_LIBRARY, "fourier_attention", _forward_cuda, "fourier_attention_triton", float64=False)
register_traced(_LIBRARY, "fourier_attention_backward", _backward_cuda, "fourier_attention_triton", float64=False)
register_autocast(_LIBRARY, "fourier_attention")
register_autocast(_LIBRARY, "fourier_attention_backward")
batching.register_vmap(_LIBRARY, "fourier_attention", batching.fourier_attention)
batching.register_vmap(_LIBRARY, "fourier_attention_backward", batching.fourier_attention_backward)
