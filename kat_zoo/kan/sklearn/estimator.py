"""The common part of the scikit-learn estimators: scaling, the held-out split, importances, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ..._checks import count, is_count, is_real, real
from ..formula.expression import faithful, formula, variable_names
from ..model import KAN
from ..operations.plot import plain
from ..operations.pruning import attribute

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_SPLIT = 20  # samples below which nothing is held out
ENOUGH_ROWS = 2000  # rows for importances and pictures
MORE_DIGITS = (6, 9)  # decimals tried where fewer give other values than the network


def split(n: int, part: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out rows; nothing is held out of fewer than 20 samples.

    Args:
        n: number of samples.
        part: part to hold out.
        seed: seed of the choice.
    """
    rows = np.random.default_rng(seed).permutation(n)
    held = round(part * n) if n >= LEAST_SPLIT else 0
    return np.sort(rows[held:]), np.sort(rows[:held])


def unseen(X: np.ndarray, train: np.ndarray, held: np.ndarray) -> int:
    """Number of held-out rows of X (N, features) that do not repeat a training row.

    Args:
        X: (N, features) samples.
        train: numbers of the training rows.
        held: numbers of the held-out rows.
    """
    known = {row.tobytes() for row in X[train] + 0.0}  # makes -0.0 the same as 0.0
    return sum(row.tobytes() not in known for row in X[held] + 0.0)


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


def typical_rows(inputs: torch.Tensor, weight: np.ndarray | None) -> torch.Tensor:
    """Some 2000 rows for importances and pictures; weighted ones are drawn by their weights."""
    if weight is None:
        return inputs[:: max(1, len(inputs) // ENOUGH_ROWS)]
    return inputs[np.random.default_rng(0).choice(len(inputs), min(len(inputs), ENOUGH_ROWS), p=weight / weight.sum())]


@dataclass
class Scales:
    """Scales between the units of a table and a network.

    Attributes:
        center: (inputs,) middle of each input's range.
        half: (inputs,) half of its width.
        spread: (outputs,) scale of each output.
        shift: (outputs,) shift of each output.
        sample: (M, inputs) scaled samples for importances, pictures and the digits of formulas.
        flat: Whether y has one dimension.
    """

    center: np.ndarray
    half: np.ndarray
    spread: np.ndarray = field(default_factory=lambda: np.ones(1))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(1))
    sample: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    flat: bool = True

    @classmethod
    def of(cls, X: np.ndarray) -> Scales:
        """The scales of inputs X (N, inputs); those that do not vary keep their size."""
        low, high = X.min(0), X.max(0)
        half = (high - low) / 2
        return cls((low + high) / 2, np.where(half > 0, half, 1.0))

    def inputs(self, X: np.ndarray) -> torch.Tensor:
        """Scaled samples."""
        return torch.from_numpy(np.asarray((X - self.center) / self.half, dtype=np.float64))

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Outputs of a network in units of y."""
        units: np.ndarray = values * self.spread + self.shift
        return units

    def expressions(self, model: KAN, names: Sequence[str] | None, round: int | None = 4) -> list[Any]:
        """Formulas of a network on scaled inputs, with as many more decimals as they need to be faithful to it."""
        pairs = [(1 / h, -c / h) for c, h in zip(self.center, self.half, strict=True)]
        outputs = list(zip(self.spread.tolist(), self.shift.tolist(), strict=True)) if len(self.spread) == model.nodes[-1] else None
        variables, x = variable_names(model, names), self.sample
        with torch.no_grad():
            y = self.restored(model(x).numpy())
        rows = x.numpy() * self.half + self.center
        for digits in [None] if round is None else [round, *(d for d in MORE_DIGITS if d > round), None]:
            found = formula(model, variables, digits, x, input_affine=pairs, output_affine=outputs)
            if faithful(found, variables, rows, y):
                break
        return found


class KANEstimator(BaseEstimator):
    """Base of KANRegressor and KANClassifier, which document the parameters they share."""

    _scales: Scales

    def __init__(
        self,
        hidden: Sequence[int],
        grid_schedule: Sequence[int],
        steps: int,
        smoothness: float,
        validation_fraction: float,
        random_state: Any,
        device: Any,
    ) -> None:
        self.hidden = hidden
        self.grid_schedule = grid_schedule
        self.steps = steps
        self.smoothness = smoothness
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.device = device

    def _check_parameters(self) -> None:
        """Raise a ValueError for wrong parameters: scikit-learn wants constructors that accept all, so `fit` judges them."""
        if not _is_list(self.hidden) or not all(is_count(n, 0) for entry in self.hidden for n in np.ravel(entry)):
            raise ValueError(f"hidden={self.hidden!r}: expected a list of layer sizes, such as (5,)")
        if not _is_list(self.grid_schedule) or not len(self.grid_schedule) or not all(map(is_count, self.grid_schedule)):
            raise ValueError(f"grid_schedule={self.grid_schedule!r}: expected a list of at least one grid size, such as (3, 5)")
        count("steps", self.steps)
        real("smoothness", self.smoothness, 0.0)
        if not is_real(self.validation_fraction) or not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction={self.validation_fraction!r}: expected a number of at least 0 and below 1")

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
        """Names of the inputs, as they are in formulas."""
        return [f"x_{i + 1}" for i in range(self.n_features_in_)] if self._names is None else list(map(str, self._names))

    def _formula(self, round: int | None) -> Any:
        """The fitted network's formula, or a list of them."""
        return self._scales.expressions(self.network_, self._names, round)

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
        import sympy

        text: str = sympy.latex(self.formula(round))
        return text

    @property
    def feature_importances_(self) -> np.ndarray:
        """Share of each input in the prediction's variation, (features,); they add up to 1."""
        check_is_fitted(self)
        if len(self._scales.sample) < 2:
            return np.full(self.n_features_in_, 1 / self.n_features_in_)
        scores = attribute(self.network_, self._scales.sample).inputs.numpy()
        return scores / scores.sum() if scores.sum() > 0 else np.full(len(scores), 1 / len(scores))

    def plot(self, **options: Any) -> Figure:
        """Matplotlib figure of the fitted network, as `kat_zoo.kan.operations.plot.plot` draws it.

        Args:
            **options: keyword arguments of `KAN.plot`.
        """
        check_is_fitted(self)
        names = self._names
        figure: Figure = self.network_.plot(self._scales.sample, **{"variables": None if names is None else plain(names)} | options)
        return figure


def weighted_samples(
    X: np.ndarray,
    y: np.ndarray,
    sample_weight: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Samples and weights without those of weight zero, which are absent for the split and the scales too.

    Args:
        X: (N, features) samples.
        y: (N,) or (N, outputs) targets.
        sample_weight: (N,) weights, or None.

    Raises:
        ValueError: a negative weight, or none that is positive.
    """
    if sample_weight is None:
        return X, y, None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    known = weight > 0
    if not known.any():
        raise ValueError("sample_weight without a positive value: expected at least one")
    return X[known], y[known], weight[known]
