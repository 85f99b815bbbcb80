"""Units of a table, read by pint: dimensions, factors to base units, and constants with units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from ..search.dimensions import Dimension, Powers

EXTRA = "formula"


@dataclass
class Units:
    """Units of the inputs, of y and of named constants.

    Attributes:
        names: Names of the inputs and then of the constants: the quantities.
        dimensions: Dimension of each quantity.
        target: Dimension of y.
        factors: Unit of each quantity in base units; 1 for a constant, whose value is in base units.
        target_factor: Unit of y in base units.
        constants: Values of the constants in base units.
    """

    names: list[str]
    dimensions: list[Dimension]
    target: Dimension
    factors: np.ndarray
    target_factor: float
    constants: dict[str, float]
    _units: list[Any] = field(repr=False, default_factory=list)

    def with_constants(self, X: np.ndarray) -> np.ndarray:
        """X (N, inputs) and a column for each constant."""
        return np.column_stack([X, *(np.full(len(X), value) for value in self.constants.values())])

    def text(self, powers: Powers) -> str:
        """A product of powers of the units of the quantities and, last, of y, in words.

        Args:
            powers: The exponents.
        """
        unit = _registry().Unit("")
        for one, power in zip(self._units, powers, strict=True):
            unit = unit * one ** (int(power) if power.denominator == 1 else float(power))
        return f"{unit:~}".replace(" ", "")


def _registry() -> Any:
    try:
        import pint
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"units need {error.name}: pip install 'kat_zoo[{EXTRA}]'", name=error.name) from error
    registry: Any = pint.get_application_registry()  # type: ignore[no-untyped-call]
    return registry


def _parse(argument: str, text: Any, unit_only: bool) -> Any:
    """A pint quantity; of a unit it has the magnitude 1."""
    example = "'kg*m/s^2'" if unit_only else "a number and a unit, such as '9.81 m/s^2'"
    registry = _registry()
    try:
        if not isinstance(text, str):
            raise TypeError("not a string")
        quantity = registry.Quantity(text) if text.strip() else registry.Quantity(1.0)
        offset = registry.Quantity(0.0, quantity.units).to_base_units().magnitude
        value = float(quantity.to_base_units().magnitude) if not offset else math.nan
    except Exception as error:  # pint raises errors of the tokenizer, of Python's parser, of its own and of arithmetic
        raise ValueError(f"{argument}={text!r} ({error}): expected {'a unit, such as ' if unit_only else ''}{example}") from None
    if offset:
        raise ValueError(f"{argument}={text!r}: expected a unit whose zero is zero, such as kelvin")
    if not math.isfinite(value) or value == 0 or (unit_only and quantity.magnitude != 1):
        raise ValueError(f"{argument}={text!r}: expected {'a unit without a number, such as ' if unit_only else ''}{example}")
    return quantity


def _mapping(argument: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{argument}={value!r}: expected a dict of names and texts, such as {{'m': 'kg'}}")
    return {str(name): text for name, text in value.items()}


def _check_names(names: Sequence[str], units: dict[str, Any], constants: dict[str, Any]) -> None:
    missing = [name for name in names if name not in units]
    if missing:
        raise ValueError(f"units without {', '.join(map(repr, missing))}: expected one for each input, '1' where it has none")
    unknown = sorted(set(units) - set(names))
    if unknown:
        raise ValueError(f"units of {', '.join(map(repr, unknown))}: expected names of inputs, {', '.join(names)}")
    for name in constants:
        if name in names or not name.isidentifier():
            raise ValueError(f"constants[{name!r}]: expected a name that is an identifier and not one of an input")


def read_units(names: Sequence[str], units: Any, target: Any, constants: Any) -> Units:
    """Read the units of a table.

    Args:
        names: Names of the inputs.
        units: Unit of each input, as text; '1' for none.
        target: Unit of y.
        constants: Value and unit of each named constant, as text; None for no constants.

    Raises:
        ValueError: An input without a unit, a name that is not known, or a text that is not a unit.
        ModuleNotFoundError: pint is not installed.
    """
    given, known = _mapping("units", units), {} if constants is None else _mapping("constants", constants)
    _check_names(names, given, known)
    if target is None:
        raise ValueError("target_units=None: expected the unit of y, '1' for none, as units are given")
    columns = [_parse(f"units[{name!r}]", given[name], True) for name in names]
    named = [_parse(f"constants[{name!r}]", text, False) for name, text in known.items()]
    y = _parse("target_units", target, True)
    everything = [*columns, *named, y]
    bases = sorted({base for one in everything for base in one.dimensionality})
    dimensions = [tuple(Fraction(one.dimensionality.get(base, 0)).limit_denominator(60) for base in bases) for one in everything]
    values = {name: float(one.to_base_units().magnitude) for name, one in zip(known, named, strict=True)}
    return Units(
        [*names, *known],
        dimensions[:-1],
        dimensions[-1],
        np.array([float(one.to_base_units().magnitude) for one in columns] + [1.0] * len(named)),
        float(y.to_base_units().magnitude),
        values,
        [*(one.units for one in columns), *(one.to_base_units().units for one in named), y.units],
    )
