"""Closed forms that are consistent with the units of a table.

The engine of `closed_form` searches two kinds of tables under one deadline: y divided by a prefactor against the dimensionless
groups, from which every form is consistent, and y against the inputs, from which only the consistent forms stay. The numbers of
these that have a unit become products of the named constants where such a product has the unit; a number whose unit no product of
constants has stays, and costs `WITH_UNIT` nats more than another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import numpy as np

from .closed_form import find_closed_forms
from .dimensions import Checker, Dimension, InconsistentError, Number, Powers, independent, minimal_products, prefactors
from .judge import SOLVED, Clock, Data, Form, Judge
from .problem import OutOfTime
from .rounding import round_numbers, rounded
from .tree import LEAVES, Tree, constants, evaluate, gathered, monomial, power, product, substitute, with_constants

PREFACTORS = 3  # that are tried
QUICK = 4.0  # seconds for each table at first; most laws need less
SHARES = (0.4, 0.5, 0.4, 0.5, 1.0)  # of the time that is left, for each table once more
SPREAD = 3.0  # ratio of a large and a small prefactor from which weighted rows are another problem
WITH_UNIT = 8.0  # nats
ROUND = 1e-4  # relative distance at which a number beside constants is taken as round
SAME = 1e-9  # relative distance of numbers that are the same where there is no noise
BOX_POINTS = 4096  # points of the box at which a form is tried
OPTIONS = 12  # products of constants that are compared


@dataclass
class Quantities:
    """Dimensions and units of the inputs and of the constants, which are columns of the table after the inputs.

    Attributes:
        inputs: Number of inputs.
        dimensions: Dimension of each quantity.
        target: Dimension of y.
        factors: Unit of each quantity in base units.
        target_factor: Unit of y in base units.
        values: Values of the constants.
    """

    inputs: int
    dimensions: Sequence[Dimension]
    target: Dimension
    factors: np.ndarray
    target_factor: float
    values: Sequence[float]

    def tree(self, powers: Sequence[float | Fraction]) -> Tree:
        """The product of powers of the quantities, measured in base units."""
        factor = float(np.prod(self.factors ** np.array(powers, dtype=float)))
        return product(("n", float(f"{factor:.14g}")), monomial([float(p) for p in powers]))


def _values(table: np.ndarray, powers: Sequence[float], quantities: Quantities) -> np.ndarray:
    """Values of a product on the rows, in base units."""
    with np.errstate(all="ignore"):
        columns = (table * quantities.factors) ** np.array(powers, dtype=float)
        values: np.ndarray = columns.prod(1)
    return values


def finite_in_box(tree: Tree, X: np.ndarray) -> bool:
    """Whether a form is finite at random points of the box of samples (N, inputs)."""
    low, high = X.min(0), X.max(0)
    points = low + (high - low) * np.random.default_rng(0).random((BOX_POINTS, X.shape[1]))
    with np.errstate(all="ignore"):
        return bool(np.isfinite(evaluate(tree, points)).all())


def choose_groups(table: np.ndarray, quantities: Quantities) -> list[tuple[int, ...]]:
    """The simplest independent groups that are finite and not constant on the rows.

    Args:
        table: (N, quantities) values.
        quantities: The quantities.
    """
    chosen: list[tuple[int, ...]] = []
    for row in minimal_products(quantities.dimensions):
        given = row[: quantities.inputs]
        if not any(given) or not independent([*chosen, row]):
            continue
        upright = row if sum(given) > 0 or (sum(given) == 0 and next(n for n in given if n) > 0) else tuple(-n for n in row)
        for option in (upright, tuple(-n for n in upright)):
            values = _values(table, option, quantities)
            if np.isfinite(values).all() and np.ptp(values) > 0:
                chosen.append(option)
                break
    return chosen


def _with_powers(tree: Tree) -> Tree:
    """The form with x^p for exp(p log(x)), as the engine writes powers whose exponents are fitted: a power may have a dimension."""
    if tree[0] in LEAVES:
        return tree
    if tree[0] == "^":
        return ("^", _with_powers(tree[1]), tree[2])
    if tree[0] == "exp" and tree[1][0] == "*":
        numbers, rest = ([part for part in tree[1][1:] if (part[0] in ("c", "n", "s")) == wanted] for wanted in (True, False))
        if len(rest) == 1 and rest[0][0] == "log":
            return power(_with_powers(rest[0][1]), math.prod(number[1] for number in numbers))
    return (tree[0], *map(_with_powers, tree[1:]))


class _Search:
    """Forms of one table in units."""

    def __init__(self, data: Data, quantities: Quantities) -> None:
        self.data, self.quantities = data, quantities
        self.judges = [Judge(replace(data, relative=relative)) for relative in (False, True)]
        self.checker = Checker(quantities.dimensions, quantities.target, self._named)
        self.forms: dict[Tree, tuple[float, Form]] = {}
        self._products: dict[Dimension, list[Powers]] = {}

    @property
    def solved(self) -> bool:
        """Whether a form is right to rounding and none of its numbers has a unit."""
        return any(form.error < SOLVED and cost == form.cost for cost, form in self.forms.values())

    def _snapped(self, form: Form) -> Form:
        """A form without noise with its numbers as round as they are to nine digits, as 1/(4 pi) for 0.079577471546."""
        if form.error > SOLVED:
            return form
        options = [(value, round_numbers(value, SAME)) for value in constants(form.tree)]
        round_ = self._measure(gathered(with_constants(form.tree, [found[0][1] if found else value for value, found in options])))
        return round_ if round_.error <= SOLVED else form

    def _measure(self, tree: Tree) -> Form:
        """The form under the reading of the noise, of one size or growing with y, that is the shorter description."""
        return min((judge.measure(tree) for judge in self.judges), key=lambda form: form.cost)

    def _fitted(self, tree: Tree) -> Form:
        return min((self._measure(t) for t in (tree, *(judge.fit(tree) for judge in self.judges))), key=lambda form: form.cost)

    def _named(self, leaf: Tree, number: Number) -> Tree | None:
        """A number with a unit as a product of constants, times a number without one; None where no product has the unit."""
        named = self.quantities.dimensions[self.quantities.inputs :]
        if number.dimension not in self._products:
            self._products[number.dimension] = prefactors(named, number.dimension)[:OPTIONS] if named else []
        options = []
        for place, powers in enumerate(self._products[number.dimension]):
            size = math.prod(v ** float(p) for v, p in zip(self.quantities.values, powers, strict=True))
            near = round_numbers(number.value / size, ROUND)
            options.append((near[0][0] if near else math.inf, place, number.value / size, powers))
        if not options:
            return None
        _, _, ratio, powers = min(options, key=lambda option: option[:2])
        return product(("c", ratio), monomial([0.0] * self.quantities.inputs + [float(p) for p in powers]))

    def add(self, tree: Tree) -> None:
        """Keep a form if it is consistent, its numbers with units named and the others rounded."""
        tree = _with_powers(tree)
        try:
            named = self.checker.check(tree)
            form, numbers = self._measure(tree), len(self.checker.numbers)
            if named != tree:
                form = self._fitted(gathered(named))
                best = min(self.judges, key=lambda judge: judge.measure(form.tree).cost)
                other = rounded(best, form.tree)
                self.checker.check(other.tree)
                if other.cost <= form.cost:
                    form, numbers = other, len(self.checker.numbers)
        except InconsistentError:
            return
        except OutOfTime:
            pass
        form = self._snapped(form)
        if math.isfinite(form.cost):
            self.forms[form.tree] = form.cost + WITH_UNIT * numbers, form

    def inputs(self, clock: Clock) -> None:
        """Search y against the inputs."""
        data, count = self.data, self.quantities.inputs
        part = replace(data, X=data.X[:, :count], X_val=data.X_val[:, :count], clock=clock)
        for form in find_closed_forms(part):
            self.add(form.tree)

    def groups(self, clock: Clock, groups: Sequence[Sequence[int]], prefactor: Powers, weighted: bool = False) -> None:
        """Search y, divided by a prefactor, against groups."""
        data, q = self.data, self.quantities
        p, p_val = (_values(X, [float(e) for e in prefactor], q) / q.target_factor for X in (data.X, data.X_val))
        if not (np.isfinite(p).all() and np.isfinite(p_val).all() and p.all() and p_val.all()):
            return
        if weighted and np.abs(p).max() < SPREAD * np.abs(p).min():
            return
        X, X_val = (np.column_stack([_values(table, row, q) for row in groups]) for table in (data.X, data.X_val))
        weight, weight_val = data.weight, data.weight_val
        if weighted:  # the noise of y, as the search of the inputs sees it
            size = float(np.mean(p * p))
            weight = p * p / size * (1 if weight is None else weight)
            weight_val = p_val * p_val / size * (1 if weight_val is None else weight_val)
        part = replace(
            data,
            X=X,
            X_val=X_val,
            y=data.y / p,
            y_val=data.y_val / p_val,
            weight=weight,
            weight_val=weight_val,
            clock=clock,
        )
        trees = [q.tree(row) for row in groups]
        front = product(("n", 1 / q.target_factor), q.tree(prefactor))
        for form in find_closed_forms(part):
            self.keep(gathered(product(front, substitute(form.tree, trees))))

    def keep(self, tree: Tree) -> None:
        """Keep a form that is consistent because it is made of groups."""
        form = self._snapped(self._measure(tree))
        if not form.exact:
            form = min(form, self._fitted(tree), key=lambda form: form.cost)
        if math.isfinite(form.cost) and (form.exact or finite_in_box(form.tree, self.data.X)):
            self.forms[form.tree] = form.cost, form


def find_forms_in_units(data: Data, quantities: Quantities) -> list[Form]:
    """Consistent closed forms, exact ones first, then by description length.

    Args:
        data: The table; its columns are the inputs and then the constants.
        quantities: The quantities.
    """
    search = _Search(data, quantities)
    table = np.concatenate([data.X, data.X_val])
    groups = choose_groups(table, quantities)
    fronts = prefactors(quantities.dimensions, quantities.target)[:PREFACTORS] if groups else []
    steps: list[Callable[[Clock], None]] = [partial(search.groups, groups=groups, prefactor=fronts[0])] if fronts else []
    steps.append(search.inputs)
    steps += [partial(search.groups, groups=groups, prefactor=front) for front in fronts[1:]]
    steps += [partial(search.groups, groups=groups, prefactor=front, weighted=True) for front in fronts[:1]]
    clock = data.clock
    for step, share in [*((step, None) for step in steps), *zip(steps, SHARES[-len(steps) :], strict=True)]:
        own = Clock(min(clock.deadline, clock.now() + QUICK), clock.now) if share is None else clock.part(share)
        step(own)
        if own.deadline == -math.inf:  # interrupted
            clock.deadline = -math.inf
        if search.solved or clock.over:
            break
    search.add(("c", float(np.mean(data.y))))  # to compare with
    ranked = sorted(search.forms.values(), key=lambda pair: (not pair[1].exact, pair[0]))
    return [form for _, form in ranked]
