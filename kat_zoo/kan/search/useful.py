"""Inputs that a target depends on, by the differences between neighbors.

The delta test (Pi and Peterson 1994): half the mean squared difference between the targets of a row and of its nearest neighbor
estimates the noise that no function of the inputs explains. A useless input keeps like rows apart, so without it the estimate
falls; without a useful one it grows.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

LEAST_ROWS = 100  # rows of a table from which its inputs are judged
FALL = 0.9  # part of the estimate that it must come below for an input to go


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks: np.ndarray = values.argsort(0, kind="stable").argsort(0, kind="stable") / len(values)
    return ranks


def useful_inputs(X: np.ndarray, y: np.ndarray) -> list[int]:
    """The inputs that are left when the one without which the delta test falls most goes, again and again.

    An input of little effect may go with the useless ones: the residuals of a form of the others have to show that it is not missed.

    Args:
        X: (N, inputs) samples.
        y: (N,) targets.
    """
    left = list(range(X.shape[1]))
    if len(y) < LEAST_ROWS:
        return left
    ranks, target = _ranks(X), _ranks(y)

    def delta(inputs: list[int]) -> float:
        near = cKDTree(ranks[:, inputs]).query(ranks[:, inputs], 2)[1][:, 1]
        return float(np.mean((target - target[near]) ** 2))

    least = delta(left)
    while len(left) > 1:
        found, i = min((delta([k for k in left if k != i]), i) for i in left)
        if found > FALL * least:
            break
        least = found
        left.remove(i)
    return left
