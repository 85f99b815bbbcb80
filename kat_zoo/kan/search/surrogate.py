"""A small network of a table, whose derivatives tell the structure of the function behind it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..model import KAN
from ..network import Width
from .judge import Data
from .problem import Problem
from .shapes import start

TRAINED = 1500  # rows that networks are trained on at most
RIGHT, CLOSE = 0.02, 0.005  # relative error of a start from which no more are made, once every shape has had one, and before
STARTS, STEPS = 25, 60  # Levenberg-Marquardt steps of every start, and of the best one
WIDE = 10.0  # largest value of an input over its least from which the network sees its logarithm
STEEP = 30.0  # largest |y| over its median from which the network learns log |y|


class Surrogate:
    """A network of a table, as a function of its inputs.

    Attributes:
        error: Relative root mean square error on held-out rows.
    """

    def __init__(self, data: Data) -> None:
        X, y = data.X, data.y
        low, high = X.min(0), X.max(0)
        self._log = torch.from_numpy((low > 0) & (high > WIDE * np.maximum(low, 1e-300)))
        one_sign = bool((y > 0).all() or (y < 0).all())
        self._steep = one_sign and float(np.abs(y).max()) > STEEP * float(np.median(np.abs(y)))
        self._sign = float(np.sign(y[0]))
        rows = np.linspace(0, len(y) - 1, min(len(y), TRAINED)).astype(int)
        inputs = self._seen(torch.from_numpy(X))
        self._mean, self._spread = inputs.mean(0), inputs.std(0, correction=0).clamp(min=1e-12)
        values = np.log(np.abs(y)) if self._steep else y
        self._y_mean, self._y_spread = float(values.mean()), float(values.std()) or 1.0
        held = [torch.from_numpy(data.X_val), torch.from_numpy(data.y_val)[:, None]]
        if self._steep:
            held[1] = held[1].abs().clamp(min=1e-300).log()
        problem = Problem(
            self._scaled(torch.from_numpy(X[rows])),
            torch.from_numpy((values[rows] - self._y_mean) / self._y_spread)[:, None],
            self._scaled(held[0]),
            (held[1] - self._y_mean) / self._y_spread,
            None if data.weight is None else torch.from_numpy(data.weight[rows]),
            None if data.weight_val is None else torch.from_numpy(data.weight_val),
            deadline=data.clock.deadline,
            now=data.clock.now,
        )
        d = data.inputs
        widths: list[Width] = [[d, d + 2, 1], [d, [3, 2], 1], [d, 6, 3, 1], [d, [4, 3], [2, 1], 1]]
        starts: list[tuple[float, int, KAN]] = []
        tried = [(width, seed) for seed in (0, 1) for width in widths] + [(width, seed) for seed in (2, 3, 4) for width in widths[2:]]
        for n, (width, seed) in enumerate(tried):
            if starts and min(starts)[0] < (RIGHT if n >= len(widths) else CLOSE):
                break
            model = start(problem, width, 5, seed)
            starts.append((problem.train(model, STARTS, smoothness=1e-5), n, model))
        error, _, self._model = min(starts)
        self.error = min(error, problem.train(self._model, STEPS, smoothness=1e-6))

    def _seen(self, x: Tensor) -> Tensor:
        return torch.where(self._log, torch.where(self._log, x, 1.0).abs().clamp(min=1e-300).log(), x)

    def _scaled(self, x: Tensor) -> Tensor:
        return (self._seen(x) - self._mean) / self._spread

    def __call__(self, x: Tensor) -> Tensor:
        """Values (N, 1) of samples (N, inputs)."""
        y: Tensor = self._model(self._scaled(x)) * self._y_spread + self._y_mean
        return self._sign * y.exp() if self._steep else y
