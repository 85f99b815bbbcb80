"""KANRegressor, a scikit-learn estimator that can also find formulas."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from .additive import fit_additive
from .estimator import KANEstimator, seed_of, split, weighted_samples
from .formula import complexity, formula
from .library import DEFAULT_LIBRARY
from .network import KAN
from .search import Problem, Search, search

PENALTIES = (0.1, 0.03, 0.01, 3e-3, 1e-3)  # of y's standard deviation
CAUTION = 2.0  # standard errors; the rule of one (Breiman et al., CART, 1984) errs too often over so many stages


class KANRegressor(RegressorMixin, KANEstimator):
    """Regression by a KAN and, with symbolic=True, by a formula found in the data.

    Args:
        hidden: sizes of the hidden layers of the numeric network.
        symbolic: search for a formula (`kat_zoo.kan.search.search`) instead of training one network.
        widths: shapes the search tries; its own list by default.
        library: functions the search uses; `kat_zoo.kan.library.DEFAULT_LIBRARY` by default.
        restarts: starts per shape of the search.
        max_seconds: no further shape is begun after this time; None for no limit.
        grid_schedule: grid sizes of the numeric network.
        steps: Levenberg-Marquardt steps per stage.
        smoothness: the least penalty on the splines' second differences; stronger ones, with an L1 penalty on the
            edges, are tried first.
        validation_fraction: part held out to choose stages and to verify formulas.
        random_state: int, RandomState or None.

    Attributes:
        network_: the KAN on scaled data; of width [inputs, outputs] where an additive model was as good as any.
        history_: of the network's last stage; None for an additive model.
        formula_: SymPy expression (a list for several outputs) where symbolic=True; undefined functions phi_l_i_j stand
            for edges that no function fits.
        exact_: whether the formula is symbolic and right to 1e-6 on held-out data.
        table_: rows (complexity, loss, equation) of the candidates that no simpler one beats; the loss is the root mean
            square error on held-out data.
    """

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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANRegressor:  # noqa: N803
        """Train on X (N, features) and y (N,) or (N, outputs)."""
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        self._flat = y.ndim == 1
        y = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        X, y, weight = weighted_samples(X, y, sample_weight)
        inputs = self._prepare_inputs(X)
        mean, spread = np.average(y, axis=0, weights=weight), y.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        # Products want their true zero: the mean is removed only where it dwarfs the variation.
        self._shift = np.where(np.abs(mean) > 2 * spread, mean, 0.0)
        targets = torch.from_numpy((y - self._shift) / self._spread)
        self._sample = inputs[:: max(1, len(inputs) // 2000)]
        seed = seed_of(self.random_state)
        train, held = split(len(X), self.validation_fraction, seed)
        w = None if weight is None else torch.from_numpy(weight[train])
        if self.symbolic:
            check = held if len(held) else train
            library = tuple(self.library) if self.library is not None else DEFAULT_LIBRARY
            problem = Problem(inputs[train], targets[train], inputs[check], targets[check], w, library)
            self._tabulate(
                search(problem, self.widths, restarts=self.restarts, seed=seed, max_seconds=self.max_seconds)
            )
        else:
            self.network_ = KAN([X.shape[1], *self.hidden, y.shape[1]], self.grid_schedule[0], seed=seed)
            every = torch.ones(len(X)) if weight is None else torch.from_numpy(weight)
            self._fit_path(inputs, targets, every.double(), torch.from_numpy(train), torch.from_numpy(held))
        return self

    def _stages(self, samples: int, held: int) -> list[tuple[float, float, int]]:
        """(l1, smoothness, grid size) in the order they are tried, each from where the one before ended."""
        first = self.grid_schedule[0]
        stages = [(p, p, first) for p in PENALTIES if p > self.smoothness]
        if held:  # with nothing to judge it by, or far more parameters than samples, the network stays penalised
            spline = self.network_.layers[0].spline
            room = 2 * samples / self.network_.num_edges() - spline.spline_order - 1
            stages += [(0.0, self.smoothness, g) for g in self.grid_schedule if g <= room]
        return stages or [(0.0, self.smoothness, first)]

    def _fit_path(self, x: Tensor, y: Tensor, weight: Tensor, train: Tensor, held: Tensor) -> None:
        """From an additive model to networks under weaker and weaker penalties; a step must earn its freedom.

        The least penalised network stays that beats the ones before it on held-out samples by more than `CAUTION`
        standard errors of the difference: a small or noisy table stops early, an exact one goes to the end. An
        additive model that nothing beats, a linear one often, is refitted on all samples.
        """

        def errors_of(network: KAN) -> Tensor:
            with torch.no_grad():
                return (network(x[held]) - y[held]).square().mean(1) * weight[held]

        best: tuple[Tensor | None, KAN, Any] = (None, self.network_, None)
        penalties, least = None, math.inf
        if len(held):
            additive = KAN([x.shape[1], y.shape[1]], self.grid_schedule[0], base="zero")
            penalties = fit_additive(additive, x[train], y[train], weight[train])
            best = errors_of(additive), additive, None
        val = (x[held], y[held]) if len(held) else (None, None)
        for l1, smoothness, grid in self._stages(len(train), len(held)):
            options = {"grid_schedule": [grid], "steps": self.steps, "l1": l1, "coef_smoothness": smoothness}
            history = self.network_.fit(x[train], y[train], *val, sample_weight=weight[train], **options)
            errors = errors_of(self.network_)
            if best[0] is not None and len(errors) > 1:
                if float(errors.mean()) > 4 * least:
                    break
                least = min(least, float(errors.mean()))
                gain = best[0] - errors
                if not float(gain.mean()) > CAUTION * float(gain.std()) / len(gain) ** 0.5:
                    continue
            best = errors, copy.deepcopy(self.network_), history
        _, self.network_, self.history_ = best
        if self.history_ is None and penalties is not None:
            fit_additive(self.network_, x, y, weight, penalties)

    def __sklearn_tags__(self):
        """Several outputs are fine."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def _affines(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        inputs = [(1 / h, -c / h) for c, h in zip(self._center, self._half, strict=True)]
        return inputs, list(zip(self._spread.tolist(), self._shift.tolist(), strict=True))

    def _expressions(self, model: KAN, round: int | None = 4) -> list[Any]:  # noqa: A002
        names = getattr(self, "feature_names_in_", None)
        return formula(model, None if names is None else list(names), round, *self._affines())

    def _tabulate(self, result: Search) -> None:
        assert result.best is not None  # noqa: S101  a search returns at least one candidate
        self.search_, self.network_, self.exact_ = result, result.best.model, result.best.exact
        expressions = self._expressions(self.network_)
        self.formula_ = expressions[0] if self._flat else expressions
        scale = float(np.sqrt(np.mean(self._spread**2)))
        rows = []
        for candidate in result.front():
            found = self._expressions(candidate.model)
            rows.append((complexity(found), candidate.error * scale, found[0] if self._flat else found))
        self.table_ = sorted(rows, key=lambda row: row[0])

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Predictions, (N,) or (N, outputs)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        with torch.no_grad():
            y = self.network_(self._scale_inputs(X)).numpy() * self._spread + self._shift
        return y[:, 0] if self._flat else y

    def latex(self) -> str:
        """LaTeX of the formula.

        Raises:
            ValueError: fitted without symbolic=True.
        """
        import sympy

        check_is_fitted(self)
        if not hasattr(self, "formula_"):
            raise ValueError("symbolic=False: there is no formula; expected KANRegressor(symbolic=True)")
        return sympy.latex(self.formula_)
