"""The state of a session: a table, the columns in use, a network on scaled data, and the formulas of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import sympy
import torch

from ..kan import KAN
from ..kan.formula.expression import formula
from ..kan.sklearn.rows import split
from .tables import Table

BINS = 10  # quantile bins by which inputs are ranked
NATURAL = (0.1, 10.0)  # sizes of data that a network takes as they are
FAR = 2.0  # ratio of mean and spread of a target from which its mean is taken off


@dataclass(frozen=True, eq=False)
class Problem:
    """Columns of a table: what explains, and what is to be explained.

    Attributes:
        inputs: names of the columns that explain.
        target: name of the column to explain.
        X: (N, inputs) rows without gaps.
        y: (N,) target.
        train: numbers of the rows to fit on.
        held: numbers of the rows to which no number is fitted; none of fewer than 20 rows.
    """

    inputs: tuple[str, ...]
    target: str
    X: np.ndarray
    y: np.ndarray
    train: np.ndarray
    held: np.ndarray

    @classmethod
    def of(cls, table: Table, inputs: Sequence[str], target: str) -> Problem:
        """The problem of these columns.

        Args:
            table: the table.
            inputs: names of the columns that explain.
            target: name of the column to explain.

        Raises:
            ValueError: as in `Table.numbers`.
        """
        X, y = table.numbers(inputs, target)
        return cls(tuple(inputs), target, X, y, *split(np.column_stack([X, y]), 0.2, 0))

    @property
    def symbols(self) -> list[str]:
        """Names of the inputs in formulas: a name in a file may be anything, and these are not."""
        return [f"x_{i + 1}" for i in range(len(self.inputs))]

    @property
    def check(self) -> np.ndarray:
        """Rows to judge by: the held-out ones, or all where there are none."""
        return self.held if len(self.held) else self.train

    @property
    def spread(self) -> float:
        """Standard deviation of the target on the rows to judge by; 1 of a constant."""
        return float(self.y[self.check].std()) or 1.0


@dataclass(frozen=True)
class Scales:
    """Scales of a network: it maps (X - center) / half to (y - shift) / spread.

    Attributes:
        center: center of each input.
        half: scale of each input.
        shift: shift of the target.
        spread: scale of the target.
    """

    center: tuple[float, ...]
    half: tuple[float, ...]
    shift: float = 0.0
    spread: float = 1.0

    @classmethod
    def none(cls, inputs: int) -> Scales:
        """The scales of a network in the units of the table."""
        return cls((0.0,) * inputs, (1.0,) * inputs)

    @classmethod
    def of(cls, problem: Problem) -> Scales:
        """Scales of the training rows; data of a size near 1 stay as they are, so that formulas keep their numbers."""
        X, y = problem.X[problem.train], problem.y[problem.train]
        center, half = [], []
        for low, high in zip(X.min(0).tolist(), X.max(0).tolist(), strict=True):
            size, width = max(abs(low), abs(high)), high - low
            natural = NATURAL[0] <= size <= NATURAL[1] and width >= NATURAL[0] * size
            center.append(0.0 if natural else (low + high) / 2)
            half.append(1.0 if natural or not width else width / 2)
        mean, spread = float(y.mean()), float(y.std()) or 1.0
        scale = 1.0 if NATURAL[0] <= spread <= NATURAL[1] else spread
        return cls(tuple(center), tuple(half), mean if abs(mean) > FAR * spread and scale != 1.0 else 0.0, scale)

    @classmethod
    def read(cls, fields: dict[str, Any], inputs: int) -> Scales:
        """Scales from JSON.

        Args:
            fields: center, half, shift and spread.
            inputs: number of inputs.

        Raises:
            ValueError: other fields, or another number of inputs.
        """
        try:
            center, half = (tuple(float(value) for value in fields[name]) for name in ("center", "half"))
            found = cls(center, half, float(fields["shift"]), float(fields["spread"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"scales: expected center, half, shift and spread ({error})") from None
        if len(center) != inputs or len(half) != inputs or not all((*half, found.spread)):
            raise ValueError(f"scales of {len(center)} inputs: expected {inputs}, and no scale of 0")
        return found

    def inputs(self, X: np.ndarray) -> torch.Tensor:
        """(N, inputs) of the network."""
        return torch.from_numpy((X - np.array(self.center)) / np.array(self.half))

    def targets(self, y: np.ndarray) -> torch.Tensor:
        """(N, 1) of the network."""
        return torch.from_numpy((y - self.shift) / self.spread)[:, None]

    def expression(self, network: KAN, symbols: Sequence[str], digits: int | None, X: np.ndarray) -> sympy.Expr:
        """The network's formula in the units of the table."""
        pairs = [(1 / h, -c / h) for c, h in zip(self.center, self.half, strict=True)]
        return formula(network, symbols, digits, self.inputs(X), input_affine=pairs, output_affine=[(self.spread, self.shift)])[0]


@dataclass(frozen=True)
class FrontRow:
    """A formula of a search.

    Attributes:
        complexity: number of nodes of the expression, and 50 for each edge without a formula.
        loss: root mean square error on rows that the search held out; on all, where none are or, for closed forms, fewer than 40.
        full: SymPy expression with all digits.
        printed: the expression with rounded numbers.
    """

    complexity: int
    loss: float
    full: sympy.Expr
    printed: sympy.Expr

    @property
    def symbolic(self) -> bool:
        """Whether every part of it is a formula."""
        return not self.full.atoms(sympy.core.function.AppliedUndef)


@dataclass(frozen=True, eq=False)
class State:
    """Everything that a step may change; a step makes a new state, so that old ones can be gone back to.

    Attributes:
        table: the table.
        problem: the columns in use.
        network: the network; None before the first training.
        scales: scales of the network.
        losses: steps so far, training and held-out error of the network, relative to the spread of the target.
        front: formulas of the last search, from short to long.
        chosen: number of the formula of the front that the network computes; None once the network was changed.
    """

    table: Table | None = None
    problem: Problem | None = None
    network: KAN | None = None
    scales: Scales = field(default_factory=lambda: Scales.none(0))
    losses: tuple[tuple[int, float, float], ...] = ()
    front: tuple[FrontRow, ...] = ()
    chosen: int | None = None

    def need_table(self) -> Table:
        """The table, or a ValueError."""
        if self.table is None:
            raise ValueError("no table: expected a file or an example first")
        return self.table

    def need_problem(self) -> Problem:
        """The columns in use, or a ValueError."""
        if self.problem is None:
            raise ValueError("no columns: expected a table with a chosen target first")
        return self.problem

    def need_network(self) -> KAN:
        """The network, or a ValueError."""
        if self.network is None:
            raise ValueError("no network: expected a training or a search first")
        return self.network

    def changed(self, network: KAN) -> State:
        """The state with another network on the same scales."""
        return replace(self, network=network, chosen=None)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(N,) values of the network in the units of the table."""
        with torch.no_grad():
            values = self.need_network()(self.scales.inputs(X))
        found: np.ndarray = values[:, 0].numpy() * self.scales.spread + self.scales.shift
        return found

    def error(self, network: KAN | None = None) -> float:
        """Root mean square error on the rows to judge by, relative to the spread of the target.

        Args:
            network: another network in place of this one's.
        """
        problem = self.need_problem()
        state = self if network is None else self.changed(network)
        residuals = state.predict(problem.X[problem.check]) - problem.y[problem.check]
        return float(np.sqrt(np.mean(residuals**2))) / problem.spread

    def expressions(self) -> tuple[sympy.Expr, sympy.Expr]:
        """The formula with all digits, and with rounded ones."""
        problem = self.need_problem()
        if self.chosen is not None:
            return self.front[self.chosen].full, self.front[self.chosen].printed
        network, X = self.need_network(), problem.X[problem.train]
        full, printed = (self.scales.expression(network, problem.symbols, digits, X) for digits in (None, 4))
        return full, printed


def strengths(table: Table, target: str) -> dict[str, float]:
    """How much of a column's variation each other column of numbers explains by itself, from 0 to 1.

    The correlation ratio over quantile bins: it sees every function of one column, a straight line or not. Bins of few values
    explain these by chance, which is taken off (as in the adjusted R^2), and what is explained counts for filled cells alone.

    Args:
        table: the table.
        target: name of the column to explain.
    """
    y_all = table.column(target).values
    found = {}
    for name in table.numeric:
        if name == target:
            continue
        x = table.column(name).values
        known = np.isfinite(x) & np.isfinite(y_all)
        x, y = x[known], y_all[known]
        if len(y) < 2 or not np.ptp(y) or not np.ptp(x):
            found[name] = 0.0
            continue
        bins = np.searchsorted(np.quantile(x, np.linspace(0, 1, BINS + 1)[1:-1]), x)
        counts = np.maximum(np.bincount(bins, minlength=BINS), 1)
        means = np.bincount(bins, y, minlength=BINS) / counts
        free = len(y) - len(np.unique(bins))
        chance = (1 - np.var(means[bins]) / np.var(y)) * (len(y) - 1) / free if free else 1.0
        found[name] = float(np.clip(1 - chance, 0, 1)) * len(y) / int(np.isfinite(y_all).sum())
    return found
