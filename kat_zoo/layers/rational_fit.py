"""`fit_rational`: the best rational approximation, in the maximum norm, under the formula the kernel computes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def fit_rational(
    fn: Function,
    range: tuple[float, float],
    order: Sequence[int] = (5, 4),
    weight: Function | None = None,
    num_points: int = 401,
) -> tuple[Tensor, Tensor, float]:
    """Fit P / Q, P = a_0 + ... + a_m x^m, Q = 1 + b_1 |x| + ... + b_n |x|^n with b >= 0, to a function.

    The error is the global minimum of max |fn - P/Q| * weight over a grid: for a fixed bound t the condition
    |P - fn Q| weight <= t Q is linear in (a, b), and the differential correction algorithm (Cheney and Loeb 1961; Barrodale,
    Powell and Roberts, SIAM J. Numer. Anal. 9, 1972) lowers t by one linear program a step, with quadratic convergence. A
    local method would do for smooth starts but not from nowhere, and b >= 0 rules out poles by construction.

    Args:
        fn: elementwise function of a float64 tensor.
        range: (low, high), the interval of the fit; low < high.
        order: (m, n), degrees of numerator and denominator, m in 0..8 and n in 1..8.
        weight: elementwise weight >= 0 of the error, 1 by default.
        num_points: size of the grid (Chebyshev points on either side of 0, where Q has a kink).

    Returns:
        (numerator, denominator, error): float64 tensors (m + 1,) and (n,), and max |fn - P/Q| * weight on a grid ten times
        finer.

    Raises:
        ValueError: an empty or infinite range, a bad order, or fn not finite on the range.
        ModuleNotFoundError: scipy is not installed (`pip install 'kat_zoo[kan]'`).
    """
    low, high = float(range[0]), float(range[1])
    m, n = check_order(order)
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"range={range!r}: expected two finite numbers, low < high")
    x = _grid(low, high, num_points)
    scale = max(abs(low), abs(high))
    y, w = _evaluate(fn, x, "fn"), np.ones_like(x) if weight is None else _evaluate(weight, x, "weight")
    a, b = _differential_correction(x / scale, y, w, m, n)
    a, b = a / scale ** np.arange(m + 1), b / scale ** np.arange(1, n + 1)
    fine = _grid(low, high, 10 * num_points)
    w = np.ones_like(fine) if weight is None else _evaluate(weight, fine, "weight")
    error = np.abs(_evaluate(fn, fine, "fn") - evaluate_rational(fine, a, b)) * w
    return torch.from_numpy(a), torch.from_numpy(b), float(error.max())


def check_order(order: Sequence[int]) -> tuple[int, int]:
    """Return (m, n) as ints or raise ValueError."""
    values = tuple(order)
    if len(values) != 2 or any(int(v) != v for v in values) or not (0 <= values[0] <= 8 and 1 <= values[1] <= 8):
        raise ValueError(f"order={order!r}: expected (m, n) with m in 0..8 and n in 1..8")
    return int(values[0]), int(values[1])


def evaluate_rational(x: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """P(x) / Q(x) in NumPy float64, for one pair of coefficient rows."""
    p = np.polynomial.polynomial.polyval(x, numerator)
    return p / np.polynomial.polynomial.polyval(np.abs(x), np.concatenate([[1.0], np.abs(denominator)]))


def _evaluate(fn: Function, x: np.ndarray, name: str) -> np.ndarray:
    with torch.no_grad():
        y = fn(torch.from_numpy(x)).to(torch.float64).numpy()
    if y.shape != x.shape or not np.isfinite(y).all():
        raise ValueError(f"{name} must be elementwise and finite on [{x.min():g}, {x.max():g}]")
    return y


def _grid(low: float, high: float, num_points: int) -> np.ndarray:
    """Chebyshev points of [low, high], of either side of 0 separately when it lies inside."""
    knots = [low, 0.0, high] if low < 0 < high else [low, high]
    per_side = max(2, num_points // (len(knots) - 1))
    unit = (1 - np.cos(np.linspace(0, np.pi, per_side))) / 2
    return np.unique(np.concatenate([lo + (hi - lo) * unit for lo, hi in zip(knots, knots[1:], strict=False)]))


def _differential_correction(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, m: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise max |y - P/Q| w over a in R^(m+1), b >= 0; |x| <= 1.

    Step: minimise d subject to |P - y Q| w - t Q <= d Q_k, where t and Q_k belong to the last iterate; d < 0 until optimal.
    Q is normalised as 0 <= q_j <= 1 (with q_0 = 1 the program would be unbounded) and divided by q_0 at the end.
    """
    powers, magnitudes = x[:, None] ** np.arange(m + 1), np.abs(x)[:, None] ** np.arange(n + 1)
    p, q = np.zeros(m + 1), np.eye(n + 1)[0]
    best = np.abs(y * w).max()
    for _ in np.arange(40):
        weighted, values = w[:, None] * powers, (w * y)[:, None] * magnitudes
        step = -(magnitudes @ q)[:, None]
        upper = np.hstack([weighted, -values - best * magnitudes, step])
        lower = np.hstack([-weighted, values - best * magnitudes, step])
        solution = _linear_program(np.vstack([upper, lower]), num_free=m + 1, num_bounded=n + 1)
        new_p, new_q = solution[: m + 1], np.maximum(solution[m + 1 : -1], 0)
        worst = (np.abs(powers @ new_p / (magnitudes @ new_q) - y) * w).max()
        if not worst < best:
            break
        p, q, previous, best = new_p, new_q, best, worst
        if previous - best <= 1e-9 * best:
            break
    return p / q[0], q[1:] / q[0]


def _linear_program(rows: np.ndarray, num_free: int, num_bounded: int) -> np.ndarray:
    """Minimise the last variable subject to rows @ v <= 0; the bounded variables lie in [0, 1], the first of them off 0."""
    try:
        from scipy.optimize import linprog
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("fit_rational needs scipy: pip install 'kat_zoo[kan]'", name="scipy") from error
    result = linprog(
        np.eye(rows.shape[1])[-1],
        A_ub=rows,
        b_ub=np.zeros(len(rows)),
        bounds=[(None, None)] * num_free + [(1e-6, 1)] + [(0, 1)] * (num_bounded - 1) + [(None, None)],
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if result.x is None:
        raise ValueError(f"fit_rational: the linear program failed ({result.message})")
    return result.x
