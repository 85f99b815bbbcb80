"""Formulas in their shortest form."""

import numpy as np
import pytest
import sympy

from kat_zoo.kan.formula.tidy import _without_leading_numbers, nodes, tidy

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
