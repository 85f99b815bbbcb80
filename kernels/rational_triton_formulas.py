"""The formulas of the group-rational activation and its gradients, as functions of Triton on registers.

The direct ones hold up to a limit on |x| that follows from the coefficients; powers that could overflow beyond it are
avoided by the careful ones, in powers of 1/x.
"""
# mypy: disable-error-code="assignment"
# (tuples that grow in an unrolled loop are Triton's arrays of registers; mypy reads them as Python)

import triton
import triton.language as tl


@triton.jit
def _load_row(p_c, COUNT: tl.constexpr, DTYPE: tl.constexpr):
    c = ()
    for i in tl.static_range(COUNT):
        c = c + (tl.load(p_c + i).to(DTYPE),)
    return c


@triton.jit
def load_numerator(p_a, M: tl.constexpr, DTYPE: tl.constexpr):
    """Return (a_0, ..., a_M) and the coefficients (0, a_1, 2 a_2, ...) of x P'."""
    a = _load_row(p_a, M + 1, DTYPE)
    da = ()
    for i in tl.static_range(M + 1):
        da = da + (a[i] * i,)
    return a, da


@triton.jit
def load_denominator(p_b, N: tl.constexpr, DTYPE: tl.constexpr):
    """Return (1, |b_1|, ..., |b_N|) and (0, |b_1|, 2 |b_2|, ...)."""
    c = _load_row(p_b, N, DTYPE)
    b = (tl.full((), 1.0, DTYPE),)
    db = (tl.full((), 0.0, DTYPE),)
    for j in tl.static_range(N):
        b = b + (tl.abs(c[j]),)
        db = db + (tl.abs(c[j]) * (j + 1),)
    return b, db


@triton.jit
def direct_limit(a, b, M: tl.constexpr, N: tl.constexpr, DTYPE: tl.constexpr):
    """Largest |x| for which no power, sum or product of the direct formula leaves the range of DTYPE."""
    weight = tl.full((), 1.0, DTYPE)
    for i in tl.static_range(M + 1):
        weight += tl.abs(a[i]) * (i + 1)
    for j in tl.static_range(1, N + 1):
        weight += b[j] * (j + 1)
    TOP: tl.constexpr = 600.0 if tl.float64 == DTYPE else 110.0
    LARGER: tl.constexpr = M if M > N else N  # `max` makes a tensor in Triton 3.4 and 3.5, even of constants
    DEGREE: tl.constexpr = LARGER if LARGER > 1 else 1
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
    if APPROX:  # noqa: SIM108 (Triton compiles one branch only)  NVIDIA: one instruction, 1 ulp; q >= 1, and the direct limit keeps 1 / q a normal number
        r = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=r,r", [q], dtype=tl.float32, is_pure=True, pack=1)
    else:
        r = 1.0 / q
    return r


@triton.jit
def direct_value(x, a, b, M: tl.constexpr, N: tl.constexpr, APPROX: tl.constexpr):
    """P(x) / Q(x) for |x| up to the direct limit."""
    return _horner(x, a, 0, M) * _reciprocal(_horner(tl.abs(x), b, 0, N), APPROX)


@triton.jit
def direct_gradients(acc, g, x, a, da, b, db, M: tl.constexpr, N: tl.constexpr, APPROX: tl.constexpr):
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
    PAIRS: tl.constexpr = (M if M > N else N) // 2
    for i in tl.static_range(1, PAIRS):
        even = even + (even[i - 1] * x2,)
    of_a = (gr, gr * x)
    of_b = (gry, gry * ax)
    out = ()
    for i in tl.static_range(M + 1):
        out = out + (acc[i] + of_a[i],) if i < 2 else out + (acc[i] + of_a[i % 2] * even[i // 2 - 1],)
    for j in tl.static_range(1, N + 1):
        out = out + (acc[M + j] + of_b[j],) if j < 2 else out + (acc[M + j] + of_b[j % 2] * even[j // 2 - 1],)
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
def careful_value(x, a, b, M: tl.constexpr, N: tl.constexpr):
    """P(x) / Q(x) in powers of 1/x where |x| > 1: finite wherever the true value is."""
    ax = tl.abs(x)
    big = ax > 1
    s = tl.where(x < 0, -1.0, 1.0).to(x.dtype)
    t = 1.0 / tl.where(big, ax, 1.0)
    u = _degree(a, M)
    v = _degree(b, N)
    y = _times_power(_reversed(a, s, t, u, M) / _reversed(b, t * 0 + 1, t, v, N), ax, t, u - v)
    return tl.where(big, y, direct_value(tl.where(big, 0.0, x), a, b, M, N, False))


@triton.jit
def careful_gradients(acc, g, x, a, da, b, db, M: tl.constexpr, N: tl.constexpr):
    """As `direct_gradients`, in powers of 1/x where |x| > 1."""
    ax = tl.abs(x)
    big = ax > 1
    acc, small = direct_gradients(acc, tl.where(big, 0.0, g), tl.where(big, 0.0, x), a, da, b, db, M, N, False)
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
