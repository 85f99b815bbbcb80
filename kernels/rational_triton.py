"""The group-rational activation on GPUs: y = P(x) / Q(x), Q = 1 + |b1||x| + ... + |bn||x|^n, per channel group.

This is the host's part: it cuts a tensor into programs, chooses the constants of compilation, and launches.
`rational_triton_kernels` tells how the kernels see a tensor.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import launcher, multiply_adds, on_device
from .layout import as_rows, like_rows
from .rational_triton_kernels import rational_backward_kernel, rational_forward_kernel, rational_reduce_kernel

TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.float32, torch.float16: tl.float32}
THREADS = 128  # of a program


class Gpu(NamedTuple):
    """Properties of a device that the host code needs."""

    warp_size: int
    approximate: bool  # whether to use NVIDIA's approximate reciprocal (1 ulp)


def current_gpu() -> Gpu:
    """Return the properties of the device that kernels are compiled for; a stand-in when they are interpreted."""
    if not isinstance(rational_forward_kernel, triton.JITFunction):
        return Gpu(32, False)
    target = triton.runtime.driver.active.get_current_target()
    return Gpu(target.warp_size, target.backend == "cuda")


class Tile(NamedTuple):
    """How a kernel is compiled for one (width, dtype)."""

    vec: int  # elements of a vector
    units: int  # vectors of a tile
    max_chunks: int  # programs, all groups together, that fill a large GPU


def tile(width: int, dtype: torch.dtype, backward: bool) -> Tile:
    """Choose by group width and dtype alone: vectors are the widest up to 16 bytes that divide the width."""
    vec = math.gcd(width, 16 // dtype.itemsize)
    # Vectors a thread has in flight. The backward keeps M + N + 1 sums for each, which take its registers.
    per_thread = max(1, 4 // vec) if backward else max(2, 8 // vec)
    return Tile(vec, THREADS * per_thread, 1024 if backward else 2048)


class Problem(NamedTuple):
    """Sizes of one call: grid, run-time arguments and constants of compilation."""

    grid: tuple[int, int]
    sizes: tuple[int, ...]
    constants: dict[str, Any]


INT32_LIMIT = 2**31
MIN_STEPS = 4  # tiles of a program: its prologue and epilogue cost about as much as one tile
MAX_STEPS = 256  # a thread adds 8 terms a tile to a float32 sum: no more than 2048 of them one after the other
MAX_CHUNKS = 65535  # second dimension of a CUDA grid


def problem(
    rows: int,
    groups: int,
    width: int,
    dtype: torch.dtype,
    numerator: Tensor,
    denominator: Tensor,
    backward: bool,
    gpu: Gpu,
) -> Problem:
    """Cut (rows, groups, width) into programs, by the sizes alone, so that sums do not depend on the device."""
    shape = tile(width, dtype, backward)
    units = width // shape.vec
    tiles = -(-rows * units // shape.units)
    steps = max(-(-tiles * groups // shape.max_chunks), min(MIN_STEPS, tiles))
    steps = max(min(steps, MAX_STEPS), -(-tiles // MAX_CHUNKS))
    chunks = -(-tiles // steps)
    m, n = numerator.shape[1] - 1, denominator.shape[1]
    # Offsets within a chunk, in elements, counted from the first run it touches.
    reach = (steps * shape.units + 2 * units) * groups * shape.vec
    sizes = (
        rows * units,
        steps,
        groups,
        units,
        m + 1 if numerator.shape[0] > 1 else 0,
        n if denominator.shape[0] > 1 else 0,
    )
    constants: dict[str, Any] = {
        "WIDTH": units if units < shape.units else 0,
        "VEC": shape.vec,
        "TILE": shape.units,
        "M": m,
        "N": n,
        "DTYPE": TYPES[dtype],
        "INDEX": tl.int32 if max(reach, rows * units) < INT32_LIMIT else tl.int64,
        "APPROX": gpu.approximate and dtype != torch.float64,
        "num_warps": THREADS // gpu.warp_size,
        **multiply_adds(),
    }
    return Problem((groups, chunks), sizes, constants)


def forward(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int, gpu: Gpu | None = None) -> Tensor:
    """Compute y in x's layout (a non-contiguous x is copied once). Arguments as `rational`, which has checked them.

    Args:
        x: input, on the GPU.
        numerator: coefficients (1 or G, m + 1).
        denominator: coefficients (1 or G, n).
        channel_dim: dimension of the channels, counted from the front.
        gpu: properties of the device to compile for; None takes the current one.
    """
    rows, inner = as_rows(x, channel_dim)
    y = torch.empty_like(rows)
    if not y.numel():
        return y
    a, b = numerator.contiguous(), denominator.contiguous()
    groups, channels = max(a.shape[0], b.shape[0]), x.shape[channel_dim]
    count = y.numel() // (channels * inner)
    grid, sizes, constants = problem(count, groups, channels // groups * inner, x.dtype, a, b, False, gpu or current_gpu())
    with on_device(x):
        launcher(rational_forward_kernel, x)[grid](rows, y, a, b, *sizes, **constants)
    return y


def backward(
    grad: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int, gpu: Gpu | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dx, dnumerator, ddenominator), the last two in the dtypes of the coefficients. Arguments as `forward`."""
    rows, inner = as_rows(x, channel_dim)
    grad = like_rows(grad, rows)
    dx = torch.empty_like(rows)
    if not dx.numel():
        return dx, torch.zeros_like(numerator), torch.zeros_like(denominator)
    a, b = numerator.contiguous(), denominator.contiguous()
    groups, channels = max(a.shape[0], b.shape[0]), x.shape[channel_dim]
    count = dx.numel() // (channels * inner)
    grid, sizes, constants = problem(count, groups, channels // groups * inner, x.dtype, a, b, True, gpu or current_gpu())
    m, n = constants["M"], constants["N"]
    shape = (*grid, triton.next_power_of_2(m + 1 + n))
    partial = torch.empty(shape, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32, device=x.device)
    da, db = torch.empty_like(a), torch.empty_like(b)
    with on_device(x):
        launcher(rational_backward_kernel, x)[grid](grad, rows, dx, a, b, partial, *sizes, **constants)
        sizes = (grid[1], groups, a.shape[0], b.shape[0])
        launcher(rational_reduce_kernel, x)[(groups, 2)](partial, b, da, db, *sizes, M=m, N=n, BLOCK=128, num_warps=4)
    return dx, da, db
