"""Penalized least squares whose penalties are estimated from the data, as variances of a mixed model (REML).

The penalties follow MacKay's fixed point ("Bayesian interpolation", 1992), which is the generalized Fellner-Schall update of
Wood and Fasiolo (arXiv 1606.04802) for penalties that are parts of an identity. A block whose penalty grows without bound
has no influence, and goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, lapack

STEPS = 60
SMALLEST = 1e-4  # effective parameters of a block below which it goes
SETTLED = 1e-3  # change of the effective parameters at which the penalties stand
FREE = -1  # block of a column without penalty


@dataclass
class Moments:
    """All that least squares needs of the rows.

    Attributes:
        gram: (P, P) weighted products of the columns.
        right: (P,) weighted products of the columns with the target.
        square: weighted sum of the squared target.
        rows: sum of the weights.
    """

    gram: np.ndarray
    right: np.ndarray
    square: float
    rows: float

    def select(self, columns: np.ndarray) -> Moments:
        """The moments of some columns."""
        return Moments(self.gram[np.ix_(columns, columns)], self.right[columns], self.square, self.rows)


@dataclass
class Solution:
    """A penalized fit.

    Attributes:
        coefficients: (P,) coefficients; 0 in blocks without influence.
        penalties: (J,) penalty of each block; infinite where it has no influence.
        parameters: effective number of parameters.
        scale: variance of the residuals.
    """

    coefficients: np.ndarray
    penalties: np.ndarray
    parameters: float
    scale: float


def solve(
    moments: Moments,
    blocks: np.ndarray,
    penalties: np.ndarray | None = None,
    scale: float | None = None,
    least: float = 1e-7,
    steps: int = STEPS,
) -> Solution:
    """Coefficients and penalties.

    Args:
        moments: products of the columns and the target.
        blocks: (P,) number of each column's block, `FREE` for a column without penalty.
        penalties: (J,) penalties to begin with, infinite for blocks to leave out; a weak one for all by default.
        scale: variance of the residuals, where it is known.
        least: smallest penalty, relative to the mean square of a block's columns.
        steps: largest number of updates; 0 keeps the penalties.
    """
    count = int(blocks.max(initial=-1)) + 1
    diagonal = np.diag(moments.gram)
    size = np.maximum(np.bincount(blocks[blocks >= 0], diagonal[blocks >= 0], count), 1e-300)
    size = size / np.maximum(np.bincount(blocks[blocks >= 0], minlength=count), 1)
    if penalties is None:
        penalties = 1e-3 * size
    penalties = np.maximum(penalties, least * size)
    used = np.bincount(blocks[blocks >= 0], diagonal[blocks >= 0], count) > 1e-12 * moments.rows
    penalties = np.where(used, penalties, np.inf)
    former = np.full(count, np.inf)
    for step in range(max(steps, 1)):
        every = np.append(penalties, 0.0)[blocks]  # the last is that of columns without penalty, -1
        keep = np.flatnonzero(np.isfinite(every))
        part, own = moments.select(keep), blocks[keep]
        c, variances = _ridge(part, every[keep])
        inside = own >= 0
        traces = np.bincount(own[inside], variances[inside], count)
        numbers = np.bincount(own[inside], minlength=count)
        effective = np.clip(numbers - np.where(numbers > 0, penalties, 0.0) * traces, 0.0, numbers)
        parameters = float(effective.sum() + (own < 0).sum())
        error = max(part.square - 2 * part.right @ c + c @ part.gram @ c, 1e-14 * part.square)
        variance = scale if scale is not None else error / max(part.rows - parameters, 0.02 * part.rows)
        if step >= steps or np.abs(effective - former).max(initial=0.0) < SETTLED:
            break
        former = effective
        squares = np.bincount(own[inside], c[inside] ** 2, count)
        with np.errstate(divide="ignore", invalid="ignore"):
            new = variance * effective / squares
        alive = (numbers > 0) & (effective > SMALLEST) & (squares > 0)
        penalties = np.where(alive, np.maximum(new, least * size), np.inf)
    full = np.zeros(len(blocks))
    full[keep] = c
    return Solution(full, penalties, parameters, float(variance))


def _ridge(moments: Moments, penalty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients, and the diagonal of the inverse of the penalized products."""
    matrix = moments.gram.copy()
    diagonal = np.einsum("ii->i", matrix)
    diagonal += penalty + 1e-12 * diagonal
    # Columns of unit length keep the factors accurate whatever their units.
    size = np.sqrt(np.maximum(diagonal, 1e-300))
    factor = cho_factor(matrix / size / size[:, None], lower=True, check_finite=False)
    c = cho_solve(factor, moments.right / size, check_finite=False) / size
    inverse, failed = lapack.dpotri(factor[0], lower=1)
    if failed:
        raise np.linalg.LinAlgError(f"dpotri returned {failed}: expected a positive definite matrix")
    return c, np.diag(inverse) / size**2
