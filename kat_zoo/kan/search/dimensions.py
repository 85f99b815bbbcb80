"""Dimensional analysis of a table: dimensionless groups, prefactors, and the units of a form's numbers.

A dimension is a tuple of exponents of base dimensions. The quantities of a table are its inputs and the constants that the user
names; products of their powers without a dimension, few and with small exponents, are the groups of Buckingham's theorem
(Phys. Rev. 4, 345, 1914): y = P F(groups), where the prefactor P has the dimension of y.

Every product considered here is minimal: none of its quantities can be left out. A minimal product of given quantities is unique,
so trying all small sets of quantities finds all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .tree import LEAVES, Tree, product

Dimension = tuple[Fraction, ...]
Powers = tuple[Fraction, ...]  # one exponent for each quantity

MOST_SETS = 20000  # sets of quantities that are tried
SIGN: Tree = ("n", -1)  # has no unit, unlike other numbers
LARGEST = 6  # exponent of a minimal product at most
DENOMINATORS = 12  # of the ratios of exponents


def _null_vector(columns: np.ndarray) -> list[int] | None:
    """Coprime integers, none of them 0, with which the columns add up to 0; None where there are none or several solutions."""
    size = columns.shape[1]
    _, values, basis = np.linalg.svd(columns)
    if size - int((values > 1e-9).sum()) != 1:
        return None
    least = np.abs(basis[-1]).min()
    if least < 1e-9:
        return None
    parts = [Fraction(float(v / least)).limit_denominator(DENOMINATORS) for v in basis[-1]]
    common = math.lcm(*(part.denominator for part in parts))
    integers = [int(part * common) for part in parts]
    divisor = math.gcd(*integers)
    integers = [n // divisor for n in integers]
    right = np.abs(columns @ np.array(integers, dtype=float)).max(initial=0.0) < 1e-9
    return integers if right and max(map(abs, integers)) <= LARGEST else None


def minimal_products(dimensions: Sequence[Dimension]) -> list[tuple[int, ...]]:
    """Exponents of the minimal products without a dimension, those with small exponents first.

    Args:
        dimensions: Dimension of each quantity.
    """
    matrix = np.array([[float(e) for e in d] for d in dimensions]).reshape(len(dimensions), -1).T
    rank = int(np.linalg.matrix_rank(matrix)) if matrix.size else 0
    count, found = len(dimensions), []
    sets = itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(1, rank + 2))
    for chosen in itertools.islice(sets, MOST_SETS):
        integers = _null_vector(matrix[:, list(chosen)]) if matrix.size else [1] * len(chosen)
        if integers is not None:
            full = [0] * count
            for i, n in zip(chosen, integers, strict=True):
                full[i] = n
            found.append(tuple(full))
    return sorted(found, key=lambda row: (sum(map(abs, row)), [-abs(n) for n in row]))


def prefactors(dimensions: Sequence[Dimension], target: Dimension) -> list[Powers]:
    """Exponents of the minimal products that have a dimension, those with small exponents first.

    Args:
        dimensions: Dimension of each quantity.
        target: The wanted dimension.
    """
    if not any(target):
        return [(Fraction(0),) * len(dimensions)]
    rows = [row for row in minimal_products([*dimensions, target]) if row[-1]]
    powers = [tuple(Fraction(-n, row[-1]) for n in row[:-1]) for row in rows]
    return sorted(powers, key=lambda p: (sum(map(abs, p)) + sum(e.denominator > 1 for e in p), [-abs(e) for e in p]))


def independent(rows: Sequence[Sequence[float]]) -> bool:
    """Whether rows of exponents are linearly independent."""
    return len(rows) == 0 or int(np.linalg.matrix_rank(np.array(rows, dtype=float))) == len(rows)


class InconsistentError(ValueError):
    """A form adds unlike dimensions, or has a function of a quantity with a dimension."""


@dataclass
class Number:
    """A number of a form that has a dimension.

    Attributes:
        value: The number.
        powers: Exponents of the units of the quantities and, last, of y, whose product is its unit.
        dimension: The dimension of that unit.
    """

    value: float
    powers: Powers
    dimension: Dimension


class Checker:
    """Walks forms and finds the dimension of each of their numbers, or that there is none that makes the form consistent.

    Terms of a sum have the dimension of the sum, arguments of functions have none, exponents are pure numbers. A number takes the
    dimension that its place asks for.

    Args:
        dimensions: Dimension of each quantity, the inputs of the forms.
        target: Dimension of the value of a form.
        place: Tree that stands for a number with a dimension; the number itself by default.
    """

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        target: Dimension,
        place: Callable[[Tree, Number], Tree | None] | None = None,
    ) -> None:
        self.dimensions = [*dimensions, target]
        self.place = place or (lambda leaf, number: None)
        self.numbers: list[Number] = []

    def check(self, tree: Tree) -> Tree:
        """The form with the trees that stand for its numbers with dimensions; those that stay are in `numbers`.

        Args:
            tree: The form.

        Raises:
            InconsistentError: No dimensions of its numbers make it consistent.
        """
        self.numbers = []
        target = self._powers(len(self.dimensions) - 1)
        try:
            return self._demand(tree, target)
        except InconsistentError:
            if tree[0] == "+":
                raise
            self.numbers = []
            return self._demand(("*", ("c", 1.0), tree), target)  # a factor of 1 may have a unit, too

    def _powers(self, quantity: int) -> Powers:
        return tuple(Fraction(int(i == quantity)) for i in range(len(self.dimensions)))

    def dimension(self, powers: Powers) -> Dimension:
        """Dimension of a product of powers of the quantities' units and, last, of y's."""
        parts = [[p * e for e in d] for p, d in zip(powers, self.dimensions, strict=True)]
        return tuple(sum(column, Fraction(0)) for column in zip(*parts, strict=True))

    def _natural(self, tree: Tree) -> Powers | None:
        """Unit of a tree; None where it holds a number that can give it any."""
        head = tree[0]
        if head == "x":
            return self._powers(tree[1])
        if head in LEAVES:
            return None
        if head == "*":
            parts = [self._natural(part) for part in tree[1:] if part != SIGN]
            known = [part for part in parts if part is not None]
            return tuple(map(sum, zip(*known, strict=True))) if len(known) == len(parts) else None  # type: ignore[arg-type]
        if head == "+":
            return next((unit for part in tree[1:] if (unit := self._natural(part)) is not None), None)
        if head == "^":
            inner = self._natural(tree[1])
            return None if inner is None else tuple(e * _exact(tree[2]) for e in inner)
        return self._natural(tree[1]) if head == "abs" else (Fraction(0),) * len(self.dimensions)

    def _demand(self, tree: Tree, want: Powers) -> Tree:
        head = tree[0]
        if head == "x":
            self._compare(self._powers(tree[1]), want)
            return tree
        if head in LEAVES:
            dimension = self.dimension(want)
            if not any(dimension):
                return tree
            number = Number(float(tree[1]), want, dimension)
            placed = self.place(tree, number)
            if placed is None:
                self.numbers.append(number)
                return tree
            return placed
        if head == "*":
            return self._demand_product(tree, want)
        if head == "+":
            return ("+", *(self._demand(part, want) for part in tree[1:]))
        if head == "^":
            return ("^", self._demand(tree[1], tuple(e / _exact(tree[2]) for e in want)), tree[2])
        if head == "abs":
            return ("abs", self._demand(tree[1], want))
        self._compare((Fraction(0),) * len(want), want)
        return (head, self._demand(tree[1], (Fraction(0),) * len(want)))

    def _demand_product(self, tree: Tree, want: Powers) -> Tree:
        """The first number of a product, or else the first part that can have any unit, takes the unit that is left."""
        signs, parts = tree[1:].count(SIGN), [part for part in tree[1:] if part != SIGN]
        natural = [self._natural(part) for part in parts]
        free = [k for k, unit in enumerate(natural) if unit is None]
        taker = min(free, key=lambda k: (parts[k][0] not in LEAVES, k), default=None)
        nothing = (Fraction(0),) * len(want)
        units = [nothing if unit is None else unit for unit in natural]
        left: Powers = tuple(w - sum(column) for w, column in zip(want, zip(*units, strict=True), strict=True))
        if taker is None:
            self._compare(left, nothing)
        else:
            units[taker] = left
        return product(*[SIGN] * signs, *(self._demand(part, unit) for part, unit in zip(parts, units, strict=True)))

    def _compare(self, powers: Powers, want: Powers) -> None:
        if self.dimension(powers) != self.dimension(want):
            raise InconsistentError(f"dimension {self.dimension(powers)}: expected {self.dimension(want)}")


def _exact(exponent: float) -> Fraction:
    return Fraction(exponent).limit_denominator(1000)
