"""Losses as weighted least squares: each step has a weight and a target for every row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, huber

from .basis import quantiles

HUBER = 1.345  # of the scale of the residuals: 95 % efficiency for normal errors (Huber, 1964)
STEP = 8.0  # logits that a step moves a row by at most
LARGEST = 30.0  # absolute value of a logit or of the logarithm of a rate


class Loss(ABC):
    """A loss of predictions on the scale of the model.

    Attributes:
        scale: variance of a working residual where the loss fixes it, None where it is estimated.
        least: smallest penalty of a block, as `kat_zoo.kan.gam.reml.solve` takes it.
        exact: whether one step is the answer.
        selects: whether lines may have penalties of their own, which drops columns.
    """

    scale: float | None = None
    least = 1e-7
    exact = False
    selects = True

    @abstractmethod
    def start(self, y: np.ndarray, weight: np.ndarray) -> float | np.ndarray:
        """The best constant."""

    def begin(self, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Predictions (N,) to begin with."""
        return np.full(len(y), self.start(y, weight))

    @abstractmethod
    def working(self, y: np.ndarray, eta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Factors of the rows' weights, and targets."""

    @abstractmethod
    def values(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """Loss of each row."""


class Squared(Loss):
    """Half the squared error."""

    exact = True

    def start(self, y: np.ndarray, weight: np.ndarray) -> float:
        """The mean."""
        return float(np.average(y, weights=weight))

    def working(self, y: np.ndarray, eta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows as they are."""
        return np.ones_like(y), y

    def values(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """(y - eta)^2 / 2."""
        found: np.ndarray = (y - eta) ** 2 / 2
        return found


@dataclass
class Huber(Loss):
    """Squared error of small residuals, absolute error of large ones; their scale is the median absolute deviation."""

    size: float = 1.0

    def start(self, y: np.ndarray, weight: np.ndarray) -> float | np.ndarray:
        """The median."""
        return float(quantiles(y, weight, np.array([0.5]))[0])

    def working(self, y: np.ndarray, eta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Large residuals become the largest that counts: a parabola above the loss (Huber, Robust Statistics, 1981, section 7.8).

        Smaller weights for their rows have the same minimum, but the rest of their squares would pass for noise of all rows.
        """
        residual = y - eta
        middle = float(quantiles(np.abs(residual), weight, np.array([0.5]))[0])
        self.size = max(HUBER * 1.4826 * middle, 1e-12 * float(np.abs(y).max()), 1e-300)
        return np.ones_like(y), eta + np.clip(residual, -self.size, self.size)

    def values(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """Huber's function of the residuals."""
        found: np.ndarray = huber(self.size, y - eta)
        return found


@dataclass
class Quantile(Loss):
    """Absolute error with factor `part` of positive residuals and 1 - part of negative ones, whose minimum is the quantile."""

    part: float = 0.5

    def start(self, y: np.ndarray, weight: np.ndarray) -> float:
        """The quantile."""
        return float(quantiles(y, weight, np.array([self.part]))[0])

    def working(self, y: np.ndarray, eta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A parabola that touches the loss at each residual and lies above it (Hunter and Lange, 2000)."""
        residual = y - eta
        middle = float(quantiles(np.abs(residual), weight, np.array([0.5]))[0])
        width = np.abs(residual) + max(0.01 * middle, 1e-12 * float(np.abs(y).max()), 1e-300)
        factor = middle / width if middle > 0 else np.ones_like(y)
        # The minimum of |r|/4 + (part - 1/2) r / 2 for each row, its square completed.
        return factor, y + (2 * self.part - 1) * width

    def values(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """The pinball loss."""
        found: np.ndarray = np.maximum(self.part * (y - eta), (self.part - 1) * (y - eta))
        return found


class Poisson(Loss):
    """Counts or rates: half the deviance of a Poisson distribution; the model is the logarithm of the rate."""

    least = 1e-6

    def start(self, y: np.ndarray, weight: np.ndarray) -> float:
        """The logarithm of the mean."""
        return float(np.log(max(np.average(y, weights=weight), 1e-12)))

    def begin(self, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Halfway from the mean to each count: Newton's steps from the mean itself are too long for large counts by orders of magnitude."""
        found: np.ndarray = np.log(np.maximum((y + np.average(y, weights=weight)) / 2, 1e-12))
        return found

    def working(self, y: np.ndarray, eta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Newton's step."""
        rate = np.exp(np.clip(eta, -LARGEST, LARGEST))
        return rate, eta + (y - rate) / rate

    def values(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """Negative log-likelihood without the terms of y alone."""
        eta = np.clip(eta, -LARGEST, LARGEST)
        found: np.ndarray = np.exp(eta) - y * eta
        return found


class Logistic(Loss):
    """Labels 0 and 1; the model is a logit."""

    scale = 1.0
    least = 1e-4
    selects = False  # where classes can be told apart, one of several columns that tell alike would stay, and the others be lost

    def start(self, y: np.ndarray, weight: np.ndarray) -> float:
        """The logit of the mean."""
        mean = np.clip(np.average(y, weights=weight), 1e-9, 1 - 1e-9)
        return float(np.log(mean / (1 - mean)))

    def working(self, y: np.ndarray, eta: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Newton's step, which moves no row's logit by more than `STEP`: near 0 and 1 it would go far beyond what is left."""
        p = expit(np.clip(eta, -LARGEST, LARGEST))
        w = np.maximum(p * (1 - p), np.maximum(np.abs(y - p) / STEP, 1e-6))
        return w, eta + (y - p) / w

    def values(self, y: np.ndarray, eta: np.ndarray) -> np.ndarray:
        """Cross-entropy."""
        found: np.ndarray = np.logaddexp(0.0, eta) - y * eta
        return found
