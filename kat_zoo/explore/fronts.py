"""The formulas of a search as JSON, for a session that is opened again: a search that the clock ended would not find them again.

An expression is lists within lists, [function, argument, ...], as it was built, down to inputs and numbers as text. Reading makes what is
in a short list of functions, and nothing else: the file may come from a stranger.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import sympy

from .._checks import count, is_real
from .state import FrontRow

MOST_ROWS, MOST_DIGITS, MOST_EXPONENT = 1000, 400, 10_000  # of a front, of a number, and of a float in bits
FUNCTIONS = {
    name: getattr(sympy, name)
    for name in "Add Mul Pow Abs sign exp log sin cos tan sinh cosh tanh asin acos atan atanh besselj erf gamma".split()  # noqa: SIM905
}
NUMBER = re.compile(r"(?P<integer>-?\d+)(/(?P<over>\d+))?")
CONSTANTS = {"pi": sympy.pi, "E": sympy.E, "I": sympy.I, "oo": sympy.oo, "zoo": sympy.zoo, "nan": sympy.nan}
EDGE = re.compile(r"phi_\d+_\d+_\d+")  # a function of an edge that has no formula


def write(rows: Sequence[FrontRow]) -> list[dict[str, Any]]:
    """A front as JSON holds it.

    Args:
        rows: the formulas, from short to long.
    """
    return [{"complexity": row.complexity, "loss": row.loss, "full": _tree(row.full), "printed": _tree(row.printed)} for row in rows]


def _tree(expression: sympy.Basic) -> Any:
    if isinstance(expression, sympy.Float):
        sign, digits, exponent, _ = expression._mpf_
        return ["Float", str(-int(digits) if sign else int(digits)), exponent, expression._prec]  # every bit of it
    if not expression.args:
        return str(expression)
    return [expression.func.__name__, *map(_tree, expression.args)]


def read(found: Any, symbols: Collection[str]) -> list[FrontRow]:
    """The front that `write` wrote.

    Args:
        found: a list as JSON holds it.
        symbols: names that the formulas may have.

    Raises:
        ValueError: something else.
    """
    if not isinstance(found, list) or not 0 < len(found) <= MOST_ROWS:
        raise ValueError(f"found={found!r:.40}: expected 1 to {MOST_ROWS} formulas of a search")
    rows = []
    for one in found:
        if not isinstance(one, dict) or not is_real(one.get("loss")):
            raise ValueError(f"found with {one!r:.40}: expected complexity, loss, full and printed")
        try:
            full, printed = (_expression(one.get(name), symbols) for name in ("full", "printed"))
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"found with another formula: expected one of {', '.join(symbols)}, as a saved search has them") from None
        rows.append(FrontRow(count("complexity", one.get("complexity"), 0), float(one["loss"]), full, printed))
    return rows


def _expression(tree: Any, symbols: Collection[str]) -> sympy.Expr:
    """The expression of a tree; a ValueError or TypeError of another one."""
    if isinstance(tree, str) and len(tree) <= MOST_DIGITS:
        if tree in symbols:
            return sympy.Symbol(tree)
        if tree in CONSTANTS:
            return CONSTANTS[tree]
        if (number := NUMBER.fullmatch(tree)) and int(number["over"] or 1):
            return sympy.Rational(int(number["integer"]), int(number["over"] or 1))
    elif isinstance(tree, list) and len(tree) > 1 and isinstance(tree[0], str):
        name, *arguments = tree
        if name == "Float" and len(arguments) == 3 and len(arguments[0]) <= MOST_DIGITS:
            digits, exponent = int(arguments[0]), count("exponent", arguments[1], -MOST_EXPONENT, MOST_EXPONENT)
            bits = (int(digits < 0), abs(digits), exponent, digits.bit_length())
            return sympy.Float(bits, precision=count("precision", arguments[2], 1, MOST_DIGITS))
        parts = [_expression(argument, symbols) for argument in arguments]
        if name in FUNCTIONS:
            return FUNCTIONS[name](*parts, evaluate=False)
        if EDGE.fullmatch(name):
            return sympy.Function(name)(*parts)
    raise ValueError("neither a function, a number nor an input")
