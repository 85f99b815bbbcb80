"""The search for formulas, as KANRegressor(symbolic=True) runs it, and looks at its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from ..._checks import count
from ..library import get_function
from ..search.problem import Candidate
from ..search.search import Search
from .closed import LEAST_ROWS, Law, one_thread
from .estimator import KANEstimator, seed_of
from .explain import Explanation, Subject, explain
from .outputs import fit_outputs
from .progress import live_table
from .rows import split, typical_rows, unseen, weighted_samples
from .scales import Scales
from .stop import Stop
from .symbolic import Findings, Options, Row, Table, find, former_trees
from .table import summary_of, table_of
from .units import Units, read_units

LEAST_SIZE = 1e-150  # of a column, whose squares have to fit into a float
REMEMBERED = 20_000  # rows that `explain` compares with the formula; a fitted model holds them


class FormulaSearch(KANEstimator):
    """Base of KANRegressor, which documents the parameters and attributes."""

    widths: Sequence[Any] | None
    library: Sequence[str] | None
    restarts: int
    max_seconds: float | None
    units: Mapping[str, str] | None
    target_units: Any
    constants: Mapping[str, str] | None
    warm_start: bool
    n_jobs: int | None
    verbose: bool
    symbolic: bool
    formula_: Any  # an expression, or a list of them
    table_: Any
    summary_: Any
    _findings: Findings

    def _fit_formula(self, X: np.ndarray, y: np.ndarray, sample_weight: Any, flat: bool, former: Findings | None, stop: Stop) -> None:
        """Search a formula of y (N, outputs)."""
        X, y, weight = weighted_samples(X, y, sample_weight)
        if self.units is not None and len(X) < LEAST_ROWS:
            raise ValueError(f"X of {len(X)} rows with units={self.units!r}: expected at least {LEAST_ROWS}, of positive weight")
        for name, size in [("y", np.abs(y).max(initial=0.0)), *zip(self._input_names(), np.abs(X).max(0), strict=True)]:
            if size and not LEAST_SIZE <= size <= 1 / LEAST_SIZE:
                raise ValueError(f"{name} of {size:g} with symbolic=True: expected {LEAST_SIZE:g} to {1 / LEAST_SIZE:g}; change its unit")
        scales = self._scales = Scales.of(X)
        inputs = scales.inputs(X)
        mean = np.average(y, axis=0, weights=weight)
        spread = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
        scales.flat = flat
        scales.spread = np.where(spread > 0, spread, 1.0)
        # Products want their true zero: the mean is removed only where it dwarfs the variation.
        scales.shift = np.where(np.abs(mean) > 2 * spread, mean, 0.0)
        scales.sample = typical_rows(inputs, weight)
        targets = torch.from_numpy((y - scales.shift) / scales.spread)
        train, held = split(np.concatenate([X, y], 1), self.validation_fraction, seed_of(self.random_state))
        self.held_out_ = unseen(X, train, held)
        check = held if len(held) else train
        rows = Table(X, y, (inputs, targets), weight, train, check, self.held_out_ > 0, self._input_names(), scales)
        self._search(rows, former, stop)

    def _search(self, table: Table, former: Findings | None, stop: Stop) -> None:
        """Search a formula of the table."""
        library = None if self.library is None else [get_function(name).name for name in self.library]
        options = Options(self.widths, library, self.restarts, seed_of(self.random_state))
        if self.units is not None:
            options.units = read_units(list(table.names), self.units, self.target_units, self.constants)
        if self.warm_start and former is not None:
            options.former = former_trees(former, [*table.names, *(options.units.constants if options.units else ())])
        clock = stop.clock(self.max_seconds)
        with one_thread(), live_table(self.verbose, self.max_seconds) as report:
            options.report = report
            self._adopt(find(table, options, clock), options.units, clock.over)
        weight = None if table.weight is None or not np.ptp(table.weight) else table.weight
        rows = np.arange(len(table.X))
        if len(rows) > REMEMBERED:
            rows = np.sort(np.random.default_rng(0).choice(rows, REMEMBERED, replace=False))
        self._rows = table.X[rows], table.y[rows, 0], None if weight is None else weight[rows], len(table.X)

    def _fit_each(self, X: Any, y: np.ndarray, sample_weight: Any, stop: Stop, former: list[Any] | None) -> None:
        """A search of its own for each output: together, the error of one hides how good another is."""
        outputs = y.shape[1]
        jobs = min(outputs, effective_n_jobs(self.n_jobs))
        limit = None if self.max_seconds is None else self.max_seconds / -(-outputs // jobs)
        targets: Any = self.target_units if isinstance(self.target_units, (list, tuple)) else [self.target_units] * outputs
        if len(targets) != outputs:
            raise ValueError(f"target_units={self.target_units!r}: expected a unit for each of {outputs} outputs")
        estimators = [clone(self).set_params(max_seconds=limit, target_units=unit, n_jobs=None) for unit in targets]
        if self.warm_start and former is not None:
            if len(former) != outputs:
                raise ValueError(f"y of {outputs} outputs: expected {len(former)} as in the former fit, as warm_start=True")
            for one, before in zip(estimators, former, strict=True):
                one._findings = before._findings
        self.estimators_ = fit_outputs(estimators, X, y, sample_weight, stop, jobs)
        self.formula_ = [one.formula_ for one in self.estimators_]
        self.exact_ = all(one.exact_ for one in self.estimators_)
        self.summary_ = [one.summary_ for one in self.estimators_]
        self.table_ = [one.table_ for one in self.estimators_]
        self.held_out_ = self.estimators_[0].held_out_

    def _adopt(self, findings: Findings, units: Units | None, over: bool) -> None:
        """Set formula, table and network from what the search found."""
        row = findings.chosen
        self._findings, self.exact_, self.formula_ = findings, findings.exact, row.equation
        self.table_ = table_of(findings.rows)
        self._unit = float(np.sqrt(np.mean(self._scales.spread**2)))
        self.summary_ = summary_of(findings, self._unit, self.held_out_, over)
        if findings.search is not None:
            self.search_ = findings.search
        if units is not None:
            self.constants_ = dict(units.constants)
        if isinstance(row.answer, Law):
            law = self.law_ = row.answer
            if units is not None:
                self.constant_units_ = law.numbers_with_units(units)
            network = law.network()
            # The network of a closed form computes in the units of the table.
            inputs = law.rows.shape[1]
            self._scales = Scales(np.zeros(inputs), np.ones(inputs), flat=self._scales.flat, sample=torch.tensor(law.rows))
            if network is not None:
                self.network_ = network
                candidate = Candidate(network, law.form.error, True, network.width, self.held_out_ > 0)
                self.search_ = Search([*(findings.search.candidates if findings.search else []), candidate], candidate)
        else:
            self.network_ = row.answer.candidate.model

    def _row(self, index: int | None) -> Row:
        rows = self._findings.rows
        if index is None:
            return self._findings.chosen
        return rows[count("index", index, 0, len(rows) - 1)]

    def explain(self, folder: Any = None, output: int = 0, names: Sequence[str] | None = None) -> Explanation:
        """A page about the formula: the table, residuals, curves of each input, and why each number is what it is.

        Args:
            folder: folder that gets explanation.txt and explanation.png; nothing is written by default.
            output: number of the output, where there are several.
            names: names of the inputs on the page instead of those of the formula.

        Raises:
            ValueError: fitted without symbolic=True, or with `widths` for several outputs, or no such output.
        """
        check_is_fitted(self)
        estimators = getattr(self, "estimators_", [self])
        count("output", output, 0, len(estimators) - 1)
        if estimators[0] is not self:
            found: Explanation = estimators[output].explain(folder, 0, names)
            return found
        if not hasattr(self, "_findings") or len(self._findings.rows) == 0 or isinstance(self.formula_, list):
            raise ValueError(f"symbolic={self.symbolic}: expected KANRegressor(symbolic=True) fitted to one output")
        own = self._input_names()
        if names is not None and len(names) != len(own):
            raise ValueError(f"names={list(names)!r}: expected {len(own)} names")
        subject = Subject(self._findings, self.summary_, own, own if names is None else names, self.feature_importances_, *self._rows)
        subject.spread, subject.numbers_with_units = self._unit, getattr(self, "constant_units_", ())
        return explain(subject, folder)

    def _formula(self, round: int | None) -> Any:
        if hasattr(self, "estimators_"):
            return [one.formula(round) for one in self.estimators_]
        if round is not None:
            count("round", round, 0)
        found = self._row(None).answer.printed(round)
        return found[0] if isinstance(found, list) and len(found) == 1 else found
