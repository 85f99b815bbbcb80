"""Closed forms as the estimator shows them: SymPy, digits, a network that computes them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import sympy
import torch
from threadpoolctl import threadpool_limits

from ..formula.export import to_numpy
from ..formula.expression import faithful
from ..formula.tidy import nodes, shortened, tidy
from ..model import KAN
from ..search.closed_form import find_closed_forms
from ..search.dimensions import Checker, InconsistentError
from ..search.in_units import Quantities, find_forms_in_units, finite_in_box
from ..search.judge import CONSTANT, FLOOR, NODE, SOLVED, Data, Form, Judge, permitted
from ..search.problem import OutOfTime
from ..search.rounding import rounded
from ..search.tree import Tree, evaluate, freed, from_sympy, to_sympy
from .units import Units

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
        names: Names of the inputs, then of the constants.
        rows: (N, inputs) samples of the table.
        constants: Values of the constants that the form may hold as symbols.
    """

    form: Form
    names: list[str]
    rows: np.ndarray
    constants: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.expression = tidy(to_sympy(self.form.tree, self.symbols), self.names, self.columns(self.rows))

    @property
    def symbols(self) -> list[sympy.Symbol]:
        """The symbols of the inputs and of the constants."""
        return [sympy.Symbol(name) for name in self.names]

    def length(self, rows: int) -> float:
        """Description length in nats for a table of some rows."""
        return length(self.form.error, self.expression, rows)

    def columns(self, X: np.ndarray) -> np.ndarray:
        """X (N, inputs) and a column for each constant."""
        return np.column_stack([X, *(np.full(len(X), value) for value in self.constants.values())]) if self.constants else X

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Values, (N,)."""
        with np.errstate(all="ignore"):
            values: np.ndarray = evaluate(self.form.tree, self.columns(X)) + np.zeros(len(X))
        return values

    def printed(self, round: int | None = 4) -> sympy.Expr:
        """The expression with one significant digit more than `round`, or as many more as it needs to be faithful."""
        if round is None:
            return self.expression
        y, columns = self.predict(self.rows)[:, None], self.columns(self.rows)
        spread = float(y.std()) or float(np.abs(y).max())
        for digits in range(round + 1, MOST_DIGITS):
            found = shortened(self.expression, max(digits, 1))
            if faithful([found], self.names, columns, y):
                with np.errstate(all="ignore"):
                    change = np.abs(to_numpy(found, self.names)(*columns.T) - y[:, 0]).max()
                if change <= CHANGE * spread:
                    return found
        return self.expression

    def numbers_with_units(self, units: Units) -> list[tuple[float, str]]:
        """The numbers of the form that have a unit, with it.

        Args:
            units: Units of the table.
        """
        checker = Checker(units.dimensions, units.target)
        checker.check(self.form.tree)
        return [(number.value, units.text(number.powers)) for number in checker.numbers]

    def network(self) -> KAN | None:
        """A symbolic network that computes the formula, None where a function of it is not in the library."""
        values = {sympy.Symbol(name): value for name, value in self.constants.items()}
        try:
            model = KAN.from_formula(self.expression.subs(values), self.names[: self.rows.shape[1]])
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


def _is_rough(leaf: Tree) -> bool:
    """Whether a leaf is a number of a form other than 1 and -1."""
    return leaf[0] in ("n", "s") and abs(leaf[1]) != 1


def _refitted(data: Data, trees: Sequence[Tree]) -> list[Form]:
    """Forms of a former search with their constants fitted to this table; none that is undefined on it."""
    judges = [Judge(replace(data, relative=relative)) for relative in (False, True)]
    found = []
    for tree in trees:
        forms = [judge.measure(tree) for judge in judges]
        with contextlib.suppress(OutOfTime):
            forms += [rounded(judge, freed(tree, _is_rough)) for judge in judges]
        form = min(forms, key=lambda form: form.cost)
        if math.isfinite(form.cost) and (form.exact or finite_in_box(form.tree, data.X)):
            found.append(form)
    return found


def _allowed(tree: Tree, data: Data, units: Units | None) -> bool:
    """Whether a form has functions of the table's library alone and is consistent with its units."""
    if data.library is not None and not permitted(tree, data.library):
        return False
    if units is not None:
        try:
            Checker(units.dimensions, units.target).check(tree)
        except InconsistentError:
            return False
    return True


def law_of(expression: sympy.Expr, data: Data, names: Sequence[str]) -> Law | None:
    """The formula of a network as a closed form, its constants fitted and rounded as those of any other.

    Args:
        expression: The formula, in units of the table.
        data: The table in its own units.
        names: Names of the inputs.

    Returns:
        None where a function of it is not one of closed forms, or it is undefined where the table may have rows.
    """
    try:
        tree = from_sympy(expression, [sympy.Symbol(name) for name in names])
    except ValueError:
        return None
    found = _refitted(data, [freed(tree, lambda leaf: leaf[0] == "s" and leaf[2].is_Float)])
    X = np.concatenate([data.X, data.X_val])
    return Law(found[0], list(names), X[:: max(1, len(X) // 500)]) if found else None


def find_laws(data: Data, names: Sequence[str], units: Units | None = None, former: Sequence[Tree] = ()) -> list[Law]:
    """Closed forms of a table, the best first; none of fewer than six rows or, without units, of a constant y.

    An interrupt (Ctrl-C) ends the search; the clock's deadline is then minus infinity.

    Args:
        data: The table in its own units, with a column for each constant after the inputs.
        names: Names of the inputs.
        units: Units of the inputs, of y and of constants; only consistent forms are found then.
        former: Forms of a former search, which are fitted to this table first; an exact one is the answer. Those that the library
            or the units do not allow any more are left out.
    """
    constant = not np.ptp(np.concatenate([data.y, data.y_val]))
    if len(data.y) < LEAST_ROWS or (constant and units is None):
        return []
    forms = _refitted(data, [tree for tree in former if _allowed(tree, data, units)])
    if constant:
        forms = [Judge(data).measure(("c", float(data.y[0])))]
    elif not any(form.error < SOLVED for form in forms):
        if units is None:
            found = find_closed_forms(data)
        else:
            quantities = Quantities(
                len(names), units.dimensions, units.target, units.factors, units.target_factor, list(units.constants.values())
            )
            found = find_forms_in_units(data, quantities)
        known = {form.tree for form in found}
        forms = found + [form for form in forms if form.tree not in known]
    if former:
        forms.sort(key=lambda form: (not form.exact, form.cost))
    X = np.concatenate([data.X, data.X_val])
    rows = X[:: max(1, len(X) // 500), : len(names)]
    constants = {} if units is None else units.constants
    return [Law(form, [*names, *constants], rows, constants) for form in forms]
