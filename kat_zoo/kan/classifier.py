"""KANClassifier, a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .estimator import KANEstimator, seed_of, split, typical_rows, weighted_samples
from .network import KAN


class KANClassifier(ClassifierMixin, KANEstimator):
    """Classification by a KAN whose outputs are logits.

    It has no `formula_`: the search of KANRegressor minimises squared errors, and logits have no targets to compare with.
    `network_.auto_symbolic` and `network_.formula` turn edges of the trained network into functions of the scaled inputs.

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
        super().__init__(hidden, grid_schedule, steps, smoothness, validation_fraction, random_state)
        self.l1 = l1

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANClassifier:  # noqa: N803
        """Train on X (N, features) and labels y (N,)."""
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        X, y, weight = weighted_samples(X, y, sample_weight)
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[:1]}; expected at least 2")
        inputs, labels = self._prepare_inputs(X), torch.from_numpy(indices.astype(np.int64))
        self._sample = typical_rows(inputs, weight)
        seed = seed_of(self.random_state)
        train, held = split(len(X), self.validation_fraction, seed)
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
            sample_weight_val=None if weight is None or not len(held) else weight[held],
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
