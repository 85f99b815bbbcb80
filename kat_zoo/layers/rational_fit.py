"""Rational approximations under the formula the kernel computes: best in the maximum norm, or best on samples."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .. import _checks
from ..kernels import rational_reference

Function = Callable[[Tensor], Tensor]

# Of a fit to samples.
NUM_BINS = 512
NUM_EXTREMES = 64
EXTREMES_WEIGHT = 1e-3  # that of the samples being 1


def fit_rational(
    fn: Function, range: tuple[float, float], order: Sequence[int] = (5, 4), num_points: int = 201
) -> tuple[Tensor, Tensor, float]:
    """Fit P / Q, P = a_0 + ... + a_m x^m, Q = 1 + b_1 |x| + ... + b_n |x|^n with b >= 0, to a function on an interval.

    The largest error is brought to its global minimum. For a bound t, |P - fn Q| <= t Q is linear in (a, b);
    the differential correction algorithm (Cheney and Loeb 1961; Barrodale, Powell and Roberts, SIAM J. Numer. Anal. 9,
    1972) lowers t by one linear program a step, with quadratic convergence. No start is needed; b >= 0 forbids poles.

    Args:
        fn: elementwise function of a float64 tensor.
        range: interval (low, high) of the fit.
        order: degrees (m, n) of numerator and denominator, m in 0..8 and n in 1..8.
        num_points: number of points of the first linear program, at least 2; the grid holds 20 times as many, whose peaks enter
            the next programs.

    Returns:
        (numerator, denominator, error): float64 tensors (m + 1,) and (n,), and max |fn - P/Q| on the grid.

    Raises:
        ValueError: an empty or infinite range, a bad order or number of points, or a fn that is not finite on the range.
        ModuleNotFoundError: scipy is not installed (`pip install 'kat_zoo[kan]'`).
    """
    low, high = _checks.interval("range", range)
    m, n = _checks.order("order", order)
    x = _grid(low, high, _checks.count("num_points", num_points, 2))
    y, size = _sized(_evaluate(fn, x))
    scale = max(abs(low), abs(high))
    p, q = np.zeros(m + 1), np.eye(n + 1)[0]
    chosen = np.zeros(len(x), dtype=bool)
    chosen[::20] = True
    for _ in np.arange(10):
        p, q = _differential_correction(x[chosen] / scale, y[chosen], p, q)
        a, b = _unscale(p / q[0], q[1:] / q[0], scale)
        error = np.abs(y - _rational(x, a, b))
        # Exchange: peaks between the chosen points (a kink, say) join them until none stands out.
        peaks = error > 1.001 * error[chosen].max()
        peaks[1:-1] &= (error[1:-1] >= error[:-2]) & (error[1:-1] >= error[2:])
        if not peaks.any():
            break
        chosen |= peaks
    return torch.from_numpy(size * a), torch.from_numpy(b), float(size * error.max())


def fit_rational_to_samples(
    fn: Function,
    samples: Tensor,
    order: Sequence[int] = (5, 4),
    weights: Tensor | None = None,
    range: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor, float]:
    """Fit as `fit_rational` does, but with the least mean squared error over a distribution of arguments.

    The distribution is a histogram of the samples. Points spread evenly over the range have a thousandth of its weight in all:
    rare arguments stay in sight and do not spoil the others. For a given Q the best P is a linear least-squares problem, so the
    search is over b >= 0 alone (variable projection, Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973), from the linearized problem
    |P - fn Q| / Q_previous (Sanathanan and Koerner, IEEE Trans. Autom. Control 8, 1963).

    Args:
        fn: elementwise function of a float64 tensor.
        samples: arguments, in any shape, not all equal.
        order: degrees (m, n) of numerator and denominator, m in 0..8 and n in 1..8.
        weights: weight of each sample, in the shape of the samples, at least 0; equal by default.
        range: interval (low, high) of the arguments to keep in sight; by default that of the samples.

    Returns:
        (numerator, denominator, error): float64 tensors (m + 1,) and (n,), and the root mean squared error over the histogram.

    Raises:
        ValueError: as for `fit_rational`, samples that are not finite numbers, or weights of another shape or without a sum above 0.
        ModuleNotFoundError: scipy is not installed.
    """
    values = samples.detach().double().flatten().cpu().numpy()
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"samples of shape {tuple(samples.shape)}: expected finite numbers, at least two of them different")
    low, high = _checks.interval("range", (values.min(), values.max()) if range is None else range)
    m, n = _checks.order("order", order)
    masses = None if weights is None else weights.detach().double().flatten().cpu().numpy()
    if weights is not None and masses is not None and (weights.shape != samples.shape or masses.min() < 0 or not masses.sum() > 0):
        raise ValueError(
            f"weights of shape {tuple(weights.shape)}: expected at least 0, with a sum above 0, for samples {tuple(samples.shape)}"
        )
    counts, edges = np.histogram(values, NUM_BINS, weights=masses)
    centers = ((edges[:-1] + edges[1:]) / 2)[counts > 0]
    density = counts[counts > 0] / counts.sum()
    wide = np.linspace(low, high, NUM_EXTREMES)
    x = np.concatenate([centers, wide])
    w = np.sqrt(np.concatenate([density, np.full(NUM_EXTREMES, EXTREMES_WEIGHT / NUM_EXTREMES)]))
    scale = np.abs(x).max()
    y, size = _sized(_evaluate(fn, x))
    p, q = _weighted_fit(x / scale, y, w, m, n)
    a, b = _unscale(size * p, q, scale)
    error = np.sqrt(density @ (_rational(centers, a, b) - _evaluate(fn, centers)) ** 2)
    return torch.from_numpy(a), torch.from_numpy(b), float(error)


def _weighted_fit(x: np.ndarray, y: np.ndarray, weights: np.ndarray, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Minimize |weights (P / Q - y)| over a and b >= 0; |x| <= 1."""
    try:
        from scipy.optimize import least_squares, nnls
    except ModuleNotFoundError as error:
        raise _no_scipy() from error
    powers, magnitudes = x[:, None] ** np.arange(m + 1), np.abs(x)[:, None] ** np.arange(1, n + 1)

    def numerator(b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Best a for a given b, and its residual."""
        rows = powers * (weights / (1 + magnitudes @ b))[:, None]
        a = np.linalg.lstsq(rows, weights * y, rcond=None)[0]
        return a, rows @ a - weights * y

    best = np.zeros(n)
    q, smallest = best, np.linalg.norm(numerator(best)[1])
    for _ in np.arange(12):
        w = weights / (1 + magnitudes @ q)
        # Rows orthogonal to every P: the residual of y Q depends on b alone.
        basis = np.linalg.qr(powers * w[:, None])[0]
        rows = np.column_stack([w * y, (w * y)[:, None] * magnitudes])
        rows -= basis @ (basis.T @ rows)
        scales = np.linalg.norm(rows[:, 1:], axis=0) + 1e-300
        try:
            q = nnls(-rows[:, 1:] / scales, rows[:, 0])[0] / scales
        except RuntimeError:  # it gives up now and then, where the problem is nearly singular; the best so far is the start
            break
        norm = np.linalg.norm(numerator(q)[1])
        if norm < smallest:
            best, smallest = q, norm
        elif norm > 0.999 * smallest:
            break
    # Coefficients that start at their bound often stay there, whence three starts, a few milliseconds each.
    for lift in (1e-9, 1e-4, 1e-2):
        start = np.maximum(best, lift * max(best.max(), 1.0))
        found = least_squares(lambda b: numerator(b)[1], start, bounds=(0, np.inf), x_scale=start + 0.01 * start.max(), max_nfev=40)
        if np.sqrt(2 * found.cost) < smallest:
            best, smallest = found.x, np.sqrt(2 * found.cost)
    return numerator(best)[0], best


def _unscale(a: np.ndarray, b: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients in x from those in x / scale."""
    return a / scale ** np.arange(len(a)), b / scale ** np.arange(1, len(b) + 1)


def _rational(x: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """P(x) / Q(x) for one pair of rows of coefficients, through the kernels' reference."""
    a, b = torch.from_numpy(numerator)[None], torch.from_numpy(denominator)[None]
    return np.asarray(rational_reference(torch.from_numpy(x), a, b))


def _evaluate(fn: Function, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        y = fn(torch.from_numpy(x.copy())).to(torch.float64).numpy()
    if y.shape != x.shape or not np.isfinite(y).all():
        raise ValueError(f"fn on [{x.min():g}, {x.max():g}]: expected an elementwise function with finite values")
    return y


def _sized(y: np.ndarray) -> tuple[np.ndarray, float]:
    """Values of a size of at least 1, which the solvers' tolerances expect, and the power of two that gives them back."""
    size = min(2.0 ** np.floor(np.log2(np.abs(y).max())), 1.0) if y.any() else 1.0
    return y / size, size


def _grid(low: float, high: float, num_points: int) -> np.ndarray:
    """About 20 num_points Chebyshev points of either side of 0; every 20th makes a grid with 0 and the ends."""
    knots = [low, 0.0, high] if low < 0 < high else [low, high]
    per_side = 20 * max(2, num_points // (len(knots) - 1)) + 1
    unit = (1 - np.cos(np.linspace(0, np.pi, per_side))) / 2
    return np.unique(np.concatenate([lo + (hi - lo) * unit for lo, hi in itertools.pairwise(knots)]))


def _differential_correction(x: np.ndarray, y: np.ndarray, p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimize max |y - P/Q| over p in R^(m+1) and q >= 0, where Q = q_0 + ... + q_n |x|^n; |x| <= 1; from (p, q).

    Step: minimize d subject to |P - y Q| - t Q <= d Q_k, t and Q_k being the last iterate's; d < 0 until optimal.
    Q is normalized as 0 <= q_j <= 1: with q_0 = 1 the program would be unbounded.
    """
    powers, magnitudes = x[:, None] ** np.arange(len(p)), np.abs(x)[:, None] ** np.arange(len(q))
    best = np.abs(powers @ p / (magnitudes @ q) - y).max()
    for _ in np.arange(40):
        values, step = y[:, None] * magnitudes, -(magnitudes @ q)[:, None]
        upper = np.hstack([powers, -values - best * magnitudes, step])
        lower = np.hstack([-powers, values - best * magnitudes, step])
        solution = _linear_program(np.vstack([upper, lower]), num_free=len(p), num_bounded=len(q))
        new_p, new_q = solution[: len(p)], np.maximum(solution[len(p) : -1], 0)
        worst = np.abs(powers @ new_p / (magnitudes @ new_q) - y).max()
        if not worst < best:
            break
        p, q, previous, best = new_p, new_q, best, worst
        if previous - best <= 1e-9 * best:
            break
    return p, q


def _no_scipy() -> ModuleNotFoundError:
    return ModuleNotFoundError("fit_rational needs scipy: pip install 'kat_zoo[kan]'", name="scipy")


def _linear_program(rows: np.ndarray, num_free: int, num_bounded: int) -> np.ndarray:
    """Minimize the last variable subject to rows @ v <= 0, bounded variables in [0, 1] and the first of them off 0."""
    try:
        from scipy.optimize import linprog
    except ModuleNotFoundError as error:
        raise _no_scipy() from error
    for tolerance in (1e-10, 1e-8):  # the tighter one fails now and then, when the fit is already nearly exact
        result = linprog(
            np.eye(rows.shape[1])[-1],
            A_ub=rows,
            b_ub=np.zeros(len(rows)),
            bounds=[(None, None)] * num_free + [(1e-6, 1)] + [(0, 1)] * (num_bounded - 1) + [(None, None)],
            method="highs-ds",
            options={"primal_feasibility_tolerance": tolerance, "dual_feasibility_tolerance": tolerance},
        )
        if result.x is not None:
            return result.x
    raise ValueError(f"fit_rational: the linear program failed ({result.message}): expected a narrower range or a lower order")
