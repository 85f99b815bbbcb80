"""The Triton kernels of Fourier-KArAt attention: z = sum_m cos(m A) a_m + sin(m A) b_m with A = scale q k^T, and its gradients.

Tiles of A never leave the chip. Three kernels: z and out, and the gradient of q, own a block of queries and loop over keys; the
gradients of k, a and b, which belong to keys, own a block of keys and loop over the queries of a fixed part of the batch.
Coefficients arrive as (h, G, 2, N, R), so that a block of keys is a contiguous matrix.
"""

import triton
import triton.language as tl

# Sizes that change from call to call: no kernel is compiled again for another value.
SIZES = ("batch", "tokens")


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
def _add_slope(total, c, s, dz, p_c, m, o_n, o_r, tokens, R: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr):
    """Add c (dz b) - s (dz a), the gradient of a tile of A through a harmonic; of its transpose if KEYS are the rows.

    The coefficients of the harmonic m + 1 arrive multiplied by m + 1.
    """
    a = _ranks(p_c + 2 * m * tokens * R, o_n, o_r, tokens, R)
    b = _ranks(p_c + (2 * m + 1) * tokens * R, o_n, o_r, tokens, R)
    if KEYS:
        total += c * _dot(b, tl.trans(dz), PRECISION)
        total -= s * _dot(a, tl.trans(dz), PRECISION)
    else:
        total += c * _dot(dz, tl.trans(b), PRECISION)
        total -= s * _dot(dz, tl.trans(a), PRECISION)
    return total


@triton.jit(do_not_specialize=SIZES)
def fourier_attention_forward_kernel(
    p_q, p_k, p_c, p_u, p_out, p_z, q_b, q_h, q_n, k_b, k_h, k_n, o_b, o_h, o_n_step, heads, tokens, dim, value_dim, rank, scale,
    G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, R: tl.constexpr,
    PRECISION: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """A block of M queries of one (batch, head): z and out; grid (query blocks, B h)."""
    i_pair = tl.program_id(1)
    i_b, i_h = (i_pair // heads).to(tl.int64), (i_pair % heads).to(tl.int64)  # divided as int32, which is a fraction of int64's work
    i_pair = i_pair.to(tl.int64)
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
    i_pair = tl.program_id(1)
    i_b, i_h = (i_pair // heads).to(tl.int64), (i_pair % heads).to(tl.int64)  # divided as int32, which is a fraction of int64's work
    i_pair = i_pair.to(tl.int64)
    o_m, o_d, o_r = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D), tl.arange(0, R)
    p_k += i_b * k_b + i_h * k_h
    p_c += i_h * (2 * G) * tokens * R
    q = _rows(p_q + i_b * q_b + i_h * q_h, o_m, o_d, q_n, tokens, dim).to(DTYPE)
    dz = _ranks(p_dz + i_pair * tokens * R, o_m, o_r, tokens, R)
    dq = tl.zeros((M, D), tl.float32)
    for start in range(0, tokens, N):
        o_n = start + tl.arange(0, N)
        k = _rows(p_k, o_n, o_d, k_n, tokens, dim).to(DTYPE)
        s1, c1 = _sincos(_dot(q, tl.trans(k), PRECISION) * scale)
        c, s = c1, s1
        dlogits = tl.zeros_like(c1)
        for m in tl.static_range(G):
            dlogits = _add_slope(dlogits, c, s, dz, p_c, m, o_n, o_r, tokens, R, False, PRECISION)
            c, s = c * c1 - s * s1, s * c1 + c * s1
        dq += _dot(dlogits.to(DTYPE), k, PRECISION)
    p_dq += i_b * d_b + i_h * d_h + o_m.to(tl.int64)[:, None] * d_n + o_d[None, :]
    tl.store(p_dq, (dq * scale).to(p_dq.dtype.element_ty), mask=(o_m < tokens)[:, None] & (o_d < dim)[None, :])


@triton.jit(do_not_specialize=SIZES)
def fourier_attention_key_kernel(
    p_q, p_k, p_c, p_dz, p_dk, p_dc, q_b, q_h, q_n, k_b, k_h, k_n, d_b, d_h, d_n, batch, heads, tokens, dim, scale,
    G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr,
    DTYPE: tl.constexpr,
):  # fmt: skip
    """A block of N keys: their gradients, image by image, and those of their coefficients, summed over a part of the batch.

    Both need the logits and all their harmonics, which are most of the work. Grid (key blocks, h, parts).
    """
    i_h, i_part, parts = tl.program_id(1).to(tl.int64), tl.program_id(2), tl.num_programs(2)
    o_n, o_d, o_r = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, D), tl.arange(0, R)
    p_c += i_h * (2 * G) * tokens * R
    dk = tl.zeros((N, D), tl.float32)
    dcos = ()
    dsin = ()
    for _ in tl.static_range(G):
        dcos = dcos + (tl.zeros((N, R), tl.float32),)  # type: ignore[assignment]
        dsin = dsin + (tl.zeros((N, R), tl.float32),)  # type: ignore[assignment]
    blocks = tl.cdiv(tokens, M)
    first, end = batch * i_part // parts, batch * (i_part + 1) // parts
    i_b, i_m = first.to(tl.int64), 0
    for _ in range((end - first) * blocks):  # images and blocks in one loop, whose loads Triton overlaps
        o_m = i_m * M + tl.arange(0, M)
        k = _rows(p_k + i_b * k_b + i_h * k_h, o_n, o_d, k_n, tokens, dim).to(DTYPE)
        q = _rows(p_q + i_b * q_b + i_h * q_h, o_m, o_d, q_n, tokens, dim).to(DTYPE)
        dz = _ranks(p_dz + (i_b * heads + i_h) * tokens * R, o_m, o_r, tokens, R)
        s1, c1 = _sincos(_dot(k, tl.trans(q), PRECISION) * scale)
        c, s = c1, s1
        new_cos = ()
        new_sin = ()
        dlogits = tl.zeros_like(c1)
        for m in tl.static_range(G):
            new_cos = new_cos + (dcos[m] + _dot(c, dz, PRECISION),)  # type: ignore[assignment]
            new_sin = new_sin + (dsin[m] + _dot(s, dz, PRECISION),)  # type: ignore[assignment]
            dlogits = _add_slope(dlogits, c, s, dz, p_c, m, o_n, o_r, tokens, R, True, PRECISION)
            c, s = c * c1 - s * s1, s * c1 + c * s1
        dcos = new_cos
        dsin = new_sin
        dk += _dot(dlogits.to(DTYPE), q, PRECISION)
        is_last = i_m == blocks - 1
        if is_last:
            p = p_dk + i_b * d_b + i_h * d_h + o_n.to(tl.int64)[:, None] * d_n + o_d[None, :]
            tl.store(p, (dk * scale).to(p_dk.dtype.element_ty), mask=(o_n < tokens)[:, None] & (o_d < dim)[None, :])
            dk = tl.zeros((N, D), tl.float32)
        i_b, i_m = i_b + is_last, tl.where(is_last, 0, i_m + 1)  # counted, as a division takes many instructions
    p_dc += (i_part * heads + i_h) * (2 * G) * tokens * R + o_n[:, None] * R + o_r[None, :]
    for m in tl.static_range(G):
        tl.store(p_dc + 2 * m * tokens * R, dcos[m], mask=(o_n < tokens)[:, None])
        tl.store(p_dc + (2 * m + 1) * tokens * R, dsin[m], mask=(o_n < tokens)[:, None])
