"""scikit-learn estimators: KANRegressor (with formulas) and KANClassifier."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .formula import complexity, formula
from .library import DEFAULT_LIBRARY
from .network import KAN
from .pruning import attribute
from .search import Problem, Search, search


def _split(n: int, part: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out rows; nothing is held out of fewer than 20 samples."""
    order = np.random.default_rng(seed).permutation(n)
    held = round(part * n) if n >= 20 else 0
    return np.sort(order[held:]), np.sort(order[:held])


def _seed(random_state: Any) -> int:
    if isinstance(random_state, (int, np.integer)):
        return int(random_state)
    from sklearn.utils import check_random_state

    return int(check_random_state(random_state).randint(2**20))


class _KANEstimator(BaseEstimator):
    """What both estimators share: scaling, the held-out split, importances and pictures."""

    def _scale_inputs(self, X: np.ndarray) -> torch.Tensor:  # noqa: N803
        return torch.from_numpy(np.asarray((X - self._center) / self._half, dtype=np.float64))

    def _prepare_inputs(self, X: np.ndarray) -> torch.Tensor:  # noqa: N803
        low, high = X.min(0), X.max(0)
        self._center = (low + high) / 2
        half = (high - low) / 2
        self._half = np.where(half > 0, half, 1.0)
        return self._scale_inputs(X)

    @property
    def feature_importances_(self) -> np.ndarray:
        """Share of each input in the prediction's variation, (features,); they add up to 1."""
        check_is_fitted(self)
        if len(self._sample) < 2:
            return np.full(self.n_features_in_, 1 / self.n_features_in_)
        scores = attribute(self.network_, self._sample).inputs.numpy()
        return scores / scores.sum() if scores.sum() > 0 else np.full(len(scores), 1 / len(scores))

    def plot(self, **options: Any):
        """Matplotlib figure of the fitted network, see `kat_zoo.kan.plot.plot`."""
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        return self.network_.plot(self._sample, **{"variables": None if names is None else list(names)} | options)


class KANRegressor(RegressorMixin, _KANEstimator):
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
        smoothness: the least penalty on the splines' second differences; stronger ones are tried first.
        validation_fraction: part held out to choose stages and to verify formulas.
        random_state: int, RandomState or None.

    Attributes:
        network_: the KAN on scaled data.
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
        self.hidden = hidden
        self.symbolic = symbolic
        self.widths = widths
        self.library = library
        self.restarts = restarts
        self.max_seconds = max_seconds
        self.grid_schedule = grid_schedule
        self.steps = steps
        self.smoothness = smoothness
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANRegressor:  # noqa: N803
        """Train on X (N, features) and y (N,) or (N, outputs)."""
        X, y = validate_data(self, X, y, dtype=np.float64, multi_output=True, y_numeric=True)
        self._flat = y.ndim == 1
        y = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        if weight is not None:  # a weight of zero is an absent sample, for the split and the scales too
            X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
            if not len(X):
                raise ValueError("sample_weight has no positive value; expected at least one")
        inputs = self._prepare_inputs(X)
        mean, spread = np.average(y, axis=0, weights=weight), y.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        # Products want their true zero: the mean is removed only where it dwarfs the variation.
        self._shift = np.where(np.abs(mean) > 2 * spread, mean, 0.0)
        targets = torch.from_numpy((y - self._shift) / self._spread)
        self._sample = inputs[:: max(1, len(inputs) // 2000)]
        seed = _seed(self.random_state)
        train, held = _split(len(X), self.validation_fraction, seed)
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
            val = (inputs[held], targets[held]) if len(held) else (None, None)
            self._fit_path(inputs[train], targets[train], val, w)
        return self

    def _fit_path(self, x: torch.Tensor, y: torch.Tensor, val: tuple[Any, Any], weight: Any) -> None:
        """From strong to weak penalties, then finer grids; the stage with the least held-out error stays.

        A small or noisy table stops at a strong penalty, an exact one goes to the end.
        """
        best: tuple[float, Any, Any] = (np.inf, None, None)
        first, finer = self.grid_schedule[0], [g for g in self.grid_schedule[1:] if g <= len(x) // 8]
        penalties = [(p, p) for p in (0.1, 0.01, 1e-3) if p > self.smoothness] + [(0.0, self.smoothness)]
        for (l1, smoothness), grid in [*((p, first) for p in penalties), *((penalties[-1], g) for g in finer)]:
            options = {"grid_schedule": [grid], "steps": self.steps, "l1": l1, "coef_smoothness": smoothness}
            history = self.network_.fit(x, y, *val, sample_weight=weight, **options)
            if history.best < best[0]:
                best = (history.best, copy.deepcopy(self.network_), history)
            elif history.best > 2 * best[0]:
                break
        if best[1] is not None:
            self.network_, self.history_ = best[1], best[2]

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


class KANClassifier(ClassifierMixin, _KANEstimator):
    """Classification by a KAN whose outputs are logits.

    Args:
        hidden: sizes of the hidden layers.
        grid_schedule: grid sizes.
        steps: L-BFGS steps (of up to 20 iterations) per grid.
        l1: penalty on the size of edges.
        smoothness: penalty on the splines' second differences.
        validation_fraction: part held out to choose the stage.
        random_state: int, RandomState or None.

    Attributes:
        network_: the KAN on scaled inputs; one logit for two classes, else one per class.
        classes_: the labels.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (5,),
        *,
        grid_schedule: Sequence[int] = (3,),
        steps: int = 5,
        l1: float = 1e-4,
        smoothness: float = 1e-4,
        validation_fraction: float = 0.2,
        random_state: Any = 0,
    ) -> None:
        self.hidden = hidden
        self.grid_schedule = grid_schedule
        self.steps = steps
        self.l1 = l1
        self.smoothness = smoothness
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANClassifier:  # noqa: N803
        """Train on X (N, features) and labels y (N,)."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        if weight is not None:
            X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[:1]}; expected at least 2")
        inputs, labels = self._prepare_inputs(X), torch.from_numpy(indices.astype(np.int64))
        self._sample = inputs[:: max(1, len(inputs) // 2000)]
        seed = _seed(self.random_state)
        train, held = _split(len(X), self.validation_fraction, seed)
        outputs = 1 if len(self.classes_) == 2 else len(self.classes_)
        self.network_ = KAN([X.shape[1], *self.hidden, outputs], self.grid_schedule[0], seed=seed)
        val = (inputs[held], labels[held]) if len(held) else (None, None)
        self.history_ = self.network_.fit(
            inputs[train],
            labels[train],
            *val,
            optimizer="lbfgs",
            loss=_classification_loss,
            grid_schedule=self.grid_schedule,
            steps=self.steps,
            l1=self.l1,
            coef_smoothness=self.smoothness,
            sample_weight=None if weight is None else weight[train],
        )
        return self

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """Logits: (N,) for two classes, else (N, classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        with torch.no_grad():
            logits = self.network_(self._scale_inputs(X)).numpy()
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities, (N, classes)."""
        logits = torch.from_numpy(self.decision_function(X))
        if logits.ndim == 2:
            return logits.softmax(1).numpy()
        p = logits.sigmoid().numpy()
        return np.stack([1 - p, p], 1)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Labels, (N,)."""
        logits = self.decision_function(X)
        return self.classes_[logits.argmax(1) if logits.ndim == 2 else (logits > 0).astype(int)]


def _classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if logits.shape[1] == 1:
        return torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits), reduction="none")
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
