"""The table of formulas as its reader gets it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .symbolic import Row


class TableRow(NamedTuple):
    """A row of `table_` where pandas is not installed.

    Attributes:
        complexity: number of nodes of the expression.
        loss: root mean square error in units of y.
        score: drop of log(loss) for each node more than the row before.
        equation: SymPy expression.
    """

    complexity: int
    loss: float
    score: float
    equation: Any


def table_of(rows: Sequence[Row]) -> Any:
    """A pandas DataFrame, or a list of `TableRow` where pandas is not installed.

    Args:
        rows: The rows, from short to long.
    """
    found: list[TableRow] = []
    for row in rows:
        score = 0.0
        if found:
            smallest = 1e-300  # a loss may be 0
            drop = math.log(max(found[-1].loss, smallest)) - math.log(max(row.loss, smallest))
            score = drop / max(row.complexity - found[-1].complexity, 1)
        found.append(TableRow(row.complexity, row.loss, score, row.equation))
    if importlib.util.find_spec("pandas") is None:
        return found
    import pandas

    columns = {name: [getattr(row, name) for row in found] for name in ("complexity", "loss", "score")}
    return pandas.DataFrame(columns | {"equation": pandas.Series([row.equation for row in found], dtype=object)})
