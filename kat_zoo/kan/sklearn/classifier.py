"""KANClassifier, a scikit-learn estimator that can also write its logits as formulas."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from ..._checks import count, real
from ..gam.losses import Logistic
from ..library import DEFAULT_LIBRARY, get_function
from ..model import KAN
from ..operations.fit_run import History
from ..operations.pruning import attribute, drop_dead_nodes, remove_edge
from ..operations.symbolic import check_library, fix_symbolic, suggest_symbolic
from . import shapes
from .columns import Columns
from .estimator import KANEstimator, seed_of
from .rows import split, typical_rows, unseen, weighted_samples
from .scales import Scales
from .validation import checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class KANClassifier(ClassifierMixin, KANEstimator):
    """Classification by a KAN whose outputs are logits and, with symbolic=True, formulas.

    The numeric KAN is an additive model with products of two splines for pairs of inputs that interact, fitted by penalized
    maximum likelihood: penalties come from the data (REML), nothing is random. Data frames may hold categories and missing
    values, as KANRegressor describes.

    Args:
        hidden: sizes of the hidden layers of the network that symbolic=True makes simpler; () for an additive one.
        symbolic: whether a trained network is made simpler, step by step, as long as its held-out loss stays within a standard
            error (CART's rule: Breiman et al., 1984): no hidden layer, fewer edges, functions instead of splines.
        library: names of functions that may replace splines; `kat_zoo.kan.library.DEFAULT_LIBRARY` by default.
        interactions: whether products of pairs of inputs are tried, where symbolic=False.
        monotonic_cst: -1, 0 or 1 for each column, or a dict by name, for two classes: the direction of the logit.
        reach: how far predictions go on straight outside the training range of a column, as KANRegressor describes.
        grid_schedule: grid sizes to go through, where symbolic=True.
        steps: number of L-BFGS steps (of up to 20 iterations) for each grid, where symbolic=True.
        l1: penalty on the size of edges, where symbolic=True.
        smoothness: penalty on the splines' second differences, where symbolic=True.
        validation_fraction: part of the different rows held out for importances and to choose the stage.
        random_state: seed, RandomState or None.
        device: device that a network is trained on; None for the CPU, where predictions are made in any case.

    Attributes:
        network_: the KAN on scaled inputs; one logit for two classes, else one per class.
        history_: training of the network, where symbolic=True; None for an additive model.
        held_out_: number of rows that were held out (none of fewer than 20) and do not repeat the inputs of a training row.
        pairs_: pairs of inputs whose products are in the model, by the names of the inputs.
        classes_: the labels.
        formula_: logit of classes_[1] as a SymPy expression of the inputs, or a list of the logits of all classes if there are
            more than two, where symbolic=True; undefined functions phi_l_i_j stand for edges that no function fits.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (5,),
        *,
        symbolic: bool = False,
        library: Sequence[str] | None = None,
        interactions: bool = True,
        monotonic_cst: Mapping[str, int] | Sequence[int] | None = None,
        reach: float = 0.25,
        grid_schedule: Sequence[int] = (3,),
        steps: int = 5,
        l1: float = 1e-4,
        smoothness: float = 1e-4,
        validation_fraction: float = 0.2,
        random_state: Any = 0,
        device: Any = None,
    ) -> None:
        super().__init__(
            hidden, grid_schedule, steps, smoothness, validation_fraction, random_state, device, interactions, monotonic_cst, reach
        )
        self.l1 = l1
        self.symbolic = symbolic
        self.library = library

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> KANClassifier:
        """Train on X (N, features) and labels y (N,).

        Args:
            X: (N, features) samples.
            y: (N,) labels of at least two classes.
            sample_weight: (N,) non-negative weights.

        Raises:
            ValueError: parameters or data that make no sense.
        """
        self._check_parameters()
        if self.symbolic and self.monotonic_cst is not None:
            raise ValueError(f"monotonic_cst={self.monotonic_cst!r} with symbolic=True: expected None")
        self._forget()
        if self.symbolic:
            return self._fit_formula(X, y, sample_weight)
        table, y, weight = self._read(X, y, sample_weight)
        indices = self._labels(y)
        if len(self.classes_) > 2 and self.monotonic_cst is not None:
            raise ValueError(f"monotonic_cst={self.monotonic_cst!r} with {len(self.classes_)} classes: expected two classes")
        self._scales = Columns.of(table, self._input_names(), weight, self.reach)
        numbers = range(len(self.classes_)) if len(self.classes_) > 2 else [1]
        targets = np.stack([(indices == number).astype(np.float64) for number in numbers], 1)
        self._scales.spread, self._scales.shift = np.ones(len(numbers)), np.zeros(len(numbers))
        self._fit_table(table, targets, weight, [Logistic() for _ in numbers], True)
        return self

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_library(self.library)
        real("l1", self.l1, 0.0)
        self._refuse_without_symbolic("library")

    def _labels(self, y: np.ndarray) -> np.ndarray:
        """Numbers of the classes of labels, which are remembered."""
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[:1]}: expected at least 2 classes")
        found: np.ndarray = indices
        return found

    def _fit_formula(self, X: Any, y: Any, sample_weight: Any) -> KANClassifier:
        X, y = checked(self, X, y)
        X, y, weight = weighted_samples(X, y, sample_weight)
        indices = self._labels(y)
        self._scales = Scales.of(X)
        device, inputs = self._device(), self._scales.inputs(X)
        self._scales.sample = typical_rows(inputs, weight)
        inputs, labels = inputs.to(device), torch.from_numpy(indices.astype(np.int64)).to(device)
        seed = seed_of(self.random_state)
        train, held = split(np.column_stack([X, indices]), self.validation_fraction, seed)
        if len(np.unique(indices[train])) < len(self.classes_):  # every class is trained on
            train, held = np.arange(len(X)), np.array([], int)
        self.held_out_ = unseen(X, train, held)
        outputs = 1 if len(self.classes_) == 2 else len(self.classes_)
        data: dict[str, Any] = {"X": inputs[train], "y": labels[train]}
        if weight is not None:
            data["sample_weight"] = weight[train]
        if len(held):
            data |= {"X_val": inputs[held], "y_val": labels[held]}
            data |= {} if weight is None else {"sample_weight_val": weight[held]}
        self.network_ = KAN([X.shape[1], *self.hidden, outputs], self.grid_schedule[0], seed=seed).to(device)
        self.history_ = self._train(self.network_, data, self.steps, grid_schedule=self.grid_schedule, l1=self.l1)
        additive = KAN([X.shape[1], outputs], self.grid_schedule[0], seed=seed).to(device)
        self._train(additive, data, self.steps, grid_schedule=self.grid_schedule)
        self.network_ = self._simplified([additive, self.network_], data).cpu()
        self.formula_ = self._formula(4)
        return self

    def _formula(self, round: int | None) -> Any:
        if isinstance(self._scales, Columns):
            raise ValueError("symbolic=False, there is no formula: expected KANClassifier(symbolic=True)")
        found = self._scales.expressions(self.network_, self._names, round)
        return found[0] if len(self.classes_) == 2 else found

    def _train(self, network: KAN, data: dict[str, Any], steps: int, **options: Any) -> History:
        options = {"coef_smoothness": self.smoothness, **options}
        return network.fit(**data, optimizer="lbfgs", loss=_classification_loss, steps=steps, **options)

    def _simplified(self, networks: Sequence[KAN], data: dict[str, Any]) -> KAN:
        """The first of the networks that is as good as any, with fewer edges and functions instead of splines.

        As good is a loss that exceeds the least by no more than the standard error of their difference, row by row, on held-out
        rows or, where there are none, on all. An edge goes only if the training rows do not miss it either: their total loss rises
        by no more than the edge has parameters (Akaike 1974), for a few held-out rows tell little.
        """
        held = "" if "X_val" not in data else "_val"
        rows, labels, given = data["X" + held], data["y" + held], data.get("sample_weight" + held)
        weight = torch.ones(len(rows)).double().to(rows) if given is None else torch.from_numpy(given).to(rows)

        given = data.get("sample_weight")
        train_weight = torch.ones(len(data["X"])).double().to(rows) if given is None else torch.from_numpy(given).to(rows)

        def training_loss(network: KAN) -> float:
            with torch.no_grad():
                return float(train_weight @ _classification_loss(network(data["X"]), data["y"]).double())

        def losses_of(network: KAN) -> torch.Tensor:
            with torch.no_grad():
                return _classification_loss(network(rows), labels)

        def as_good(network: KAN) -> bool:
            more = losses_of(network) - least
            mean = (weight * more).sum() / weight.sum()
            return bool(mean <= (weight * (more - mean)).square().sum().sqrt() / weight.sum())

        least = min((losses_of(network) for network in networks), key=lambda values: float(weight @ values))
        network = next(n for n in networks if as_good(n))

        def stands(trial: KAN) -> bool:
            if not all(bool(torch.isfinite(trial(x)).all()) for x in (data["X"], rows)):
                return False
            self._train(trial, data, 2, update_grid=False)
            return as_good(trial)

        scores = attribute(network, data["X"]).edges
        for layer, i, j in sorted(network.edges(), key=lambda e: float(scores[e[0]][e[2], e[1]])):
            trial = copy.deepcopy(network)
            remove_edge(trial, layer, i, j)
            before, parameters = training_loss(network), network.layers[layer].spline.coef.shape[1]
            if stands(trial) and training_loss(trial) <= before + parameters:
                network = trial
        network = drop_dead_nodes(network)
        for edge in [e for e in network.edges() if network.edge_kind(*e) == "numeric"]:
            options = suggest_symbolic(network, *edge, data["X"], len(DEFAULT_LIBRARY), self.library)
            for suggestion in sorted(options, key=lambda s: _simplicity(s.name)):
                trial = copy.deepcopy(network)
                fix_symbolic(trial, *edge, suggestion.name, affine=suggestion.affine)
                if stands(trial):
                    network = trial
                    break
        return network

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits: (N,) for two classes, else (N, classes)."""
        check_is_fitted(self)
        if isinstance(self._scales, Columns):
            logits = self._outputs(X)
        else:
            with torch.no_grad():
                logits = self.network_(self._scales.inputs(checked(self, X, reset=False))).numpy()
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, (N, classes)."""
        logits = torch.from_numpy(self.decision_function(X))
        if logits.ndim == 2:
            return logits.softmax(1).numpy()
        p = logits.sigmoid().numpy()
        return np.stack([1 - p, p], 1)

    def predict(self, X: Any) -> np.ndarray:
        """Labels, (N,)."""
        logits = self.decision_function(X)
        labels: np.ndarray = self.classes_[logits.argmax(1) if logits.ndim == 2 else (logits > 0).astype(int)]
        return labels

    def __sklearn_tags__(self) -> Any:
        """Scikit-learn's tags: missing values are fine where no formula is searched."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = not self.symbolic
        return tags

    def plot_shapes(self, output: int = 0, most: int = 12) -> Figure:
        """Matplotlib figure of the effects on a logit: a curve for each column, a map for each pair.

        Args:
            output: number of the class whose logit is shown; 0 for two classes, which have one logit.
            most: number of panels at most, the strongest effects first.

        Raises:
            ValueError: fitted with symbolic=True, or there is no such logit.
        """
        check_is_fitted(self)
        count("output", output, 0, self.network_.nodes[-1] - 1)
        return shapes.plot_shapes(self.network_, self._columns, self._bands, output, count("most", most))


def _simplicity(name: str) -> tuple[float, bool]:
    """Powers before others of their complexity: they have a parameter less, for their scale can be moved outside."""
    function = get_function(name)
    return function.complexity, function.power is None


def _classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if logits.shape[1] == 1:
        return torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits), reduction="none")
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
