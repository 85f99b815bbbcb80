"""Fourier-KArAt attention in Triton: z = sum_m cos(m A) a_m + sin(m A) b_m with A = scale q k^T, out = z (w^T v).

What grows with N^2 runs here, in tiles that never leave the chip: the forward and the gradient of q own a block of queries
and loop over keys; the gradients of k, a and b own a block of keys and loop over queries. Everything linear in N
(w^T v and its gradients) is a batched matrix product of PyTorch. Coefficients arrive packed as (h, G, 2, N, r), so that a
block of keys is a contiguous matrix. Their gradient is summed over a fixed part of the batch by each program and over
the parts by torch.sum: no atomics, bitwise repeatable.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
MAX_PARTS = 16  # pieces of the batch with partial sums of their own


@triton.jit
def _dot(x, y, PRECISION: tl.constexpr):
    return tl.dot(x, y, input_precision=PRECISION)


@triton.jit
def _rows(p, o_row, o_column, step, rows, columns):
    """Load p[o_row, o_column] of a (rows, columns) matrix with contiguous columns, 0 outside."""
    mask = (o_row < rows)[:, None] & (o_column < columns)[None, :]
    return tl.load(p + o_row.to(tl.int64)[:, None] * step + o_column[None, :], mask=mask, other=0.0)


@triton.jit
def _logits_gradient(c1, s1, dz, p_c, o_n, o_r, tokens, rank, G: tl.constexpr, TRANSPOSED: tl.constexpr, PRECISION: tl.constexpr):
    """sum_m m (cos(m A) (dz b_m) - sin(m A) (dz a_m)); a tile of A or, TRANSPOSED, of its transpose."""
    c, s = c1, s1
    total = tl.zeros_like(c1)
    for m in tl.static_range(G):
        a = _rows(p_c + 2 * m * tokens * rank, o_n, o_r, rank, tokens, rank)
        b = _rows(p_c + (2 * m + 1) * tokens * rank, o_n, o_r, rank, tokens, rank)
        if TRANSPOSED:
            total += (m + 1) * (c * _dot(b, tl.trans(dz), PRECISION) - s * _dot(a, tl.trans(dz), PRECISION))
        else:
            total += (m + 1) * (c * _dot(dz, tl.trans(b), PRECISION) - s * _dot(dz, tl.trans(a), PRECISION))
        c, s = c * c1 - s * s1, s * c1 + c * s1
    return total


@triton.jit
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
    p_c += i_h * (2 * G) * tokens * rank
    q = _rows(p_q + i_b * q_b + i_h * q_h, o_m, o_d, q_n, tokens, dim).to(DTYPE)
    z = tl.zeros((M, R), tl.float32)
    for start in range(0, tokens, N):
        o_n = start + tl.arange(0, N)
        k = _rows(p_k, o_n, o_d, k_n, tokens, dim).to(DTYPE)
        logits = _dot(q, tl.trans(k), PRECISION) * scale
        c1, s1 = tl.cos(logits), tl.sin(logits)
        c, s = c1, s1
        for m in tl.static_range(G):
            z += _dot(c, _rows(p_c + 2 * m * tokens * rank, o_n, o_r, rank, tokens, rank), PRECISION)
            z += _dot(s, _rows(p_c + (2 * m + 1) * tokens * rank, o_n, o_r, rank, tokens, rank), PRECISION)
            c, s = c * c1 - s * s1, s * c1 + c * s1
    o_v = tl.arange(0, DV)
    u = _rows(p_u + i_pair * rank * value_dim, o_r, o_v, value_dim, rank, value_dim)
    out = _dot(z, u, PRECISION)
    row = o_m.to(tl.int64)[:, None]
    m_m = (o_m < tokens)[:, None]
    tl.store(p_z + (i_pair * tokens + row) * rank + o_r[None, :], z, mask=m_m & (o_r < rank)[None, :])
    p_out += i_b * o_b + i_h * o_h
    tl.store(p_out + row * o_n_step + o_v[None, :], out.to(p_out.dtype.element_ty), mask=m_m & (o_v < value_dim)[None, :])


@triton.jit
def fourier_attention_query_kernel(
    p_q, p_k, p_c, p_dz, p_dq, q_b, q_h, q_n, k_b, k_h, k_n, d_b, d_h, d_n, heads, tokens, dim, rank, scale,
    G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of M queries of one (batch, head); grid (query blocks, B h)."""
    i_pair = tl.program_id(1).to(tl.int64)
    i_b, i_h = i_pair // heads, i_pair % heads
    o_m, o_d, o_r = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D), tl.arange(0, R)
    p_k += i_b * k_b + i_h * k_h
    p_c += i_h * (2 * G) * tokens * rank
    q = _rows(p_q + i_b * q_b + i_h * q_h, o_m, o_d, q_n, tokens, dim).to(DTYPE)
    dz = _rows(p_dz + i_pair * tokens * rank, o_m, o_r, rank, tokens, rank)
    dq = tl.zeros((M, D), tl.float32)
    for start in range(0, tokens, N):
        o_n = start + tl.arange(0, N)
        k = _rows(p_k, o_n, o_d, k_n, tokens, dim).to(DTYPE)
        logits = _dot(q, tl.trans(k), PRECISION) * scale
        c1, s1 = tl.cos(logits), tl.sin(logits)
        dlogits = _logits_gradient(c1, s1, dz, p_c, o_n, o_r, tokens, rank, G, False, PRECISION)
        dq += _dot(dlogits.to(DTYPE), k, PRECISION)
    p_dq += i_b * d_b + i_h * d_h + o_m.to(tl.int64)[:, None] * d_n + o_d[None, :]
    tl.store(p_dq, (dq * scale).to(p_dq.dtype.element_ty), mask=(o_m < tokens)[:, None] & (o_d < dim)[None, :])


@triton.jit
def fourier_attention_key_kernel(
    p_q, p_k, p_c, p_dz, p_dk, p_dc, q_b, q_h, q_n, k_b, k_h, k_n, d_b, d_h, d_n, batch, heads, tokens, dim, rank, scale,
    G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of N keys and, summed over a part of the batch, of their coefficients; grid (key blocks, h, parts)."""
    i_h, i_part, parts = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64), tl.num_programs(2)
    o_n, o_d, o_r = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, D), tl.arange(0, R)
    m_n = (o_n < tokens)[:, None]
    row = o_n.to(tl.int64)[:, None]
    p_c += i_h * (2 * G) * tokens * rank
    dcos = ()
    dsin = ()
    for _ in tl.static_range(G):
        dcos = dcos + (tl.zeros((N, R), tl.float32),)  # type: ignore[assignment]
        dsin = dsin + (tl.zeros((N, R), tl.float32),)  # type: ignore[assignment]
    for i_b in range(batch * i_part // parts, batch * (i_part + 1) // parts):
        k = _rows(p_k + i_b * k_b + i_h * k_h, o_n, o_d, k_n, tokens, dim).to(DTYPE)
        dk = tl.zeros((N, D), tl.float32)
        for start in range(0, tokens, M):
            o_m = start + tl.arange(0, M)
            q = _rows(p_q + i_b * q_b + i_h * q_h, o_m, o_d, q_n, tokens, dim).to(DTYPE)
            dz = _rows(p_dz + (i_b * heads + i_h) * tokens * rank, o_m, o_r, rank, tokens, rank)
            logits = _dot(k, tl.trans(q), PRECISION) * scale
            c1, s1 = tl.cos(logits), tl.sin(logits)
            c, s = c1, s1
            new_cos = ()
            new_sin = ()
            for m in tl.static_range(G):
                new_cos = new_cos + (dcos[m] + _dot(c, dz, PRECISION),)  # type: ignore[assignment]
                new_sin = new_sin + (dsin[m] + _dot(s, dz, PRECISION),)  # type: ignore[assignment]
                c, s = c * c1 - s * s1, s * c1 + c * s1
            dcos = new_cos
            dsin = new_sin
            dlogits = _logits_gradient(c1, s1, dz, p_c, o_n, o_r, tokens, rank, G, True, PRECISION)
            dk += _dot(dlogits.to(DTYPE), q, PRECISION)
        p_row = p_dk + i_b * d_b + i_h * d_h + row * d_n + o_d[None, :]
        tl.store(p_row, (dk * scale).to(p_dk.dtype.element_ty), mask=m_n & (o_d < dim)[None, :])
    p_dc += (i_part * heads + i_h) * (2 * G) * tokens * rank + row * rank + o_r[None, :]
    m_r = m_n & (o_r < rank)[None, :]
    for m in tl.static_range(G):
        tl.store(p_dc + 2 * m * tokens * rank, dcos[m], mask=m_r)
        tl.store(p_dc + (2 * m + 1) * tokens * rank, dsin[m], mask=m_r)


def _on_device(x: Tensor) -> contextlib.AbstractContextManager:
    """Launches go to the current device, which need not be x's."""
    return contextlib.nullcontext() if x.device.type == "cpu" else torch.get_device_module(x.device).device(x.device)


def _rows_of(t: Tensor) -> Tensor:
    return t if t.stride(-1) == 1 else t.contiguous()


def _pack(a: Tensor, b: Tensor) -> Tensor:
    """(h, r, N, G) twice -> (h, G, 2, N, r) in float32."""
    return torch.stack([a, b]).float().permute(1, 4, 0, 3, 2).contiguous()


def _constants(q: Tensor, rank: int, order: int) -> dict[str, object]:
    """Compile-time sizes, by the layer's shape and dtype alone: never the batch, never the number of tokens."""
    return {
        "G": order,
        "M": 32 if q.dtype == torch.float32 else 64,
        "N": 32 if order <= 4 else 16,
        "D": max(16, triton.next_power_of_2(q.shape[-1])),
        "R": max(16, triton.next_power_of_2(rank)),
        # 16-bit inputs round far above the 10 bits of TF32; float32 inputs keep all of theirs.
        "PRECISION": "ieee" if q.dtype == torch.float32 else "tf32",
        # The interpreter multiplies the bits of bfloat16 as integers: it gets float32 operands.
        "DTYPE": TYPES[q.dtype] if isinstance(fourier_attention_forward_kernel, triton.JITFunction) else tl.float32,
        "num_warps": 4,
        "num_stages": 2,  # 48 KiB of shared memory, what every GPU grants without asking
    }


def forward(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor, scale: float, out: Tensor, z: Tensor) -> None:
    """Fill out (B, h, N, d_v) and z (B, h, N, r). The other arguments as `fourier_attention`, which has checked them."""
    if not out.numel():
        return
    batch, heads, tokens, dim = q.shape
    rank, order, value_dim = a.shape[1], a.shape[3], v.shape[3]
    q, k = _rows_of(q), _rows_of(k)
    u = (w.float().transpose(-1, -2) @ v.float()).contiguous()
    constants = _constants(q, rank, order)
    constants["DV"] = max(16, triton.next_power_of_2(value_dim))
    strides = [s for t in (q, k, out) for s in t.stride()[:3]]
    sizes = (heads, tokens, dim, value_dim, rank, scale)
    grid = (triton.cdiv(tokens, constants["M"]), batch * heads)
    with _on_device(q):
        fourier_attention_forward_kernel[grid](q, k, _pack(a, b), u, out, z, *strides, *sizes, **constants)


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
    dz = (grad32 @ (v32.transpose(-1, -2) @ w32)).contiguous()
    dv, dw = (w32 @ du).to(v.dtype), (v32 @ du.transpose(-1, -2)).sum(0).to(w.dtype)
    parts = min(batch, MAX_PARTS)
    partial = q.new_zeros(max(parts, 1), heads, order, 2, tokens, rank, dtype=torch.float32)
    if q.numel():
        q, k, packed, constants = _rows_of(q), _rows_of(k), _pack(a, b), _constants(q, rank, order)
        strides = [s for t in (q, k) for s in t.stride()[:3]]
        with _on_device(q):
            grid = (triton.cdiv(tokens, constants["M"]), batch * heads)
            tail = (heads, tokens, dim, rank, scale)
            fourier_attention_query_kernel[grid](q, k, packed, dz, dq, *strides, *dq.stride()[:3], *tail, **constants)
            key_grid = (triton.cdiv(tokens, constants["N"]), heads, parts)
            key_arguments = (q, k, packed, dz, dk, partial, *strides, *dk.stride()[:3], batch, *tail)
            fourier_attention_key_kernel[key_grid](*key_arguments, **{**constants, "M": 32})
    da, db = partial.sum(0).permute(2, 0, 4, 3, 1).to(a.dtype).contiguous().unbind(0)
    return dv, da, db, dw
