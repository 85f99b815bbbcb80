"""Looks at a fitted network: importances, intervals, and the parts of one prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..gam.basis import chunks, quantiles
from ..model import KAN
from .columns import Columns
from .numeric import Task

HELD = 2000  # held-out rows that are kept
ORDERS = 16  # pairs of orders, each with its reverse, of a Shapley value


def outputs(network: KAN, inputs: np.ndarray) -> np.ndarray:
    """Outputs (N, outputs) of a network, part by part, so that memory does not grow with the rows.

    Args:
        network: the network.
        inputs: (N, inputs) scaled inputs.
    """
    x = torch.from_numpy(np.ascontiguousarray(inputs))
    with torch.no_grad():
        return np.concatenate([network(x[part]).numpy() for part in chunks(len(x))])


@dataclass
class Judged:
    """Held-out rows, and a model that has not seen them.

    Attributes:
        network: The model.
        inputs: (M, inputs) scaled inputs.
        targets: (M, outputs) scaled targets.
        weight: (M,) weights.
        task: Losses that the model minimizes.
    """

    network: KAN
    inputs: np.ndarray
    targets: np.ndarray
    weight: np.ndarray
    task: Task

    def importances(self, owners: np.ndarray, features: int) -> np.ndarray:
        """Growth of the loss when the values of a column change places, (features,), as shares.

        Args:
            owners: (inputs,) column of each input.
            features: number of columns.
        """

        def error(inputs: np.ndarray) -> float:
            return float(np.average(self.task.values(self.targets, outputs(self.network, inputs)), weights=self.weight))

        before, growth = error(self.inputs), np.zeros(features)
        places = np.random.default_rng(0).permutation(len(self.inputs))
        used = self.used()
        for feature in range(features):
            own = np.flatnonzero(owners == feature)
            if used[own].any():
                moved = self.inputs.copy()
                moved[:, own] = moved[places][:, own]
                growth[feature] = max(error(moved) - before, 0.0)
        return growth / growth.sum() if growth.sum() > 0 else np.full(features, 1 / features)

    def used(self) -> np.ndarray:
        """(inputs,) whether an edge leads from an input."""
        used: np.ndarray = self.network.layers[0].active.any(0).numpy()
        return used

    def radius(self, coverage: float) -> np.ndarray:
        """(outputs,) absolute residual that the given part of the held-out rows does not pass (Lei et al., 2018).

        Args:
            coverage: the part, above 0 and below 1.

        Raises:
            ValueError: too few held-out rows for it.
        """
        rows = max(len(self.inputs), round(float(self.weight.sum())))  # a row of weight two is two rows
        part = coverage * (1 + 1 / rows)
        if part > 1:
            least = math.ceil(1 / (1 / coverage - 1))
            raise ValueError(f"coverage={coverage} with {rows} held-out rows: expected at least {least} of them, or a smaller coverage")
        residual = np.abs(self.targets - outputs(self.network, self.inputs))
        return np.array([float(quantiles(column, self.weight, np.array([part]))[0]) for column in residual.T])


class RowExplanation(NamedTuple):
    """The parts of a prediction.

    Attributes:
        prediction: (outputs,) output of the model: in units of y, its logarithm for rates, logits for classes.
        baseline: (outputs,) output for the typical row, each input of it the median.
        contributions: (outputs,) part of each column by its name, large ones first; with `baseline` they add up to the prediction.
    """

    prediction: np.ndarray
    baseline: np.ndarray
    contributions: dict[str, np.ndarray]

    def __str__(self) -> str:
        lines = [f"{', '.join(f'{v:.6g}' for v in self.prediction)}  prediction", f"{_signed(self.baseline)}  typical row"]
        return "\n".join([*lines, *(f"{_signed(value)}  {name}" for name, value in self.contributions.items())])


def _signed(values: np.ndarray) -> str:
    return ", ".join(f"{v:+.6g}" for v in values)


def explain_row(network: KAN, columns: Columns, names: Sequence[str], row: np.ndarray) -> RowExplanation:
    """Shapley values of the columns of one row.

    Args:
        network: the network.
        columns: scales of the table.
        names: names of the columns.
        row: (1, inputs) scaled inputs.
    """
    typical = np.median(columns.sample.numpy(), 0, keepdims=True)
    owners, features = columns.owners, len(names)
    generator = np.random.default_rng(0)
    orders = [generator.permutation(features) for _ in range(ORDERS if features > 1 else 1)]
    orders = [order for pair in orders for order in (pair, pair[::-1])]  # a pair is exact for products of two
    parts = np.zeros((features, network.nodes[-1]))
    for order in orders:
        rows = np.repeat(typical, features + 1, 0)
        for step, feature in enumerate(order, 1):
            rows[step:, owners == feature] = row[0, owners == feature]
        parts[order] += np.diff(outputs(network, rows), axis=0) / len(orders)
    parts *= columns.spread
    prediction, baseline = (outputs(network, x)[0] * columns.spread + columns.shift for x in (row, typical))
    by_size = sorted(range(features), key=lambda feature: -float(np.abs(parts[feature]).max()))
    return RowExplanation(prediction, baseline, {names[feature]: parts[feature] for feature in by_size})
