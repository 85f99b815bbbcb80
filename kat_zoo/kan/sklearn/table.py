"""The table of formulas as its reader gets it, and a sentence about the chosen one."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .symbolic import Findings, Row


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


def summary_of(findings: Findings, spread: float, held_out: int, over: bool) -> str:
    """A sentence on how good the formula is.

    Args:
        findings: Result of the search.
        spread: Standard deviation of y.
        held_out: Number of held-out rows that are new.
        over: Whether the time was over at the end of the search.
    """
    count = len(findings.rows)
    others = f"table_ has {count} formulas, of other lengths and errors" if count > 1 else "table_ has no other formula"
    if not held_out:
        text = f"Not verified: there is no held-out row that is new; at least 20 rows, most of them different, are needed. {others}."
    elif findings.exact:
        text = f"Exact: right to 1e-6 of y's standard deviation on {held_out} held-out rows."
    else:
        share = f"{100 * findings.chosen.loss / spread:.2g} %"
        text = f"Nothing exact was found: the best trade-off of length and error is off by {share} of y's standard deviation; {others}."
    return text + (" The search was cut short." if over and not findings.exact else "")
