"""KANRegressor, a scikit-learn estimator that can also find formulas."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from ..._checks import count, real
from ..formula.expression import complexity
from ..formula.tidy import nodes
from ..library import DEFAULT_LIBRARY
from ..model import KAN
from ..operations.symbolic import check_library
from ..search.judge import Clock
from ..search.problem import EXACT, Candidate, Problem
from ..search.search import Search, find_formulas
from .additive import fit_additive
from .closed import Law, find_laws, length, one_thread
from .estimator import KANEstimator, seed_of, split, typical_rows, unseen, weighted_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PENALTIES = (0.1, 0.03, 0.01, 3e-3, 1e-3)  # of the stages, in units of y's standard deviation
NUMERIC_EDGE = 50  # nodes of an expression that an edge without a formula counts as
CAUTION = 2.0  # standard errors; the rule of one (Breiman et al., CART, 1984) errs too often over so many stages
CLOSED_SHARE, LEAST_SECONDS = 0.6, 0.05  # part of the time for closed forms, and the least for networks
LOST = 4  # times the least held-out error at which further stages are given up


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
            An interrupt (Ctrl-C) ends it in the same way.
        grid_schedule: grid sizes of the numeric network.
        steps: number of Levenberg-Marquardt steps per stage.
        smoothness: least penalty on the splines' second differences; stronger ones, with an L1 penalty on the
            edges, are tried first.
        validation_fraction: part of the samples held out to choose stages and to verify formulas.
        random_state: seed, RandomState or None.

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
        table_: rows (complexity, loss, equation) of the candidates that no simpler one beats, a constant, a linear model
            and functions of one input among those tried. The complexity is the number of nodes of the expression and 50
            for each numeric edge, the loss the root mean square error on the held-out rows (on all, where none are).
        search_: all candidates of the search, where symbolic=True.
        estimators_: a KANRegressor for each of several outputs, where symbolic=True: each is searched on its own and has a
            network_, search_ and table_ (here a list of tables). With `widths`, one network has all outputs.
    """

    formula_: Any  # an expression, or a list of them
    table_: list[Any]

    def __init__(
        self,
        hidden: Sequence[int] = (5,),
        *,
        symbolic: bool = False,
        widths: Sequence[Any] | None = None,
        library: Sequence[str] | None = None,
        restarts: int = 8,
        max_seconds: float | None = None,
        grid_schedule: Sequence[int] = (3, 5, 10),
        steps: int = 20,
        smoothness: float = 1e-6,
        validation_fraction: float = 0.2,
        random_state: Any = 0,
    ) -> None:
        super().__init__(hidden, grid_schedule, steps, smoothness, validation_fraction, random_state)
        self.symbolic = symbolic
        self.widths = widths
        self.library = library
        self.restarts = restarts
        self.max_seconds = max_seconds

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANRegressor:
        """Train on X (N, features) and y (N,) or (N, outputs).

        Args:
            X: (N, features) samples.
            y: (N,) or (N, outputs) targets.
            sample_weight: (N,) non-negative weights.

        Raises:
            ValueError: parameters or data that make no sense.
        """
        self._check_parameters()
        check_library(self.library)
        for name in ("network_", "history_", "estimators_", "search_", "formula_", "exact_", "table_", "law_"):
            self.__dict__.pop(name, None)  # of an earlier fit with other parameters
        table = X
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        self._flat = y.ndim == 1
        if self.symbolic and self.widths is None and not self._flat and y.shape[1] > 1:
            return self._fit_each(table, y, sample_weight)
        y = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        X, y, weight = weighted_samples(X, y, sample_weight)
        inputs = self._prepare_inputs(X)
        mean = np.average(y, axis=0, weights=weight)
        spread = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
        self._spread = np.where(spread > 0, spread, 1.0)
        # Products want their true zero: the mean is removed only where it dwarfs the variation.
        self._shift = np.where(np.abs(mean) > 2 * spread, mean, 0.0)
        targets = torch.from_numpy((y - self._shift) / self._spread)
        self._sample = typical_rows(inputs, weight)
        seed = seed_of(self.random_state)
        train, held = split(len(X), self.validation_fraction, seed)
        self.held_out_ = unseen(X, train, held)
        if self.symbolic:
            with one_thread():
                self._find(X, y, inputs, targets, weight, train, held)
        else:
            self.network_ = KAN([X.shape[1], *self.hidden, y.shape[1]], self.grid_schedule[0], seed=seed)
            every = torch.ones(len(X)) if weight is None else torch.from_numpy(weight)
            self._fit_path(inputs, targets, every.double(), torch.from_numpy(train), torch.from_numpy(held))
        return self

    def _find(self, X: np.ndarray, y: np.ndarray, x: Tensor, targets: Tensor, weight: Any, train: np.ndarray, held: np.ndarray) -> None:
        """Search closed forms first, then, where none is exact, networks; set what is found."""
        began = time.monotonic()
        if self.max_seconds is not None:
            real("max_seconds", self.max_seconds, above=0.0)
        count("restarts", self.restarts)
        laws: list[Law] = []
        clock = Clock() if self.max_seconds is None else Clock(began + CLOSED_SHARE * self.max_seconds)
        check = held if len(held) else train
        if self.widths is None:
            names = getattr(self, "feature_names_in_", [f"x_{i + 1}" for i in range(X.shape[1])])
            laws = find_laws(X, y[:, 0], weight, train, check, names, self.library, clock)
        if laws and (laws[0].form.exact or clock.deadline == -math.inf):
            self._adopt(laws, None)
            return
        left = None if self.max_seconds is None else max(self.max_seconds - (time.monotonic() - began), LEAST_SECONDS)
        problem = self._problem(x, targets, weight, train, check)
        found = find_formulas(problem, self.widths, restarts=self.restarts, seed=seed_of(self.random_state), max_seconds=left)
        self._tabulate(found)
        best = found.best
        if laws and not best.exact:
            law = laws[0]
            network = length(best.error, self._in_units(best.model)[0], len(X)) if best.symbolic else math.inf
            if length(law.form.error, law.expression, len(X)) <= network:
                self._adopt(laws, found)

    def _adopt(self, laws: list[Law], search: Search | None) -> None:
        """Set a closed form as the formula; the table has the other forms and those of networks."""
        law = laws[0]
        rows = {str(row.expression): (nodes(row.expression), row.form.error * float(self._spread[0]), row.printed()) for row in laws}
        if search is not None:
            rows |= {str(row[-1]): (row[0], row[1], row[2]) for row in self.table_ if "phi_" not in str(row[2])}
        chosen = rows[str(law.expression)]
        self.table_ = []
        for row in sorted(rows.values(), key=lambda row: (row[0], row[1])):
            if row is chosen or (not self.table_ or max(row[1], EXACT * self._spread[0]) < 0.99 * self.table_[-1][1]):
                self.table_.append(row)
        self.law_, self.formula_, self.exact_ = law, law.printed(), law.form.exact and self.held_out_ > 0
        self._center, self._half = np.zeros(self.n_features_in_), np.ones(self.n_features_in_)
        self._spread, self._shift = np.ones(1), np.zeros(1)
        self._sample = torch.tensor(law.rows)
        network = law.network()
        self.__dict__.pop("network_", None)
        if network is not None:
            self.network_ = network
            candidate = Candidate(network, law.form.error, True, network.width, self.held_out_ > 0)
            self.search_ = Search([*(search.candidates if search else []), candidate], candidate)

    def _problem(self, x: Tensor, y: Tensor, weight: np.ndarray | None, train: np.ndarray, check: np.ndarray) -> Problem:
        """The search's data: rows to train on, and rows to measure errors on."""
        w, w_val = (None if weight is None else torch.from_numpy(weight[rows]) for rows in (train, check))
        library = tuple(self.library) if self.library is not None else DEFAULT_LIBRARY
        return Problem(x[train], y[train], x[check], y[check], w, w_val, library, held_out=self.held_out_ > 0)

    def _fit_each(self, X: Any, y: np.ndarray, sample_weight: Any) -> KANRegressor:
        """A search of its own for each output: together, the error of one hides how good another is."""
        limit = None if self.max_seconds is None else self.max_seconds / y.shape[1]
        self.estimators_ = [clone(self).set_params(max_seconds=limit).fit(X, column, sample_weight) for column in y.T]
        self.formula_ = [one.formula_ for one in self.estimators_]
        self.exact_ = all(one.exact_ for one in self.estimators_)
        self.table_ = [one.table_ for one in self.estimators_]
        self.held_out_ = self.estimators_[0].held_out_
        return self

    def _stages(self, samples: int, held: int) -> list[tuple[float, float, int]]:
        """(l1, smoothness, grid size) in the order they are tried, each from where the one before ended."""
        first = self.grid_schedule[0]
        stages = [(p, p, first) for p in PENALTIES if p > self.smoothness]
        if held:  # with nothing to judge it by, or far more parameters than samples, the network stays penalized
            spline = self.network_.layers[0].spline
            room = 2 * samples / self.network_.num_edges() - spline.spline_order - 1
            stages += [(0.0, self.smoothness, g) for g in self.grid_schedule if g <= room]
        return stages or [(0.0, self.smoothness, first)]

    def _fit_path(self, x: Tensor, y: Tensor, weight: Tensor, train: Tensor, held: Tensor) -> None:
        """From an additive model to networks under weaker and weaker penalties; a step must earn its freedom.

        The least penalized network stays that beats the ones before it on held-out samples by more than `CAUTION`
        standard errors of the difference: a small or noisy table stops early, an exact one goes to the end. An
        additive model that nothing beats, a linear one often, is refitted on all samples.
        """

        def errors_of(network: KAN) -> Tensor:
            with torch.no_grad():
                squares: Tensor = (network(x[held]) - y[held]).square()
                return squares.mean(1) * weight[held]

        best: tuple[Tensor | None, KAN, Any] = (None, self.network_, None)
        penalties, least = None, math.inf
        if len(held):
            additive = KAN([x.shape[1], y.shape[1]], self.grid_schedule[0], base="zero")
            penalties = fit_additive(additive, x[train], y[train], weight[train])
            best = errors_of(additive), additive, None
        val: dict[str, Any] = {"X_val": x[held], "y_val": y[held], "sample_weight_val": weight[held]} if len(held) else {}
        for l1, smoothness, grid in self._stages(len(train), len(held)):
            options = {"grid_schedule": [grid], "steps": self.steps, "l1": l1, "coef_smoothness": smoothness, **val}
            history = self.network_.fit(x[train], y[train], sample_weight=weight[train], **options)
            errors = errors_of(self.network_)
            if best[0] is not None and len(errors) > 1:
                if float(errors.mean()) > LOST * least:
                    break
                least = min(least, float(errors.mean()))
                gain = best[0] - errors
                if not float(gain.mean()) > CAUTION * float(gain.std()) / len(gain) ** 0.5:
                    continue
            best = errors, copy.deepcopy(self.network_), history
        _, self.network_, self.history_ = best
        if self.history_ is None and penalties is not None:
            fit_additive(self.network_, x, y, weight, penalties)

    def __sklearn_tags__(self) -> Any:
        """Scikit-learn's tags: several outputs are fine."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def _front(self, candidates: Sequence[Candidate]) -> list[tuple[int, Candidate]]:
        """Complexities, and candidates that no simpler one beats; of those right to 1e-6 the simplest is enough."""
        sized = []
        for candidate in candidates:
            numeric = sum(candidate.model.edge_kind(*edge) == "numeric" for edge in candidate.model.edges())
            sized.append((complexity(self._in_units(candidate.model)) + NUMERIC_EDGE * numeric, candidate))
        front: list[tuple[int, Candidate]] = []
        for size, candidate in sorted(sized, key=lambda pair: (pair[0], pair[1].error)):
            if not front or max(candidate.error, EXACT) < 0.99 * max(front[-1][1].error, EXACT):
                front.append((size, candidate))
        return front

    def _tabulate(self, result: Search) -> None:
        """Set network, formula and table; the chosen candidate has a row, or gives way to one as good that prints simpler."""
        best, front = result.best, self._front(result.candidates)
        if not any(candidate is best for _, candidate in front):
            (size, _), *_ = self._front([best])
            at = max(n for n, row in enumerate(front) if row[0] <= size)
            if best.exact and not front[at][1].exact:
                front[at] = size, best
            else:
                best = front[at][1]
        result.best = best
        self.search_, self.network_, self.exact_ = result, best.model, best.exact
        scale = float(np.sqrt(np.mean(self._spread**2)))
        shown = [(size, c.error * scale, self._in_units(c.model), c) for size, c in front]
        self.table_ = [(size, loss, found[0] if self._flat else found) for size, loss, found, _ in shown]
        self.formula_ = next(row[2] for row, (*_, c) in zip(self.table_, shown, strict=True) if c is best)

    def predict(self, X: Any) -> np.ndarray:
        """Predictions, (N,) or (N, outputs)."""
        check_is_fitted(self)
        if hasattr(self, "estimators_"):
            return np.column_stack([one.predict(X) for one in self.estimators_])
        X = validate_data(self, X, dtype=np.float64, reset=False)
        if hasattr(self, "law_"):
            values = self.law_.predict(X)
            return values if self._flat else values[:, None]
        with torch.no_grad():
            y: np.ndarray = self.network_(self._scale_inputs(X)).numpy() * self._spread + self._shift
        return y[:, 0] if self._flat else y

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

    def _in_units(self, model: KAN, round: int | None = 4) -> list[Any]:
        return self._expressions(model, round, list(zip(self._spread.tolist(), self._shift.tolist(), strict=True)))

    def _formula(self, round: int | None) -> Any:
        if hasattr(self, "estimators_"):
            return [one.formula(round) for one in self.estimators_]
        if hasattr(self, "law_"):
            if round is not None:
                count("round", round, 0)
            found = self.law_.printed(round)
            return found if self._flat else [found]
        found = self._in_units(self.network_, round)
        return found[0] if self._flat else found
