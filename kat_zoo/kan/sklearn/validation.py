"""Samples that an estimator is given: finite numbers, or an error that says which are not."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

FIRST = 5  # rows and columns that a message names


def checked(estimator: Any, X: Any, *y: Any, **options: Any) -> Any:
    """scikit-learn's `validate_data` for floating-point samples, whose message counts the rows that are not finite.

    Args:
        estimator: the estimator.
        X: (N, features) samples.
        *y: (N,) or (N, outputs) targets, if there are any.
        **options: keyword arguments of `validate_data`.

    Raises:
        ValueError: data that make no sense; where they are not finite, with their rows and columns.
    """
    try:
        return validate_data(estimator, X, *y, dtype=np.float64, **options)
    except ValueError as error:
        found = [_described(name, table) for name, table in (("X", X), *(("y", one) for one in y))]
        text = " ".join(filter(None, found))
        if not text:
            raise
        raise ValueError(f"{str(error).splitlines()[0]} {text}: expected finite numbers in every row") from None


def _described(name: str, table: Any) -> str:
    """Numbers of the rows and names of the columns of a table that are not finite; empty where all are or none can be told."""
    names = getattr(table, "columns", None)
    table = np.asarray(table)
    try:
        values = table.astype(np.float64) if table.ndim and table.size and not np.iscomplexobj(table) else None
    except (TypeError, ValueError):
        values = None
    if values is None:
        return ""
    values = values.reshape(len(values), -1)
    parts = []
    for kind, bad in (("NaN", np.isnan(values)), ("infinity", np.isinf(values))):
        rows = np.flatnonzero(bad.any(1))
        if len(rows):
            columns = [repr(str(names[i])) if names is not None else str(i) for i in np.flatnonzero(bad.any(0))]
            where = f" in column{'s' * (len(columns) > 1)} {_listed(columns)}" if values.shape[1] > 1 or names is not None else ""
            parts.append(f"{kind} in {len(rows)} of {len(values)} rows ({_listed(rows.tolist())}; the first row is 0){where}")
    return f"{name} with {' and '.join(parts)}" if parts else ""


def _listed(items: list[Any]) -> str:
    return ", ".join(map(str, items[:FIRST])) + (", ..." if len(items) > FIRST else "")
