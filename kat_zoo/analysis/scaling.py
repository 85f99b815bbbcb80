"""Scaling laws: fits of L(x) = L_inf + (x0 / x)^alpha with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._checks import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """L(x) = l_inf + (x0 / x)^alpha.

    Attributes:
        l_inf: irreducible loss, at least 0.
        log_amplitude: alpha log x0, the logarithm of the loss above l_inf at x = 1.
        alpha: exponent; negative where the loss grows.
        intervals: name (l_inf, x0, alpha) -> (low, high), the central 90 % of the bootstrap.
    """

    l_inf: float
    log_amplitude: float
    alpha: float
    intervals: dict[str, tuple[float, float]]

    @property
    def x0(self) -> float:
        """Scale in units of x; infinite or 0 where the exponent is so small that no number holds it."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.log_amplitude / self.alpha)) if self.alpha else float("inf")

    def __call__(self, x: Any) -> np.ndarray:
        """Predicted loss."""
        return self.l_inf + np.exp(self.log_amplitude - self.alpha * np.log(np.asarray(x, dtype=float)))


def _fit(log_x: np.ndarray, log_y: np.ndarray, with_constant: bool, near: np.ndarray | None = None) -> np.ndarray:
    """(log l_inf, intercept, alpha) by least squares on log L; starts differ in the share of the constant.

    `near` is the one start of a resample.
    """
    from scipy.optimize import least_squares

    slope, intercept = np.polyfit(log_x, log_y, 1)
    if not with_constant:
        return np.array([-np.inf, intercept, -slope])

    def residual(p: np.ndarray) -> np.ndarray:
        return np.logaddexp(p[0], p[1] - p[2] * log_x) - log_y

    best, cost = np.array([-np.inf, intercept, -slope]), np.inf
    starts = [[log_y.min() + np.log(share), intercept, max(-slope, 1e-3)] for share in (1e-6, 0.1, 0.5, 0.9)]
    if near is not None:
        starts = [[min(near[0], log_y.min()), near[1], near[2]]]
    for start in starts:
        found = least_squares(residual, start, bounds=([log_y.min() - 80, -np.inf, 0], [log_y.min() + 1, np.inf, np.inf]), x_scale="jac")
        if found.cost < cost:
            best, cost = found.x, found.cost
    return best


def fit_power_law(x: Sequence[float], loss: Sequence[float], *, constant: bool = True, bootstrap: int = 100, seed: int = 0) -> PowerLaw:
    """Fit L(x) = L_inf + (x0 / x)^alpha to losses, relative errors weighted alike (the form of arXiv 2010.14701).

    Args:
        x: parameters, data, compute or grid sizes; positive.
        loss: positive losses.
        constant: whether L_inf is fitted too; it is 0 otherwise.
        bootstrap: number of resamples for the intervals.
        seed: seed of the resamples.

    Raises:
        ValueError: fewer than three points (two without a constant), unequal lengths, values that are not positive, or a
            bootstrap or seed that is not an integer of at least 0.
    """
    bootstrap, seed = count("bootstrap", bootstrap, 0), count("seed", seed, 0)
    a, b = np.asarray(x, dtype=float), np.asarray(loss, dtype=float)
    least = 3 if constant else 2
    if a.shape != b.shape or a.ndim != 1 or len(a) < least:
        raise ValueError(f"x of shape {a.shape} and loss of shape {b.shape}: expected two lists of at least {least} values")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and (a > 0).all() and (b > 0).all()):
        raise ValueError("x and loss: expected positive finite numbers")
    if len(np.unique(a)) < least:
        raise ValueError(f"x of {len(np.unique(a))} different values: expected at least {least}")
    log_x, log_y = np.log(a), np.log(b)
    best = _fit(log_x, log_y, constant)
    generator = np.random.default_rng(seed)
    samples: list[PowerLaw] = []
    while len(samples) < bootstrap:
        pick = generator.integers(len(a), size=len(a))
        if len(np.unique(log_x[pick])) >= least:
            samples.append(_law(_fit(log_x[pick], log_y[pick], constant, best), {}))
    intervals = {}
    for name in ("l_inf", "x0", "alpha") if samples else ():
        # Infinite scales have no value in between.
        low, high = np.percentile([getattr(law, name) for law in samples], [5, 95], method="nearest")
        intervals[name] = float(low), float(high)
    return _law(best, intervals)


def _law(p: np.ndarray, intervals: dict[str, tuple[float, float]]) -> PowerLaw:
    return PowerLaw(l_inf=float(np.exp(p[0])), log_amplitude=float(p[1]), alpha=float(p[2]), intervals=intervals)


def plot_power_law(x: Sequence[float], loss: Sequence[float], law: PowerLaw, xlabel: str = "x", ylabel: str = "loss") -> Figure:
    """Draw the points and the fitted law on logarithmic axes.

    Args:
        x: sizes, as `fit_power_law` took them.
        loss: losses, as `fit_power_law` took them.
        law: result of `fit_power_law`.
        xlabel: label of the axis of sizes.
        ylabel: label of the axis of losses.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    grid = np.geomspace(min(x), max(x), 200)
    axes.loglog(x, loss, "o", color="#1f2933", markersize=4)
    axes.loglog(grid, law(grid), color="#c1440e", label=rf"$L_\infty$ = {law.l_inf:.2g}, $\alpha$ = {law.alpha:.2f}")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(frameon=False)
    return figure
