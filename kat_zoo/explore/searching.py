"""Steps that search a formula, and take one of the search."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import sympy

from .._checks import count, real
from ..kan import KAN, KANRegressor
from . import fronts
from .outcome import Outcome, Report, scale_lines
from .state import FrontRow, Scales, State

MOST_SECONDS = 600.0


def search(
    state: State,
    report: Report,
    *,
    seconds: float = 60.0,
    units: dict[str, str] | None = None,
    target_units: str | None = None,
    found: Any = None,
    best: int = 0,
) -> Outcome:
    """Search a formula; an interrupt ends it with the best so far.

    Args:
        state: the state before.
        report: function that takes news.
        seconds: time limit.
        units: unit of each input by its name; None where they are not known.
        target_units: unit of the target.
        found: formulas that the same search has found, as `fronts.write` gives them; it is not made again then.
        best: number of the formula among these that is taken.
    """
    problem, began = state.need_problem(), time.monotonic()
    seconds = real("seconds", seconds, most=MOST_SECONDS, above=0)
    options: dict[str, Any] = {"max_seconds": seconds}
    if units is not None:
        options["units"] = {symbol: str(units.get(name, "")) for symbol, name in zip(problem.symbols, problem.inputs, strict=True)}
        options["target_units"] = str(target_units)
    if found is None:
        regressor = KANRegressor(symbolic=True, **options).fit(problem.X[problem.train], problem.y[problem.train])
        findings = regressor._findings
        rows = [FrontRow(row.complexity, row.loss, _one(row.answer.printed(None)), row.equation) for row in findings.rows]
        best = next(n for n, row in enumerate(findings.rows) if row is findings.chosen)
        if "cut short" in regressor.summary_:
            options["max_seconds"] = round(min(time.monotonic() - began, seconds), 1)
    else:
        rows = fronts.read(found, problem.symbols)
        count("best", best, 0, len(rows) - 1)
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    lines = [f"search = KANRegressor(symbolic=True{given}).fit(X[train], y[train])", "print(search.table_)"]
    after, text = replace(state, front=tuple(rows), chosen=None), f"Search: {len(rows)} formulas"
    made = {"seconds": options["max_seconds"], "found": fronts.write(rows), "best": best}
    try:
        taken = take(after, report, row=best)
    except ValueError:  # a formula that no network computes; the page shows the others
        return Outcome(after, text, lines, made)
    return Outcome(taken.state, text, lines + taken.code, made)


def _one(expression: Any) -> sympy.Expr:
    return expression[0] if isinstance(expression, list) else expression


def take(state: State, report: Report, *, row: int) -> Outcome:
    """Take a formula of the last search; the network becomes one that computes it.

    Args:
        state: the state before.
        report: function that takes news.
        row: number of the formula in the front.

    Raises:
        ValueError: no such formula, or one with edges that have none.
    """
    if not state.front:
        raise ValueError("no formulas: expected a search first")
    found = state.front[count("row", row, 0, len(state.front) - 1)]
    if not found.symbolic:
        raise ValueError(f"formula {row + 1} has edges without a formula: expected another")
    problem, full = state.need_problem(), sympy.sstr(found.full, full_prec=True)
    # The text is our own, of the symbols x_1, x_2, ... and functions of the library.
    network = KAN.from_formula(found.full, problem.symbols)
    scales = Scales.none(len(problem.inputs))
    lines = scale_lines(scales) + [f"model = KAN.from_formula({full!r}, {problem.symbols!r})"]
    return Outcome(replace(state, network=network, scales=scales, losses=(), chosen=row), f"Take formula {row + 1}", lines)
