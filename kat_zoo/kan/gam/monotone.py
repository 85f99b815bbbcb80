"""Least squares with splines that rise or fall everywhere."""

from __future__ import annotations

import numpy as np
from scipy.optimize import lsq_linear

from .reml import Moments

Part = tuple[np.ndarray, np.ndarray, int]


def keep_lines(penalties: np.ndarray, blocks: np.ndarray, parts: list[Part]) -> np.ndarray:
    """Penalties (P,) of the columns, finite for the line of each spline whose curves are in the model.

    Curves alone can neither rise nor fall everywhere, so a line that has gone comes back with the penalty of its curves.

    Args:
        penalties: (J,) penalty of each block, infinite for blocks to leave out; those of such lines are set.
        blocks: (P,) block of each column, -1 for the constant.
        parts: columns, coefficients and direction of each constraint, as `solve_monotone` takes them.
    """
    every: np.ndarray = np.append(penalties, 0.0)[blocks]  # the last stands for the constant
    for columns, _, _ in parts:
        if len(columns) > 1 and np.isinf(every[columns[0]]) and np.isfinite(every[columns[1]]):
            every[columns[0]] = penalties[blocks[columns[0]]] = every[columns[1]]
    return every


def solve_monotone(moments: Moments, penalty: np.ndarray, parts: list[Part]) -> np.ndarray:
    """Coefficients (P,) of the penalized problem whose splines are monotone.

    The coefficients of a B-spline that do not fall make a function that does not fall. There are as many differences of them as
    functions of a column, so they take the place of the functions, with zero as their bound.

    Args:
        moments: products of the columns and the target.
        penalty: (P,) penalty of each column, infinite for columns to leave out.
        parts: columns of the problem, coefficients (G + 3, columns) of their splines, and direction (1 or -1) of each constraint.
    """
    keep = np.isfinite(penalty)
    place = np.cumsum(keep) - 1
    part = moments.select(np.flatnonzero(keep))
    size = np.sqrt(np.maximum(np.diag(part.gram) + penalty[keep], 1e-300))
    matrix = (part.gram + np.diag(penalty[keep])) / size / size[:, None] + 1e-12 * np.eye(len(size))
    change = np.eye(len(size))
    low = np.full(len(size), -np.inf)
    for columns, functions, direction in parts:
        used = columns[keep[columns]]
        if not len(used):
            continue
        at = place[used]
        if len(used) < len(columns) or len(columns) == 1:  # the line alone
            change[at[0], at[0]], low[at[0]] = direction, 0.0
            continue
        steps = np.diff(functions / size[at], axis=0)
        change[np.ix_(at, at)] = direction * np.linalg.inv(steps)
        low[at] = 0.0
    factor = np.linalg.cholesky(matrix)
    right = np.linalg.solve(factor, part.right / size)
    found = lsq_linear(factor.T @ change, right, (low, np.full(len(size), np.inf)), method="bvls", tol=1e-12)
    c = np.zeros(len(penalty))
    c[keep] = change @ np.maximum(found.x, low) / size
    return c
