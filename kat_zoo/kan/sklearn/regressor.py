"""KANRegressor, a scikit-learn estimator that can also find formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn.base import RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from ..._checks import count, is_integer, real
from ..model import KAN
from ..operations.symbolic import check_library
from ..search.problem import Candidate
from ..search.search import Search
from . import path
from .closed import Law, one_thread
from .estimator import KANEstimator, Scales, seed_of, split, typical_rows, unseen, weighted_samples
from .explain import Explanation, Subject, explain
from .outputs import fit_outputs
from .progress import live_table
from .stop import Stop, interruptible
from .symbolic import Findings, Options, Row, Table, find, former_trees
from .table import summary_of, table_of
from .units import Units, read_units
from .validation import checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FITTED = (
    *("network_", "history_", "estimators_", "search_", "formula_", "exact_", "table_", "law_"),
    *("constants_", "constant_units_", "summary_", "_findings"),
)
SHOWN_ROWS = 2000  # rows that `explain` draws


class KANRegressor(RegressorMixin, KANEstimator):
    """Regression by a KAN and, with symbolic=True, by a formula found in the data.

    Args:
        hidden: sizes of the hidden layers of the numeric network.
        symbolic: whether a formula is searched instead of training one network: closed forms first
            (`kat_zoo.kan.search.closed_form`), then, where none is exact, networks that become formulas
            (`kat_zoo.kan.search.search.find_formulas`). The search runs on one thread, so that the answer does not depend on
            the number of threads.
        widths: shapes of networks that the search tries, instead of closed forms and its own list of shapes.
        library: names of functions that the search uses; `kat_zoo.kan.library.DEFAULT_LIBRARY` by default.
        restarts: number of starts per shape of the search.
        max_seconds: time in seconds, shared among outputs, after which the search ends with the best so far; None for no limit.
            An interrupt (Ctrl-C) ends it in the same way, a second one at once with KeyboardInterrupt.
        units: unit of each input by its name (x_1, x_2, ... where X has no names), such as {"m": "kg", "r": "m"}, '1' for none;
            None where units are not known. Only formulas are found then that are consistent with them: sums have terms of like
            dimensions, functions have arguments without one. Numbers have no unit, or one that `constant_units_` tells.
            Needs pint (`pip install 'kat_zoo[formula]'`).
        target_units: unit of y, or a list of one for each output; needed with `units`.
        constants: value and unit of each constant that may be in the formula by its name, such as
            {"G": "6.674e-11 m^3/kg/s^2"}; needs `units`.
        warm_start: whether a search goes on from the closed forms of the former call of fit: they are fitted to the new table
            first, and an exact one is the answer.
        n_jobs: number of processes, of which each searches one output; None for 1, -1 for all processors. The answer is the same.
        verbose: whether the search shows its progress, the least error at each length, on standard error; nothing is shown
            where that is not a terminal.
        grid_schedule: grid sizes of the numeric network.
        steps: number of Levenberg-Marquardt steps per stage.
        smoothness: least penalty on the splines' second differences; stronger ones, with an L1 penalty on the
            edges, are tried first.
        validation_fraction: part of the samples held out to choose stages and to verify formulas.
        random_state: seed, RandomState or None.
        device: device that a network is trained on; None for the CPU, where formulas are searched and predictions made in any case.

    Attributes:
        network_: the KAN on scaled data; of width [inputs, outputs] where an additive model was as good as any. A closed form
            is a symbolic network of the inputs in their units, and has none where a function is not in the library.
        history_: training of the network's last stage; None for an additive model.
        held_out_: number of rows that were held out (none of fewer than 20) and do not repeat the inputs of a training row.
        formula_: SymPy expression (a list for several outputs) where symbolic=True: the form of the least description length
            (`kat_zoo.kan.search.judge`). Undefined functions phi_l_i_j, for edges that no function fits, are in it only with
            `widths` or in tables of fewer than 6 rows.
        law_: the closed form behind `formula_`, where it is one.
        exact_: whether the formula, before its numbers are rounded (`formula(round=None)`), is symbolic and right to 1e-6 on
            held-out rows; False where there are none.
        summary_: a sentence (a list for several outputs) that says how good the formula is and whether the search was cut short.
        table_: pandas DataFrame (a list of named tuples where pandas is not installed) of the candidates that no simpler one
            beats, a constant, a linear model and functions of one input among those tried. Its columns are complexity, the
            number of nodes of the expression and 50 for each numeric edge; loss, the root mean square error on the held-out
            rows (on all, where none are); score, the drop of log(loss) for each node more than the row before; equation.
            Rows are numbered from 0, and `predict(X, index=3)` predicts with row 3.
        constants_: values of the named constants in base units, by which `formula_` is evaluated, where `units` are given.
        constant_units_: value and unit of each number of the formula that has a unit, where `units` are given.
        search_: all networks of the search, where symbolic=True.
        estimators_: a KANRegressor for each of several outputs, where symbolic=True: each is searched on its own and has a
            network_, search_ and table_ (here a list of tables). With `widths`, one network has all outputs.
    """

    formula_: Any  # an expression, or a list of them
    table_: Any
    summary_: Any
    _findings: Findings

    def __init__(
        self,
        hidden: Sequence[int] = (5,),
        *,
        symbolic: bool = False,
        widths: Sequence[Any] | None = None,
        library: Sequence[str] | None = None,
        restarts: int = 8,
        max_seconds: float | None = None,
        units: Mapping[str, str] | None = None,
        target_units: str | Sequence[str] | None = None,
        constants: Mapping[str, str] | None = None,
        warm_start: bool = False,
        n_jobs: int | None = None,
        verbose: bool = False,
        grid_schedule: Sequence[int] = (3, 5, 10),
        steps: int = 20,
        smoothness: float = 1e-6,
        validation_fraction: float = 0.2,
        random_state: Any = 0,
        device: Any = None,
    ) -> None:
        super().__init__(hidden, grid_schedule, steps, smoothness, validation_fraction, random_state, device)
        self.symbolic = symbolic
        self.widths = widths
        self.library = library
        self.restarts = restarts
        self.max_seconds = max_seconds
        self.units = units
        self.target_units = target_units
        self.constants = constants
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANRegressor:
        """Train on X (N, features) and y (N,) or (N, outputs).

        Args:
            X: (N, features) samples.
            y: (N,) or (N, outputs) targets.
            sample_weight: (N,) non-negative weights.

        Raises:
            ValueError: parameters or data that make no sense.
        """
        stop = Stop()
        with interruptible(stop):
            return self._fit(X, y, sample_weight, stop)

    def _fit(self, X: Any, y: Any, sample_weight: Any, stop: Stop) -> KANRegressor:
        self._check_parameters()
        check_library(self.library)
        former = self.__dict__.get("estimators_"), self.__dict__.get("_findings")
        for name in FITTED:
            self.__dict__.pop(name, None)  # of an earlier fit with other parameters
        table = X
        X, y = checked(self, X, y, multi_output=True, y_numeric=True)
        flat = y.ndim == 1
        if self.symbolic and self.widths is None and not flat and y.shape[1] > 1:
            return self._fit_each(table, y, sample_weight, stop, former[0])
        y = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        X, y, weight = weighted_samples(X, y, sample_weight)
        self._scales = Scales.of(X)
        inputs = self._scales.inputs(X)
        mean = np.average(y, axis=0, weights=weight)
        spread = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
        self._scales.flat = flat
        self._scales.spread = np.where(spread > 0, spread, 1.0)
        # Products want their true zero: the mean is removed only where it dwarfs the variation.
        self._scales.shift = np.where(np.abs(mean) > 2 * spread, mean, 0.0)
        self._scales.sample = typical_rows(inputs, weight)
        targets = torch.from_numpy((y - self._scales.shift) / self._scales.spread)
        seed = seed_of(self.random_state)
        train, held = split(len(X), self.validation_fraction, seed)
        self.held_out_ = unseen(X, train, held)
        if self.symbolic:
            check = held if len(held) else train
            rows = Table(X, y, (inputs, targets), weight, train, check, self.held_out_ > 0, self._input_names(), self._scales)
            self._search(rows, former[1], stop)
        else:
            device = self._device()
            network = KAN([X.shape[1], *self.hidden, y.shape[1]], self.grid_schedule[0], seed=seed).to(device)
            every = torch.ones(len(X)) if weight is None else torch.from_numpy(weight)
            settings = path.Path(self.grid_schedule, self.steps, self.smoothness)
            tensors = (inputs, targets, every.double(), torch.from_numpy(train), torch.from_numpy(held))
            network, self.history_ = settings.fit(network, *(t.to(device) for t in tensors))
            self.network_ = network.cpu()
        return self

    def _search(self, table: Table, former: Findings | None, stop: Stop) -> None:
        """Search a formula of the table."""
        options = Options(self.widths, self.library, self.restarts, seed_of(self.random_state))
        if self.units is not None:
            options.units = read_units(list(table.names), self.units, self.target_units, self.constants)
        if self.warm_start and former is not None:
            options.former = former_trees(former, [*table.names, *(options.units.constants if options.units else ())])
        clock = stop.clock(self.max_seconds)
        with one_thread(), live_table(self.verbose, self.max_seconds) as report:
            options.report = report
            self._adopt(find(table, options, clock), options.units, clock.over)
        step = max(1, len(table.X) // SHOWN_ROWS)
        self._rows = table.X[::step], table.y[::step, 0]  # `explain` draws them

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.max_seconds is not None:
            real("max_seconds", self.max_seconds, above=0.0)
        count("restarts", self.restarts)
        if self.n_jobs is not None and (not is_integer(self.n_jobs) or self.n_jobs == 0):
            raise ValueError(f"n_jobs={self.n_jobs!r}: expected an integer other than 0, or None")
        for name in ("target_units", "constants"):
            if getattr(self, name) is not None and self.units is None:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected units of the inputs, too")
        if self.units is not None and (not self.symbolic or self.widths is not None):
            raise ValueError(f"units={self.units!r}: expected symbolic=True and no widths")

    def _fit_each(self, X: Any, y: np.ndarray, sample_weight: Any, stop: Stop, former: list[KANRegressor] | None) -> KANRegressor:
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
        return self

    def __sklearn_tags__(self) -> Any:
        """Scikit-learn's tags: several outputs are fine."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

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

    def predict(self, X: Any, index: int | None = None) -> np.ndarray:
        """Predictions, (N,) or (N, outputs).

        Args:
            X: (N, features) samples.
            index: row of `table_` whose formula predicts; None for `formula_`.

        Raises:
            ValueError: no such row, or no table because symbolic=False.
        """
        check_is_fitted(self)
        if hasattr(self, "estimators_"):
            return np.column_stack([one.predict(X, index) for one in self.estimators_])
        X = checked(self, X, reset=False)
        if not hasattr(self, "_findings"):
            if index is not None:
                raise ValueError(f"index={index!r} with symbolic=False, there is no table: expected None")
            with torch.no_grad():
                y = self._scales.restored(self.network_(self._scales.inputs(X)).numpy())
        else:
            y = self._row(index).answer.predict(X).reshape(len(X), -1)
        return y[:, 0] if self._scales.flat else y

    def _row(self, index: int | None) -> Row:
        rows = self._findings.rows
        if index is None:
            return self._findings.chosen
        return rows[count("index", index, 0, len(rows) - 1)]

    @property
    def feature_importances_(self) -> np.ndarray:
        """Share of each input in the prediction's variation, (features,); they add up to 1, each output counts alike."""
        check_is_fitted(self)
        if hasattr(self, "estimators_"):
            shares: np.ndarray = np.mean([one.feature_importances_ for one in self.estimators_], axis=0)
            return shares
        if hasattr(self, "law_"):
            return self.law_.shares()
        return super().feature_importances_

    def plot(self, output: int = 0, **options: Any) -> Figure:
        """Matplotlib figure of the fitted network, as `kat_zoo.kan.operations.plot.plot` draws it.

        Args:
            output: number of the output, where each has a network of its own.
            **options: keyword arguments of `KAN.plot`.
        """
        check_is_fitted(self)
        if hasattr(self, "estimators_"):
            figure: Figure = self.estimators_[output].plot(**options)
            return figure
        if not hasattr(self, "network_"):
            raise ValueError(f"formula_={self.formula_}: expected functions of the library for a picture of a network")
        return super().plot(**options)

    def explain(self, folder: Any = None, output: int = 0, names: Sequence[str] | None = None) -> Explanation:
        """A page about the formula: the table, residuals, curves of each input, and why each number is what it is.

        Args:
            folder: folder that gets explanation.txt and explanation.png; nothing is written by default.
            output: number of the output, where there are several.
            names: names of the inputs on the page instead of those of the formula.

        Raises:
            ValueError: fitted without symbolic=True, or with `widths` for several outputs.
        """
        check_is_fitted(self)
        if hasattr(self, "estimators_"):
            found: Explanation = self.estimators_[output].explain(folder, 0, names)
            return found
        if not hasattr(self, "_findings") or len(self._findings.rows) == 0 or isinstance(self.formula_, list):
            raise ValueError(f"symbolic={self.symbolic}: expected KANRegressor(symbolic=True) fitted to one output")
        own = self._input_names()
        if names is not None and len(names) != len(own):
            raise ValueError(f"names={list(names)!r}: expected {len(own)} names")
        subject = Subject(self._findings, self.summary_, own, own if names is None else names, self.feature_importances_, *self._rows)
        subject.spread, subject.numbers_with_units = self._unit, getattr(self, "constant_units_", ())
        return explain(subject, folder)

    def explore(self, X: Any = None, y: Any = None, **options: Any) -> Any:
        """Open the page of `kat-zoo explore` on the fitted network.

        Args:
            X: (N, features) samples; some 2000 of the fit by default.
            y: (N,) targets; the estimator's own predictions by default.
            **options: further arguments of `kat_zoo.explore.explore`.

        Returns:
            The page, with `url` and `close`.

        Raises:
            ValueError: several outputs, or a formula that no network computes.
        """
        check_is_fitted(self)
        if not hasattr(self, "network_") or self.network_.nodes[-1] != 1:
            raise ValueError("explore: expected an estimator of one output that has a network_")
        scales = self._scales
        X = scales.sample.numpy() * scales.half + scales.center if X is None else checked(self, X, reset=False)
        given = {
            "center": scales.center.tolist(),
            "half": scales.half.tolist(),
            "shift": scales.shift.item(),
            "spread": scales.spread.item(),
        }
        y = self.predict(X) if y is None else y
        return self.network_.explore(X, y, names=self._input_names(), scales=given, **options)

    def _formula(self, round: int | None) -> Any:
        if hasattr(self, "estimators_"):
            return [one.formula(round) for one in self.estimators_]
        if round is not None:
            count("round", round, 0)
        found = self._row(None).answer.printed(round)
        return found[0] if isinstance(found, list) and self._scales.flat else found
