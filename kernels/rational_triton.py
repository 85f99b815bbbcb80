"""The group-rational activation in Triton: y = P(x) / Q(x), Q = 1 + |b1||x| + ... + |bn||x|^n, per channel group.

A tensor is `rows` contiguous rows of `groups` runs of `width` elements (channels last: width = C / G; NCHW: C / G * H *
W). The runs of one group, one after the other, are its stream. The stream is cut into vectors of at most 16 bytes that
never cross a run, so every lane works whatever the width; a program takes one chunk of one group's stream and loads the
coefficients once. The backward reads only x and the gradient: P and Q are recomputed. Each program writes the sums of
its chunk and a second kernel adds them in a fixed order: no atomics, no memset, bitwise repeatable.

Nothing about the batch is a constant of compilation. Powers that could overflow are detected from max |x| of the chunk,
which then is done again in powers of 1/x (`_careful_*`): the result is finite wherever the true value is.
"""
# mypy: disable-error-code="assignment"
# (tuples that grow in an unrolled loop are Triton's arrays of registers; mypy reads them as Python)

import contextlib
import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .rational import as_rows, like_rows

TYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.float32, torch.float16: tl.float32}

# Sizes that change from call to call. Without this, Triton would compile again for 1 and for multiples of 16.
_DYNAMIC = ["n_units", "steps", "groups", "width", "a_step", "b_step"]


@triton.jit
def _load_row(p_c, COUNT: tl.constexpr, DTYPE: tl.constexpr):
    c = ()
    for i in tl.static_range(COUNT):
        c = c + (tl.load(p_c + i).to(DTYPE),)
    return c


@triton.jit
def _load_numerator(p_a, M: tl.constexpr, DTYPE: tl.constexpr):
    """Return (a_0, ..., a_M) and the coefficients (0, a_1, 2 a_2, ...) of x P'."""
    a = _load_row(p_a, M + 1, DTYPE)
    da = ()
    for i in tl.static_range(M + 1):
        da = da + (a[i] * i,)
    return a, da


@triton.jit
def _load_denominator(p_b, N: tl.constexpr, DTYPE: tl.constexpr):
    """Return (1, |b_1|, ..., |b_N|) and (0, |b_1|, 2 |b_2|, ...)."""
    c = _load_row(p_b, N, DTYPE)
    b = (tl.full((), 1.0, DTYPE),)
    db = (tl.full((), 0.0, DTYPE),)
    for j in tl.static_range(N):
        b = b + (tl.abs(c[j]),)
        db = db + (tl.abs(c[j]) * (j + 1),)
    return b, db


@triton.jit
def _direct_limit(a, b, M: tl.constexpr, N: tl.constexpr, DTYPE: tl.constexpr):
    """Largest |x| for which no power, sum or product of the direct formula leaves the range of DTYPE."""
    weight = tl.full((), 1.0, DTYPE)
    for i in tl.static_range(M + 1):
        weight += tl.abs(a[i]) * (i + 1)
    for j in tl.static_range(1, N + 1):
        weight += b[j] * (j + 1)
    TOP: tl.constexpr = 600.0 if DTYPE == tl.float64 else 110.0
    DEGREE: tl.constexpr = max(max(M, N), 1)
    return tl.exp2(tl.minimum((TOP - tl.log2(weight.to(tl.float32))) / DEGREE, 126.0)).to(DTYPE)


@triton.jit
def _horner(x, c, LOW: tl.constexpr, HIGH: tl.constexpr):
    """c[LOW] + c[LOW + 1] x + ... + c[HIGH] x^(HIGH - LOW); 0 where HIGH < LOW."""
    if HIGH < LOW:
        p = x * 0
    else:
        p = c[HIGH]
        for i in tl.static_range(HIGH - LOW):
            p = p * x + c[HIGH - 1 - i]
    return p


@triton.jit
def _reciprocal(q, APPROX: tl.constexpr):
    if APPROX:  # NVIDIA: one instruction, 1 ulp; q >= 1, and the direct limit keeps 1 / q a normal number
        r = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=r,r", [q], dtype=tl.float32, is_pure=True, pack=1)
    else:
        r = 1.0 / q
    return r


@triton.jit
def _direct_value(x, a, b, M: tl.constexpr, N: tl.constexpr, APPROX: tl.constexpr):
    return _horner(x, a, 0, M) * _reciprocal(_horner(tl.abs(x), b, 0, N), APPROX)


@triton.jit
def _direct_gradients(acc, g, x, a, da, b, db, M: tl.constexpr, N: tl.constexpr, APPROX: tl.constexpr):
    """Return acc plus g dy/da_i (i = 0..M), then -g dy/d|b_j| (j = 1..N); and dx."""
    ax = tl.abs(x)
    r = _reciprocal(_horner(ax, b, 0, N), APPROX)
    y = _horner(x, a, 0, M) * r
    gr = g * r
    gry = gr * y
    dq = tl.where(x < 0, -gry, gry)  # sign(0) = +1
    dx = gr * _horner(x, da, 1, M) - dq * _horner(ax, db, 1, N)
    # Even powers serve x and |x| alike, so a sum costs about one multiply-add.
    x2 = x * x
    even = (x2,)
    for i in tl.static_range(1, max(M, N) // 2):
        even = even + (even[i - 1] * x2,)
    of_a = (gr, gr * x)
    of_b = (gry, gry * ax)
    out = ()
    for i in tl.static_range(M + 1):
        if i < 2:
            out = out + (acc[i] + of_a[i],)
        else:
            out = out + (acc[i] + of_a[i % 2] * even[i // 2 - 1],)
    for j in tl.static_range(1, N + 1):
        if j < 2:
            out = out + (acc[M + j] + of_b[j],)
        else:
            out = out + (acc[M + j] + of_b[j % 2] * even[j // 2 - 1],)
    return out, dx


@triton.jit
def _degree(c, HIGH: tl.constexpr):
    """Index of the last coefficient that is not 0."""
    top = tl.full((), 0, tl.int32)
    for i in tl.static_range(1, HIGH + 1):
        top = tl.where(c[i] != 0, i, top)
    return top


@triton.jit
def _times_power(v, ax, t, power):
    """Return v |x|^power; power is a scalar that may be negative, t = 1 / |x|."""
    for _ in range(power):
        v = v * ax
    for _ in range(-power):
        v = v * t
    return v


@triton.jit
def _reversed(c, s, t, top, HIGH: tl.constexpr):
    """Polynomial c of degree `top` at s |x|, divided by |x|^top, in powers of t = 1 / |x|."""
    p = t * 0
    sign = t * 0 + 1
    for i in tl.static_range(HIGH + 1):
        p = tl.where(i <= top, p * t + c[i] * sign, p)
        sign = sign * s
    return p


@triton.jit
def _careful_value(x, a, b, M: tl.constexpr, N: tl.constexpr):
    ax = tl.abs(x)
    big = ax > 1
    s = tl.where(x < 0, -1.0, 1.0).to(x.dtype)
    t = 1.0 / tl.where(big, ax, 1.0)
    u = _degree(a, M)
    v = _degree(b, N)
    y = _times_power(_reversed(a, s, t, u, M) / _reversed(b, t * 0 + 1, t, v, N), ax, t, u - v)
    return tl.where(big, y, _direct_value(tl.where(big, 0.0, x), a, b, M, N, False))


@triton.jit
def _careful_gradients(acc, g, x, a, da, b, db, M: tl.constexpr, N: tl.constexpr):
    ax = tl.abs(x)
    big = ax > 1
    acc, small = _direct_gradients(acc, tl.where(big, 0.0, g), tl.where(big, 0.0, x), a, da, b, db, M, N, False)
    g = tl.where(big, g, 0.0)
    ax = tl.where(big, ax, 1.0)
    s = tl.where(x < 0, -1.0, 1.0).to(x.dtype)
    t = 1.0 / ax
    u = _degree(a, M)
    v = _degree(b, N)
    q = _reversed(b, t * 0 + 1, t, v, N)
    y = _reversed(a, s, t, u, M) / q  # times |x|^(u - v), which may overflow where the gradients do not
    out = ()
    sign = t * 0 + 1
    for i in tl.static_range(M + 1):
        out = out + (acc[i] + _times_power(g * sign / q, ax, t, i - v),)
        sign = sign * s
    for j in tl.static_range(1, N + 1):
        out = out + (acc[M + j] + _times_power(g * y / q, ax, t, u - v + j - v),)
    # x P' and |x| Q' have the degrees of P and Q (both vanish where the degree is 0).
    slope = (_reversed(da, s, t, u, M) - y * _reversed(db, t * 0 + 1, t, v, N)) / q
    return out, tl.where(big, _times_power(g * s * slope, ax, t, u - v - 1), small)


@triton.jit
def _columns(x, TILE: tl.constexpr, VEC: tl.constexpr):
    """Split (TILE, VEC), whose rows each lie in one thread, into VEC tensors (TILE,)."""
    columns = (x,)
    for level in tl.static_range(VEC.bit_length() - 1):
        low = ()
        high = ()
        for i in tl.static_range(1 << level):
            even, odd = tl.split(tl.reshape(columns[i], (TILE, VEC >> (level + 1), 2)))
            low = low + (even,)
            high = high + (odd,)
        columns = low + high
    out = ()
    for i in tl.static_range(VEC):
        out = out + (tl.reshape(columns[i], (TILE,)),)
    return out


@triton.jit
def _vectors(columns, TILE: tl.constexpr, VEC: tl.constexpr):
    """Put VEC tensors (TILE,) side by side: (TILE, VEC). The inverse of `_columns`."""
    for level in tl.static_range(VEC.bit_length() - 1):
        out = ()
        for i in tl.static_range(VEC >> (level + 1)):
            pair = tl.join(columns[i], columns[i + (VEC >> (level + 1))])
            out = out + (tl.reshape(pair, (TILE, 2 << level)),)
        columns = out
    return tl.reshape(columns[0], (TILE, VEC))


@triton.jit
def _begin(n_units, steps, groups, width, TILE: tl.constexpr, INDEX: tl.constexpr):
    """Where this program's chunk starts: vector within its run, vectors before that run, vectors left in the stream."""
    start = tl.program_id(1).to(INDEX) * steps * TILE
    row = start // width
    base = (row.to(tl.int64) * groups + tl.program_id(0)) * width
    left = tl.minimum(n_units - start, steps * TILE)
    return (start - row * width).to(INDEX), base, left.to(tl.int32)


@triton.jit
def _tile(first, left, groups, width, WIDTH: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr):
    """Offsets from `base` of the next TILE vectors of the stream, and which of them exist."""
    o_unit = tl.arange(0, TILE)
    unit = first + o_unit
    if WIDTH:
        row = unit // WIDTH
        o_unit_row = row * ((groups - 1) * WIDTH).to(INDEX)
    else:
        o_unit_row = tl.where(unit >= width, ((groups - 1) * width).to(INDEX), 0)  # a tile touches two runs at most
    return unit + o_unit_row, o_unit < left


@triton.jit
def _advance(first, base, left, groups, width, WIDTH: tl.constexpr, TILE: tl.constexpr, INDEX: tl.constexpr):
    first += TILE
    if not WIDTH:
        wrap = first >= width
        first = tl.where(wrap, first - width, first).to(INDEX)
        base += tl.where(wrap, groups.to(tl.int64) * width, 0)
    return first, base, left - TILE


@triton.jit(do_not_specialize=_DYNAMIC)
def rational_forward_kernel(
    p_x,
    p_y,
    p_a,
    p_b,
    n_units,
    steps,
    groups,
    width,
    a_step,
    b_step,
    WIDTH: tl.constexpr,
    VEC: tl.constexpr,
    TILE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    DTYPE: tl.constexpr,
    INDEX: tl.constexpr,
    APPROX: tl.constexpr,
):
    """Write y of one chunk of one group: grid (groups, chunks). Sizes in vectors; WIDTH = 0: the width is dynamic."""
    i_g = tl.program_id(0)
    a, _da = _load_numerator(p_a + i_g * a_step, M, DTYPE)
    b, _db = _load_denominator(p_b + i_g * b_step, N, DTYPE)
    limit = _direct_limit(a, b, M, N, DTYPE)
    o_v = tl.arange(0, VEC)[None, :]
    b_top = tl.zeros((TILE,), DTYPE)
    first, base, left = _begin(n_units, steps, groups, width, TILE, INDEX)
    for _ in range(steps):
        o_u, m_u = _tile(first, left, groups, width, WIDTH, TILE, INDEX)
        o = (o_u * VEC)[:, None] + o_v
        x = tl.load(p_x + base * VEC + o, mask=m_u[:, None], other=0.0).to(DTYPE)
        b_top = tl.maximum(b_top, tl.max(tl.abs(x), axis=1))
        y = _direct_value(x, a, b, M, N, APPROX)
        tl.store(p_y + base * VEC + o, y.to(p_y.dtype.element_ty), mask=m_u[:, None])
        first, base, left = _advance(first, base, left, groups, width, WIDTH, TILE, INDEX)
    if tl.max(b_top, axis=0) > limit:
        tl.debug_barrier()  # other threads write here than in the loop above
        first, base, left = _begin(n_units, steps, groups, width, TILE, INDEX)
        for _ in range(steps):
            o_u, m_u = _tile(first, left, groups, width, WIDTH, TILE, INDEX)
            for i in range(VEC):
                o = o_u * VEC + i
                x = tl.load(p_x + base * VEC + o, mask=m_u, other=0.0).to(DTYPE)
                y = _careful_value(x, a, b, M, N)
                tl.store(p_y + base * VEC + o, y.to(p_y.dtype.element_ty), mask=m_u)
            first, base, left = _advance(first, base, left, groups, width, WIDTH, TILE, INDEX)


@triton.jit
def _zeros(COUNT: tl.constexpr, TILE: tl.constexpr, DTYPE: tl.constexpr):
    acc = ()
    for _ in tl.static_range(COUNT):
        acc = acc + (tl.zeros((TILE,), DTYPE),)
    return acc


@triton.jit(do_not_specialize=_DYNAMIC)
def rational_backward_kernel(
    p_g,
    p_x,
    p_dx,
    p_a,
    p_b,
    p_partial,
    n_units,
    steps,
    groups,
    width,
    a_step,
    b_step,
    WIDTH: tl.constexpr,
    VEC: tl.constexpr,
    TILE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    DTYPE: tl.constexpr,
    INDEX: tl.constexpr,
    APPROX: tl.constexpr,
):
    """As the forward, dx; and the chunk's sums for the coefficients: p_partial (groups, chunks, COLUMNS)."""
    COLUMNS: tl.constexpr = triton.next_power_of_2(M + 1 + N)
    i_g = tl.program_id(0)
    a, da = _load_numerator(p_a + i_g * a_step, M, DTYPE)
    b, db = _load_denominator(p_b + i_g * b_step, N, DTYPE)
    limit = _direct_limit(a, b, M, N, DTYPE)
    o_v = tl.arange(0, VEC)[None, :]
    b_top = tl.zeros((TILE,), DTYPE)
    acc = _zeros(M + 1 + N, TILE, DTYPE)
    first, base, left = _begin(n_units, steps, groups, width, TILE, INDEX)
    for _ in range(steps):
        o_u, m_u = _tile(first, left, groups, width, WIDTH, TILE, INDEX)
        o = (o_u * VEC)[:, None] + o_v
        x = tl.load(p_x + base * VEC + o, mask=m_u[:, None], other=0.0).to(DTYPE)
        g = tl.load(p_g + base * VEC + o, mask=m_u[:, None], other=0.0).to(DTYPE)
        xs = _columns(x, TILE, VEC)
        gs = _columns(g, TILE, VEC)
        dxs = ()
        for i in tl.static_range(VEC):  # one column after the other: a sum is a chain of multiply-adds
            b_top = tl.maximum(b_top, tl.abs(xs[i]))
            acc, dx = _direct_gradients(acc, gs[i], xs[i], a, da, b, db, M, N, APPROX)
            dxs = dxs + (dx,)
        dx = _vectors(dxs, TILE, VEC)
        tl.store(p_dx + base * VEC + o, dx.to(p_dx.dtype.element_ty), mask=m_u[:, None])
        first, base, left = _advance(first, base, left, groups, width, WIDTH, TILE, INDEX)
    if tl.max(b_top, axis=0) > limit:
        tl.debug_barrier()
        acc = _zeros(M + 1 + N, TILE, DTYPE)
        first, base, left = _begin(n_units, steps, groups, width, TILE, INDEX)
        for _ in range(steps):
            o_u, m_u = _tile(first, left, groups, width, WIDTH, TILE, INDEX)
            for i in range(VEC):
                o = o_u * VEC + i
                x = tl.load(p_x + base * VEC + o, mask=m_u, other=0.0).to(DTYPE)
                g = tl.load(p_g + base * VEC + o, mask=m_u, other=0.0).to(DTYPE)
                acc, dx = _careful_gradients(acc, g, x, a, da, b, db, M, N)
                tl.store(p_dx + base * VEC + o, dx.to(p_dx.dtype.element_ty), mask=m_u)
            first, base, left = _advance(first, base, left, groups, width, WIDTH, TILE, INDEX)
    sums = tl.sum(_vectors(acc + _zeros(COLUMNS - (M + 1 + N), TILE, DTYPE), TILE, COLUMNS), axis=0)
    i_program = i_g.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(p_partial + i_program * COLUMNS + tl.arange(0, COLUMNS), sums)


@triton.jit(do_not_specialize=["chunks", "groups", "a_rows", "b_rows"])
def rational_reduce_kernel(
    p_partial, p_b, p_da, p_db, chunks, groups, a_rows, b_rows, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr
):
    """Add p_partial (groups, chunks, COLUMNS) in a fixed order: da (a_rows, M + 1), db (b_rows, N); grid (2, rows)."""
    COLUMNS: tl.constexpr = triton.next_power_of_2(M + 1 + N)
    of_a = tl.program_id(0) == 0
    i_row = tl.program_id(1)
    rows = tl.where(of_a, a_rows, b_rows)
    if i_row < rows:
        span = (groups // rows) * chunks.to(tl.int64)
        o_u = tl.arange(0, BLOCK)
        o_c = tl.arange(0, COLUMNS)
        acc = tl.zeros((BLOCK, COLUMNS), p_partial.dtype.element_ty)
        for i in range(0, span, BLOCK):
            o = (i_row * span + i + o_u)[:, None] * COLUMNS + o_c[None, :]
            acc += tl.load(p_partial + o, mask=(i + o_u < span)[:, None], other=0.0)
        total = tl.sum(acc, axis=0)
        if of_a:
            tl.store(p_da + i_row * (M + 1) + o_c, total.to(p_da.dtype.element_ty), mask=o_c <= M)
        else:
            o_b = i_row * N + o_c - (M + 1)
            m_b = (o_c > M) & (o_c <= M + N)
            total = tl.where(tl.load(p_b + o_b, mask=m_b, other=0.0) < 0, total, -total)  # d|b| / db, sign(0) = +1
            tl.store(p_db + o_b, total.to(p_db.dtype.element_ty), mask=m_b)


THREADS = 128  # of a program


class Gpu(NamedTuple):
    """What the host code must know of the device."""

    warp_size: int
    approximate: bool  # whether to use NVIDIA's approximate reciprocal (1 ulp)


def current_gpu() -> Gpu:
    """Return the device that kernels are compiled for; when they are interpreted, a stand-in."""
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
    # Vectors a thread has in flight. The backward keeps M + N + 1 sums for each, which is what its registers go to.
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
    }
    return Problem((groups, chunks), sizes, constants)


def _on_device(x: Tensor) -> contextlib.AbstractContextManager:
    """Launches go to the current device, which need not be x's."""
    return contextlib.nullcontext() if x.device.type == "cpu" else torch.get_device_module(x.device).device(x.device)


def forward(x: Tensor, numerator: Tensor, denominator: Tensor, channel_dim: int, gpu: Gpu | None = None) -> Tensor:
    """Compute y in x's layout (a non-contiguous x is copied once). Arguments as `rational`, which has checked them.

    Args:
        x: the input.
        numerator: (1 or G, m + 1).
        denominator: (1 or G, n).
        channel_dim: counted from the front.
        gpu: the device to compile for; by default the current one.
    """
    rows, inner = as_rows(x, channel_dim)
    y = torch.empty_like(rows)
    if not y.numel():
        return y
    a, b = numerator.contiguous(), denominator.contiguous()
    groups, channels = max(a.shape[0], b.shape[0]), x.shape[channel_dim]
    count = y.numel() // (channels * inner)
    grid, sizes, constants = problem(count, groups, channels // groups * inner, x.dtype, a, b, False, gpu or current_gpu())
    with _on_device(x):
        rational_forward_kernel[grid](rows, y, a, b, *sizes, **constants)
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
    with _on_device(x):
        rational_backward_kernel[grid](grad, rows, dx, a, b, partial, *sizes, **constants)
        rational_reduce_kernel[(2, groups)](
            partial, b, da, db, grid[1], groups, a.shape[0], b.shape[0], M=m, N=n, BLOCK=128, num_warps=4
        )
    return dx, da, db
