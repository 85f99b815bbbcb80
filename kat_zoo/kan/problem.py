"""What the formula search works on: scaled data, and the networks it finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .library import DEFAULT_LIBRARY, get_function
from .lm import LeastSquares
from .network import KAN

Width = Sequence[int | Sequence[int]]

EXACT = 1e-6  # relative error below which a formula counts as exact


@dataclass
class Problem:
    """Scaled training and held-out data: y has variance 1, so errors are relative."""

    X: Tensor
    y: Tensor
    X_val: Tensor
    y_val: Tensor
    weight: Tensor | None = None
    library: Sequence[str] = DEFAULT_LIBRARY

    def error(self, model: KAN) -> float:
        """Root mean square error on held-out data."""
        with torch.no_grad():
            value = float((model(self.X_val) - self.y_val).square().mean().sqrt())
        return value if math.isfinite(value) else math.inf

    def train(self, model: KAN, steps: int, **options: Any) -> float:
        """Levenberg-Marquardt; returns the held-out error."""
        LeastSquares(model, self.X, self.y, weight=self.weight, **options).minimise(steps)
        return self.error(model)


@dataclass
class Candidate:
    """A network of the search and what it achieves.

    Attributes:
        model: the network, on standardised data.
        error: relative root mean square error on held-out data.
        symbolic: no numeric edge is left.
        width: the shape the search started from.
    """

    model: KAN
    error: float
    symbolic: bool
    width: Width

    @property
    def complexity(self) -> float:
        """Sum of the functions' complexities; a numeric edge costs 20."""
        kinds = [self.model.edge_kind(*edge) for edge in self.model.edges()]
        return sum(20.0 if kind == "numeric" else get_function(kind).complexity for kind in kinds)

    @property
    def exact(self) -> bool:
        """Symbolic, and right to 1e-6 of the target's standard deviation."""
        return self.symbolic and self.error < EXACT
