"""The common part of the scikit-learn estimators: parameters, the numeric fit, importances, intervals, pictures."""

from __future__ import annotations

import inspect as signatures
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..._checks import count, is_count, is_real, real
from ..model import KAN
from ..operations.plot import plain
from ..operations.pruning import attribute
from . import inspect, shapes
from .closed import one_thread
from .columns import FAR, Category, Column, Columns, read_table
from .numeric import INPUTS, Answer, Task, fit_numeric, leaves_structure
from .path import Path
from .rows import ranks, split_by, typical_rows, unseen, weights_of
from .scales import Scales
from .validation import checked_targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FITTED = (  # what a fit sets
    *("network_", "history_", "pairs_", "estimators_", "search_", "formula_", "exact_", "table_", "law_", "held_out_", "constants_"),
    *("constant_units_", "summary_", "_findings", "_scales", "_judged", "_bands", "_rows", "_unit"),
)


def seed_of(random_state: Any) -> int:
    """A seed from scikit-learn's random_state.

    Args:
        random_state: an integer, which is the seed, a RandomState to draw it from, or None for NumPy's global one.

    Raises:
        ValueError: neither a seed that NumPy and torch take, nor a RandomState, nor None.
    """
    if isinstance(random_state, (int, np.integer)) and 0 <= random_state < 2**32:
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**20))
    except ValueError:
        raise ValueError(f"random_state={random_state!r}: expected an integer from 0 to 2**32 - 1, a RandomState or None") from None


def _is_list(value: Any) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)


class KANEstimator(BaseEstimator, ABC):
    """Base of KANRegressor and KANClassifier, which document the parameters they share."""

    symbolic: bool
    _scales: Scales | Columns
    network_: KAN

    def __init__(
        self,
        hidden: Sequence[int],
        grid_schedule: Sequence[int],
        steps: int,
        smoothness: float,
        validation_fraction: float,
        random_state: Any,
        device: Any,
        interactions: bool,
        monotonic_cst: Any,
        reach: float,
    ) -> None:
        self.hidden = hidden
        self.grid_schedule = grid_schedule
        self.steps = steps
        self.smoothness = smoothness
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device
        self.interactions = interactions
        self.monotonic_cst = monotonic_cst
        self.reach = reach

    def _check_parameters(self) -> None:
        """Raise a ValueError for wrong parameters: scikit-learn wants constructors that accept all, so `fit` judges them."""
        if not _is_list(self.hidden) or not all(is_count(n, 0) for entry in self.hidden for n in np.ravel(entry)):
            raise ValueError(f"hidden={self.hidden!r}: expected a list of layer sizes, such as (5,)")
        if not _is_list(self.grid_schedule) or not len(self.grid_schedule) or not all(map(is_count, self.grid_schedule)):
            raise ValueError(f"grid_schedule={self.grid_schedule!r}: expected a list of at least one grid size, such as (3, 5)")
        count("steps", self.steps)
        real("smoothness", self.smoothness, 0.0)
        real("reach", self.reach, 0.0)
        if not is_real(self.validation_fraction) or not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction={self.validation_fraction!r}: expected a number of at least 0 and below 1")

    def _refuse_without_symbolic(self, *names: str) -> None:
        """Raise a ValueError for parameters of the search of a formula that are given where none is searched."""
        parameters = signatures.signature(type(self)).parameters
        for name in names:
            value, default = getattr(self, name), parameters[name].default
            if not self.symbolic and value is not default and value != default:
                raise ValueError(f"{name}={value!r} with symbolic=False: expected {default!r}, or symbolic=True")

    def _forget(self) -> None:
        """Drop what an earlier fit, with other parameters, has found."""
        for name in FITTED:
            self.__dict__.pop(name, None)

    def _device(self) -> torch.device:
        """The device to train on, the CPU by default.

        Raises:
            ValueError: no device of PyTorch, or one that is not there.
        """
        try:
            return torch.empty(0, device=self.device or "cpu").device
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"device={self.device!r}: expected a device that PyTorch can use here, or None for the CPU ({reason})"
            ) from None

    @property
    def _names(self) -> Sequence[str] | None:
        return getattr(self, "feature_names_in_", None)

    def _input_names(self) -> list[str]:
        """Names of the columns, as they are in formulas."""
        return [f"x_{i + 1}" for i in range(self.n_features_in_)] if self._names is None else list(map(str, self._names))

    def _directions(self, owners: np.ndarray) -> np.ndarray:
        """Direction of each input, from those of the columns.

        Raises:
            ValueError: not a direction for each column, a name that X does not have, or a column of categories.
        """
        given, names = self.monotonic_cst, self._input_names()
        if given is None:
            return np.zeros(len(owners), int)
        if isinstance(given, Mapping):
            if not set(given) <= set(names):
                raise ValueError(f"monotonic_cst={dict(given)!r}: expected names of columns, {', '.join(names[:10])}")
            given = [given.get(name, 0) for name in names]
        if not _is_list(given) or len(given) != len(names) or not all(direction in (-1, 0, 1) for direction in given):
            raise ValueError(f"monotonic_cst={self.monotonic_cst!r}: expected -1, 0 or 1 for each of {len(names)} columns, or a dict")
        found: np.ndarray = np.asarray(given, dtype=int)[owners]
        wrong = [names[i] for i in np.unique(owners[found != 0]) if isinstance(self._columns.columns[i], Category)]
        if wrong:
            raise ValueError(f"monotonic_cst={self.monotonic_cst!r}: expected 0 for {wrong[0]!r}, a column of categories")
        found[1:][owners[1:] == owners[:-1]] = 0  # the second input of a column says where values are missing
        return found

    @property
    def _columns(self) -> Columns:
        scales = getattr(self, "_scales", None)
        if not isinstance(scales, Columns):  # several formulas have no scales in common
            raise ValueError("symbolic=True: expected symbolic=False, for a formula has neither shapes nor intervals")
        return scales

    def _read(self, X: Any, y: Any, sample_weight: Any, **options: Any) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Columns, targets and weights of the rows of positive weight; `options` are those of scikit-learn's `check_X_y`."""
        table = read_table(self, X, reset=True)
        y = checked_targets(self, y, len(table[0]), **options)
        weight = weights_of(sample_weight, np.zeros((len(y), 1)))
        if weight is None:
            return table, y, np.ones(len(y))
        known = weight > 0
        return [column[known] for column in table], y[known], weight[known]

    def _fit_table(self, table: list[np.ndarray], y: np.ndarray, weight: np.ndarray, losses: Sequence[Any], classes: bool) -> None:
        """Fit the network to scaled targets y (N, outputs).

        The rows are split by their content: an additive model of the training rows meets the held-out ones, which tells
        intervals and importances, and whether a network with hidden layers may try. Then all rows are fitted.
        """
        scales = self._columns
        self._device()  # a wrong one is told before work begins
        inputs = scales.inputs(table)
        owners = scales.owners
        task = Task(losses, bool(self.interactions), self._directions(owners), classes)
        rank, different = ranks(np.concatenate([inputs, y], 1), seed_of(self.random_state))
        train, held = split_by(rank, different, self.validation_fraction)
        if classes and np.ptp(y[train], axis=0).min() == 0:  # every class is trained on
            train, held = np.arange(len(y)), np.array([], int)
        self.held_out_ = unseen(inputs, train, held)
        scales.sample = typical_rows(torch.from_numpy(inputs), None if np.ptp(weight) == 0 else weight)
        found: tuple[KAN, Any] | None = None
        self._judged: inspect.Judged | None = None
        self._bands: shapes.Bands | None = None
        with one_thread():
            if len(held):
                judge = fit_numeric(task, inputs[train], y[train], weight[train], rank[train]).network
                if not classes and self._may_train(losses, task):
                    found = self._trained(judge, inputs, y, weight, train[np.argsort(rank[train], kind="stable")], held)
                shown = held[np.argsort(rank[held], kind="stable")][: inspect.HELD]
                judge = judge if found is None else found[0]
                self._judged = inspect.Judged(judge, inputs[shown], y[shown], weight[shown], task)
            answer = fit_numeric(task, inputs, y, weight, rank, bootstrap=True) if found is None else None
        self.pairs_: list[tuple[str, str]] = []
        if found is not None:
            self.network_, self.history_ = found
        elif answer is not None:
            self.network_, self.history_ = answer.network, None
            self._widen(answer, owners)
            self._bands = answer.columns, answer.bands
            names, pairs = scales.names, {pair for fitted in answer.fits for pair in fitted.terms.pairs}
            self.pairs_ = [(names[answer.columns[i]], names[answer.columns[j]]) for i, j in sorted(pairs)]

    def _may_train(self, losses: Sequence[Any], task: Task) -> bool:
        return bool(len(self.hidden)) and all(loss.exact for loss in losses) and task.interactions and not task.directions.any()

    def _trained(
        self, judge: KAN, inputs: np.ndarray, y: np.ndarray, weight: np.ndarray, train: np.ndarray, held: np.ndarray
    ) -> tuple[KAN, Any] | None:
        """A network with hidden layers that beats the additive model, or None."""
        if inputs.shape[1] > INPUTS or not leaves_structure(judge, inputs, y, weight, train, held):
            return None
        device = self._device()
        tensors = [torch.from_numpy(np.ascontiguousarray(part)) for part in (inputs, y, weight, train, held)]
        with torch.no_grad():
            bar = (judge(tensors[0][held]) - tensors[1][held]).square().mean(1) * tensors[2][held]
        network = KAN([inputs.shape[1], *self.hidden, y.shape[1]], self.grid_schedule[0], seed=seed_of(self.random_state))
        spline = network.layers[0].spline
        constant = torch.from_numpy(np.ptp(inputs, axis=0) == 0)  # edges that no row trains would move predictions later
        spline.set_mask(torch.where(constant, 0.0, spline.mask))
        network.layers[0].refresh()
        network.to(device)
        settings = Path(self.grid_schedule, self.steps, self.smoothness)
        x, targets, weights, first, last = (t.to(device) for t in tensors)
        found = settings.fit(network, x, targets, weights, first, last, bar.to(device))
        return None if found is None else (found[0].cpu(), found[1])

    def _widen(self, answer: Answer, owners: np.ndarray) -> None:
        """Let columns with straight effects go on further: a line is as good far away as its slope."""
        straight = set(answer.straight())
        for number, column in enumerate(self._columns.columns):
            first = int(np.flatnonzero(owners == number)[0])
            if isinstance(column, Column) and column.varies and first in straight and 0 < self.reach < FAR:
                column.widen(self.reach)

    def _outputs(self, X: Any) -> np.ndarray:
        """Outputs (N, outputs) of the network for rows of a table."""
        check_is_fitted(self)
        return inspect.outputs(self.network_, self._columns.inputs(read_table(self, X, reset=False)))

    @abstractmethod
    def _formula(self, round: int | None) -> Any:
        """The fitted network's formula, or a list of them."""

    def formula(self, round: int | None = 4) -> Any:
        """The formula with other decimals than `formula_` has; a list where that is one.

        Args:
            round: number of decimals; None for all digits.

        Raises:
            ValueError: fitted without symbolic=True, or negative decimals.
        """
        check_is_fitted(self)
        if not hasattr(self, "formula_"):
            raise ValueError(f"symbolic=False, there is no formula: expected {type(self).__name__}(symbolic=True)")
        return self._formula(round)

    def latex(self, round: int | None = 4) -> str:
        """LaTeX of `formula`; arguments and errors as there."""
        from ..formula.export import to_latex

        return to_latex(self.formula(round))

    @property
    def feature_importances_(self) -> np.ndarray:
        """Share of each column in the prediction, (features,); they add up to 1.

        The growth of the loss on held-out rows (cross-entropy for classes, half the deviance for counts) when the values of a column
        change places (Breiman, 2001), of the model that has not seen these rows. Formulas, and tables of fewer than 20 rows: the
        share in the prediction's variation.
        """
        check_is_fitted(self)
        if isinstance(self._scales, Columns) and self._judged is not None:
            return self._judged.importances(self._scales.owners, self.n_features_in_)
        if len(self._scales.sample) < 2:
            return np.full(self.n_features_in_, 1 / self.n_features_in_)
        scores = attribute(self.network_, self._scales.sample).inputs.numpy()
        if isinstance(self._scales, Columns):
            scores = np.bincount(self._scales.owners, scores, self.n_features_in_)
        return scores / scores.sum() if scores.sum() > 0 else np.full(len(scores), 1 / len(scores))

    def explain_row(self, x: Any) -> inspect.RowExplanation:
        """How much each column moves the prediction of one row away from that of a typical row.

        Shapley values: the mean effect of a column over the orders in which the columns of the typical row are replaced. They add up
        to the difference of the two predictions, and are exact for additive models with pairwise terms.

        Args:
            x: the row: (features,) numbers, or a data frame of one row.

        Raises:
            ValueError: not one row, or fitted with symbolic=True.
        """
        check_is_fitted(self)
        columns = self._columns
        X = x if hasattr(x, "columns") else np.asarray(x).reshape(1, -1)
        if len(X) != 1:
            raise ValueError(f"x of {len(X)} rows: expected one row")
        row = columns.inputs(read_table(self, X, reset=False))
        return inspect.explain_row(self.network_, columns, self._input_names(), row)

    def plot(self, **options: Any) -> Figure:
        """Matplotlib figure of the network that predicts, as `kat_zoo.kan.operations.plot.plot` draws it.

        Args:
            **options: keyword arguments of `KAN.plot`.
        """
        check_is_fitted(self)
        names: Any = self._scales.names if isinstance(self._scales, Columns) and self._names is not None else self._names
        figure: Figure = self.network_.plot(self._scales.sample, **{"variables": None if names is None else plain(names)} | options)
        return figure
