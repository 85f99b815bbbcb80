"""Which pairs of inputs interact: their products are tried on the residuals (as GA2M does: Lou et al., KDD 2013)."""

from __future__ import annotations

import math

import numpy as np

from .basis import Basis

ROWS = 8192  # rows that pairs are searched on
COLUMNS = 120  # inputs among which they are searched, the most important ones
RIDGE = 0.05  # of products of unit length, which are nearly the same where columns are
SCREENED = 3  # functions of each input whose products are tried


def low_functions(basis: Basis, x: np.ndarray, number: int) -> np.ndarray:
    """Values (N, C, number) of the smoothest functions of each column, each of a size near 1.

    Args:
        basis: functions of the columns.
        x: (N, C) rows.
        number: number of functions.
    """
    return basis.values(x)[:, :, :number]


def screen(
    basis: Basis, x: np.ndarray, residual: np.ndarray, weight: np.ndarray, rows: float, known: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Pairs whose products explain more of the residuals than noise would, the most telling first.

    Args:
        basis: functions of the columns.
        x: (N, C) rows.
        residual: (N,) residuals.
        weight: (N,) positive weights of the least squares problem.
        rows: number of rows, which the weights of a logit or a rate do not add up to.
        known: pairs to leave out.
    """
    values = low_functions(basis, x, SCREENED)
    columns = values.shape[1]
    total = weight.sum()
    noise = float(weight @ residual**2) / rows
    tests = max(columns * (columns - 1) // 2, 1)
    found = []
    for i in range(columns - 1):
        products = (values[:, i, None, :, None] * values[:, i + 1 :, None, :]).reshape(len(x), columns - i - 1, -1)
        products = products - np.einsum("n,ncp->cp", weight / total, products)
        weighted = (products * weight[:, None, None]).transpose(1, 2, 0)
        gram = weighted @ products.transpose(1, 0, 2)
        right = weighted @ residual
        size = np.einsum("cpp->cp", gram)
        used = size > 1e-6 * total
        size = np.where(used, size, total)
        scaled = gram / np.sqrt(size[:, :, None] * size[:, None, :]) + RIDGE * np.eye(size.shape[1])
        scaled_right = np.where(used, right / np.sqrt(size), 0.0)
        gains = np.einsum("cp,cp->c", scaled_right, np.linalg.solve(scaled, scaled_right[:, :, None])[:, :, 0]) / max(noise, 1e-300)
        for j, gain in enumerate(gains, i + 1):
            freedom = int(used[j - i - 1].sum())
            # The tail of chi-squared (Laurent and Massart, 2000) at a chance of 1 in 20 for all pairs together.
            log = math.log(20 * tests)
            if freedom and gain > freedom + 2 * math.sqrt(freedom * log) + 2 * log and (i, j) not in known:
                found.append((-float(gain), i, j))
    return [(i, j) for _, i, j in sorted(found)]
