"""`rational`: the group-rational activation as a torch operator, sent to C++ on CPUs, Triton on GPUs, PyTorch elsewhere."""

from typing import Any

import torch
from torch import Tensor

from . import batching, cpu_library, dispatch
from .autocast import register_autocast
from .derivatives import register_autograd, second_order, seen_through
from .launching import register_traced
from .layout import as_rows, like_rows
from .rational_torch import rational_backward_reference, rational_portable, rational_reference

MAX_ORDER = 8

_LIBRARY = torch.library.Library("kat_zoo", "FRAGMENT")
_LIBRARY.define(
    "rational(Tensor x, Tensor numerator, Tensor denominator, int channel_dim=-1) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.define(
    "rational_backward(Tensor grad, Tensor x, Tensor numerator, Tensor denominator, int channel_dim=-1) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def rational(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> Tensor:
    """Compute y = P(x) / Q(x), P = a_0 + ... + a_m x^m, Q = 1 + |b_1||x| + ... + |b_n||x|^n, per group of channels.

    The group-rational activation of GR-KAN (Kolmogorov-Arnold Transformer, arXiv 2409.10594, section 4.2). Gradients follow
    the convention of the published weights, sign(0) = +1. Only x is kept for the backward; gradients of the coefficients
    are deterministic. Second derivatives go through the PyTorch reference.

    Args:
        x: float32, float64, bfloat16 or float16, any shape and strides. A layout that is neither contiguous nor contiguous
            with channels last costs one copy. 16-bit types are computed in float32. Under autocast a float32 x is cast to
            autocast's dtype, as an argument of a linear layer is, so that no activation is kept in float32.
        numerator: (1 or G, m + 1) coefficients a_i, m <= 8; any of the dtypes above, independent of x and never cast.
        denominator: (1 or G, n) coefficients b_j, 1 <= n <= 8, same dtype as the numerator. G, the number of groups, is the
            larger first dimension. (m, n) = (5, 4) is the fast case.
        channel_dim: dimension of x that is cut into G contiguous groups; -1 for (..., C), 1 for NCHW.

    Returns:
        A tensor of x's shape and dtype.

    Raises:
        ValueError: wrong shapes, dtypes, devices or degrees, or C not divisible by G.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript leaves out the block, whose condition it cannot read)
        if torch.onnx.is_in_onnx_export():  # ONNX has no operators of ours
            return rational_portable(x, numerator, denominator, channel_dim)
    return torch.ops.kat_zoo.rational(x, numerator, denominator, channel_dim)


def _check(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int, grad: Tensor | None = None) -> int:
    """Raise ValueError for arguments that do not fit; return channel_dim counted from the front."""
    for name, coefficients, most in (("numerator", numerator, MAX_ORDER + 1), ("denominator", denominator, MAX_ORDER)):
        if coefficients.ndim != 2 or not 1 <= coefficients.shape[1] <= most or coefficients.shape[0] < 1:
            raise ValueError(f"{name} of shape {tuple(coefficients.shape)}: expected (1 or G, 1 to {most}) for G groups")
        if coefficients.device != x.device:
            raise ValueError(f"{name} on {coefficients.device}: expected the device of x, {x.device}")
    if x.dtype not in cpu_library.DTYPES:
        raise ValueError(f"x of dtype {x.dtype}: expected float32, float64, bfloat16 or float16")
    if numerator.dtype not in cpu_library.DTYPES or numerator.dtype != denominator.dtype:
        raise ValueError(
            f"numerator of dtype {numerator.dtype} and denominator of dtype {denominator.dtype}: "
            "expected the same of float32, float64, bfloat16 or float16"
        )
    if not x.ndim:
        raise ValueError("x of shape (): expected channels, (..., C)")
    if not -x.ndim <= channel_dim < x.ndim:
        raise ValueError(f"channel_dim={channel_dim}: expected {-x.ndim} to {x.ndim - 1} for x of shape {tuple(x.shape)}")
    if grad is not None and (grad.shape, grad.dtype, grad.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            f"grad of shape {tuple(grad.shape)} and dtype {grad.dtype} on {grad.device}: expected those of x, "
            f"{tuple(x.shape)}, {x.dtype}, {x.device}"
        )
    a_rows, b_rows = numerator.shape[0], denominator.shape[0]
    groups = max(a_rows, b_rows)
    if a_rows not in (1, groups) or b_rows not in (1, groups):
        raise ValueError(f"numerator of {a_rows} rows and denominator of {b_rows}: expected 1 or the same number of groups")
    channel_dim %= x.ndim
    if x.shape[channel_dim] % groups:
        raise ValueError(f"x of shape {tuple(x.shape)}: expected {groups} groups to divide its {x.shape[channel_dim]} channels")
    return channel_dim


def _kernel_coefficients(x: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor]:
    """Contiguous coefficients in the dtype the kernels compute in."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return numerator.to(dtype).contiguous(), denominator.to(dtype).contiguous()


def _forward_cpu(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> Tensor:
    channel_dim = _check(x, numerator, denominator, channel_dim)
    library = cpu_library.load()
    if library is None:
        return _forward_reference(x, numerator, denominator, channel_dim)
    rows, inner = as_rows(x, channel_dim)
    y = torch.empty_like(rows)
    a, b = _kernel_coefficients(x, numerator, denominator)
    groups, channels = max(a.shape[0], b.shape[0]), x.shape[channel_dim]
    if y.numel():
        cpu_library.check_status(
            library.kat_rational_forward(
                cpu_library.DTYPES[x.dtype],
                rows.data_ptr(),
                y.data_ptr(),
                a.data_ptr(),
                a.shape[0],
                b.data_ptr(),
                b.shape[0],
                y.numel() // (channels * inner),
                groups,
                channels // groups * inner,
                a.shape[1] - 1,
                b.shape[1],
                cpu_library.num_threads(),
                cpu_library.isa(),
            )
        )
    return y


def _backward_cpu(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    channel_dim = _check(x, numerator, denominator, channel_dim, grad)
    library = cpu_library.load()
    if library is None:
        return _backward_reference(grad, x, numerator, denominator, channel_dim)
    rows, inner = as_rows(x, channel_dim)
    grad = like_rows(grad, rows)
    dx = torch.empty_like(rows)
    a, b = _kernel_coefficients(x, numerator, denominator)
    groups, channels = max(a.shape[0], b.shape[0]), x.shape[channel_dim]
    if not dx.numel():
        return dx, torch.zeros_like(numerator), torch.zeros_like(denominator)
    da, db = torch.empty_like(a), torch.empty_like(b)
    cpu_library.check_status(
        library.kat_rational_backward(
            cpu_library.DTYPES[x.dtype],
            grad.data_ptr(),
            rows.data_ptr(),
            dx.data_ptr(),
            a.data_ptr(),
            a.shape[0],
            b.data_ptr(),
            b.shape[0],
            da.data_ptr(),
            db.data_ptr(),
            dx.numel() // (channels * inner),
            groups,
            channels // groups * inner,
            a.shape[1] - 1,
            b.shape[1],
            cpu_library.num_threads(),
            cpu_library.isa(),
        )
    )
    return dx, da.to(numerator.dtype), db.to(denominator.dtype)


def _forward_reference(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> Tensor:
    channel_dim = _check(x, numerator, denominator, channel_dim)
    if x.device.type != "cpu":  # without a compiler, cpu_library.load has said so
        dispatch.announce("rational", x.device.type)
    return torch.empty_like(as_rows(x, channel_dim)[0]).copy_(rational_reference(x, numerator, denominator, channel_dim))


def _backward_reference(
    grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1
) -> tuple[Tensor, Tensor, Tensor]:
    channel_dim = _check(x, numerator, denominator, channel_dim, grad)
    dx, da, db = rational_backward_reference(grad, x, numerator, denominator, channel_dim)
    return torch.empty_like(as_rows(x, channel_dim)[0]).copy_(dx), da, db


def _forward_cuda(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> Tensor:
    channel_dim = _check(x, numerator, denominator, channel_dim)
    rational_triton = dispatch.triton_module("rational_triton")
    if rational_triton is None:
        return _forward_reference(x, numerator, denominator, channel_dim)
    return rational_triton.forward(x, numerator, denominator, channel_dim)


def _backward_cuda(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    channel_dim = _check(x, numerator, denominator, channel_dim, grad)
    rational_triton = dispatch.triton_module("rational_triton")
    if rational_triton is None:
        return _backward_reference(grad, x, numerator, denominator, channel_dim)
    return rational_triton.backward(grad, x, numerator, denominator, channel_dim)


def _forward_fake(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> Tensor:
    channel_dim = _check(x, numerator, denominator, channel_dim)
    return torch.empty_like(as_rows(x, channel_dim)[0])


def _backward_fake(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    return _forward_fake(x, numerator, denominator, channel_dim), torch.empty_like(numerator), torch.empty_like(denominator)


class _Rational(torch.autograd.Function):
    """The two operators as a function of autograd, written out, as a call costs less than one through `register_autograd`.

    Forward and backward of 8 x 64 elements took 128 us registered and take 100 us so, where nn.GELU takes 62 us.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int) -> Tensor:
        ctx.save_for_backward(x, numerator, denominator)
        ctx.channel_dim = channel_dim
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.kat_zoo.rational.default(x, numerator, denominator, channel_dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        arguments = (grad, *ctx.saved_tensors, ctx.channel_dim)
        if torch.is_grad_enabled():  # create_graph=True
            return (*torch.ops.kat_zoo.rational_backward.default(*arguments), None)
        with torch._C._AutoDispatchBelowAutograd():
            return (*torch.ops.kat_zoo.rational_backward.default(*arguments), None)


def is_rational_node(node: object) -> bool:
    """Whether `node`, a tensor's grad_fn or None, is that of `rational`: it has `saved_tensors` and `channel_dim`."""
    return isinstance(node, _Rational._backward_cls)


def _forward_autograd(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int = -1) -> Tensor:
    if seen_through("rational"):
        return rational_reference(x, numerator, denominator, _check(x, numerator, denominator, channel_dim))
    if torch.is_grad_enabled() and (x.requires_grad or numerator.requires_grad or denominator.requires_grad):
        return _Rational.apply(x, numerator, denominator, channel_dim)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.kat_zoo.rational.default(x, numerator, denominator, channel_dim)


def _setup_context_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, x, numerator, denominator, ctx.channel_dim = inputs
    ctx.save_for_backward(grad, x, numerator, denominator)


def _autograd_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    def gradients(grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, ...]:
        return rational_backward_reference(grad, x, numerator, denominator, ctx.channel_dim)

    return (*second_order(gradients, ctx.saved_tensors, grads), None)


for _device, _forward, _backward in (
    ("CPU", _forward_cpu, _backward_cpu),
    ("CUDA", _forward_cuda, _backward_cuda),
    ("XPU", _forward_cuda, _backward_cuda),  # the same Triton kernels
    ("CompositeExplicitAutograd", _forward_reference, _backward_reference),
):
    _LIBRARY.impl("rational", _forward, _device)
    _LIBRARY.impl("rational_backward", _backward, _device)
torch.library.register_fake("kat_zoo::rational", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("kat_zoo::rational_backward", _backward_fake, lib=_LIBRARY)
_LIBRARY.impl("rational", _forward_autograd, "Autograd")
register_autograd(_LIBRARY, "rational_backward", _autograd_backward, _setup_context_backward, rational_backward_reference)
register_traced(_LIBRARY, "rational", _forward_cuda, "rational_triton")
register_traced(_LIBRARY, "rational_backward", _backward_cuda, "rational_triton")
register_autocast(_LIBRARY, "rational", cast_first=True)
register_autocast(_LIBRARY, "rational_backward")
batching.register_vmap(_LIBRARY, "rational", batching.rational)
batching.register_vmap(_LIBRARY, "rational_backward", batching.rational_backward)
