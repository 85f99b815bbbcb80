"""Formulas: a network as SymPy expressions with constants gathered, so that a true 1 prints as 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy
import torch

from ..library import Function, get_function
from ..network import KAN
from .export import to_numpy

POINTS = 200  # of the data, at which terms are evaluated
OUTSIDE = 30.0  # c exp(x + b) is a multiple of exp(x) while |log c + b| is smaller: 3 exp(1000 - x / 2) has no such factor
SIGNIFICANT = 12  # digits of a rounded number at most: a fit does not know more of a constant such as 8.99e9
LARGEST = 700.0  # exponent of a number in double precision
_ODD = {"sin", "tan", "tanh", "arcsin", "arctan", "arctanh", "erf", "sinh", "J1"}
_EVEN = {"cos", "gaussian", "J0", "cosh"}


@dataclass
class Linear:
    """constant + sum of coefficient * term; what a node computes.

    `samples` holds the terms' values at some points of the data: they say which digits matter.
    """

    constant: float = 0.0
    terms: dict[sympy.Expr, float] = field(default_factory=dict)
    samples: dict[sympy.Expr, np.ndarray] = field(default_factory=dict)

    def add(self, other: Linear) -> None:
        """Add another."""
        self.constant += other.constant
        self.samples = other.samples | self.samples
        for term, coefficient in other.terms.items():
            self.terms[term] = self.terms.get(term, 0.0) + coefficient

    def affine(self, a: float, b: float) -> Linear:
        """A * self + b."""
        return Linear(a * self.constant + b, {term: a * coefficient for term, coefficient in self.terms.items()}, self.samples)

    def values(self) -> np.ndarray:
        """Its values at the points, NaN where a function is undefined."""
        with np.errstate(all="ignore"):
            return np.asarray(self.constant + sum(c * self.samples[term] for term, c in self.terms.items()))

    def spread(self) -> float:
        """Standard deviation of its values, 0 where it is a constant or unknown."""
        values = self.values()
        values = values[np.isfinite(values)]
        with np.errstate(all="ignore"):
            spread = float(values.std()) if values.size > 1 else 0.0
        return spread if math.isfinite(spread) else 0.0

    def scale(self, singular: bool) -> float:
        """What an error of it is measured by: its spread or, in a function that is singular at 0, its smallest value.

        Of what does not vary that is its value; 0 where that is unknown.
        """
        values = np.abs(self.values())
        values = values[np.isfinite(values)]
        spread = self.spread() or float(values.max(initial=0.0))
        return min(spread, float(values.min(initial=spread))) if singular else spread

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


def expression(linear: Linear, digits: int | None, singular: bool = False) -> sympy.Expr:
    """SymPy expression; `digits` decimals, None for all digits; `singular` as in `Linear.scale`.

    More decimals where all numbers are small, or where what a number multiplies is more than ten times larger than the whole
    varies, as a year is than what happens within decades: an error of a digit has to be one of the result.
    """
    numbers = [linear.constant, *linear.terms.values()]
    if not all(map(math.isfinite, numbers)):
        return sympy.nan
    scale = max(map(abs, numbers))
    spread = linear.scale(singular)

    def number(value: float, size: float) -> sympy.Expr:
        if digits is None or value == 0:
            return _number(value, None)
        decimals = _decimals(scale, digits)
        if spread and size:
            decimals = max(decimals, digits + math.floor(math.log10(size) - math.log10(spread)))
        return _number(value, min(decimals, SIGNIFICANT - 1 - math.floor(math.log10(abs(value)))))

    parts = [number(c, _size(linear.samples[term])) * term for term, c in linear.terms.items()]
    return sympy.Add(number(linear.constant, 1.0), *parts)


def _size(values: np.ndarray) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _negligible(linear: Linear, value: float, digits: int | None, singular: bool = False) -> bool:
    """Whether a part of a function's argument is smaller than what the printed digits say of it."""
    return abs(value) < (1e-14 if digits is None else 0.5 * 10.0**-digits) * min(1.0, linear.scale(singular) or 1.0)


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
    if _negligible(inner, inner.constant, digits, singular=p < 0):
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
    argument = argument.affine(1, phase - argument.constant)
    if _negligible(argument, phase, digits):
        return "sin", argument.affine(1, -phase), factor
    if _negligible(argument, abs(phase) - math.pi / 2, digits):
        return "cos", argument.affine(1, -phase), factor * math.copysign(1, phase)
    return "sin", argument, factor


def apply(function: Function, argument: Linear, c: float, d: float, digits: int | None) -> Linear:
    """C f(argument) + d as a linear form whose terms carry no needless constants."""
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
        if _negligible(argument, argument.constant, digits, singular=True):
            argument.constant = 0.0
    elif name in ("sin", "cos"):
        name, argument, factor = _wave(name, argument, digits)
        function, c = get_function(name), c * factor
    elif function.power is not None:
        argument, factor = _homogeneous(function, argument, digits)
        c *= factor
    elif name in _ODD | _EVEN and argument.leading() < 0:
        argument, c = argument.affine(-1, 0), -c if name in _ODD else c
    term = function.expression(expression(argument, digits, singular=name == "log" or (function.power or 0) < 0))
    if term.is_number:
        return Linear(d + c * float(term))
    return Linear(d, {term: c}, {term: _evaluate(function, argument.values())})


def _evaluate(function: Function, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return function.torch(torch.from_numpy(x).double()).numpy()


def _product(factors: list[Linear], digits: int | None) -> Linear:
    scale, expressions, values = 1.0, [], np.ones(())
    for factor in factors:
        m = factor.leading()
        if not factor.terms or m == 0:
            scale *= factor.constant
            continue
        scale *= m
        inner = factor.affine(1 / m, 0)
        if _negligible(inner, inner.constant, digits):
            inner.constant = 0.0
        expressions.append(expression(inner, digits))
        values = values * inner.values()
    term = sympy.Mul(*expressions)
    return Linear(scale * float(term)) if term.is_number else Linear(0.0, {term: scale}, {term: values})


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
                    phi = sympy.Function(f"phi_{number}_{i}_{j}")(expression(value, digits))
                    total.add(Linear(0.0, {phi: 1.0}, {phi: _edge_values(model, (number, i, j), value.values())}))
            subnodes.append(total)
        products = [_product(subnodes[start : start + layer.arity], digits) for start in range(layer.n_sum, len(subnodes), layer.arity)]
        values = [*subnodes[: layer.n_sum], *products]
    return values


def _edge_values(model: KAN, edge: tuple[int, int, int], x: np.ndarray) -> np.ndarray:
    return model.edge(*edge)[0](x)[0 if x.ndim == 0 else slice(None)].double().cpu().numpy()


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
    round: int | None = 4,
    X: Any = None,
    *,
    input_affine: Sequence[tuple[float, float]] | None = None,
    output_affine: Sequence[tuple[float, float]] | None = None,
) -> list[sympy.Expr]:
    """SymPy expression of each output.

    Constants are multiplied out of the functions that allow it (powers, exp, log, signs and phases of waves) before
    they are rounded. Numeric edges stay in the formula as undefined functions phi_l_i_j.

    Numbers have more decimals than asked for where inputs or terms are so small or large that these would not say what the
    network computes: 1e-6 x where x goes to 1e6.

    Args:
        model: the network.
        variables: names of the inputs, x_1 ... x_n by default.
        round: decimals of the coefficients; None for all digits.
        X: (N, inputs) samples that say how large the inputs are; the range of the first layer's grids by default.
        input_affine: (scale, shift) per input: the network was given scale * x + shift.
        output_affine: (scale, shift) per output: the answer is scale * output + shift.

    Raises:
        ValueError: not one distinct name per input, negative decimals, or X of another shape or not finite.
    """
    if round is not None and round < 0:
        raise ValueError(f"round={round}; expected decimals of at least 0, or None")
    symbols = [sympy.Symbol(name) for name in variable_names(model, variables)]
    pairs = input_affine or [(1.0, 0.0)] * len(symbols)
    points = _points(model, X)
    inputs = [
        Linear(shift, {symbol: scale}, {symbol: (x - shift) / scale})
        for symbol, (scale, shift), x in zip(symbols, pairs, points.T, strict=True)
    ]
    outputs = linear_forms(model, inputs, round)
    outputs = [output.affine(*pair) for output, pair in zip(outputs, output_affine or [(1.0, 0.0)] * len(outputs), strict=True)]
    for output in outputs:
        if round is not None and abs(output.constant) < 1e-14 * output.spread():
            output.constant = 0.0  # what a sum in double precision leaves
    return [expression(output, round) for output in outputs]


def _points(model: KAN, X: Any) -> np.ndarray:
    if X is not None:
        X = model.tensor(X)
        if X.shape[1] != model.nodes[0] or not len(X) or not bool(torch.isfinite(X).all()):
            raise ValueError(f"X has shape {tuple(X.shape)}; expected finite samples of {model.nodes[0]} inputs")
        return X[:: max(1, len(X) // POINTS)].double().cpu().numpy()
    spline = model.layers[0].spline
    k = spline.spline_order
    low, high = spline.knots[:, k].cpu().numpy(), spline.knots[:, -k - 1].cpu().numpy()
    return low + (high - low) * np.random.default_rng(0).random((POINTS, len(low)))


def faithful(expressions: Sequence[sympy.Expr], variables: Sequence[str], X: np.ndarray, y: np.ndarray) -> bool:
    """Whether formulas give y (N, outputs) at X (N, inputs) to a part in a thousand of its spread; numeric edges are taken on trust."""
    for expression_, target in zip(expressions, y.T, strict=True):
        if expression_.atoms(sympy.core.function.AppliedUndef):
            continue
        with np.errstate(all="ignore"):
            error = np.abs(to_numpy(expression_, variables)(*X.T) - target)
        spread, size = target.std(), np.abs(target).max()
        if not np.sqrt(np.mean(error**2)) <= 1e-3 * (spread if spread > 1e-9 * size else size):  # a constant's is its rounding
            return False
    return True


def complexity(expressions: Sequence[Any]) -> int:
    """Nodes of the expression trees, PySR's measure."""
    return sum(1 for e in expressions for _ in sympy.preorder_traversal(e))
