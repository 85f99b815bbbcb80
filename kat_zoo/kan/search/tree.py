"""Expression trees of the closed-form search: small tuples that NumPy evaluates fast, and that become SymPy at the end.

A tree is one of

    ("x", i)           input number i
    ("c", value)       a constant that the data decide
    ("n", value)       a number that is part of the form, as the 1 of 1 + x
    ("s", value, e)    the same with its SymPy expression e, as pi / 2
    ("+", a, b, ...)   a sum of trees
    ("*", a, b, ...)   a product of trees
    ("^", a, p)        a tree to the power of the number p
    ("sin", a)         a function of a tree, one of `FUNCTIONS`

Constants are listed from left to right, depth first: `constants` reads them and `with_constants` replaces them in that order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import sympy
from scipy import special

Tree = tuple[Any, ...]

FUNCTIONS: dict[str, tuple[Callable[..., Any], Any]] = {
    "sin": (np.sin, sympy.sin),
    "cos": (np.cos, sympy.cos),
    "tan": (np.tan, sympy.tan),
    "exp": (np.exp, sympy.exp),
    "log": (np.log, sympy.log),
    "tanh": (np.tanh, sympy.tanh),
    "cosh": (np.cosh, sympy.cosh),
    "sinh": (np.sinh, sympy.sinh),
    "arcsin": (np.arcsin, sympy.asin),
    "arccos": (np.arccos, sympy.acos),
    "arctan": (np.arctan, sympy.atan),
    "arctanh": (np.arctanh, sympy.atanh),
    "abs": (np.abs, sympy.Abs),
    "sgn": (np.sign, sympy.sign),
    "erf": (special.erf, sympy.erf),
    "gamma": (special.gamma, sympy.gamma),
    "J0": (special.j0, partial(sympy.besselj, 0)),
    "J1": (special.j1, partial(sympy.besselj, 1)),
}
COMMON = ("sin", "cos", "exp", "log")
RARE = 2.0
LEAVES = ("x", "c", "n", "s")
FIXED_DENOMINATORS = 12  # an exponent or number of a form with such a denominator prints as a fraction


def product(*factors: Tree) -> Tree:
    """The product of trees, ones left out and products joined."""
    flat = [part for factor in factors for part in (factor[1:] if factor[0] == "*" else (factor,)) if part != ("n", 1)]
    return flat[0] if len(flat) == 1 else ("*", *flat) if flat else ("n", 1)


def total(*terms: Tree) -> Tree:
    """The sum of trees, sums joined."""
    flat = [part for term in terms for part in (term[1:] if term[0] == "+" else (term,)) if part != ("n", 0)]
    return flat[0] if len(flat) == 1 else ("+", *flat) if flat else ("n", 0)


def power(base: Tree, exponent: float) -> Tree:
    """A tree to the power of a number."""
    if exponent == 0:
        return ("n", 1)
    if exponent == 1:
        return base
    if base[0] == "^" and float(exponent).is_integer():
        return power(base[1], base[2] * exponent)
    return ("^", base, exponent)


def monomial(exponents: Sequence[float], parts: Sequence[Tree] | None = None) -> Tree:
    """The product of powers of the inputs or of other trees.

    Args:
        exponents: Exponent of each.
        parts: Trees in place of the inputs.
    """
    parts = [("x", i) for i in range(len(exponents))] if parts is None else parts
    return product(*(power(part, p) for part, p in zip(parts, exponents, strict=True) if p))


def evaluate(tree: Tree, X: np.ndarray) -> Any:
    """Values of a tree, (N,) or a number where no input is in it; NaN or infinite where it is undefined.

    Args:
        tree: The tree.
        X: (N, inputs) samples.
    """
    head = tree[0]
    if head == "x":
        return X[:, tree[1]]
    if head in ("c", "n", "s"):
        return np.float64(tree[1])
    if head == "+":
        result = evaluate(tree[1], X)
        for part in tree[2:]:
            result = result + evaluate(part, X)
        return result
    if head == "*":
        result = evaluate(tree[1], X)
        for part in tree[2:]:
            result = result * evaluate(part, X)
        return result
    inner = evaluate(tree[1], X)
    if head == "^":
        exponent = tree[2]
        if exponent == 2:
            return inner * inner
        if exponent == -1:
            return 1.0 / inner
        if exponent == 0.5:
            return np.sqrt(inner)
        return inner**exponent
    return FUNCTIONS[head][0](inner)


def freed(tree: Tree, loose: Callable[[Tree], bool]) -> Tree:
    """The tree with some of its leaves as constants that are to be fitted again.

    Args:
        tree: The tree.
        loose: Function that says of a leaf whether it becomes a constant.
    """
    if tree[0] in LEAVES:
        return ("c", tree[1]) if loose(tree) else tree
    if tree[0] == "^":
        return ("^", freed(tree[1], loose), tree[2])
    return (tree[0], *(freed(part, loose) for part in tree[1:]))


def _children(tree: Tree) -> tuple[Tree, ...]:
    if tree[0] in LEAVES:
        return ()
    return tree[1:2] if tree[0] == "^" else tree[1:]


def walk(tree: Tree) -> Iterator[Tree]:
    """The tree and all of its parts."""
    yield tree
    for child in _children(tree):
        yield from walk(child)


def constants(tree: Tree) -> list[float]:
    """The constants, left to right."""
    return [part[1] for part in walk(tree) if part[0] == "c"]


def with_constants(tree: Tree, values: Sequence[Any]) -> Tree:
    """The tree with other constants; a value that is a tree stands in the constant's place.

    Args:
        tree: The tree.
        values: A number or tree for each constant, left to right.
    """
    rest = iter(values)

    def place(part: Tree) -> Tree:
        if part[0] == "c":
            value = next(rest)
            return value if isinstance(value, tuple) else ("c", value)
        if part[0] in LEAVES:
            return part
        if part[0] == "^":
            return ("^", place(part[1]), part[2])
        return (part[0], *(place(child) for child in part[1:]))

    return place(tree)


def substitute(tree: Tree, inputs: Sequence[Tree]) -> Tree:
    """The tree with other trees in place of the inputs."""
    if tree[0] == "x":
        return inputs[tree[1]]
    if tree[0] in LEAVES:
        return tree
    if tree[0] == "^":
        return ("^", substitute(tree[1], inputs), tree[2])
    return (tree[0], *(substitute(child, inputs) for child in tree[1:]))


def size(tree: Tree) -> float:
    """Number of nodes, each operator and operand one; a factor 1 / a counts like a.

    A function that laws seldom hold counts `RARE` nodes more, and so does one of a function.
    """
    count = 0.0
    for part in walk(tree):
        if part[0] in ("+", "*"):
            count += len(part) - 2
        elif part[0] == "^":
            count += {2: 1, -1: 1, 0.5: 1, -2: 2, -0.5: 2}.get(part[2], 2)
        elif part != ("n", -1):
            count += 1
        if part[0] in FUNCTIONS:
            count += RARE * (part[0] not in COMMON) + RARE * any(inner[0] in FUNCTIONS for inner in walk(part[1]) if inner[0] != "log")
    return count


def variables(tree: Tree) -> set[int]:
    """Numbers of the inputs in it."""
    return {part[1] for part in walk(tree) if part[0] == "x"}


def number(value: float) -> sympy.Expr:
    """An integer, a fraction of a small denominator, or a float, whichever the value is."""
    fraction = Fraction(value).limit_denominator(FIXED_DENOMINATORS) if math.isfinite(value) and abs(value) < 1e6 else None
    if fraction is not None and abs(float(fraction) - value) <= 4e-16 * abs(value):
        return sympy.Rational(fraction.numerator, fraction.denominator)
    return sympy.Float(value)


def to_sympy(tree: Tree, symbols: Sequence[sympy.Expr]) -> sympy.Expr:
    """The SymPy expression.

    Args:
        tree: The tree.
        symbols: Expression of each input.
    """
    head = tree[0]
    if head == "x":
        return symbols[tree[1]]
    if head == "c":
        return sympy.Float(tree[1])
    if head == "n":
        return number(tree[1])
    if head == "s":
        return tree[2]
    if head == "+":
        return sympy.Add(*(to_sympy(part, symbols) for part in tree[1:]))
    if head == "*":
        return sympy.Mul(*(to_sympy(part, symbols) for part in tree[1:]))
    inner = to_sympy(tree[1], symbols)
    return sympy.Pow(inner, number(tree[2])) if head == "^" else FUNCTIONS[head][1](inner)


def from_sympy(expression: sympy.Expr, symbols: Sequence[sympy.Symbol]) -> Tree:
    """The tree of an expression, each number of it other than -1 one leaf ("s", value, number).

    Args:
        expression: The expression.
        symbols: Symbol of each input.

    Raises:
        ValueError: A function that trees do not have.
    """
    if expression.is_Symbol:
        return ("x", list(symbols).index(expression))
    if expression.is_number:
        return ("n", -1) if expression == -1 else ("s", float(expression), expression)
    if expression.is_Pow and expression.exp.is_number:
        return ("^", from_sympy(expression.base, symbols), float(expression.exp))
    if expression.is_Mul or expression.is_Add:
        numbers = [part for part in expression.args if part.is_number]
        parts = [part for part in expression.args if not part.is_number]
        if numbers:
            parts.insert(0, expression.func(*numbers))
        return ("*" if expression.is_Mul else "+", *(from_sympy(part, symbols) for part in parts))
    for name, (_, function) in FUNCTIONS.items():
        if expression == function(expression.args[-1]):
            return (name, from_sympy(expression.args[-1], symbols))
    raise ValueError(f"{expression}: expected functions of {', '.join(FUNCTIONS)}")


def gathered(tree: Tree) -> Tree:
    """The tree with the numbers of each product multiplied, and taken out of powers and of sums whose terms all have one.

    A form has fewer constants so: 2 (3 x)^2 and 2 (3 x + 4 y) become 18 x^2 and 6 (x + 1.333 y). Exponentials of a product become one.
    """
    head = tree[0]
    if head in LEAVES:
        return tree
    if head == "^":
        return _gathered_power(gathered(tree[1]), tree[2])
    parts = [gathered(part) for part in tree[1:]]
    if head == "+":
        return total(*parts)
    return _gathered_product(parts) if head == "*" else (head, *parts)


def _split(tree: Tree) -> tuple[float | None, Tree]:
    """A constant factor of a product and the rest of it; None where there is none."""
    if tree[0] == "c":
        return tree[1], ("n", 1)
    if tree[0] == "*" and tree[1][0] == "c":
        return tree[1][1], product(*tree[2:])
    return None, tree


def _gathered_power(base: Tree, exponent: float) -> Tree:
    value, rest = _leading(base) if base[0] == "+" else _split(base)
    if value and (value > 0 or float(exponent).is_integer()):
        outside = value**exponent
        if 0 < abs(outside) < math.inf:
            return product(("c", outside), power(rest, exponent))
    return power(base, exponent)


def _leading(tree: Tree) -> tuple[float | None, Tree]:
    """The size of a sum's first constant factor, and the sum divided by it, where every term has a constant factor."""
    pairs = [_split(part) for part in tree[1:]]
    if any(value is None for value, _ in pairs) or not pairs[0][0]:
        return None, tree
    first = abs(pairs[0][0])
    lead: Tree = ("n", math.copysign(1, pairs[0][0]))
    others = [product(("c", value / first), rest) for value, rest in pairs[1:] if value is not None]
    return first, total(product(lead, pairs[0][1]), *others)


def _is_power(tree: Tree) -> bool:
    """Whether an exponential is a power with a fitted exponent, exp(c log x)."""
    inner = tree[1]
    return inner[0] == "*" and len(inner) == 3 and inner[1][0] == "c" and bool(inner[2][0] == "log")


def _gathered_product(parts: Sequence[Tree]) -> Tree:
    parts = [piece for part in parts for piece in (part[1:] if part[0] == "*" else (part,))]
    value, known = 1.0, False
    powers: dict[Tree, float] = {}
    for part in parts:
        if part[0] == "+":
            inside, part = _leading(part)
            value, known = value * (inside or 1.0), known or inside is not None
        if part[0] in ("c", "n"):
            value, known = value * part[1], known or part[0] == "c"
        else:
            base, p = (part[1], part[2]) if part[0] == "^" else (part, 1)
            powers[base] = powers.get(base, 0) + p
    exponentials = [(base, p) for base, p in powers.items() if base[0] == "exp" and p and not _is_power(base)]
    if len(exponentials) > 1:  # exp(a) exp(b) is exp(a + b)
        powers = {base: p for base, p in powers.items() if (base, p) not in exponentials}
        powers[("exp", total(*(base[1] if p == 1 else product(("n", p), base[1]) for base, p in exponentials)))] = 1
    rest = [power(base, p) for base, p in powers.items() if p]
    return product(("c" if known else "n", value), *rest)
