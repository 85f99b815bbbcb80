"""Sums of terms with their coefficients, the form in which a formula is gathered, and the digits that their numbers need."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import sympy

SIGNIFICANT = 12  # digits of a rounded number at most: a fit does not know more of a constant such as 8.99e9
PI_MULTIPLES = [
    sympy.Rational(p, q) for p, q in ((1, 4), (1, 3), (1, 2), (2, 3), (3, 4), (1, 1), (3, 2), (2, 1), (3, 1), (4, 1), (6, 1), (8, 1))
]
PI_WITHIN = 1e-5  # relative distance within which a number prints as a multiple of pi


@dataclass
class Linear:
    """A sum, constant + coefficient * term + ..., as a node computes it.

    Attributes:
        constant: the number without a term.
        terms: coefficient of each term.
        samples: values of each term at some points of the data, which say which digits matter.
    """

    constant: float = 0.0
    terms: dict[sympy.Expr, float] = field(default_factory=dict)
    samples: dict[sympy.Expr, np.ndarray] = field(default_factory=dict)

    def add(self, other: Linear) -> None:
        """Add another, in place."""
        self.constant += other.constant
        self.samples = other.samples | self.samples
        for term, coefficient in other.terms.items():
            self.terms[term] = self.terms.get(term, 0.0) + coefficient

    def affine(self, a: float, b: float) -> Linear:
        """The sum a * self + b."""
        return Linear(a * self.constant + b, {term: a * c for term, c in self.terms.items()}, self.samples)

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
        """The yardstick of an error in it: its spread or, in a function that is singular at 0, its smallest value.

        For a constant it is the constant's size; 0 where that is unknown.

        Args:
            singular: whether it is the argument of a function that is singular at 0.
        """
        values = np.abs(self.values())
        values = values[np.isfinite(values)]
        spread = self.spread() or float(values.max(initial=0.0))
        return min(spread, float(values.min(initial=spread))) if singular else spread

    def leading(self) -> float:
        """The largest coefficient of a term, 0 for a constant; of nearly equal ones the first."""
        largest = max((abs(c) for c in self.terms.values()), default=0.0)
        return next((c for c in self.terms.values() if abs(c) >= 0.999 * largest), 0.0)

    def to_sympy(self, digits: int | None, singular: bool = False) -> sympy.Expr:
        """SymPy expression of it with rounded numbers, a multiple of pi as such.

        There are more decimals where all numbers are small, or where a number's term is more than ten times larger than the
        spread of the sum, as a year is compared with a span of decades: an error in the last digit must stay small in the result.

        Args:
            digits: number of decimals; None for all digits.
            singular: whether it is the argument of a function that is singular at 0.
        """
        numbers = [self.constant, *self.terms.values()]
        if not all(map(math.isfinite, numbers)):
            return sympy.nan
        scale = max(map(abs, numbers))
        spread = self.scale(singular)

        def number(value: float, size: float) -> sympy.Expr:
            if digits is None or value == 0:
                return _number(value, None)
            decimals = _decimals(scale, digits)
            if spread and size:
                decimals = max(decimals, digits + math.floor(math.log10(size) - math.log10(spread)))
            decimals = min(decimals, SIGNIFICANT - 1 - math.floor(math.log10(abs(value))))
            angle = _multiple_of_pi(value, 0.5 * 10.0**-decimals)
            return _number(value, decimals) if angle is None else angle

        parts = [number(c, _size(self.samples[term])) * term for term, c in self.terms.items()]
        return sympy.Add(number(self.constant, 1.0), *parts)

    def negligible(self, value: float, digits: int | None, singular: bool = False) -> bool:
        """Whether a number is too small, as a part of this argument of a function, for the printed digits to show.

        Args:
            value: the number.
            digits: number of decimals; None for all digits.
            singular: whether the function is singular at 0.
        """
        return abs(value) < (1e-14 if digits is None else 0.5 * 10.0**-digits) * min(1.0, self.scale(singular) or 1.0)


def _decimals(scale: float, digits: int) -> int:
    """Decimals that leave `digits` of a number in [0.1, ...), more for smaller scales."""
    return digits if scale >= 0.1 or scale == 0 else digits - math.floor(math.log10(scale)) - 1


def _number(value: float, decimals: int | None) -> sympy.Expr:
    if decimals is not None:
        value = round(value, decimals)
    return sympy.Integer(int(value)) if value == int(value) and abs(value) < 1e15 else sympy.Float(value)


def _multiple_of_pi(value: float, most: float) -> sympy.Expr | None:
    """The multiple of pi that a number is, to `PI_WITHIN` and no farther from it than `most`, or None."""
    for factor in PI_MULTIPLES:
        multiple = float(factor) * math.pi
        if abs(abs(value) - multiple) <= min(PI_WITHIN * multiple, most):
            return sympy.pi * (factor if value > 0 else -factor)
    return None


def _size(values: np.ndarray) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
