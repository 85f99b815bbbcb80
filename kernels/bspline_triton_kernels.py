"""The B-spline operators as Triton kernels.

A sample of degree k touches k + 1 neighboring basis functions. `_bases` finds their place by bisection and their values by the
recurrence of de Boor (A Practical Guide to Splines, chapter X), in registers. Distances to knots are taken in float64 and then
rounded: float32 inputs beside knots that float32 cannot tell apart keep all their digits.

These are the parts of two forms of a contraction (`bspline_triton` chooses): matrix products with the dense bases, which
`bspline_basis_kernel` writes, and `local` kernels, which gather the k + 1 rows of coefficients that a sample touches, so that their
cost does not depend on the grid.
"""
# mypy: disable-error-code="assignment"
# (tuples that grow in an unrolled loop are Triton's arrays of registers; mypy reads them as Python)

import triton
import triton.language as tl


@triton.jit
def _bases(x, p_knots, GRID, ORDER: tl.constexpr, DERIVATIVE: tl.constexpr, STEPS: tl.constexpr):
    """Values (or derivatives) of the ORDER + 1 bases at x that are not 0, and the index of the first of them.

    p_knots: pointers to the first knot of each sample's channel, broadcastable to x. GRID: intervals. 2^STEPS >= GRID.
    """
    wide = x.to(tl.float64)
    low = tl.load(p_knots + ORDER)
    high = tl.load(p_knots + ORDER + GRID)
    inside = tl.where(wide < low, low, tl.where(wide > high, high, wide))  # NaN stays
    first = tl.zeros_like(x).to(tl.int32)  # interior knots at or below x
    end = first + (GRID - 1)
    for _ in tl.static_range(STEPS):
        middle = (first + end) // 2
        searching = first < end
        knot = tl.load(p_knots + ORDER + 1 + middle, mask=searching, other=0.0)
        above = searching & (knot <= inside)
        end = tl.where(searching & (knot > inside), middle, end)
        first = tl.where(above, middle + 1, first)
        end = tl.where(searching & (knot != knot), first, end)
    left = (tl.zeros_like(x),)
    right = (tl.zeros_like(x),)
    for j in tl.static_range(1, ORDER + 1):
        left = left + ((inside - tl.load(p_knots + ORDER + first + 1 - j)).to(x.dtype),)
        right = right + ((tl.load(p_knots + ORDER + first + j) - inside).to(x.dtype),)
    values = (tl.full(x.shape, 1.0, x.dtype),)
    slopes = (tl.zeros_like(x),)
    for j in tl.static_range(1, ORDER + 1):
        up = tl.zeros_like(x)  # passed on from basis r - 1 of degree j - 1 to basis r of degree j
        slope_up = tl.zeros_like(x)
        raised = ()
        sloped = ()
        for r in tl.static_range(j):
            width = right[r + 1] + left[j - r]
            part = tl.where(width > 0, values[r] / tl.where(width > 0, width, 1.0), 0.0)  # 0 / 0 = 0 at repeated knots
            sloped = sloped + (slope_up - j * part,)
            slope_up = j * part
            if j > ORDER - DERIVATIVE:
                raised = raised + (up - j * part,)
                up = j * part
            else:
                raised = raised + (up + right[r + 1] * part,)
                up = left[j - r] * part
        values = raised + (up,)
        slopes = sloped + (slope_up,)
    beyond = (wide - inside).to(x.dtype)
    if DERIVATIVE == 0:
        if ORDER > 0:
            out = ()
            for r in tl.static_range(ORDER + 1):
                out = out + (values[r] + tl.where(beyond == 0, 0.0, beyond * slopes[r]),)
            values = out
    elif DERIVATIVE > 1:
        out = ()
        for r in tl.static_range(ORDER + 1):
            out = out + (tl.where(beyond == 0, values[r], tl.where(beyond == beyond, 0.0, beyond)),)
        values = out
    lost = x - x  # NaN where x is not finite: so is every basis then
    out = ()
    for r in tl.static_range(ORDER + 1):
        out = out + (values[r] + lost,)
    return first, out


@triton.jit
def _scaled(values, p_scale, offsets, mask, ORDER: tl.constexpr):
    scale = tl.load(p_scale + offsets, mask=mask, other=0.0)
    out = ()
    for r in tl.static_range(ORDER + 1):
        out = out + (values[r] * scale,)
    return out


@triton.jit
def _spread(place, values, ORDER: tl.constexpr):
    """The dense bases: values[r] where place, a basis' distance from the first that is not 0, is r."""
    nothing = values[0] - values[0]  # 0, or NaN of a position that is not finite
    tile = tl.where(place == 0, values[0], nothing)
    for r in tl.static_range(1, ORDER + 1):
        tile += tl.where(place == r, values[r], 0.0)
    return tile


@triton.jit
def _as_column(values, ORDER: tl.constexpr):
    out = ()
    for r in tl.static_range(ORDER + 1):
        out = out + (values[r][:, None],)
    return out


@triton.jit(do_not_specialize=["samples"])
def bspline_basis_kernel(
    p_x, p_knots, p_scale, p_out, samples, channels, knot_stride, GRID, BASES,
    SCALED: tl.constexpr, ORDER: tl.constexpr, DERIVATIVE: tl.constexpr, STEPS: tl.constexpr, M: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """Bases of M samples, times their scale; the samples of a row are its channels."""
    index = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)
    mask = index < samples
    x = tl.load(p_x + index, mask=mask, other=0.0)
    first, values = _bases(x, p_knots + (index % channels) * knot_stride, GRID, ORDER, DERIVATIVE, STEPS)
    if SCALED:
        values = _scaled(values, p_scale, index, mask, ORDER)
    for start in range(0, BASES, J):
        bases = start + tl.arange(0, J)
        tile = _spread(bases[None, :] - first[:, None], _as_column(values, ORDER), ORDER)
        tl.store(p_out + index[:, None] * BASES + bases[None, :], tile, mask=mask[:, None] & (bases < BASES)[None, :])


@triton.jit(do_not_specialize=["samples"])
def spline_pick_kernel(
    p_x, p_knots, p_products, p_u, samples, channels, knot_stride, GRID, BASES,
    ORDER: tl.constexpr, DERIVATIVE: tl.constexpr, STEPS: tl.constexpr, M: tl.constexpr,
):  # fmt: skip
    """u[n] = sum_j B_j(x[n]) p[n, j], of which k + 1 terms are not 0; the samples n of a row are its channels."""
    index = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)
    mask = index < samples
    x = tl.load(p_x + index, mask=mask, other=0.0)
    first, values = _bases(x, p_knots + (index % channels) * knot_stride, GRID, ORDER, DERIVATIVE, STEPS)
    acc = tl.zeros_like(x)
    for r in tl.static_range(ORDER + 1):
        acc += values[r] * tl.load(p_products + index * BASES + first + r, mask=mask, other=0.0)
    tl.store(p_u + index, acc, mask=mask)


@triton.jit(do_not_specialize=["rows"])
def spline_contract_local_kernel(
    p_x, p_knots, p_coef, p_scale, p_y, rows, inputs, outputs, knot_stride, GRID, BASES,
    SCALED: tl.constexpr, ORDER: tl.constexpr, DERIVATIVE: tl.constexpr, STEPS: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """y[b, o] = sum_i s[b, i] sum_j B_j(x[b, i]) c[i, j, o]: M rows and N outputs."""
    row = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)
    out = tl.program_id(1) * N + tl.arange(0, N)
    mask = row < rows
    both = mask[:, None] & (out < outputs)[None, :]
    acc = tl.zeros((M, N), p_y.dtype.element_ty)
    for channel in range(inputs):
        offsets = row * inputs + channel
        x = tl.load(p_x + offsets, mask=mask, other=0.0)
        first, values = _bases(x, p_knots + channel * knot_stride + row * 0, GRID, ORDER, DERIVATIVE, STEPS)
        if SCALED:
            values = _scaled(values, p_scale, offsets, mask, ORDER)
        start = ((row * 0 + channel) * BASES + first) * outputs  # in 64 bits, as row is
        for r in tl.static_range(ORDER + 1):
            c = tl.load(p_coef + (start + r * outputs)[:, None] + out[None, :], mask=both, other=0.0)
            acc += values[r][:, None] * c
    tl.store(p_y + row[:, None] * outputs + out[None, :], acc, mask=both)


@triton.jit(do_not_specialize=["rows"])
def spline_project_local_kernel(
    p_grad, p_x, p_knots, p_coef, p_u, rows, inputs, outputs, knot_stride, GRID, BASES,
    ORDER: tl.constexpr, DERIVATIVE: tl.constexpr, STEPS: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """u[b, i] = sum_jo B_j(x[b, i]) c[i, j, o] g[b, o]: M rows of one channel."""
    row = tl.program_id(0).to(tl.int64) * M + tl.arange(0, M)
    channel = tl.program_id(1)
    mask = row < rows
    x = tl.load(p_x + row * inputs + channel, mask=mask, other=0.0)
    first, values = _bases(x, p_knots + channel * knot_stride + row * 0, GRID, ORDER, DERIVATIVE, STEPS)
    begin = (channel.to(tl.int64) * BASES + first) * outputs
    acc = tl.zeros((M,), p_u.dtype.element_ty)
    for start in range(0, outputs, N):
        out = start + tl.arange(0, N)
        both = mask[:, None] & (out < outputs)[None, :]
        g = tl.load(p_grad + row[:, None] * outputs + out[None, :], mask=both, other=0.0)
        weighted = tl.zeros((M, N), p_u.dtype.element_ty)
        for r in tl.static_range(ORDER + 1):
            c = tl.load(p_coef + (begin + r * outputs)[:, None] + out[None, :], mask=both, other=0.0)
            weighted += values[r][:, None] * c
        acc += tl.sum(weighted * g, 1)
    tl.store(p_u + row * inputs + channel, acc, mask=mask)


@triton.jit(do_not_specialize=["rows", "steps", "blocks"])
def spline_accumulate_local_kernel(
    p_grad, p_x, p_knots, p_scale, p_w, rows, inputs, outputs, knot_stride, GRID, BASES, steps, blocks,
    SCALED: tl.constexpr, ORDER: tl.constexpr, DERIVATIVE: tl.constexpr, STEPS: tl.constexpr, M: tl.constexpr, J: tl.constexpr,
):  # fmt: skip
    """w[i, j, o] = sum_b s[b, i] B_j(x[b, i]) g[b, o]: J bases of one channel and one output; `steps` tiles of M rows.

    The third axis of the grid counts the parts of the rows, each with a result of its own. `blocks`: blocks of J bases.
    """
    channel, block, out = tl.program_id(0) // blocks, tl.program_id(0) % blocks, tl.program_id(1)
    bases = block * J + tl.arange(0, J)
    acc = tl.zeros((M, J), p_w.dtype.element_ty)  # of each thread: added up at the end
    begin = tl.program_id(2).to(tl.int64) * steps * M
    for step in range(steps):
        row = begin + step * M + tl.arange(0, M)
        mask = row < rows
        x = tl.load(p_x + row * inputs + channel, mask=mask, other=0.0)
        first, values = _bases(x, p_knots + channel * knot_stride + row * 0, GRID, ORDER, DERIVATIVE, STEPS)
        if SCALED:
            values = _scaled(values, p_scale, row * inputs + channel, mask, ORDER)
        g = tl.load(p_grad + row * outputs + out, mask=mask, other=0.0)
        acc += _spread(bases[None, :] - first[:, None], _as_column(values, ORDER), ORDER) * g[:, None]
    place = (tl.program_id(2).to(tl.int64) * inputs + channel) * BASES + bases
    tl.store(p_w + place * outputs + out, tl.sum(acc, 0), mask=bases < BASES)
