"""Squared error that a few outliers in y cannot rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .basis import quantiles
from .losses import Huber, Loss, Squared
from .model import Fitted

LEAST_BOUND = 10.0  # standard deviations that a residual may have in any case
GROUPS = 7  # of rows, for a standard deviation: up to three outliers have no say, and more of them are part of the data
ROUNDS = 5  # fits at most, each with the bound that the residuals of the former one give
NEAR = 1e-3  # of the bound around the median, below which no residual does harm
SETTLED = 0.9  # of the former bound, above which a bound stands


class Bounded(Huber):
    """Huber's loss of a fixed size, from predictions on that are known.

    Args:
        size: the largest residual that is small.
        predictions: (N,) predictions to begin with.
    """

    def __init__(self, size: float, predictions: np.ndarray) -> None:
        super().__init__(size)
        self.predictions = predictions

    def start(self, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The known predictions."""
        return self.predictions

    def working(self, y: np.ndarray, eta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Large residuals become the largest that counts."""
        return np.ones_like(y), eta + np.clip(y - eta, -self.size, self.size)


def bound_of(residual: np.ndarray, weight: np.ndarray, rank: np.ndarray) -> float:
    """The largest residual that counts in full, so that one row moves a mean by a standard error at most.

    It grows with the root of the number of rows, as Catoni's truncation does ("Challenging the empirical mean and empirical
    variance", arXiv 1009.2048), so means of heavy tails are still means where there are enough rows. The standard deviation is
    the median of those of groups of rows.

    Args:
        residual: (N,) residuals.
        weight: (N,) positive weights.
        rank: (N,) random number of each row, the same for equal rows.
    """
    group = rank % GROUPS
    rows = np.bincount(group, weight, GROUPS)
    variance = np.bincount(group, weight * residual**2, GROUPS)[rows > 0] / rows[rows > 0]
    return max(LEAST_BOUND, float(np.sqrt(weight.sum()))) * float(np.sqrt(np.median(variance)))


def without_outliers(
    fit: Callable[[Loss, np.ndarray], Fitted], found: Fitted, y: np.ndarray, weight: np.ndarray, rank: np.ndarray
) -> tuple[int, Loss, Fitted]:
    """A fit in which residuals count up to a bound; the fit of squared error itself where none is larger.

    Args:
        fit: fit of a loss to targets.
        found: the fit of squared error.
        y: (N,) targets.
        weight: (N,) positive weights.
        rank: (N,) random number of each row, the same for equal rows.

    Returns:
        The number of rows beyond the bound, the loss, and the fit.
    """
    middle = quantiles(y, weight, np.array([0.5]))
    around = bound_of(y - middle, weight, rank)

    def bound_at(eta: np.ndarray) -> float:
        return min(max(bound_of(y - eta, weight, rank), NEAR * around), around)  # outliers may have moved the model

    bound = bound_at(found.eta)
    far = int((np.abs(y - found.eta) > bound).sum())
    if not far or not bound > 0:
        return 0, Squared(), found
    loss = Bounded(bound, found.eta)
    start = fit(Squared(), np.clip(y, middle - around, middle + around)).eta
    if weight @ loss.values(y, start) < weight @ loss.values(y, found.eta):  # far rows are not in line with the inputs
        loss = Bounded(bound, start)
    for _ in range(ROUNDS):
        # How far an outlier is does not matter to the slope of the loss, but would to the end of the iterations.
        found = fit(loss, np.clip(y, loss.predictions - 2 * loss.size, loss.predictions + 2 * loss.size))
        bound = bound_at(found.eta)
        if bound > SETTLED * loss.size:
            break
        loss = Bounded(bound, found.eta)
    return int((np.abs(y - found.eta) > loss.size).sum()), loss, found
