"""Spline bases of the columns of a table: a line and curves of growing roughness, centered on the rows.

Knots follow the data's quantiles. The penalty is on general second differences of the coefficients, in units of the local
distance of knots (Li and Cao, "General P-splines for non-uniform B-splines", arXiv 2201.06808): straight lines are free of it
whatever the knots, and a curve costs the same in a dense part of the data as in a sparse one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ...kernels.bspline_op import bspline_basis

SPLINE_ORDER = 3
CHUNK = 4096  # rows whose bases are in memory at a time
FENCE = 10.0  # interquartile ranges outside the quartiles from which values are the tail, where a spline is a straight line
NOTHING = 1e-10  # variance of a function, relative to its column's, that counts as none


def chunks(rows: int) -> Iterator[slice]:
    """Parts of a table in their order, so that memory does not grow with the rows.

    Args:
        rows: number of rows.
    """
    return (slice(start, min(start + CHUNK, rows)) for start in range(0, rows, CHUNK))


def quantiles(values: np.ndarray, weight: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Quantiles that are values of rows: a row of weight two counts as two rows.

    Args:
        values: (N,) numbers.
        weight: (N,) positive weights.
        at: (K,) parts from 0 to 1.
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    # A sum of weights differs in its last digits from the sum of as many rows.
    found: np.ndarray = values[order][np.searchsorted(reached, at * reached[-1] * (1 - 1e-12)).clip(max=len(values) - 1)]
    return found


def body(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The ends of the part of a column that is not a tail.

    Args:
        values: (N,) numbers.
        weight: (N,) positive weights.
    """
    low, high = float(values.min()), float(values.max())
    for part in (0.25, 0.1, 0.05, 0.01):  # a column that is mostly one value has no quartiles to go by
        first, last = quantiles(values, weight, np.array([part, 1 - part]))
        if last > first:
            with np.errstate(over="ignore"):  # numbers near the largest one have no outliers
                room = FENCE * (last - first)
            return float(values[values >= first - room].min()), float(values[values <= last + room].max())
    return low, high


def quantile_knots(values: np.ndarray, weight: np.ndarray, grid_size: int) -> np.ndarray:
    """Knots (grid_size + 1,) at the quantiles of a column's body, where repeated ones are spread over the widest gaps.

    Args:
        values: (N,) numbers, not all the same.
        weight: (N,) positive weights.
        grid_size: number of intervals.
    """
    low, high = body(values, weight)
    if not high > low:
        low, high = float(values.min()), float(values.max())
    found = quantiles(np.clip(values, low, high), weight, np.linspace(0, 1, grid_size + 1))
    least = 1e-3 * (high - low) / grid_size
    knots = [low]
    for knot in found[1:-1]:
        if knot > knots[-1] + least and knot < high - least:
            knots.append(float(knot))
    knots.append(high)
    while len(knots) <= grid_size:
        widest = int(np.argmax(np.diff(knots)))
        knots.insert(widest + 1, (knots[widest] + knots[widest + 1]) / 2)
    return np.array(knots)


def extended(inner: np.ndarray) -> np.ndarray:
    """Knots (C, G + 7) of cubic splines on the grids inner (C, G + 1)."""
    steps = np.arange(1, SPLINE_ORDER + 1)
    low = inner[:, :1] - steps[::-1] * (inner[:, 1:2] - inner[:, :1])
    high = inner[:, -1:] + steps * (inner[:, -1:] - inner[:, -2:-1])
    return np.concatenate([low, inner, high], 1)


def roughness(knots: np.ndarray) -> np.ndarray:
    """General second differences (G + 1, G + 3) of the coefficients on knots (G + 7,)."""
    size = len(knots) - SPLINE_ORDER - 1
    greville = np.array([knots[n + 1 : n + 1 + SPLINE_ORDER].mean() for n in range(size)])
    first = np.diff(np.eye(size), axis=0) / np.diff(greville)[:, None]
    second: np.ndarray = np.diff(first, axis=0) * ((greville[2:] - greville[:-2]) / 2)[:, None]
    return second


@dataclass
class Basis:
    """Functions of C columns, each a combination of the B-splines of its column.

    Attributes:
        knots: (C, G + 7) knots.
        functions: (C, G + 3, 1 + Q) coefficients: of the line, then of Q curves, smooth ones first. All have mean 0, the
            line has variance 1, the curves are uncorrelated with it. Those of a column of two values are 0.
    """

    knots: np.ndarray
    functions: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, weight: np.ndarray, grid_size: int) -> Basis:
        """The basis for the rows of a table.

        Args:
            x: (N, C) numbers, no column of them constant.
            weight: (N,) positive weights.
            grid_size: number G of intervals.
        """
        knots = extended(np.stack([quantile_knots(column, weight, grid_size) for column in x.T]))
        size = grid_size + SPLINE_ORDER
        mean, square = np.zeros((x.shape[1], size)), np.zeros((x.shape[1], size, size))
        for part in chunks(len(x)):
            values = splines(x[part], knots)
            w = weight[part] / weight.sum()
            mean += np.einsum("n,ncm->cm", w, values)
            square += (values * w[:, None, None]).transpose(1, 2, 0) @ values.transpose(1, 0, 2)
        covariance = square - mean[:, :, None] * mean[:, None, :]
        functions = np.zeros((x.shape[1], size, size - 1))
        for number, column in enumerate(x.T):
            between = bool(((column > column.min()) & (column < column.max())).any())
            functions[number] = _functions(knots[number], covariance[number], mean[number], between)
        return cls(knots, functions)

    def values(self, x: np.ndarray) -> np.ndarray:
        """Values (N, C, 1 + Q) at rows x (N, C)."""
        found: np.ndarray = (splines(x, self.knots).transpose(1, 0, 2) @ self.functions).transpose(1, 0, 2)
        return found

    def select(self, columns: np.ndarray) -> Basis:
        """The basis of some columns."""
        return Basis(self.knots[columns], self.functions[columns])


def splines(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Values (N, C, G + 3) of the B-splines on knots (C, G + 7), continued as straight lines outside their grids."""
    found: np.ndarray = bspline_basis(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(knots), SPLINE_ORDER).numpy()
    return found


def _functions(knots: np.ndarray, covariance: np.ndarray, mean: np.ndarray, curved: bool) -> np.ndarray:
    """Coefficients (G + 3, 1 + Q) of the functions of one column; the curves are 0 where it has two values alone."""
    size = len(mean)
    greville = np.array([knots[n + 1 : n + 1 + SPLINE_ORDER].mean() for n in range(size)])
    line = greville - mean @ greville
    line /= np.sqrt(line @ covariance @ line)
    second = roughness(knots)
    values, vectors = np.linalg.eigh(second.T @ second)
    curves = vectors[:, 2:] / np.sqrt(values[2:])  # all but the constant and the line
    curves = curves - np.outer(line, line @ covariance @ curves)
    curves = curves - mean @ curves  # a constant coefficient is a constant function
    variance = np.einsum("mq,mn,nq->q", curves, covariance, curves)
    most = variance.max()
    curves = curves / np.sqrt(most) if curved and most > NOTHING else np.zeros_like(curves)
    # The sign of an eigenvector is arbitrary, and differs from machine to machine.
    signs = np.sign(curves[np.abs(curves).argmax(0), np.arange(curves.shape[1])])
    found: np.ndarray = np.concatenate([line[:, None], curves * np.where(signs == 0, 1.0, signs)], 1)
    return found
