"""KANRegressor, a scikit-learn estimator that can also find formulas."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ..._checks import choice, count, is_integer, is_real, real
from ..gam.basis import quantiles
from ..gam.losses import Huber, Loss, Poisson, Quantile, Squared
from ..operations.symbolic import check_library
from . import shapes
from .columns import Column, Columns
from .formulas import FormulaSearch
from .stop import Stop, interruptible
from .validation import checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FARTHEST = 1e9  # scaled target
WILD = 1e4  # standard deviation of y in its interquartile ranges, beyond which these are its scale
LOSSES = ("squared", "huber", "quantile", "poisson")


class KANRegressor(RegressorMixin, FormulaSearch):
    """Regression by a KAN and, with symbolic=True, by a formula found in the data.

    The numeric KAN is an additive model with products of two splines for pairs of inputs that interact. It is fitted in closed
    form: penalties come from the data (REML), nothing is random, and the answer is the same on any number of threads. A network
    with hidden layers is trained only where the residuals on held-out rows ask for one, and stays only if it is better there.

    Columns of a data frame (pandas or polars) may hold categories and missing values, an array may hold NaN. Each column is
    scaled by its body, so that outliers do not matter to the scale; a column that was constant in the training rows has no
    influence.

    Args:
        hidden: sizes of the hidden layers of a network that is tried where an additive model leaves something; () for none, as
            for interactions=False.
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
        n_jobs: number of processes, of which each searches the formula of one output; None for 1, -1 for all processors. The
            answer is the same. A numeric fit stays in this process and on one thread: 200,000 x 20 numbers take 20 CPU seconds.
        verbose: whether the search shows its progress, the least error at each length, on standard error; nothing is shown
            where that is not a terminal.
        loss: "squared", the mean: a residual counts up to the root of N standard deviations (10 at least), and the log says how
            many rows are beyond that; "huber", which moves less by many outliers in y; "quantile"; or "poisson" for counts and
            rates, whose logarithm is modeled.
        quantile: part of the rows below the prediction for loss "quantile".
        interactions: whether products of pairs of inputs are tried.
        monotonic_cst: -1 (must not rise), 0 or 1 (must not fall) for each column, or a dict by name, as in scikit-learn's
            HistGradientBoostingRegressor. Such a column has no interactions, and no network with hidden layers is tried.
        reach: how far predictions go on straight outside the training range of a column, in widths of that range; from there on
            they stay. A column whose effect is a straight line goes on for 10 widths, unless reach is 0.
        grid_schedule: grid sizes of a network with hidden layers.
        steps: number of Levenberg-Marquardt steps per stage of its training.
        smoothness: least penalty on the splines' second differences in its training; stronger ones, with an L1 penalty on the
            edges, are tried first.
        validation_fraction: part of the different rows held out: to judge networks, for `predict_interval` and
            `feature_importances_`, and to verify formulas. Equal rows are on the same side.
        random_state: seed, RandomState or None.
        device: device that a network is trained on; None for the CPU, where formulas are searched and predictions made in any case.

    Attributes:
        network_: the KAN on scaled data: [inputs, outputs] for an additive model, [inputs, [outputs, products], outputs] with
            pairs, wider with hidden layers. A closed form is a symbolic network of the inputs in their units, and has none where
            a function is not in the library.
        history_: training of the last stage of a network with hidden layers; None for an additive model.
        pairs_: pairs of inputs whose products are in the model, by the names of the inputs.
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
            rows (on all, where none are or, for closed forms, fewer than 40); score, the drop of log(loss) for each node more
            than the row before; equation. Rows are numbered from 0, and `predict(X, index=3)` predicts with row 3.
        constants_: values of the named constants in base units, by which `formula_` is evaluated, where `units` are given.
        constant_units_: value and unit of each number of the formula that has a unit, where `units` are given.
        search_: all networks of the search, where symbolic=True.
        estimators_: a KANRegressor for each of several outputs, where symbolic=True: each is searched on its own and has a
            network_, search_ and table_ (here a list of tables). With `widths`, one network has all outputs.
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
        units: Mapping[str, str] | None = None,
        target_units: str | Sequence[str] | None = None,
        constants: Mapping[str, str] | None = None,
        warm_start: bool = False,
        n_jobs: int | None = None,
        verbose: bool = False,
        loss: Literal["squared", "huber", "quantile", "poisson"] = "squared",
        quantile: float = 0.5,
        interactions: bool = True,
        monotonic_cst: Mapping[str, int] | Sequence[int] | None = None,
        reach: float = 0.25,
        grid_schedule: Sequence[int] = (3, 5, 10),
        steps: int = 20,
        smoothness: float = 1e-6,
        validation_fraction: float = 0.2,
        random_state: Any = 0,
        device: Any = None,
    ) -> None:
        super().__init__(
            hidden, grid_schedule, steps, smoothness, validation_fraction, random_state, device, interactions, monotonic_cst, reach
        )
        self.loss = loss
        self.quantile = quantile
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
        with interruptible(stop) if self.symbolic else contextlib.nullcontext():  # other fits have no result to stop with
            return self._fit(X, y, sample_weight, stop)

    def _fit(self, X: Any, y: Any, sample_weight: Any, stop: Stop) -> KANRegressor:
        self._check_parameters()
        check_library(self.library)
        former = self.__dict__.get("estimators_"), self.__dict__.get("_findings")
        self._forget()
        if not self.symbolic:
            self._fit_numeric(X, y, sample_weight)
            return self
        table = X
        X, y = checked(self, X, y, multi_output=True, y_numeric=True)
        if self.widths is None and y.ndim == 2 and y.shape[1] > 1:
            self._fit_each(table, y, sample_weight, stop, former[0])
        else:
            targets = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
            self._fit_formula(X, targets, sample_weight, y.ndim == 1, former[1], stop)
        return self

    def _fit_numeric(self, X: Any, y: Any, sample_weight: Any) -> None:
        table, y, weight = self._read(X, y, sample_weight, multi_output=True, y_numeric=True)
        flat = y.ndim == 1
        y = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        columns = self._scales = Columns.of(table, self._input_names(), weight, self.reach)
        columns.flat = flat
        _, exponent = np.frexp(np.abs(y).max(0))  # squares of numbers near 1e300 or 1e-300 do not fit into a float
        y = np.ldexp(y, -exponent)
        mean = np.average(y, axis=0, weights=weight)
        spread = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
        spread = np.where(spread > 0, spread, 1.0)
        low, middle, high = np.stack([quantiles(column, weight, np.array([0.25, 0.5, 0.75])) for column in y.T], 1)
        wild = (high > low) & (spread > WILD * (high - low))  # outliers rule both
        if self.loss == "poisson":
            if (y < 0).any():
                raise ValueError(f"loss='poisson' with y of {float(np.ldexp(y, exponent).min()):g}: expected no negative value")
            mean = np.where(mean > 0, mean, 1.0)
            columns.link, columns.shift, columns.spread = "exp", np.log(mean) + exponent * np.log(2.0), np.ones(y.shape[1])
            targets = y / mean
        else:
            mean, spread = np.where(wild, middle, mean), np.where(wild, high - low, spread)
            columns.spread, columns.shift = np.ldexp(spread, exponent), np.ldexp(mean, exponent)
            targets = np.clip((y - mean) / spread, -FARTHEST, FARTHEST)  # outliers beyond count as that far
        self._fit_table(table, targets, weight, [self._loss() for _ in range(y.shape[1])], False)

    def _loss(self) -> Loss:
        if self.loss == "quantile":
            return Quantile(self.quantile)
        kinds: dict[str, type[Loss]] = {"squared": Squared, "huber": Huber, "poisson": Poisson}
        return kinds[self.loss]()

    def _check_parameters(self) -> None:
        super()._check_parameters()
        choice("loss", self.loss, LOSSES)
        if not is_real(self.quantile) or not 0 < self.quantile < 1:
            raise ValueError(f"quantile={self.quantile!r}: expected a number above 0 and below 1")
        if self.symbolic and self.loss != "squared":
            raise ValueError(f"loss={self.loss!r} with symbolic=True: expected 'squared'")
        if self.symbolic and self.monotonic_cst is not None:
            raise ValueError(f"monotonic_cst={self.monotonic_cst!r} with symbolic=True: expected None")
        if self.max_seconds is not None:
            real("max_seconds", self.max_seconds, above=0.0)
        count("restarts", self.restarts)
        if self.n_jobs is not None and (not is_integer(self.n_jobs) or self.n_jobs == 0):
            raise ValueError(f"n_jobs={self.n_jobs!r}: expected an integer other than 0, or None")
        self._refuse_without_symbolic("widths", "library", "max_seconds", "restarts", "warm_start")
        for name in ("target_units", "constants"):
            if getattr(self, name) is not None and self.units is None:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected units of the inputs, too")
        if self.units is not None and (not self.symbolic or self.widths is not None):
            raise ValueError(f"units={self.units!r}: expected symbolic=True and no widths")

    def __sklearn_tags__(self) -> Any:
        """Scikit-learn's tags: several outputs are fine, and missing values where no formula is searched."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        tags.input_tags.allow_nan = not self.symbolic
        return tags

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
        if not hasattr(self, "_findings"):
            if index is not None:
                raise ValueError(f"index={index!r} with symbolic=False, there is no table: expected None")
            y = self._scales.restored(self._outputs(X))
        else:
            X = checked(self, X, reset=False)
            y = self._row(index).answer.predict(X).reshape(len(X), -1)
        return y[:, 0] if self._scales.flat else y

    def predict_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Intervals (N, 2), or (N, outputs, 2), that hold y with a given chance: low ends, high ends.

        Split conformal prediction (Lei et al., arXiv 1604.04173): the prediction, and on either side the residual that this part
        of the held-out rows does not pass. The model of the residuals has not seen these rows, the prediction's has, so
        intervals are a little wide rather than narrow. The chance is that over all rows like the training rows, not in each place.

        Args:
            X: (N, features) samples.
            coverage: the chance, above 0 and below 1.

        Raises:
            ValueError: fewer held-out rows than the coverage takes, another loss than "squared" or "huber", or symbolic=True.
        """
        check_is_fitted(self)
        columns = self._columns
        if not is_real(coverage) or not 0 < coverage < 1:
            raise ValueError(f"coverage={coverage!r}: expected a number above 0 and below 1")
        if self.loss not in ("squared", "huber"):
            raise ValueError(f"loss={self.loss!r}: expected 'squared' or 'huber' for intervals")
        if self._judged is None:
            raise ValueError("no row was held out: expected at least 20 different rows and validation_fraction above 0")
        y = self._outputs(X)
        ends = np.stack([columns.restored(y + sign * self._judged.radius(coverage)) for sign in (-1, 1)], -1)
        return ends[:, 0] if columns.flat else ends

    def plot_shapes(self, output: int = 0, most: int = 12) -> Figure:
        """Matplotlib figure of the effects: a curve for each column, a map for each pair, as `shapes.plot_shapes` draws them.

        Args:
            output: number of the output.
            most: number of panels at most, the strongest effects first.

        Raises:
            ValueError: fitted with symbolic=True, or a network with hidden layers, whose effects are not separate.
        """
        check_is_fitted(self)
        columns = self._columns
        count("output", output, 0, self.network_.nodes[-1] - 1)
        return shapes.plot_shapes(self.network_, columns, self._bands, output, count("most", most))

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
        estimators = getattr(self, "estimators_", [self])
        count("output", output, 0, len(estimators) - 1)
        if estimators[0] is not self:
            figure: Figure = estimators[output].plot(**options)
            return figure
        if not hasattr(self, "network_"):
            raise ValueError(f"formula_={self.formula_}: expected functions of the library for a picture of a network")
        return super().plot(**options)

    def explore(self, X: Any = None, y: Any = None, **options: Any) -> Any:
        """Open the page of `kat-zoo explore` on the fitted network.

        Args:
            X: (N, features) samples; some 2000 of the fit by default.
            y: (N,) targets; the estimator's own predictions by default.
            **options: further arguments of `kat_zoo.explore.explore`.

        Returns:
            The page, with `url` and `close`.

        Raises:
            ValueError: several outputs, a formula that no network computes, categories, missing values, or loss="poisson".
        """
        check_is_fitted(self)
        if not hasattr(self, "network_") or self.network_.nodes[-1] != 1:
            raise ValueError("explore: expected an estimator of one output that has a network_")
        scales = self._scales
        if isinstance(scales, Columns):
            numbers = [column for column in scales.columns if isinstance(column, Column) and not column.missing]
            if len(numbers) < len(scales.columns) or scales.link != "identity":
                raise ValueError("explore: expected columns of numbers without missing values, and not loss='poisson'")
            center, half = (np.array([getattr(column, name) for column in numbers]) for name in ("center", "half"))
        else:
            center, half = scales.center, scales.half
        X = scales.sample.numpy() * half + center if X is None else checked(self, X, reset=False)
        given = {
            "center": center.tolist(),
            "half": half.tolist(),
            "shift": float(np.ravel(scales.shift)[0]),
            "spread": float(np.ravel(scales.spread)[0]),
        }
        y = self.predict(X) if y is None else y
        return self.network_.explore(X, y, names=self._input_names(), scales=given, **options)
