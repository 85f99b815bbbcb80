"""The Triton kernels of the group-rational activation: forward, backward, and the sum of the backward's partial sums.

A tensor is `rows` contiguous rows of `groups` runs of `width` elements (channels last: width = C / G; NCHW: C / G * H *
W). The runs of one group, one after the other, are its stream. The stream is cut into vectors of at most 16 bytes that
never cross a run, so every lane works whatever the width; a program takes one chunk of one group's stream and loads the
coefficients once. The backward reads only x and the gradient: P and Q are recomputed. Each program writes the sums of
its chunk and a second kernel adds them in a fixed order: no atomics, no memset, bitwise repeatable.

Nothing about the batch is a constant of compilation. Powers that could overflow are detected from max |x| of the chunk,
which then is done again with the careful formulas: the result is finite wherever the true value is.
"""
# mypy: disable-error-code="assignment"
# (tuples that grow in an unrolled loop are Triton's arrays of registers; mypy reads them as Python)

import triton
import triton.language as tl

from .rational_triton_formulas import (
    careful_gradients,
    careful_value,
    direct_gradients,
    direct_limit,
    direct_value,
    load_denominator,
    load_numerator,
)

# Sizes that change from call to call. Without this, Triton would compile again for 1 and for multiples of 16.
_DYNAMIC = ["n_units", "steps", "groups", "width", "a_step", "b_step"]


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
        base += tl.where(wrap, tl.cast(groups, tl.int64) * width, 0)
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
    a, _da = load_numerator(p_a + i_g * a_step, M, DTYPE)
    b, _db = load_denominator(p_b + i_g * b_step, N, DTYPE)
    limit = direct_limit(a, b, M, N, DTYPE)
    o_v = tl.arange(0, VEC)[None, :]
    b_top = tl.zeros((TILE,), DTYPE)
    first, base, left = _begin(n_units, steps, groups, width, TILE, INDEX)
    for _ in range(steps):
        o_u, m_u = _tile(first, left, groups, width, WIDTH, TILE, INDEX)
        o = (o_u * VEC)[:, None] + o_v
        x = tl.load(p_x + base * VEC + o, mask=m_u[:, None], other=0.0).to(DTYPE)
        b_top = tl.maximum(b_top, tl.max(tl.abs(x), axis=1))
        y = direct_value(x, a, b, M, N, APPROX)
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
                y = careful_value(x, a, b, M, N)
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
    a, da = load_numerator(p_a + i_g * a_step, M, DTYPE)
    b, db = load_denominator(p_b + i_g * b_step, N, DTYPE)
    limit = direct_limit(a, b, M, N, DTYPE)
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
            acc, dx = direct_gradients(acc, gs[i], xs[i], a, da, b, db, M, N, APPROX)
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
                acc, dx = careful_gradients(acc, g, x, a, da, b, db, M, N)
                tl.store(p_dx + base * VEC + o, dx.to(p_dx.dtype.element_ty), mask=m_u)
            first, base, left = _advance(first, base, left, groups, width, WIDTH, TILE, INDEX)
    sums = tl.sum(_vectors(acc + _zeros(COLUMNS - (M + 1 + N), TILE, DTYPE), TILE, COLUMNS), axis=0)
    i_program = i_g.to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    tl.store(p_partial + i_program * COLUMNS + tl.arange(0, COLUMNS), sums)


@triton.jit(do_not_specialize=["chunks", "groups", "a_rows", "b_rows"])
def rational_reduce_kernel(
    p_partial, p_b, p_da, p_db, chunks, groups, a_rows, b_rows, M: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr
):
    """Add p_partial (groups, chunks, COLUMNS) in a fixed order: da (a_rows, M + 1), db (b_rows, N); grid (rows, 2)."""
    COLUMNS: tl.constexpr = triton.next_power_of_2(M + 1 + N)
    of_a = tl.program_id(1) == 0
    i_row = tl.program_id(0)  # the first axis: only there may a grid have more than 65,535 programs
    rows = tl.where(of_a, a_rows, b_rows)
    if i_row < rows:
        span = (groups // rows) * tl.cast(chunks, tl.int64)
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
