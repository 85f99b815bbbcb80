"""Columns of a table as inputs of a network: scales, missing values, categories, and where a straight continuation stops."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import validate_data

from ..gam.basis import body, quantiles
from .validation import checked, refuse_infinity

logger = logging.getLogger("kat_zoo")

MOST_CATEGORIES = 64  # of a column; rarer ones count as none of them
NEARLY_ALL = 0.9  # part of the different values of a column of text that are numbers, from which the others look like mistakes
FARTHEST = 1e6  # half-widths of the bulk of a column at which a value stops to count
FAR = 10.0  # widths of the training range at which a column with a straight effect stops
MISSING = "missing"


@dataclass
class Column:
    """A column of numbers, as one input, and one more that says where values are missing if some were.

    Attributes:
        name: Name of the column.
        center: Number that becomes 0.
        half: Difference from it that becomes 1.
        low: Smallest scaled value that counts; smaller ones count as it.
        high: Largest scaled value that counts.
        fill: Scaled value that stands for a missing one.
        missing: Whether values were missing in the training rows.
        varies: Whether there were two different values in the training rows.
    """

    name: str
    center: float = 0.0
    half: float = 1.0
    low: float = -1.0
    high: float = 1.0
    fill: float = 0.0
    missing: bool = False
    varies: bool = False

    @classmethod
    def of(cls, name: str, values: np.ndarray, weight: np.ndarray, reach: float) -> Column:
        """The scale of a column.

        Args:
            name: Name of the column.
            values: (N,) numbers, NaN where they are missing.
            weight: (N,) positive weights.
            reach: Widths of the training range by which a straight continuation goes on outside it.
        """
        known = ~np.isnan(values)
        if not known.any():
            return cls(name, missing=True)
        values, weight, missing = values[known], weight[known], not known.all()
        first, last = body(values, weight)
        if not last > first:
            first, last = float(values.min()), float(values.max())
        center, half = first / 2 + last / 2, last / 2 - first / 2
        if not half > 0:
            return cls(name, center, max(abs(center), 1e-300), missing=missing)
        scaled = [(float(v) - center) / half for v in (values.min(), values.max(), quantiles(values, weight, np.array([0.5]))[0])]
        if max(-scaled[0], scaled[1]) > FARTHEST:
            logger.warning("column %r has values more than %g times as far away as the middle ones; they count as that far", name, FARTHEST)
            scaled[:2] = max(scaled[0], -FARTHEST), min(scaled[1], FARTHEST)
        room = reach * (scaled[1] - scaled[0])
        return cls(name, center, half, scaled[0] - room, scaled[1] + room, scaled[2], missing, True)

    def widen(self, reach: float) -> None:
        """Go on straight for more widths of the training range than before.

        Args:
            reach: The former number of widths.
        """
        width = (self.high - self.low) / (1 + 2 * reach)
        self.low, self.high = self.low - (FAR - reach) * width, self.high + (FAR - reach) * width

    @property
    def names(self) -> list[str]:
        """Names of the inputs."""
        return [self.name, *([f"{self.name}={MISSING}"] if self.missing else [])]

    def inputs(self, values: np.ndarray) -> np.ndarray:
        """Inputs (N, 1) or (N, 2) of a network."""
        refuse_text(self.name, values)
        lost = np.isnan(values)
        scaled = np.where(lost, self.fill, np.clip((values - self.center) / self.half, self.low, self.high))
        return np.stack([scaled, lost], 1).astype(np.float64) if self.missing else scaled[:, None]


@dataclass
class Category:
    """A column of categories, as an input of 0 or 1 for each of them.

    Attributes:
        name: Name of the column.
        values: The categories that have an input; None for missing values. Others have 0 in all inputs.
    """

    name: str
    values: list[Any]

    @classmethod
    def of(cls, name: str, values: np.ndarray, weight: np.ndarray) -> Category:
        """The categories of a column, the frequent ones where there are too many.

        Args:
            name: Name of the column.
            values: (N,) objects, None where they are missing.
            weight: (N,) positive weights.
        """
        counts: dict[Any, float] = {}
        for value, w in zip(values.tolist(), weight.tolist(), strict=True):
            counts[value] = counts.get(value, 0.0) + w
        _warn_of_text(name, [value for value in counts if value is not None])
        most = sorted(counts, key=lambda value: (-counts[value], str(value)))[:MOST_CATEGORIES]
        return cls(name, sorted(most, key=lambda value: (value is None, str(value))))

    @property
    def names(self) -> list[str]:
        """Names of the inputs."""
        return [f"{self.name}={MISSING if value is None else value}" for value in self.values]

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Numbers (N,) of the categories, -1 for those that have none.

        Args:
            values: (N,) objects, None where they are missing, or numbers.

        Raises:
            ValueError: numbers for a column of text.
        """
        place = {value: number for number, value in enumerate(self.values)}
        if values.dtype != object:  # numbers, or nothing but missing values
            if not np.isnan(values).all() and not any(isinstance(value, int | float) for value in self.values):
                raise ValueError(f"column {self.name!r} of numbers: expected text or categories, as in fit, {self.values[0]!r} for example")
            missing, values = np.isnan(values), values.astype(object)
            values[missing] = None
        return np.array([place.get(value, -1) for value in values.tolist()], dtype=int)

    def inputs(self, values: np.ndarray) -> np.ndarray:
        """Inputs (N, categories) of a network."""
        found: np.ndarray = (self.codes(values)[:, None] == np.arange(len(self.values))).astype(np.float64)
        return found


@dataclass
class Columns:
    """The scales between the units of a table and a network.

    Attributes:
        columns: The columns of the table.
        spread: (outputs,) scale of each output.
        shift: (outputs,) shift of each output.
        link: Function of the network's output before it is a prediction: "identity", "exp" for rates.
        sample: (M, inputs) inputs for pictures.
        flat: Whether y has one dimension.
    """

    columns: list[Column | Category]
    spread: np.ndarray = field(default_factory=lambda: np.ones(1))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1))
    link: str = "identity"
    sample: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    flat: bool = True

    @classmethod
    def of(cls, table: list[np.ndarray], names: Sequence[str], weight: np.ndarray, reach: float) -> Columns:
        """The scales of a table.

        Args:
            table: Columns, numbers or objects.
            names: Names of the columns.
            weight: (N,) positive weights.
            reach: Widths of the training range by which a straight continuation goes on outside it.
        """
        return cls(
            [
                Category.of(name, values, weight) if values.dtype == object else Column.of(name, values, weight, reach)
                for name, values in zip(names, table, strict=True)
            ]
        )

    @property
    def names(self) -> list[str]:
        """Names of the network's inputs."""
        return [name for column in self.columns for name in column.names]

    @property
    def owners(self) -> np.ndarray:
        """(inputs,) number of the column that each input comes from."""
        return np.repeat(np.arange(len(self.columns)), [len(column.names) for column in self.columns])

    def inputs(self, table: list[np.ndarray]) -> np.ndarray:
        """Inputs (N, inputs) of the network."""
        return np.concatenate([column.inputs(values) for column, values in zip(self.columns, table, strict=True)], 1)

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Outputs of the network in units of y."""
        units: np.ndarray = values * self.spread + self.shift
        return np.exp(units) if self.link == "exp" else units


def read_table(estimator: Any, X: Any, reset: bool) -> list[np.ndarray]:
    """The columns of a table: float64 with NaN for missing numbers, or objects with None for missing categories.

    Args:
        estimator: the estimator, whose names and number of columns are set or compared.
        X: (N, features) data frame of pandas or polars, or an array of numbers.
        reset: whether they are set.

    Raises:
        ValueError: infinite numbers, a column of another type, or another number of columns or other names than in `fit`.
    """
    refuse_lazy(X)
    if not (hasattr(X, "columns") and hasattr(X, "dtypes")):
        numbers = checked(estimator, X, reset=reset, ensure_all_finite="allow-nan")
        return list(np.ascontiguousarray(numbers.T))
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    if not X.shape[1]:
        raise ValueError(f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is required.")
    if not len(X):
        raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required.")
    table = [read_column(name, one) for name, one in zip(X.columns, series_of(X), strict=True)]
    refuse_infinity({str(name): column for name, column in zip(X.columns, table, strict=True) if column.dtype != object})
    return table


def refuse_lazy(X: Any) -> None:
    """Raise a ValueError for a query of polars that was not run yet."""
    if type(X).__name__ == "LazyFrame":
        raise ValueError("X of type LazyFrame: expected a table in memory, X.collect()")


def refuse_text(name: str, values: np.ndarray) -> None:
    """Raise a ValueError for a column (N,) of objects in place of numbers."""
    if values.dtype == object:
        raise ValueError(f"column {name!r} of text or categories: expected numbers, as in fit")


def series_of(X: Any) -> list[Any]:
    """Columns of a data frame in their order, whether their names are distinct or not."""
    names = list(X.columns)
    return [X[name] for name in names] if len(set(names)) == len(names) else [X.iloc[:, n] for n in range(len(names))]


def read_column(name: Any, series: Any) -> np.ndarray:
    """One column of a data frame: float64 with NaN, or objects with None, for missing values.

    Args:
        name: name of the column, for messages.
        series: the column.

    Raises:
        ValueError: neither numbers nor categories.
    """
    kind = str(series.dtype).lower()
    if not kind.startswith(("cat", "enum", "string", "object", "str")):
        if kind.startswith(("date", "time", "period", "interval", "duration")):
            raise ValueError(f"column {str(name)!r} of type {series.dtype}: expected numbers or categories, such as days since a date")
        try:  # nullable integers of pandas become objects otherwise
            return np.array(series.to_numpy(dtype=np.float64, na_value=np.nan))
        except TypeError:  # polars has no na_value
            pass
        try:
            return np.asarray(series.to_numpy(), dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"column {str(name)!r} of type {series.dtype}: expected numbers or categories") from None
    values = np.asarray(series.to_numpy(), dtype=object)
    if kind.startswith("object") and not any(isinstance(value, str) for value in values):
        try:
            numbers = np.array([np.nan if _is_missing(value) else value for value in values], dtype=np.float64)
        except (TypeError, ValueError):
            numbers = None
        if numbers is not None and numbers.ndim == 1:  # lists of one length have more dimensions
            return numbers
    found = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        found[row] = None if _is_missing(value) else value
    try:
        set(found.tolist())
    except TypeError:
        raise ValueError(f"column {str(name)!r} of lists or the like: expected numbers or categories") from None
    return found


def _warn_of_text(name: str, values: list[Any]) -> None:
    """Tell of a column of text that has more values than count, or that looks like numbers with a few words among them.

    Args:
        name: name of the column.
        values: its different values.
    """
    words = [value for value in values if not _is_number(value)]
    like_numbers = 0 < len(words) <= (1 - NEARLY_ALL) * len(values)
    if len(values) > MOST_CATEGORIES or like_numbers:
        text = f"column {name!r} has {len(values)} different values as text, of which {min(len(values), MOST_CATEGORIES)} count"
        logger.warning(text + (f"; nearly all are numbers, but {words[0]!r} is not" if like_numbers else ""))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):  # pandas.NA has no truth value
        return True
