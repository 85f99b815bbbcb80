"""The values that the numbers of a recipe may have, as a table of intervals, and the check of a recipe against it."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

from kat_zoo._checks import is_real

RATE = re.compile(r"(?:.*\.)?\w*drop\w*_rate")  # of a model's kwargs: timm finds out in the first update, or never
INTERVAL = re.compile(r"([\[(])(.+), (.+)([\])])")


def check_ranges(recipe: Any, ranges: Mapping[str, str]) -> None:
    """Check every number of a recipe.

    Args:
        recipe: a dataclass, nested or not.
        ranges: key -> interval, as `(0, 1]`, of a number or of each number of a tuple; None is right where a setting may be None.

    Raises:
        ValueError: a number that is NaN or infinite, or outside its interval, or a rate of dropout that is none; for the first such, with
            its key.
    """
    for key, value in numbers(recipe):
        if not math.isfinite(value):
            raise ValueError(f"{key}={value}: expected a finite number")
        if RATE.fullmatch(key) and not 0 <= value < 1:
            raise ValueError(f"{key}={value}: expected a number in [0, 1)")
    for key, interval in ranges.items():
        found: Any = attrgetter(key)(recipe)
        several = isinstance(found, (tuple, list))
        if not all(one is None or contains(interval, one) for one in (found if several else [found])):
            raise ValueError(f"{key}={found!r}: expected {'numbers' if several else 'a number'} in {interval}")


def contains(interval: str, value: float) -> bool:
    """Whether an interval as `[0, 1)` or `(0, inf)` contains a number."""
    match = INTERVAL.fullmatch(interval)
    if match is None:
        raise ValueError(f"interval={interval!r}: expected one such as [0, 1)")
    low, high = float(match[2]), float(match[3])
    return (value >= low if match[1] == "[" else value > low) and (value <= high if match[4] == "]" else value < high)


def numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """(key, number) of every number in a dataclass, its dicts and its sequences."""
    if dataclasses.is_dataclass(value):
        parts = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        parts = [(str(name), part) for name, part in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [("", part) for part in value]
    else:
        parts = []
        if is_real(value):
            yield key, value
    for name, part in parts:
        yield from numbers(part, ".".join(filter(None, (key, name))))
