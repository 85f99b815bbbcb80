"""Rows of a table: their weights, which of them are held out, and a few of them for pictures.

A row of weight two is the same as the row given twice, so the split goes by the content of rows and not by their places.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import _check_sample_weight

LEAST_SPLIT = 20  # different samples below which nothing is held out
ENOUGH_ROWS = 2000  # rows for importances and pictures
COARSE = 1024.0  # distances of a column's middle half in its largest number, beyond which six digits of that are too few


def ranks(table: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """A random number for each row that is the same for equal rows, and how many different rows there are.

    Rows are compared with six digits of each column's largest number, so that a table in single precision has the ranks of the same
    table in double; where an outlier or an offset would leave fewer than three digits of the others, of their distances.

    Args:
        table: (N, columns) numbers.
        seed: seed of the order.

    Returns:
        (N,) rank of each row from 0, and the number of ranks.
    """
    table = np.array(table, dtype=np.float64)
    finite = np.isfinite(table)
    size = np.max(np.abs(np.where(finite, table, 0.0)), axis=0, initial=0.0)
    for column in np.flatnonzero(size > 0):
        values = table[finite[:, column], column]
        low, high = np.partition(values, [len(values) // 4, 3 * len(values) // 4])[[len(values) // 4, 3 * len(values) // 4]]
        if size[column] > COARSE / 8 * (high - low):
            table[:, column], size[column] = _spread_out(table[:, column], np.unique(values), size[column])
    _, exponent = np.frexp(np.where(size > 0, size, 1.0))
    rounded = np.round(np.ldexp(table, -exponent).astype(np.float32), 6) + np.float32(0.0)  # makes -0.0 the same as 0.0
    salt = str(seed).encode()
    hashes = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8, key=salt).digest() for row in np.ascontiguousarray(rounded))
    _, found = np.unique(np.frombuffer(hashes, dtype=np.uint64), return_inverse=True)
    return found, int(found.max(initial=-1)) + 1


def _spread_out(column: np.ndarray, values: np.ndarray, size: float) -> tuple[np.ndarray, float]:
    """A column, and its largest number, as they are or, where the middle half of its numbers lies too close together, spread out.

    Args:
        column: (N,) numbers.
        values: different finite numbers of the column, sorted, so that it does not matter how often each occurs.
        size: absolute value of the largest of them.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    if not 0 < high - low < size / COARSE:
        return column, size
    found = np.arcsinh((column - middle) / (high - low))  # six digits of far ones, too
    return found, float(np.abs(found[np.isfinite(found)]).max())


def split(table: np.ndarray, part: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out rows; nothing is held out of fewer than 20 different samples.

    Args:
        table: (N, columns) samples with their targets; equal rows are on the same side.
        part: part of the different rows to hold out.
        seed: seed of the choice.
    """
    return split_by(*ranks(table, seed), part)


def split_by(rank: np.ndarray, different: int, part: float) -> tuple[np.ndarray, np.ndarray]:
    """The split of `split` by known ranks.

    Args:
        rank: (N,) rank of each row.
        different: number of different rows.
        part: part of the different rows to hold out.
    """
    held = rank < (round(part * different) if different >= LEAST_SPLIT else 0)
    return np.flatnonzero(~held), np.flatnonzero(held)


def unseen(X: np.ndarray, train: np.ndarray, held: np.ndarray) -> int:
    """Number of held-out rows of X (N, features) that do not repeat a training row.

    Args:
        X: (N, features) samples.
        train: numbers of the training rows.
        held: numbers of the held-out rows.
    """
    known = {row.tobytes() for row in X[train] + 0.0}  # makes -0.0 the same as 0.0
    return sum(row.tobytes() not in known for row in X[held] + 0.0)


def typical_rows(inputs: torch.Tensor, weight: np.ndarray | None) -> torch.Tensor:
    """Some 2000 rows for importances and pictures; weighted ones are drawn by their weights."""
    if weight is None:
        return inputs[:: max(1, len(inputs) // ENOUGH_ROWS)]
    return inputs[np.random.default_rng(0).choice(len(inputs), min(len(inputs), ENOUGH_ROWS), p=weight / weight.sum())]


def weights_of(sample_weight: Any, X: Any) -> np.ndarray | None:
    """Weights (N,), or None where there are none.

    Args:
        sample_weight: (N,) weights, a number, or None.
        X: (N, features) samples.

    Raises:
        ValueError: a negative weight, or none that is positive.
    """
    if sample_weight is None:
        return None
    weight: np.ndarray = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not (weight > 0).any():
        raise ValueError("sample_weight without a positive value: expected at least one")
    return weight


def weighted_samples(
    X: np.ndarray,
    y: np.ndarray,
    sample_weight: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Samples and weights without those of weight zero, which are absent for the split and the scales too.

    Args:
        X: (N, features) samples.
        y: (N,) or (N, outputs) targets.
        sample_weight: (N,) weights, or None.

    Raises:
        ValueError: a negative weight, or none that is positive.
    """
    weight = weights_of(sample_weight, X)
    if weight is None:
        return X, y, None
    known = weight > 0
    return X[known], y[known], weight[known]
