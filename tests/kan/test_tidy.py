"""Formulas in their shortest form."""

import numpy as np
import pytest
import sympy

from kat_zoo.kan.formula.tidy import _with_squares, _without_leading_numbers, nodes, tidy

x, y = sympy.symbols("x y", positive=True)


@pytest.mark.parametrize(
    "expression, expected",
    [
        (9 / (3 * x + 6) ** 2, 1 / (x + 2) ** 2),
        (sympy.sqrt(x / 4 + 1), sympy.sqrt(x + 4) / 2),  # a number below one, under a root
        (1 / (1 - x), -1 / (x - 1)),
        (sympy.sqrt(2 - 2 * x), sympy.sqrt(2 - 2 * x)),  # minus two cannot leave a root
        (sympy.sqrt(x + y), sympy.sqrt(x + y)),
        ((2 * x + 2) ** y, (2 * x + 2) ** y),  # the exponent is not a number
    ],
)
def test_the_number_before_a_term_leaves_a_power(expression, expected):
    found = _without_leading_numbers(expression)
    assert sympy.simplify(found - expression) == 0 and sympy.srepr(found) == sympy.srepr(expected), found


def test_the_shortest_form_with_the_same_values():
    rows = np.random.default_rng(0).uniform(0.5, 2, (50, 2))
    a, b = sympy.symbols("a b")
    found = tidy(9 / (3 * a + 6) ** 2 + 0 * b, ["a", "b"], rows)
    assert nodes(found) <= nodes(1 / (a + 2) ** 2) and sympy.simplify(found - 1 / (a + 2) ** 2) == 0


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("sqrt(a**2 - 2*a*b + b**2 + c**2 - 2*c*d + d**2)", "sqrt((a - b)**2 + (c - d)**2)"),
        ("exp((-a**2/2 + a*b - b**2/2)/c**2)", "exp(-(a - b)**2/(2*c**2))"),
        ("exp(-a**2/(2*c**2) + a*b/c**2 - b**2/(2*c**2))", "exp(-(a - b)**2/(2*c**2))"),
        ("sqrt(a**2 - 2*a*b*c + b**2*c**2 + 9.5*d**2)", "sqrt((a - b*c)**2 + 9.5*d**2)"),
        ("cos(6.25*a**2 + 5.0*a*b + b**2)", "cos((2.5*a + b)**2)"),
        ("sqrt(a**2 + 2*a*b + 4*b**2)", "sqrt(a**2 + 2*a*b + 4*b**2)"),  # not a square
        ("sqrt(a**2 - 2*a*b + 1.00001*b**2)", "sqrt(a**2 - 2*a*b + 1.00001*b**2)"),  # nearly one
    ],
)
def test_squares_of_differences(expression, expected):
    names = ["a", "b", "c", "d"]
    rows = np.random.default_rng(0).uniform(0.5, 2, (50, 4))
    local = dict(zip(names, sympy.symbols(names), strict=True))
    found = tidy(sympy.sympify(expression, local), names, rows)
    assert sympy.srepr(found) == sympy.srepr(sympy.sympify(expected, local)), found


@pytest.mark.parametrize("cross", [3, 1.9999, 2.0001, -5])
def test_only_squares_are_made_squares(cross):
    total = x**2 + cross * x * y + y**2
    assert _with_squares(total) == total and _with_squares(total + (2 - cross) * x * y) == (x + y) ** 2
