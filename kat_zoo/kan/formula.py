"""Formulas: a network as SymPy expressions with constants gathered, so that a true 1 prints as 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy

from .library import Function, get_function
from .network import KAN

_ODD = {"sin", "tan", "tanh", "arcsin", "arctan", "arctanh", "erf", "sinh", "J1"}
_EVEN = {"cos", "gaussian", "J0", "cosh"}


@dataclass
class Linear:
    """constant + sum of coefficient * term; what a node computes."""

    constant: float = 0.0
    terms: dict[sympy.Expr, float] = field(default_factory=dict)

    def add(self, other: Linear, scale: float = 1.0) -> None:
        """Add scale * other."""
        self.constant += scale * other.constant
        for term, coefficient in other.terms.items():
            self.terms[term] = self.terms.get(term, 0.0) + scale * coefficient

    def affine(self, a: float, b: float) -> Linear:
        """A * self + b."""
        return Linear(a * self.constant + b, {term: a * coefficient for term, coefficient in self.terms.items()})

    def leading(self) -> float:
        """The largest coefficient of a term, 0 for a constant; of nearly equal ones the first."""
        largest = max((abs(c) for c in self.terms.values()), default=0.0)
        return next((c for c in self.terms.values() if abs(c) >= 0.999 * largest), 0.0)


def _decimals(scale: float, digits: int) -> int:
    """Decimals that leave `digits` of a number in [0.1, ...), more for smaller scales."""
    return digits if scale >= 0.1 or scale == 0 else digits - math.floor(math.log10(scale)) - 1


def _number(value: float, decimals: int | None) -> sympy.Expr:
    if decimals is not None:
        value = round(value, decimals)
    return sympy.Integer(int(value)) if value == int(value) and abs(value) < 1e15 else sympy.Float(value)


def expression(linear: Linear, digits: int | None) -> sympy.Expr:
    """SymPy expression; `digits` decimals (more where all numbers are small), None for all digits."""
    scale = max([abs(c) for c in linear.terms.values()] + [abs(linear.constant)], default=0.0)
    if not math.isfinite(scale):
        return sympy.nan
    decimals = None if digits is None else _decimals(scale, digits)
    parts = [_number(c, decimals) * term for term, c in linear.terms.items()]
    return sympy.Add(_number(linear.constant, decimals), *parts)


def _negligible(value: float, digits: int | None) -> bool:
    return abs(value) < (1e-12 if digits is None else 0.5 * 10.0**-digits)


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
    if _negligible(inner.constant, digits):
        inner.constant = 0.0
    return inner, factor


def _wave(name: str, argument: Linear, digits: int | None) -> tuple[str, Linear, float]:
    """Sin or cos with a positive leading coefficient and the phase in [-pi/2, pi/2]; multiples of pi/2 vanish."""
    factor = 1.0
    if name == "cos":
        argument = argument.affine(1, math.pi / 2)
    if argument.leading() < 0:
        argument, factor = argument.affine(-1, 0), -1.0
    turns = round(argument.constant / math.pi)
    phase = argument.constant - turns * math.pi
    factor *= -1.0 if turns % 2 else 1.0
    tolerance = 1e-9 if digits is None else 0.5 * 10.0**-digits
    if abs(phase) < tolerance:
        return "sin", Linear(0.0, argument.terms), factor
    if abs(abs(phase) - math.pi / 2) < tolerance:
        return "cos", Linear(0.0, argument.terms), factor * math.copysign(1, phase)
    return "sin", Linear(phase, argument.terms), factor


def apply(function: Function, argument: Linear, c: float, d: float, digits: int | None) -> Linear:
    """C f(argument) + d as a linear form whose terms carry no needless constants."""
    name = function.name
    if name == "0":
        return Linear(d)
    if name == "x":
        return argument.affine(c, d)
    if not argument.terms:
        import torch

        return Linear(c * float(function.torch(torch.tensor(argument.constant, dtype=torch.float64))) + d)
    if name == "exp":
        c *= math.exp(min(argument.constant, 700.0))
        argument = Linear(0.0, argument.terms)
    elif name == "log":
        size = abs(argument.leading())
        argument, d = argument.affine(1 / size, 0), d + c * math.log(size)
        if _negligible(argument.constant, digits):
            argument.constant = 0.0
    elif name in ("sin", "cos"):
        name, argument, factor = _wave(name, argument, digits)
        function, c = get_function(name), c * factor
    elif function.power is not None:
        argument, factor = _homogeneous(function, argument, digits)
        c *= factor
    elif name in _ODD | _EVEN and argument.leading() < 0:
        argument, c = argument.affine(-1, 0), -c if name in _ODD else c
    term = function.expression(expression(argument, digits))
    return Linear(d + c * float(term)) if term.is_number else Linear(d, {term: c})


def _product(factors: list[Linear], digits: int | None) -> Linear:
    scale, expressions = 1.0, []
    for factor in factors:
        m = factor.leading()
        if not factor.terms or m == 0:
            scale *= factor.constant
            continue
        scale *= m
        inner = factor.affine(1 / m, 0)
        if _negligible(inner.constant, digits):
            inner.constant = 0.0
        expressions.append(expression(inner, digits))
    term = sympy.Mul(*expressions)
    return Linear(scale * float(term)) if term.is_number else Linear(0.0, {term: scale})


def linear_forms(model: KAN, inputs: Sequence[Linear], digits: int | None) -> list[Linear]:
    """The outputs as linear forms of terms; a numeric edge (l, i, j) appears as the function phi_l_i_j."""
    values = list(inputs)
    for number, layer in enumerate(model.layers):
        affine = layer.affine.detach().cpu().tolist()
        function, mask = layer.function.tolist(), layer.spline.mask.tolist()
        subnodes = []
        for j in range(layer.spline.out_features):
            total = Linear()
            for i, value in enumerate(values):
                if function[j][i] >= 0:
                    a, b, c, d = affine[j][i]
                    total.add(apply(get_function(function[j][i]), value.affine(a, b), c, d, digits))
                elif mask[j][i]:
                    phi = sympy.Function(f"phi_{number}_{i}_{j}")
                    total.add(Linear(0.0, {phi(expression(value, digits)): 1.0}))
            subnodes.append(total)
        products = [
            _product(subnodes[start : start + layer.arity], digits)
            for start in range(layer.n_sum, len(subnodes), layer.arity)
        ]
        values = [*subnodes[: layer.n_sum], *products]
    return values


def variable_names(model: KAN, variables: Sequence[str] | None) -> list[str]:
    """The given names, or x_1 ... x_n.

    Raises:
        ValueError: not one distinct name per input.
    """
    names = [f"x_{i + 1}" for i in range(model.nodes[0])] if variables is None else [str(v) for v in variables]
    if len(names) != model.nodes[0] or len(set(names)) != len(names):
        raise ValueError(f"variables={names}; expected {model.nodes[0]} distinct names")
    return names


def formula(
    model: KAN,
    variables: Sequence[str] | None = None,
    round: int | None = 4,  # noqa: A002  the issue's and pykan's word
    input_affine: Sequence[tuple[float, float]] | None = None,
    output_affine: Sequence[tuple[float, float]] | None = None,
) -> list[sympy.Expr]:
    """SymPy expression of each output.

    Constants are multiplied out of the functions that allow it (powers, exp, log, signs and phases of waves) before
    they are rounded. Numeric edges stay in the formula as undefined functions phi_l_i_j.

    Args:
        model: the network.
        variables: names of the inputs, x_1 ... x_n by default.
        round: decimals of the coefficients; None for all digits.
        input_affine: (scale, shift) per input: the network was given scale * x + shift.
        output_affine: (scale, shift) per output: the answer is scale * output + shift.

    Raises:
        ValueError: not one distinct name per input, or negative decimals.
    """
    if round is not None and round < 0:
        raise ValueError(f"round={round}; expected decimals of at least 0, or None")
    symbols = [sympy.Symbol(name) for name in variable_names(model, variables)]
    pairs = input_affine or [(1.0, 0.0)] * len(symbols)
    inputs = [Linear(shift, {symbol: scale}) for symbol, (scale, shift) in zip(symbols, pairs, strict=True)]
    outputs = linear_forms(model, inputs, round)
    pairs = output_affine or [(1.0, 0.0)] * len(outputs)
    return [expression(output.affine(*pair), round) for output, pair in zip(outputs, pairs, strict=True)]


def complexity(expressions: Sequence[Any]) -> int:
    """Nodes of the expression trees, PySR's measure."""
    return sum(1 for e in expressions for _ in sympy.preorder_traversal(e))
