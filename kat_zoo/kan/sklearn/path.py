"""Networks with hidden layers, under weaker and weaker penalties, where an additive model leaves something to find."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model import KAN
from ..operations.fit_run import History

Trained = tuple[KAN, History]

PENALTIES = (0.1, 0.03, 0.01, 3e-3, 1e-3)  # of the stages, in units of y's standard deviation
CAUTION = 2.0  # standard errors; the rule of one (Breiman et al., CART, 1984) errs too often over so many stages
ROWS = 4000  # training rows of a network
LOST = 4  # times the least held-out error at which further stages are given up


@dataclass
class Path:
    """Settings of the stages.

    Attributes:
        grid_schedule: Grid sizes.
        steps: Number of Levenberg-Marquardt steps of a stage.
        smoothness: Least penalty on second differences.
    """

    grid_schedule: Sequence[int]
    steps: int
    smoothness: float

    def stages(self, network: KAN, samples: int) -> list[tuple[float, float, int]]:
        """(l1, smoothness, grid size) in the order they are tried, each from where the one before ended.

        Args:
            network: the network.
            samples: number of training rows.
        """
        first = self.grid_schedule[0]
        stages = [(p, p, first) for p in PENALTIES if p > self.smoothness]
        # With far more parameters than samples the network stays penalized.
        room = 2 * samples / network.num_edges() - network.layers[0].spline.spline_order - 1
        stages += [(0.0, self.smoothness, g) for g in self.grid_schedule if g <= room]
        return stages or [(0.0, self.smoothness, first)]

    def fit(self, network: KAN, x: Tensor, y: Tensor, weight: Tensor, train: Tensor, held: Tensor, bar: Tensor) -> Trained | None:
        """Train a network; each step must earn its freedom.

        The least penalized network stays that beats the ones before it on held-out samples by more than `CAUTION`
        standard errors of the difference: a small or noisy table stops early, an exact one goes to the end.

        Args:
            network: the network, changed in place.
            x: (N, inputs) scaled samples.
            y: (N, outputs) scaled targets.
            weight: (N,) weights.
            train: rows to train on, of which the first `ROWS` are taken.
            held: rows to judge by.
            bar: (held-out rows,) squared errors that the network has to beat.

        Returns:
            The network that stays, with the training of its last stage; None where none beats the bar.
        """
        train = train[:ROWS]
        best, found = bar, None
        least = math.inf
        val: dict[str, Any] = {"X_val": x[held], "y_val": y[held], "sample_weight_val": weight[held]}
        for l1, smoothness, grid in self.stages(network, len(train)):
            options = {"grid_schedule": [grid], "steps": self.steps, "l1": l1, "coef_smoothness": smoothness, **val}
            history = network.fit(x[train], y[train], sample_weight=weight[train], **options)
            with torch.no_grad():
                errors = (network(x[held]) - y[held]).square().mean(1) * weight[held]
            if float(errors.mean()) > LOST * least:
                break
            least = min(least, float(errors.mean()))
            gain = best - errors
            if float(gain.mean()) > CAUTION * float(gain.std()) / len(gain) ** 0.5:
                best, found = errors, (copy.deepcopy(network), history)
        return found
