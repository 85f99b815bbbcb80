"""Closed forms as the estimator shows them: SymPy, digits, a network that computes them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sympy
import torch
from threadpoolctl import threadpool_limits

from ..formula.export import to_numpy
from ..formula.expression import faithful
from ..formula.tidy import nodes, shortened, tidy
from ..model import KAN
from ..search.closed_form import find_closed_forms
from ..search.judge import CONSTANT, FLOOR, NODE, Clock, Data, Form
from ..search.tree import evaluate, to_sympy

LEAST_ROWS = 6  # rows of a table that closed forms are searched for
CHANGE = 5e-4  # largest change of a value by rounding the numbers, relative to the spread of y
MOST_DIGITS = 17  # of a number in double precision


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch and NumPy's linear algebra on one thread: sums of several come out in different orders."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def length(error: float, expression: sympy.Expr, rows: int) -> float:
    """Description length of a formula in nats, by which closed forms and networks are compared.

    Args:
        error: Root mean square error, relative to the spread of y.
        expression: The formula.
        rows: Number of rows of the table.
    """
    numbers = len(expression.atoms(sympy.Float))
    return rows * math.log(max(error, FLOOR)) + numbers * (0.5 * math.log(rows) + CONSTANT) + NODE * nodes(expression)


@dataclass
class Law:
    """A closed form of one output.

    Attributes:
        form: The form with its error.
        names: Names of the inputs.
        rows: (N, inputs) samples of the table.
    """

    form: Form
    names: list[str]
    rows: np.ndarray

    def __post_init__(self) -> None:
        symbols = [sympy.Symbol(name) for name in self.names]
        self.expression = tidy(to_sympy(self.form.tree, symbols), self.names, self.rows)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Values, (N,)."""
        with np.errstate(all="ignore"):
            values: np.ndarray = evaluate(self.form.tree, X) + np.zeros(len(X))
        return values

    def printed(self, round: int | None = 4) -> sympy.Expr:
        """The expression with one significant digit more than `round`, or as many more as it needs to be faithful."""
        if round is None:
            return self.expression
        y = self.predict(self.rows)[:, None]
        spread = float(y.std()) or float(np.abs(y).max())
        for digits in range(round + 1, MOST_DIGITS):
            found = shortened(self.expression, max(digits, 1))
            if faithful([found], self.names, self.rows, y):
                with np.errstate(all="ignore"):
                    change = np.abs(to_numpy(found, self.names)(*self.rows.T) - y[:, 0]).max()
                if change <= CHANGE * spread:
                    return found
        return self.expression

    def network(self) -> KAN | None:
        """A symbolic network that computes the formula, None where a function of it is not in the library."""
        try:
            model = KAN.from_formula(self.expression, self.names)
            with torch.no_grad():
                found = model(torch.tensor(self.rows)).numpy()[:, 0]
        except (ValueError, TypeError):
            return None
        y = self.predict(self.rows)
        return model if np.abs(found - y).max() <= 1e-6 * np.abs(y).max() else None

    def shares(self) -> np.ndarray:
        """Share of each input in the variation, (inputs,): the change where the input comes from another row."""
        y, n = self.predict(self.rows), len(self.rows)
        changes = np.zeros(self.rows.shape[1])
        for i in range(len(changes)):
            X = self.rows.copy()
            X[:, i] = np.roll(X[:, i], n // 2)
            change = self.predict(X) - y
            changes[i] = float(np.sqrt(np.mean(change[np.isfinite(change)] ** 2))) if np.isfinite(change).any() else 0.0
        sum_ = changes.sum()
        shares: np.ndarray = changes / sum_ if sum_ > 0 else np.full(len(changes), 1 / len(changes))
        return shares


def find_laws(
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    train: np.ndarray,
    check: np.ndarray,
    names: Sequence[str],
    library: Sequence[str] | None,
    clock: Clock,
) -> list[Law]:
    """Closed forms of a table, the best first; none of a constant y or fewer than six rows.

    An interrupt (Ctrl-C) ends the search; the clock's deadline is then minus infinity.

    Args:
        X: (N, inputs) samples in their own units.
        y: (N,) targets.
        weight: (N,) weights, None for equal ones.
        train: Rows to fit on.
        check: Rows to judge by.
        names: Names of the inputs.
        library: Names of the functions that may be used, None for all.
        clock: The deadline.
    """
    if len(train) < LEAST_ROWS or not np.ptp(y):
        return []
    held = {"weight": None, "weight_val": None} if weight is None else {"weight": weight[train], "weight_val": weight[check]}
    data = Data(X[train], y[train], X[check], y[check], clock, library=library, **held)
    return [Law(form, list(names), X[:: max(1, len(X) // 500)]) for form in find_closed_forms(data)]
