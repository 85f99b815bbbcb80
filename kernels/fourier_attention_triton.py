"""Fourier-KArAt attention in Triton: z = sum_m cos(m A) a_m + sin(m A) b_m with A = scale q k^T, out = z (w^T v).

What grows with N^2 runs here, in tiles that never leave the chip. Four kernels, each with one kind of accumulator, so that
none spills: z and out, and the gradient of q, own a block of queries and loop over keys; the gradient of k owns a block of
keys and loops over queries; that of a and b does too, over the queries of a fixed part of the batch. Everything linear in N
(w^T v and its gradients) is a batched matrix product of PyTorch. The rank is padded to R; coefficients arrive as
(h, G, 2, N, R), so that a block of keys is a contiguous matrix. Their gradient is summed over the parts of the batch by
torch.sum: no atomics, bitwise repeatable.
"""

import contextlib
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
MAX_PARTS = 16  # pieces of the batch with partial sums of their own
MAX_PAIRS = 65535  # of image and head in a launch: what CUDA allows along the second axis of a grid
SIZES = ("batch", "tokens")  # what changes from call to call: no kernel is compiled again for another value


@triton.jit
def _sincos(x):
    """Sine and cosine within 2 ulp for |x| <= 2^17, NaN beyond.

    tl.sin and tl.cos reduce their argument twice, and keep a stack for arguments that no finite attention reaches.
    """
    shifted = tl.fma(x, 0.636619772, 12582912.0)  # 1.5 2^23: the last bits of the sum are the nearest integer to 2 x / pi
    quadrant = shifted.to(tl.int32, bitcast=True)
    n = 12582912.0 - shifted
    r = tl.fma(n, 1.57079637050628662109375, x)  # pi / 2 in three float32; fused, so the first step is exact
    r = tl.fma(n, -4.37113900018624283e-8, r)
    r = tl.fma(n, -1.71512451e-15, r)
    r = tl.where(tl.abs(x) <= 131072.0, r, float("nan"))
    r2 = r * r
    s = tl.fma(r * r2, tl.fma(r2, tl.fma(r2, -1.9515295891e-4, 8.3321608736e-3), -1.6666654611e-1), r)
    high = tl.fma(r2, tl.fma(r2, 2.443315711809948e-5, -1.388731625493765e-3), 4.166664568298827e-2)
    c = tl.fma(r2 * r2, high, tl.fma(r2, -0.5, 1.0))
    swap = (quadrant & 1) != 0
    sine, cosine = tl.where(swap, c, s), tl.where(swap, s, c)
    return tl.where((quadrant & 2) != 0, -sine, sine), tl.where(((quadrant + 1) & 2) != 0, -cosine, cosine)


@triton.jit
def _dot(x, y, PRECISION: tl.constexpr):
    return tl.dot(x, y, input_precision=PRECISION)


@triton.jit
def _rows(p, o_row, o_column, step, rows, columns):
    """Load p[o_row, o_column] of a (rows, columns) matrix with contiguous columns, 0 outside."""
    mask = (o_row < rows)[:, None] & (o_column < columns)[None, :]
    return tl.load(p + o_row.to(tl.int64)[:, None] * step + o_column[None, :], mask=mask, other=0.0)


@triton.jit
def _ranks(p, o_row, o_r, rows, R: tl.constexpr):
    """Load rows of a (rows, R) matrix, 0 outside."""
    return tl.load(p + o_row[:, None] * R + o_r[None, :], mask=(o_row < rows)[:, None], other=0.0)


@triton.jit
def _logits_gradient(logits, dz, p_c, o_n, o_r, tokens, G: tl.constexpr, R: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr):
    """sum_m m (cos(m A) (dz b_m) - sin(m A) (dz a_m)); a tile of A or, if KEYS are its rows, of its transpose."""
    s1, c1 = _sincos(logits)
    c, s = c1, s1
    total = tl.zeros_like(c1)
    for m in tl.static_range(G):
        a = _ranks(p_c + 2 * m * tokens * R, o_n, o_r, tokens, R)
        b = _ranks(p_c + (2 * m + 1) * tokens * R, o_n, o_r, tokens, R)
        if KEYS:
            total += (m + 1) * c * _dot(b, tl.trans(dz), PRECISION)
            total -= (m + 1) * s * _dot(a, tl.trans(dz), PRECISION)
        else:
            total += (m + 1) * c * _dot(dz, tl.trans(b), PRECISION)
            total -= (m + 1) * s * _dot(dz, tl.trans(a), PRECISION)
        c, s = c * c1 - s * s1, s * c1 + c * s1
    return total


@triton.jit(do_not_specialize=SIZES)
def fourier_attention_forward_kernel(
    p_q, p_k, p_c, p_u, p_out, p_z, q_b, q_h, q_n, k_b, k_h, k_n, o_b, o_h, o_n_step, heads, tokens, dim, value_dim, rank, scale,
    G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, R: tl.constexpr,
    PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """A block of M queries of one (batch, head): z and out; grid (query blocks, B h)."""
    i_pair = tl.program_id(1).to(tl.int64)
    i_b, i_h = i_pair // heads, i_pair % heads
    o_m, o_d, o_r = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D), tl.arange(0, R)
    p_k += i_b * k_b + i_h * k_h
    p_c += i_h * (2 * G) * tokens * R
    q = _rows(p_q + i_b * q_b + i_h * q_h, o_m, o_d, q_n, tokens, dim).to(DTYPE)
    z = tl.zeros((M, R), tl.float32)
    for start in range(0, tokens, N):
        o_n = start + tl.arange(0, N)
        k = _rows(p_k, o_n, o_d, k_n, tokens, dim).to(DTYPE)
        s1, c1 = _sincos(_dot(q, tl.trans(k), PRECISION) * scale)
        c, s = c1, s1
        for m in tl.static_range(G):
            z += _dot(c, _ranks(p_c + 2 * m * tokens * R, o_n, o_r, tokens, R), PRECISION)
            z += _dot(s, _ranks(p_c + (2 * m + 1) * tokens * R, o_n, o_r, tokens, R), PRECISION)
            c, s = c * c1 - s * s1, s * c1 + c * s1
    o_v = tl.arange(0, DV)
    u = _rows(p_u + i_pair * R * value_dim, o_r, o_v, value_dim, R, value_dim)
    out = _dot(z, u, PRECISION)
    row = o_m.to(tl.int64)[:, None]
    m_m = (o_m < tokens)[:, None]
    tl.store(p_z + (i_pair * tokens + row) * rank + o_r[None, :], z, mask=m_m & (o_r < rank)[None, :])
    p_out += i_b * o_b + i_h * o_h
    tl.store(p_out + row * o_n_step + o_v[None, :], out.to(p_out.dtype.element_ty), mask=m_m & (o_v < value_dim)[None, :])


@triton.jit(do_not_specialize=SIZES)
def fourier_attention_query_kernel(
    p_q, p_k, p_c, p_dz, p_dq, q_b, q_h, q_n, k_b, k_h, k_n, d_b, d_h, d_n, heads, tokens, dim, scale,
    G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of M queries of one (batch, head); grid (query blocks, B h)."""
    i_pair = tl.program_id(1).to(tl.int64)
    i_b, i_h = i_pair // heads, i_pair % heads
    o_m, o_d, o_r = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D), tl.arange(0, R)
    p_k += i_b * k_b + i_h * k_h
    p_c += i_h * (2 * G) * tokens * R
    q = _rows(p_q + i_b * q_b + i_h * q_h, o_m, o_d, q_n, tokens, dim).to(DTYPE)
    dz = _ranks(p_dz + i_pair * tokens * R, o_m, o_r, tokens, R)
    dq = tl.zeros((M, D), tl.float32)
    for start in range(0, tokens, N):
        o_n = start + tl.arange(0, N)
        k = _rows(p_k, o_n, o_d, k_n, tokens, dim).to(DTYPE)
        logits = _dot(q, tl.trans(k), PRECISION) * scale
        dlogits = _logits_gradient(logits, dz, p_c, o_n, o_r, tokens, G, R, False, PRECISION)
        dq += _dot(dlogits.to(DTYPE), k, PRECISION)
    p_dq += i_b * d_b + i_h * d_h + o_m.to(tl.int64)[:, None] * d_n + o_d[None, :]
    tl.store(p_dq, (dq * scale).to(p_dq.dtype.element_ty), mask=(o_m < tokens)[:, None] & (o_d < dim)[None, :])


@triton.jit(do_not_specialize=SIZES)
def fourier_attention_key_kernel(
    p_q, p_k, p_c, p_dz, p_dk, q_b, q_h, q_n, k_b, k_h, k_n, d_b, d_h, d_n, heads, tokens, dim, scale,
    G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of N keys of one (batch, head); grid (key blocks, B h)."""
    i_pair = tl.program_id(1).to(tl.int64)
    i_b, i_h = i_pair // heads, i_pair % heads
    o_n, o_d, o_r = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, D), tl.arange(0, R)
    p_q += i_b * q_b + i_h * q_h
    p_c += i_h * (2 * G) * tokens * R
    p_dz += i_pair * tokens * R
    k = _rows(p_k + i_b * k_b + i_h * k_h, o_n, o_d, k_n, tokens, dim).to(DTYPE)
    dk = tl.zeros((N, D), tl.float32)
    for start in range(0, tokens, M):
        o_m = start + tl.arange(0, M)
        q = _rows(p_q, o_m, o_d, q_n, tokens, dim).to(DTYPE)
        dz = _ranks(p_dz, o_m, o_r, tokens, R)
        logits = _dot(k, tl.trans(q), PRECISION) * scale
        dlogits = _logits_gradient(logits, dz, p_c, o_n, o_r, tokens, G, R, True, PRECISION)
        dk += _dot(dlogits.to(DTYPE), q, PRECISION)
    p_dk += i_b * d_b + i_h * d_h + o_n.to(tl.int64)[:, None] * d_n + o_d[None, :]
    tl.store(p_dk, (dk * scale).to(p_dk.dtype.element_ty), mask=(o_n < tokens)[:, None] & (o_d < dim)[None, :])


@triton.jit(do_not_specialize=SIZES)
def fourier_attention_coefficient_kernel(
    p_q, p_k, p_dz, p_dc, q_b, q_h, q_n, k_b, k_h, k_n, batch, heads, tokens, dim, scale,
    G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """Gradients of the coefficients of a block of N keys, summed over a part of the batch; grid (key blocks, h, parts)."""
    i_h, i_part, parts = tl.program_id(1).to(tl.int64), tl.program_id(2), tl.num_programs(2)
    o_n, o_d, o_r = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, D), tl.arange(0, R)
    dcos = ()
    dsin = ()
    for _ in tl.static_range(G):
        dcos = dcos + (tl.zeros((N, R), tl.float32),)  # type: ignore[assignment]
        dsin = dsin + (tl.zeros((N, R), tl.float32),)  # type: ignore[assignment]
    blocks = tl.cdiv(tokens, M)
    for i in range(batch * i_part // parts * blocks, batch * (i_part + 1) // parts * blocks):
        i_b, o_m = (i // blocks).to(tl.int64), i % blocks * M + tl.arange(0, M)
        k = _rows(p_k + i_b * k_b + i_h * k_h, o_n, o_d, k_n, tokens, dim).to(DTYPE)
        q = _rows(p_q + i_b * q_b + i_h * q_h, o_m, o_d, q_n, tokens, dim).to(DTYPE)
        dz = _ranks(p_dz + (i_b * heads + i_h) * tokens * R, o_m, o_r, tokens, R)
        s1, c1 = _sincos(_dot(k, tl.trans(q), PRECISION) * scale)
        c, s = c1, s1
        new_cos = ()
        new_sin = ()
        for m in tl.static_range(G):
            new_cos = new_cos + (dcos[m] + _dot(c, dz, PRECISION),)  # type: ignore[assignment]
            new_sin = new_sin + (dsin[m] + _dot(s, dz, PRECISION),)  # type: ignore[assignment]
            c, s = c * c1 - s * s1, s * c1 + c * s1
        dcos = new_cos
        dsin = new_sin
    p_dc += (i_part * heads + i_h) * (2 * G) * tokens * R + o_n[:, None] * R + o_r[None, :]
    for m in tl.static_range(G):
        tl.store(p_dc + 2 * m * tokens * R, dcos[m], mask=(o_n < tokens)[:, None])
        tl.store(p_dc + (2 * m + 1) * tokens * R, dsin[m], mask=(o_n < tokens)[:, None])


def _on_device(x: Tensor) -> contextlib.AbstractContextManager:
    """Launches go to the current device, which need not be x's."""
    return contextlib.nullcontext() if x.device.type == "cpu" else torch.get_device_module(x.device).device(x.device)


def _portions(heads: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut (B, h, ...) along the batch, so that no launch has more than MAX_PAIRS pairs of image and head."""
    return zip(*(t.split(max(MAX_PAIRS // heads, 1)) for t in tensors), strict=True)


def _rows_of(t: Tensor) -> Tensor:
    return t if t.stride(-1) == 1 else t.contiguous()


def _padded_rank(rank: int) -> int:
    return max(16, triton.next_power_of_2(rank))


def _pad_rank(t: Tensor) -> Tensor:
    """(..., r) -> (..., R) in float32, zeros appended."""
    return torch.nn.functional.pad(t.float(), (0, _padded_rank(t.shape[-1]) - t.shape[-1]))


def _pack(a: Tensor, b: Tensor) -> Tensor:
    """(h, r, N, G) twice -> (h, G, 2, N, R) in float32."""
    return _pad_rank(torch.stack([a, b]).permute(1, 4, 0, 3, 2)).contiguous()


def _tiles(dtype: torch.dtype, dim: int, order: int) -> dict[str, int]:
    """Tiles of queries (M) and keys (N), warps and stages with which no kernel spills; found by compiling for sm_80 and sm_90."""
    full = dtype == torch.float32
    if order > 4:  # the gradients of a and b alone are 2 G accumulators
        return {"M": 32, "N": 16, "num_warps": 8, "num_stages": 2} if full else {"M": 16, "N": 16, "num_warps": 4, "num_stages": 1}
    size = 16 if full and dim > 64 else 32
    return {"M": size, "N": size, "num_warps": 4, "num_stages": 2}  # 48 KiB of shared memory, what every GPU grants without asking


def _has_tf32() -> bool:
    """Whether tl.dot takes TF32 on the current device: every NVIDIA GPU, and of AMD's gfx942 alone."""
    if not isinstance(fourier_attention_forward_kernel, triton.JITFunction):
        return True  # the interpreter multiplies float32 whatever it is asked for
    target = triton.runtime.driver.active.get_current_target()
    return target.backend == "cuda" or target.arch == "gfx942"


def _constants(q: Tensor, rank: int, order: int) -> dict[str, object]:
    """Compile-time sizes, by the layer's shape and dtype alone: never the batch, never the number of tokens."""
    dim = max(16, triton.next_power_of_2(q.shape[-1]))
    return {
        **_tiles(q.dtype, dim, order),
        "G": order,
        "D": dim,
        "R": _padded_rank(rank),
        # 16-bit inputs round far above the 10 bits of TF32; float32 inputs keep all of theirs.
        "PRECISION": "tf32" if q.dtype != torch.float32 and _has_tf32() else "ieee",
        # The interpreter multiplies the bits of bfloat16 as integers: it gets float32 operands.
        "DTYPE": TYPES[q.dtype] if isinstance(fourier_attention_forward_kernel, triton.JITFunction) else tl.float32,
    }


def _narrow(constants: dict[str, object], q: Tensor, order: int) -> dict[str, object]:
    """For kernels whose second product contracts what the first one made: two warps pass no tile of it to each other.

    That halves their instructions. In float32, and in high orders, the products take the registers of more warps.
    """
    return constants if q.dtype == torch.float32 or order > 4 else {**constants, "num_warps": 2}


def forward(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float, out: Tensor, z: Tensor) -> None:
    """Fill out (B, h, N, d_v) and z (B, h, N, r). The other arguments as `fourier_attention`, which has checked them."""
    if not out.numel():
        return
    _, heads, tokens, dim = q.shape
    rank, order, value_dim = a.shape[1], a.shape[3], v.shape[3]
    q, k = _rows_of(q), _rows_of(k)
    u = (_pad_rank(w).transpose(-1, -2) @ v.float()).contiguous()
    constants = _constants(q, rank, order)
    constants["DV"] = max(16, triton.next_power_of_2(value_dim))
    strides = [s for t in (q, k, out) for s in t.stride()[:3]]
    sizes = (heads, tokens, dim, value_dim, rank, scale)
    blocks, packed = triton.cdiv(tokens, constants["M"]), _pack(a, b)
    with _on_device(q):
        for x, y, *rest in _portions(heads, q, k, u, out, z):
            grid = (blocks, len(x) * heads)
            fourier_attention_forward_kernel[grid](x, y, packed, *rest, *strides, *sizes, **_narrow(constants, q, order))


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
    rank, order = a.shape[1], a.shape[3]
    grad32, v32, w32 = grad.float(), v.float(), w.float()
    du = z.transpose(-1, -2) @ grad32
    dv, dw = (w32 @ du).to(v.dtype), (v32 @ du.transpose(-1, -2)).sum(0).to(w.dtype)
    parts = min(batch, MAX_PARTS)
    partial = q.new_zeros(max(parts, 1), heads, order, 2, tokens, _padded_rank(rank), dtype=torch.float32)
    if q.numel():
        dz = (grad32 @ (v32.transpose(-1, -2) @ _pad_rank(w))).contiguous()
        q, k, packed, constants = _rows_of(q), _rows_of(k), _pack(a, b), _constants(q, rank, order)
        strides = [s for t in (q, k) for s in t.stride()[:3]]
        query_blocks, key_blocks = (triton.cdiv(tokens, constants[name]) for name in "MN")
        dq_strides, dk_strides, tail = dq.stride()[:3], dk.stride()[:3], (heads, tokens, dim, scale)
        with _on_device(q):
            for x, y, dz_, dx, dy in _portions(heads, q, k, dz, dq, dk):
                pairs = len(x) * heads
                fourier_attention_query_kernel[query_blocks, pairs](x, y, packed, dz_, dx, *strides, *dq_strides, *tail, **constants)
                fourier_attention_key_kernel[key_blocks, pairs](x, y, packed, dz_, dy, *strides, *dk_strides, *tail, **constants)
            grid = (key_blocks, heads, parts)
            fourier_attention_coefficient_kernel[grid](q, k, dz, partial, *strides, batch, *tail, **_narrow(constants, q, order))
    da, db = partial.sum(0)[..., :rank].permute(2, 0, 4, 3, 1).to(a.dtype).contiguous().unbind(0)
    return dv, da, db, dw
