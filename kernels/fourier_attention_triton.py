"""Fourier-KArAt attention on GPUs: z = sum_m cos(m A) a_m + sin(m A) b_m with A = scale q k^T, out = z (w^T v).

This is the host's part. The Triton kernels do the work that grows with N^2; everything linear in N (w^T v and its gradients)
is a batched matrix product of PyTorch. The rank is padded to R. The gradient of the coefficients is summed over the parts of
the batch by torch.sum: no atomics, bitwise repeatable.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .fourier_attention_triton_kernels import (
    fourier_attention_forward_kernel,
    fourier_attention_key_kernel,
    fourier_attention_query_kernel,
)
from .launching import launcher, multiply_adds, on_device
from .layout import contiguous_channels

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
PARTS_OF_HEADS = 192  # pieces of the batch with partial sums of their own, of all heads together: they make enough programs
MAX_PAIRS = 65535  # pairs of image and head in a launch: CUDA's limit along the second axis of a grid


def _portions(heads: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut (B, h, ...) along the batch, so that no launch has more than MAX_PAIRS pairs of image and head."""
    most = max(MAX_PAIRS // heads, 1)
    return iter([tensors]) if tensors[0].shape[0] <= most else zip(*(t.split(most) for t in tensors), strict=True)


def _padded_rank(rank: int) -> int:
    return max(16, triton.next_power_of_2(rank))


def _pad_rank(t: Tensor) -> Tensor:
    """(..., r) -> (..., R) in float32, zeros appended."""
    return torch.nn.functional.pad(t.float(), (0, _padded_rank(t.shape[-1]) - t.shape[-1]))


def _pack(a: Tensor, b: Tensor) -> Tensor:
    """(h, r, N, G) twice -> (h, G, 2, N, R) in float32."""
    return _pad_rank(torch.stack([a, b]).permute(1, 4, 0, 3, 2)).contiguous()


def _tiles(kernel: str, dtype: torch.dtype, dim: int, rank: int, num_harmonics: int) -> dict[str, int]:
    """Tiles of queries (M) and keys (N), warps and stages of a kernel: those with the fewest instructions that do not spill.

    Found by compiling, for up to 11 harmonics, with the Tritons of torch 2.8 to the newest. Two warps need not pass on the tiles of a
    product that the next one contracts, which halves their instructions. In float32, and with many harmonics, the products take the
    registers of more warps. Heads of 64 channels fit 48 KiB of shared memory, which every GPU grants.
    """
    full, many = dtype == torch.float32, num_harmonics > 4  # the gradients of a and b alone are 2 G accumulators
    if full and kernel == "key":
        return {"M": 32 if num_harmonics == 1 else 16, "N": 16, "num_warps": 8 if many else 4, "num_stages": 1 if num_harmonics == 1 else 2}
    if full:
        return {"M": 16 if dim > 64 and not many else 32, "N": 16, "num_warps": 8 if many else 4, "num_stages": 2}
    if many and kernel == "key":
        wide = num_harmonics * _padded_rank(rank) > 160
        return {"M": 16 if wide else 32, "N": 16, "num_warps": 4, "num_stages": 2 if wide else 1}
    if many:
        return {"M": 16, "N": 16, "num_warps": 2 if kernel == "query" else 4, "num_stages": 1}
    m = {"forward": 64, "query": 32, "key": 32 if dim > 16 else 16}[kernel]
    return {"M": m, "N": 16, "num_warps": 2, "num_stages": 1 if kernel == "query" else 2}


def _has_tf32() -> bool:
    """Whether tl.dot takes TF32 on the current device: every NVIDIA GPU, and of AMD's gfx942 alone."""
    if not isinstance(fourier_attention_forward_kernel, triton.JITFunction):
        return True  # the interpreter multiplies float32 in any case
    target = triton.runtime.driver.active.get_current_target()
    return target.backend == "cuda" or target.arch == "gfx942"


def _constants(kernel: str, q: Tensor, rank: int, num_harmonics: int) -> dict[str, object]:
    """Compile-time sizes, by the layer's shape and dtype alone: never the batch, never the number of tokens."""
    dim = max(16, triton.next_power_of_2(q.shape[-1]))
    return {
        **_tiles(kernel, q.dtype, dim, rank, num_harmonics),
        **multiply_adds(),
        "G": num_harmonics,
        "D": dim,
        "R": _padded_rank(rank),
        # 16-bit inputs round far above the 10 bits of TF32; float32 inputs keep all of theirs.
        "PRECISION": "tf32" if q.dtype != torch.float32 and _has_tf32() else "ieee",
        # The interpreter multiplies the bits of bfloat16 as integers: it gets float32 operands.
        "DTYPE": TYPES[q.dtype] if isinstance(fourier_attention_forward_kernel, triton.JITFunction) else tl.float32,
    }


def forward(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float, out: Tensor, z: Tensor) -> None:
    """Fill out (B, h, N, d_v) and z (B, h, N, r). The other arguments as `fourier_attention`, which has checked them."""
    if not out.numel():
        return
    _, heads, tokens, dim = q.shape
    rank, num_harmonics, value_dim = a.shape[1], a.shape[3], v.shape[3]
    q, k = contiguous_channels(q), contiguous_channels(k)
    u = (_pad_rank(w).transpose(-1, -2) @ v.float()).contiguous()
    constants = _constants("forward", q, rank, num_harmonics)
    constants["DV"] = max(16, triton.next_power_of_2(value_dim))
    strides = [s for t in (q, k, out) for s in t.stride()[:3]]
    sizes = (heads, tokens, dim, value_dim, rank, scale)
    blocks, packed = triton.cdiv(tokens, constants["M"]), _pack(a, b)
    with on_device(q):
        for x, y, *rest in _portions(heads, q, k, u, out, z):
            launch = launcher(fourier_attention_forward_kernel, q)[blocks, x.shape[0] * heads]
            launch(x, y, packed, *rest, *strides, *sizes, **constants)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    w: Tensor,
    z: Tensor,
    scale: float,
    dq: Tensor,
    dk: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fill dq and dk (B, h, N, d); return dv, da, db, dw. The other arguments as `forward`."""
    batch, heads, tokens, dim = q.shape
    rank, num_harmonics = a.shape[1], a.shape[3]
    grad32, v32, w32 = grad.float(), v.float(), w.float()
    du = z.transpose(-1, -2) @ grad32
    dv, dw = (w32 @ du).to(v.dtype), (v32 @ du.transpose(-1, -2)).sum(0).to(w.dtype)
    if not q.numel():
        return dv, torch.zeros_like(a), torch.zeros_like(b), dw
    dz = (grad32 @ (v32.transpose(-1, -2) @ _pad_rank(w))).contiguous()
    harmonics = torch.arange(1, num_harmonics + 1, device=a.device, dtype=torch.float32)
    q, k, packed = contiguous_channels(q), contiguous_channels(k), _pack(harmonics * a, harmonics * b)  # slopes: sin(m A)' = m cos(m A)
    parts = min(batch, triton.cdiv(PARTS_OF_HEADS, heads))
    partial = dz.new_empty(parts, *packed.shape)
    strides, sizes = [s for t in (q, k) for s in t.stride()[:3]], (heads, tokens, dim, scale)
    with on_device(q):
        constants = _constants("query", q, rank, num_harmonics)
        for x, y, dz_, dx in _portions(heads, q, k, dz, dq):
            launch = launcher(fourier_attention_query_kernel, q)[triton.cdiv(tokens, constants["M"]), x.shape[0] * heads]
            launch(x, y, packed, dz_, dx, *strides, *dq.stride()[:3], *sizes, **constants)
        constants = _constants("key", q, rank, num_harmonics)
        launch = launcher(fourier_attention_key_kernel, q)[triton.cdiv(tokens, constants["N"]), heads, parts]
        launch(q, k, packed, dz, dk, partial, *strides, *dk.stride()[:3], batch, *sizes, **constants)
    da, db = partial.sum(0)[..., :rank].permute(2, 0, 4, 3, 1).to(a.dtype).contiguous().unbind(0)
    return dv, da, db, dw
