"""Functions of sums with the constants moved outside: c sqrt(4 x + 4) becomes 2 c sqrt(x + 1), so that a true 1 prints as 1.

A fitted edge c f(a x + b) + d has four constants where many functions need fewer: a scale moves out of a power, a shift out of
an exponential, a sign out of an odd function, a multiple of pi / 2 out of a wave. Gathered before numbers are rounded, the
constants of several edges cancel, and those that are left are numbers a reader can know again.
"""

from __future__ import annotations

import math

import numpy as np
import sympy
import torch

from ..library import Function, get_function
from .linear import Linear

OUTSIDE = 30.0  # c exp(x + b) is a multiple of exp(x) while |log c + b| is smaller: 3 exp(1000 - x / 2) has no such factor
LARGEST = 700.0  # exponent of a number in double precision
_ODD = {"sin", "tan", "tanh", "arcsin", "arctan", "arctanh", "erf", "sinh", "J1"}
_EVEN = {"cos", "gaussian", "J0", "cosh"}


def _homogeneous(function: Function, argument: Linear, digits: int | None) -> tuple[Linear, float]:
    """f(A) = factor * f(A / m) with the scale m of A moved outside."""
    m, p = argument.leading(), float(function.power or 0.0)
    sign = 1.0 if m >= 0 else -1.0
    size = abs(m)
    if function.name == "abs":
        factor = size
    elif function.name == "sgn":
        factor = sign
    elif p == int(p):
        factor = sign ** int(p) * size**p
    else:
        sign, factor = 1.0, size**p
    inner = argument.affine(1 / (sign * size), 0.0)
    if inner.negligible(inner.constant, digits, singular=p < 0):
        inner.constant = 0.0
    return inner, factor


def _wave(name: str, argument: Linear, digits: int | None) -> tuple[str, Linear, float]:
    """The wave sin or cos with a positive leading coefficient and the phase in [-pi/2, pi/2]; multiples of pi/2 vanish."""
    factor = 1.0
    if name == "cos":
        argument = argument.affine(1, math.pi / 2)
    if argument.leading() < 0:
        argument, factor = argument.affine(-1, 0), -1.0
    turns = round(argument.constant / math.pi)
    phase = argument.constant - turns * math.pi
    factor *= -1.0 if turns % 2 else 1.0
    argument = argument.affine(1, phase - argument.constant)
    if argument.negligible(phase, digits):
        return "sin", argument.affine(1, -phase), factor
    if argument.negligible(abs(phase) - math.pi / 2, digits):
        return "cos", argument.affine(1, -phase), factor * math.copysign(1, phase)
    return "sin", argument, factor


def apply(function: Function, argument: Linear, c: float, d: float, digits: int | None) -> Linear:
    """The sum c f(argument) + d, its term without constants that can be moved out of it.

    Args:
        function: f, of the library.
        argument: sum inside f.
        c: factor of f.
        d: constant beside it.
        digits: number of decimals of the printed formula; None for all digits.
    """
    name = function.name
    if name == "0":
        return Linear(d)
    if name == "x":
        return argument.affine(c, d)
    if argument.leading() == 0:
        return Linear(c * float(_evaluate(function, np.array(argument.constant))) + d)
    if name == "exp" and c:
        inside, left = argument.constant + math.log(abs(c)), 0
        power = any(term.func == sympy.log for term in argument.terms)  # the exponential of a logarithm vanishes
        if abs(inside) > (LARGEST if power else OUTSIDE):
            left = round(inside)  # an integer: of other numbers SymPy takes the exponential
        argument, c = argument.affine(1, left - argument.constant), math.copysign(math.exp(inside - left), c)
    elif name == "log":
        size = abs(argument.leading())
        argument, d = argument.affine(1 / size, 0), d + c * math.log(size)
        if argument.negligible(argument.constant, digits, singular=True):
            argument.constant = 0.0
    elif name in ("sin", "cos"):
        name, argument, factor = _wave(name, argument, digits)
        function, c = get_function(name), c * factor
    elif function.power is not None:
        argument, factor = _homogeneous(function, argument, digits)
        c *= factor
    elif name in _ODD | _EVEN and argument.leading() < 0:
        argument, c = argument.affine(-1, 0), -c if name in _ODD else c
    term = function.expression(argument.to_sympy(digits, singular=name == "log" or (function.power or 0) < 0))
    if term.is_number:
        return Linear(d + c * float(term))
    return Linear(d, {term: c}, {term: _evaluate(function, argument.values())})


def _evaluate(function: Function, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        values: np.ndarray = function.torch(torch.from_numpy(x).double()).numpy()
    return values


def multiply(factors: list[Linear], digits: int | None) -> Linear:
    """The product of sums as one term, the factors' scales moved outside.

    Args:
        factors: the sums.
        digits: number of decimals of the printed formula; None for all digits.
    """
    scale, expressions, values = 1.0, [], np.ones(())
    for factor in factors:
        m = factor.leading()
        if not factor.terms or m == 0:
            scale *= factor.constant
            continue
        scale *= m
        inner = factor.affine(1 / m, 0)
        if inner.negligible(inner.constant, digits):
            inner.constant = 0.0
        expressions.append(inner.to_sympy(digits))
        values = values * inner.values()
    term = sympy.Mul(*expressions)
    return Linear(scale * float(term)) if term.is_number else Linear(0.0, {term: scale}, {term: values})
