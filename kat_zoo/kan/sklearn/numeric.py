"""Numeric fits: an additive model with pairwise terms and, where the rows ask for more, a trained network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.ensemble import ExtraTreesRegressor

from ..gam.bands import deviations
from ..gam.basis import Basis
from ..gam.losses import LARGEST, Loss, Squared
from ..gam.model import Fitted, fit, fit_terms
from ..gam.network import to_network
from ..gam.outliers import without_outliers
from ..model import KAN

logger = logging.getLogger("kat_zoo")

FUNCTIONS = 700  # of all columns together, which bounds the time of a fit
FINEST = 20  # intervals of a spline at most
SWEEPS = 3  # over the classes, each with the logits of the others as they are
TRIED = 2000  # rows and
INPUTS = 30  # inputs of the trees that look for structure in residuals
WORTH = 0.05  # part of the residuals' variance that they must explain on held-out rows


@dataclass
class Task:
    """Losses and limits of a fit.

    Attributes:
        losses: Loss of each output; of each class for more than two classes.
        interactions: Whether pairs of inputs are tried.
        directions: (inputs,) 1 for an input whose effect must not fall, -1 for one whose effect must not rise, 0 for others.
        classes: Whether the outputs are logits of one choice.
    """

    losses: Sequence[Loss]
    interactions: bool
    directions: np.ndarray
    classes: bool = False

    def values(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """Loss (N,) of each row, the mean over the outputs.

        Args:
            y: (N, outputs) targets.
            eta: (N, outputs) outputs of the model.
        """
        if self.classes and y.shape[1] > 1:
            found: np.ndarray = logsumexp(eta, axis=1) - (y * eta).sum(1)
        else:
            found = np.mean([loss.values(y[:, k], eta[:, k]) for k, loss in enumerate(self.losses)], axis=0)
        return found


@dataclass
class Answer:
    """Result of a fit.

    Attributes:
        network: The model as a KAN.
        fits: The model of each output.
        columns: (C,) inputs that vary.
        bands: Changes (repeats, C, G + 3) of the spline coefficients of each output under the bootstrap.
    """

    network: KAN
    fits: list[Fitted]
    columns: np.ndarray
    bands: list[np.ndarray] = field(default_factory=list)

    def straight(self) -> list[int]:
        """Inputs whose effects are straight lines, alone."""
        found = []
        for number, column in enumerate(self.columns):
            if all(_is_straight(fitted, number) for fitted in self.fits):
                found.append(int(column))
        return found


def _is_straight(fitted: Fitted, column: int) -> bool:
    terms, c = fitted.terms, fitted.solution.coefficients
    if any(column in pair for pair in terms.pairs):
        return False
    at = np.flatnonzero(terms.curves == column)
    start = 1 + len(terms.lines) + int(at[0]) * terms.curve_count if len(at) else 0
    return not len(at) or float(np.abs(c[start : start + terms.curve_count]).max()) < 1e-3 * float(np.abs(c[1:]).max(initial=0.0))


def fit_numeric(task: Task, x: np.ndarray, y: np.ndarray, weight: np.ndarray, rank: np.ndarray, bootstrap: bool = False) -> Answer:
    """An additive model with pairwise terms for each output, as one network.

    Args:
        task: losses and limits.
        x: (N, inputs) scaled inputs.
        y: (N, outputs) targets.
        weight: (N,) positive weights.
        rank: (N,) rank of each row, the same for equal rows.
        bootstrap: whether the answer has bands.
    """
    columns = np.flatnonzero(np.ptp(x, axis=0) > 0)
    if not len(columns):  # each row twice, at two places of the first column, makes a model that is a constant
        columns, moved = np.array([0]), x.copy()
        moved[:, 0] += 1.0
        x, y, weight, rank = np.concatenate([x, moved]), np.tile(y, (2, 1)), np.tile(weight / 2, 2), np.tile(rank, 2)
    different = len(np.unique(rank))
    if weight.sum() < different:  # weights that are shares
        weight = weight * (different / weight.sum())
    grid_size = max(2, min(int(2 * different ** (1 / 3)) - 3, FUNCTIONS // len(columns) - 3, FINEST))
    order = min(4 if different < 2000 else 5, grid_size + 2)
    basis = Basis.of(x[:, columns], weight, grid_size)
    parts = x[:, columns]
    order_of_rows = np.argsort(rank, kind="stable")
    directions = task.directions[columns] if task.directions.any() else None
    losses = list(task.losses)  # as they become where y has outliers

    def one(output: int, offset: np.ndarray | None = None) -> Fitted:
        def fitted(loss: Loss, target: np.ndarray) -> Fitted:
            return fit(basis, loss, parts, target, weight, offset, order, task.interactions, order_of_rows, directions)

        found = fitted(losses[output], y[:, output])
        if isinstance(losses[output], Squared):
            far, losses[output], found = without_outliers(fitted, found, y[:, output], weight, rank)
            if far and bootstrap:  # the answer, not its judge
                logger.warning("%d of %d rows are outliers in y and count as nearer ones, see KANRegressor's loss", far, len(y))
        return found

    fits = (
        _choices(one, task.losses, parts, y, weight) if task.classes and y.shape[1] > 1 else [one(output) for output in range(y.shape[1])]
    )
    answer = Answer(to_network(fits, x.shape[1], columns), fits, columns)
    if bootstrap:
        for output, fitted in enumerate(fits):
            answer.bands.append(deviations(fitted, losses[output], parts, y[:, output], weight, rank))
    return answer


def _choices(
    one: Callable[[int, np.ndarray | None], Fitted], losses: Sequence[Loss], x: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> list[Fitted]:
    """Models of the logits of several classes: each in turn, as a logit against the others as they are.

    Args:
        one: fit of the model of a class, given the known part of its logit.
        losses: loss of each class.
        x: (N, C) rows.
        y: (N, classes) 1 for the class of a row, else 0.
        weight: (N,) positive weights.
    """
    fits: list[Fitted] = []
    logits = np.zeros(y.shape)
    for sweep in range(SWEEPS):
        for k in range(y.shape[1]):
            offset = -logsumexp(np.delete(logits, k, 1), axis=1)
            if sweep:  # the terms stay, their coefficients follow the other classes
                fits[k] = fit_terms(fits[k].terms, losses[k], x, y[:, k], weight, offset, offset + logits[:, k])
            else:
                fits.append(one(k, offset))
            logits[:, k] = np.clip(fits[k].eta - offset, -LARGEST, LARGEST)
    return fits


def leaves_structure(network: KAN, x: np.ndarray, y: np.ndarray, weight: np.ndarray, train: np.ndarray, held: np.ndarray) -> bool:
    """Whether trees find something in the residuals of the training rows that is there in the held-out rows, too.

    Trees cost a tenth of the training of a network, which is spared where there is nothing left to learn.

    Args:
        network: the model.
        x: (N, inputs) scaled inputs.
        y: (N, outputs) scaled targets.
        weight: (N,) weights.
        train: training rows.
        held: held-out rows.
    """
    with torch.no_grad():
        residual = y - network(torch.from_numpy(x)).numpy()
    train, held = train[:TRIED], held[:TRIED]
    trees = ExtraTreesRegressor(50, min_weight_fraction_leaf=min(0.4, 3 / len(train)), random_state=0)
    found = (
        trees.fit(x[train], np.squeeze(residual[train], 1) if y.shape[1] == 1 else residual[train], weight[train])
        .predict(x[held])
        .reshape(len(held), -1)
    )
    w = weight[held] / weight[held].sum()
    gain = (residual[held] ** 2 - (residual[held] - found) ** 2).mean(1)
    mean = float(w @ gain)
    doubt = float(np.sqrt(w**2 @ (gain - mean) ** 2))
    return mean > WORTH * float(w @ (residual[held] ** 2).mean(1)) and mean > 2 * doubt
