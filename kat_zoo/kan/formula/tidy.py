"""Formulas in their shortest form, and with fewer digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
import sympy

from .export import to_numpy

LONGEST = 80  # nodes of an expression that is still rearranged
SAME = 1e-9  # largest change by a rearrangement, relative to the size of the values


def nodes(expression: sympy.Expr) -> int:
    """Number of nodes of the expression tree."""
    return sum(1 for _ in sympy.preorder_traversal(expression))


def _without_leading_numbers(expression: sympy.Expr) -> sympy.Expr:
    """Powers of sums with the number before a term taken out: 9/(3 x + 6)^2 is 1/(x + 2)^2."""

    def monic(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
        for term in base.args if base.is_Add and exponent.is_Number else ():
            number = term.as_coeff_Mul()[0]
            if term.free_symbols and number != 1 and (number > 0 or exponent.is_Integer):
                return number**exponent * sympy.Add(*(part / number for part in base.args)) ** exponent
        return base**exponent

    found = expression.replace(lambda e: e.is_Pow, lambda e: monic(*e.args))
    ones = {number: sympy.Integer(1) for number in found.atoms(sympy.Float) if abs(number - 1) < SAME}
    return found.xreplace(ones)


def _root(term: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr] | None:
    """The pair (c, m) of a term c m^2 whose m is a product, or None."""
    number, rest = term.as_coeff_Mul()
    powers = rest.as_powers_dict()
    if rest == 1 or not all(power.is_Integer and power % 2 == 0 for power in powers.values()):
        return None
    return number, sympy.Mul(*(base ** (power // 2) for base, power in powers.items()))


def _squared(total: sympy.Expr) -> sympy.Expr:
    """A sum in which c a^2 - 2 c d a b + c d^2 b^2 are c (a - d b)^2."""
    roots = [(term, *root) for term in total.args if (root := _root(term)) is not None]
    for (one, c, a), (two, e, b) in combinations(roots, 2):
        if not (c.is_real and e.is_real and c * e > 0):
            continue
        ratio = sympy.sqrt(e / c)
        ratio = sympy.Integer(1) if abs(ratio - 1) < SAME else ratio
        for term in total.args:
            cross, rest = term.as_coeff_Mul()
            if rest == a * b and abs(abs(cross) - 2 * abs(c) * ratio) <= SAME * abs(cross):
                square = c * (a + sympy.sign(cross * c) * ratio * b) ** 2
                return _squared(sympy.Add(square, *(part for part in total.args if part not in (one, two, term))))
    return total


def _with_squares(expression: sympy.Expr) -> sympy.Expr:
    return expression.replace(lambda e: e.is_Add, _squared)


def _arrangements(expression: sympy.Expr) -> Iterator[Callable[[], sympy.Expr]]:
    yield lambda: sympy.together(expression)
    yield lambda: sympy.factor_terms(expression)
    yield lambda: sympy.factor_terms(sympy.together(expression))
    yield lambda: sympy.expand_mul(expression)
    yield lambda: _with_squares(expression)
    yield lambda: sympy.factor_terms(_with_squares(expression))
    yield lambda: _with_squares(sympy.factor_terms(expression))
    yield lambda: _without_leading_numbers(expression)
    yield lambda: _without_leading_numbers(sympy.together(expression))
    if not expression.atoms(sympy.Float):
        yield lambda: sympy.factor(expression)
        yield lambda: sympy.cancel(expression)


def tidy(expression: sympy.Expr, variables: Sequence[str], X: np.ndarray) -> sympy.Expr:
    """The shortest of some arrangements of an expression that have its values.

    Args:
        expression: The expression.
        variables: Names of the inputs.
        X: (N, inputs) samples.
    """
    best = expression
    if nodes(expression) > LONGEST:
        return best
    with np.errstate(all="ignore"):
        values = to_numpy(expression, variables)(*X.T)
        size = float(np.abs(values).max())
        for arrange in _arrangements(expression):
            try:
                other = arrange()
                if nodes(other) < nodes(best) and np.abs(to_numpy(other, variables)(*X.T) - values).max() <= SAME * size:
                    best = other
            except (sympy.PolynomialError, ValueError, TypeError, NotImplementedError):  # SymPy's, where it has no rule
                continue
    return best


def shortened(expression: sympy.Expr, digits: int) -> sympy.Expr:
    """The expression with significant digits of its floating-point numbers.

    Args:
        expression: The expression.
        digits: Number of significant digits.
    """

    def short(number: sympy.Float) -> sympy.Expr:
        value = float(number)
        if not math.isfinite(value):
            return number
        value = float(f"{value:.{digits - 1}e}")
        return sympy.Integer(int(value)) if value == int(value) and abs(value) < 1e15 else sympy.Float(value)

    return expression.xreplace({number: short(number) for number in expression.atoms(sympy.Float)})
