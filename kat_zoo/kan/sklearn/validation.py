"""Samples that an estimator is given: finite numbers, or an error that says which are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_X_y
from sklearn.utils.validation import validate_data

FIRST = 5  # rows and columns that a message names


def detached(values: Any) -> Any:
    """A tensor without its gradient and on the CPU, where NumPy can read it; other tables as they are."""
    return values.detach().cpu() if isinstance(values, torch.Tensor) else values


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
    X, *targets = (detached(values) for values in (X, *y))
    try:
        return validate_data(estimator, X, *targets, dtype=np.float64, **options)
    except ValueError as error:
        allowed = options.get("ensure_all_finite") == "allow-nan"
        text = _columns_of_text(X)
        if text:
            other = ", or a data frame for columns of categories" if allowed else ""
            raise ValueError(f"X with text in column {_listed(text)}: expected numbers{other}") from None
        raise _told(error, [_described("X", X, allowed), *(_described("y", one) for one in targets)]) from None


def checked_targets(estimator: Any, y: Any, rows: int, **options: Any) -> Any:
    """Targets of a table whose columns have been read.

    Args:
        estimator: the estimator.
        y: (N,) or (N, outputs) targets.
        rows: number N of rows of the table.
        **options: keyword arguments of scikit-learn's `check_X_y`.

    Raises:
        ValueError: targets that make no sense; where they are not finite, with their rows and columns.
    """
    y = detached(y)
    try:
        return check_X_y(np.zeros((rows, 1)), y, estimator=estimator, **options)[1]
    except ValueError as error:
        raise _told(error, [_described("y", y)]) from None


def refuse_infinity(columns: dict[str, np.ndarray]) -> None:
    """Check the numeric columns of a data frame.

    Args:
        columns: (N,) numbers by the name of the column; NaN stands for a missing one.

    Raises:
        ValueError: infinity, with its rows and columns.
    """
    bad = {name: np.isinf(column) for name, column in columns.items() if np.isinf(column).any()}
    if bad:
        text = _where("infinity", np.stack(list(bad.values()), 1), [repr(name) for name in bad])
        raise ValueError(f"Input X contains infinity or a value too large for dtype('float64'). X with {text}: expected finite numbers")


def _told(error: ValueError, found: list[str]) -> ValueError:
    """The error with the rows that it means, if these are known."""
    text = " ".join(filter(None, found))
    return ValueError(f"{str(error).splitlines()[0]} {text}: expected finite numbers in every row") if text else error


def _described(name: str, table: Any, missing: bool = False) -> str:
    """Numbers of the rows and names of the columns of a table that are not finite; empty where all are or none can be told.

    Args:
        name: name of the table.
        table: the table.
        missing: whether NaN is allowed.
    """
    names = getattr(table, "columns", None)
    table = np.asarray(table)
    try:
        values = table.astype(np.float64) if table.ndim and table.size and not np.iscomplexobj(table) else None
    except (TypeError, ValueError):
        values = None
    if values is None:
        return ""
    values = values.reshape(len(values), -1)
    labels = [repr(str(names[i])) if names is not None else str(i) for i in range(values.shape[1])]
    told = values.shape[1] > 1 or names is not None
    kinds = (("NaN", np.isnan(values) & (not missing)), ("infinity", np.isinf(values)))
    parts = [_where(kind, bad, labels if told else []) for kind, bad in kinds if bad.any()]
    return f"{name} with {' and '.join(parts)}" if parts else ""


def _columns_of_text(table: Any) -> list[str]:
    """Names, or numbers, of the columns of a table that hold text."""
    values, names = np.asarray(table), getattr(table, "columns", None)
    if values.ndim != 2 or values.dtype.kind not in "OUS":
        return []
    found = [i for i, column in enumerate(values.T) if any(isinstance(value, (str, bytes)) for value in column.tolist())]
    return [repr(str(names[i])) if names is not None else str(i) for i in found]


def _where(kind: str, bad: np.ndarray, labels: list[str]) -> str:
    """Rows and columns of the cells that are marked."""
    rows = np.flatnonzero(bad.any(1))
    columns = [labels[i] for i in np.flatnonzero(bad.any(0))] if labels else []
    where = f" in column{'s' * (len(columns) > 1)} {_listed(columns)}" if columns else ""
    return f"{kind} in {len(rows)} of {len(bad)} rows ({_listed(rows.tolist())}; the first row is 0){where}"


def _listed(items: list[Any]) -> str:
    return ", ".join(map(str, items[:FIRST])) + (", ..." if len(items) > FIRST else "")
