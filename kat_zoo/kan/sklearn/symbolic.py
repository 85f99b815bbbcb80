"""The search of KANRegressor(symbolic=True): closed forms, then networks, and the table of what they found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..formula.expression import complexity
from ..formula.tidy import nodes
from ..library import DEFAULT_LIBRARY
from ..search.closed_form import leaves_only_noise
from ..search.judge import Clock, Data, Form, Judge
from ..search.problem import EXACT, Candidate, Problem
from ..search.search import Search, find_formulas
from ..search.tree import Tree
from .closed import Law, find_laws, law_of, length
from .scales import Scales
from .units import Units

NUMERIC_EDGE = 50  # nodes of an expression that an edge without a formula counts as
CLOSED_SHARE = 0.6  # part of the time for closed forms
BETTER = 0.99  # part of the error of the row before that a row of the table has to come below


class Answer(Protocol):
    """A formula that can predict."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Values of samples in their own units."""

    def printed(self, round: int | None = 4) -> Any:
        """SymPy expression, or a list of one for each output."""


@dataclass
class NetworkAnswer:
    """A network of the search.

    Attributes:
        candidate: The network on scaled data, and its error.
        scales: Scales of the inputs and outputs.
        names: Names of the inputs; None for x_1, x_2 and so on.
    """

    candidate: Candidate
    scales: Scales
    names: Sequence[str] | None

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Values, (N, outputs)."""
        with torch.no_grad():
            values: np.ndarray = self.scales.restored(self.candidate.model(self.scales.inputs(X)).numpy())
        return values

    def printed(self, round: int | None = 4) -> list[Any]:
        """A SymPy expression for each output."""
        return self.scales.expressions(self.candidate.model, self.names, round)


@dataclass(eq=False)
class Row:
    """A row of the table.

    Attributes:
        complexity: Number of nodes of the expression, and 50 for each numeric edge.
        loss: Root mean square error in units of y.
        equation: SymPy expression, or a list of them.
        answer: The formula itself.
    """

    complexity: int
    loss: float
    equation: Any
    answer: Law | NetworkAnswer


@dataclass
class Table:
    """Rows that a formula is searched for.

    Attributes:
        X: (N, inputs) samples in their own units.
        y: (N, outputs) targets.
        scaled: (N, inputs) scaled samples and (N, outputs) scaled targets.
        weight: (N,) weights, None for equal ones.
        train: Rows to fit on.
        check: Rows to judge by.
        held_out: Whether these are rows that no fit sees.
        names: Names of the inputs.
        scales: Scales of the inputs and outputs.
    """

    X: np.ndarray
    y: np.ndarray
    scaled: tuple[Tensor, Tensor]
    weight: np.ndarray | None
    train: np.ndarray
    check: np.ndarray
    held_out: bool
    names: Sequence[str]
    scales: Scales

    def data(self, units: Units | None, clock: Clock, **options: Any) -> Data:
        """The table of the closed forms, with a column for each constant."""
        X = self.X if units is None else units.with_constants(self.X)
        if self.weight is not None:
            options |= {"weight": self.weight[self.train], "weight_val": self.weight[self.check]}
        y = self.y[:, 0]
        return Data(X[self.train], y[self.train], X[self.check], y[self.check], clock, **options)

    def problem(self, library: Sequence[str] | None, clock: Clock) -> Problem:
        """The table of the networks."""
        x, y = self.scaled
        w, w_val = (None if self.weight is None else torch.from_numpy(self.weight[rows]) for rows in (self.train, self.check))
        names = tuple(library) if library is not None else DEFAULT_LIBRARY
        parts = x[self.train], y[self.train], x[self.check], y[self.check]
        zero = -float(self.scales.shift[0] / self.scales.spread[0])
        return Problem(*parts, w, w_val, names, held_out=self.held_out, zero=zero, deadline=clock.deadline, now=clock.now)


@dataclass
class Options:
    """How a table is searched.

    Attributes:
        widths: Shapes of networks instead of closed forms; None for closed forms and a list of shapes.
        library: Names of the functions; None for all.
        restarts: Number of starts for each shape.
        seed: Seed of the starts.
        units: Units of the table; None where they are not known.
        report: Function that is called with every closed form that is kept.
        former: Closed forms of a former search.
    """

    widths: Sequence[Any] | None
    library: Sequence[str] | None
    restarts: int
    seed: int
    units: Units | None = None
    report: Callable[[Form], None] | None = None
    former: Sequence[Tree] = ()


@dataclass
class Findings:
    """Result of a search.

    Attributes:
        rows: The formulas that no shorter one beats.
        chosen: The row that is the answer.
        exact: Whether it is right to 1e-6 on rows that no fit has seen.
        search: Networks of the search; None where closed forms were enough.
    """

    rows: list[Row]
    chosen: Row
    exact: bool
    search: Search | None


def former_trees(former: Findings, names: Sequence[str]) -> list[Tree]:
    """Closed forms of a former search.

    Args:
        former: Result of that search.
        names: Names of the inputs and constants of this one.

    Raises:
        ValueError: The former search had others.
    """
    laws = [row.answer for row in former.rows if isinstance(row.answer, Law)]
    if laws and laws[0].names != names:
        raise ValueError(f"X with {', '.join(names)}: expected {', '.join(laws[0].names)} as in the former fit, as warm_start=True")
    return [law.form.tree for law in laws]


def find(table: Table, options: Options, clock: Clock) -> Findings:
    """Search closed forms first, then, where none is exact and more than noise is left, networks.

    Args:
        table: The table.
        options: How it is searched.
        clock: The deadline.
    """
    laws: list[Law] = []
    if options.widths is None:
        known = options.units is not None  # networks know no units, so that closed forms have all the time
        part = clock if known else clock.part(CLOSED_SHARE)
        data = table.data(options.units, part, library=options.library, report=options.report)
        laws = find_laws(data, table.names, options.units, options.former)
        done = known or part.deadline == -math.inf or clock.over
        if laws and (done or laws[0].form.exact or leaves_only_noise(data, laws[0].form)):
            return _of_laws(table, laws, None)
    search = find_formulas(table.problem(options.library, clock), options.widths, restarts=options.restarts, seed=options.seed)
    findings = _of_networks(table, search)
    if search.best.exact or options.widths is not None:
        return findings
    rows, network = len(table.X), math.inf
    if search.best.symbolic:
        data = table.data(None, clock)
        judge = Judge(data)
        values = findings.chosen.answer.predict(np.concatenate([data.X, data.X_val]))[:, 0]
        network = length(judge.error(values - judge.y), findings.chosen.equation, rows)  # on the rows that judge closed forms
        (expression,) = findings.chosen.answer.printed(None)
        law = law_of(expression, data, table.names)  # its constants rounded like those of closed forms
        laws = sorted([*laws[:1], *([] if law is None else [law])], key=lambda law: law.length(rows)) + laws[1:]
    if laws and laws[0].length(rows) <= network:
        return _of_laws(table, laws, findings)
    return findings


def _front(rows: Iterable[Row], least: float, kept: Row | None = None) -> list[Row]:
    """The rows, from short to long, that are better than all before them; errors below the least are equal.

    Args:
        rows: The rows.
        least: Error below which a formula is exact.
        kept: A row that stays in any case.
    """
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.complexity, row.loss)):
        if row is kept or not front or max(row.loss, least) < BETTER * max(front[-1].loss, least):
            front.append(row)
    return front


def _of_laws(table: Table, laws: Sequence[Law], networks: Findings | None) -> Findings:
    """A closed form is the answer; the table has the other forms and those of networks."""
    spread = float(table.scales.spread[0])
    known = [] if networks is None else [row for row in networks.rows if "phi_" not in str(row.equation)]
    rows = {str(row.equation): row for row in known}
    rows |= {str(law.expression): Row(nodes(law.expression), law.form.error * spread, law.printed(), law) for law in reversed(laws)}
    chosen = rows[str(laws[0].expression)]
    front = _front(rows.values(), EXACT * spread, chosen)
    search = networks.search if networks is not None else None
    return Findings(front, chosen, laws[0].form.exact and table.held_out, search)


def _of_networks(table: Table, search: Search) -> Findings:
    """A network is the answer: the chosen one, or one as good that prints simpler."""
    scales = table.scales
    size = float(np.sqrt(np.mean(scales.spread**2)))
    rows = []
    for candidate in search.candidates:
        answer = NetworkAnswer(candidate, scales, table.names)
        printed = answer.printed()
        numeric = sum(candidate.model.edge_kind(*edge) == "numeric" for edge in candidate.model.edges())
        equation = printed[0] if len(printed) == 1 else printed
        rows.append(Row(complexity(printed) + NUMERIC_EDGE * numeric, candidate.error * size, equation, answer))
    front = _front(rows, EXACT * size)
    best = next(row for row in rows if row.answer.candidate is search.best)  # type: ignore[union-attr]
    if best not in front:
        at = max(n for n, row in enumerate(front) if row.complexity <= best.complexity)
        if search.best.exact and front[at].loss > EXACT * size:
            front[at] = best
        else:
            best = front[at]
    search.best = best.answer.candidate  # type: ignore[union-attr]
    return Findings(front, best, search.best.exact, search)
