"""The data of a formula search, and the networks it finds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from sympy import Number
from torch import Tensor

from ..formula.expression import formula
from ..library import DEFAULT_LIBRARY, get_function
from ..model import KAN
from ..network import Width
from ..operations.lm import LeastSquares
from ..operations.normal import Dual, Primal

EXACT = 1e-6  # relative error below which a formula counts as exact
BOX_POINTS = 1 << 16  # random points within the ranges of the inputs, at which a formula must be finite
EXTREME = 1e6  # size of a constant on scaled data beyond which a formula's terms only cancel
NUMERIC_EDGE = 20.0  # complexity of an edge that is not symbolic


class OutOfTime(Exception):
    """The time of a search is over."""


@dataclass
class Problem:
    """Scaled training and held-out data: y has variance 1, so errors are relative.

    Attributes:
        X: (N, inputs) samples to train on.
        y: (N, outputs) targets.
        X_val: (M, inputs) samples on which errors are measured.
        y_val: (M, outputs) targets of these.
        weight: (N,) sample weights; None for equal ones.
        weight_val: (M,) weights of X_val; None for equal ones.
        library: names of the functions that may be used.
        held_out: whether X_val are samples that training does not see; without held-out samples no formula is called exact.
        zero: scaled value of a y that is 0 in its own units, of one output.
        deadline: moment of `now` after which nothing more is trained.
        now: clock of the deadline.
    """

    X: Tensor
    y: Tensor
    X_val: Tensor
    y_val: Tensor
    weight: Tensor | None = None
    weight_val: Tensor | None = None
    library: Sequence[str] = DEFAULT_LIBRARY
    held_out: bool = True
    zero: float = 0.0
    deadline: float = math.inf
    now: Callable[[], float] = time.monotonic

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return self.X.shape[1]

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return self.y.shape[1]

    def check(self) -> None:
        """Raise OutOfTime when the deadline has passed."""
        if self.now() > self.deadline:
            raise OutOfTime

    def resampled(self) -> tuple[Tensor, Tensor]:
        """Training samples for fits that know no weights: drawn by their weights, or as they are where these are equal."""
        if self.weight is None:
            return self.X, self.y
        generator = torch.Generator(self.X.device).manual_seed(0)
        rows = self.weight.multinomial(len(self.X), replacement=True, generator=generator)
        return self.X[rows], self.y[rows]

    def error(self, model: KAN) -> float:
        """Weighted root mean square error on X_val; infinite for a network that is undefined on a row."""
        with torch.no_grad():
            if not bool(torch.isfinite(model(self.X)).all()):
                return math.inf
            squares = (model(self.X_val) - self.y_val).square().mean(1)
        weight = torch.ones_like(squares) if self.weight_val is None else self.weight_val
        value = float(((squares * weight).sum() / weight.sum()).sqrt())
        return value if math.isfinite(value) else math.inf

    def train(self, model: KAN, steps: int, **options: Any) -> float:
        """Train by Levenberg-Marquardt; return the held-out error.

        Args:
            model: the network, changed in place.
            steps: number of steps at most.
            **options: penalties of `LeastSquares`.

        Raises:
            OutOfTime: the deadline has passed.
        """
        self.check()
        _LimitedLeastSquares(self, model, **options).minimize(steps)
        return self.error(model)

    def undefined(self, model: KAN) -> Tensor:
        """Where a network's value is not finite: some of the rows and of random points within the inputs' ranges."""
        rows = torch.cat([self.X, self.X_val])
        low, high = rows.amin(0), rows.amax(0)
        inside = torch.rand(BOX_POINTS, rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(rows)
        points = torch.cat([rows, low + (high - low) * inside])
        with torch.no_grad():
            return points[~torch.isfinite(model(points)).all(1)]

    def defined_at(self, points: Tensor) -> Problem:
        """The same problem for networks that are finite at these points, too: they join as samples of weight zero.

        Args:
            points: (P, inputs) further samples.
        """

        def join(x: Tensor, y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
            weight = x.new_ones(len(x)) if weight is None else weight
            nothing = y.new_zeros(len(points), y.shape[1])
            return torch.cat([x, points]), torch.cat([y, nothing]), torch.cat([weight, weight.new_zeros(len(points))])

        X, y, weight = join(self.X, self.y, self.weight)
        X_val, y_val, weight_val = join(self.X_val, self.y_val, self.weight_val)
        return replace(self, X=X, y=y, weight=weight, X_val=X_val, y_val=y_val, weight_val=weight_val)


class _LimitedLeastSquares(LeastSquares):
    """Looks at the deadline before each step: a step of many rows takes seconds."""

    def __init__(self, problem: Problem, model: KAN, **options: Any) -> None:
        super().__init__(model, problem.X, problem.y, weight=problem.weight, **options)
        self._check = problem.check

    def system(self, kind: type[Primal] | type[Dual] | None = None) -> Primal | Dual:
        self._check()
        return super().system(kind)


@dataclass
class Candidate:
    """A network of the search and its error.

    Attributes:
        model: the network, on scaled data.
        error: relative root mean square error on held-out data (the training data where nothing is held out).
        symbolic: whether no numeric edge is left.
        width: shape from which the search started.
        held_out: whether the error is that of held-out data.
    """

    model: KAN
    error: float
    symbolic: bool
    width: Width
    held_out: bool = True

    @property
    def complexity(self) -> float:
        """Sum of the functions' complexities; a numeric edge costs 20."""
        kinds = [self.model.edge_kind(*edge) for edge in self.model.edges()]
        return sum(NUMERIC_EDGE if kind == "numeric" else get_function(kind).complexity for kind in kinds)

    @property
    def exact(self) -> bool:
        """Whether it is symbolic, and right to 1e-6 of the target's standard deviation on held-out data."""
        return self.held_out and self.fits

    @property
    def fits(self) -> bool:
        """Whether it is symbolic, and right to 1e-6 on the data that the error was measured on."""
        return self.symbolic and self.error < EXACT

    def extreme(self) -> bool:
        """Whether the formula has huge constants that cancel, as those of 1e-13 (x + 1e13) - 1 do."""
        numbers = [number for expression in formula(self.model, round=None) for number in expression.atoms(Number)]
        return not all(abs(float(number)) <= EXTREME for number in numbers)  # NaN is extreme
