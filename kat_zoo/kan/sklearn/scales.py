"""Scales between the units of a table and a symbolic network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..formula.expression import faithful, formula, variable_names
from ..model import KAN

MORE_DIGITS = (6, 9)  # decimals tried where fewer give other values than the network


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
