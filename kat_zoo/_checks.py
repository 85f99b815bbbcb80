"""Checks of arguments, in one wording: `name=value: expected ...`. Each returns the value as plain Python, or raises ValueError.

NumPy's numbers are numbers here, and True and False are not.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

T = TypeVar("T", bound=str)
MOST_PORT = 65535  # of TCP


def is_integer(value: Any) -> bool:
    """Whether a value is an integer."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_count(value: Any, least: int = 1, most: int | None = None) -> bool:
    """Whether a value is an integer of at least `least` and, where it is given, at most `most`."""
    return is_integer(value) and least <= int(value) and (most is None or int(value) <= most)


def is_real(value: Any) -> bool:
    """Whether a value is a real number; NaN and infinity are."""
    return isinstance(value, Real) and not isinstance(value, bool)


def count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Check an integer.

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        least: Smallest value that is right.
        most: Largest value that is right; None for no limit.

    Raises:
        ValueError: Not an integer, or out of range.
    """
    if not is_count(value, least, most):
        high = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name}={value!r}: expected an integer of at least {least}{high}")
    return int(value)


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf, *, above: float | None = None) -> float:
    """Check a finite number.

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        least: Smallest value that is right.
        most: Largest value that is right.
        above: Number that the value must exceed.

    Raises:
        ValueError: Not a finite number, or out of range.
    """
    if is_real(value) and math.isfinite(value) and least <= value <= most and (above is None or value > above):
        return float(value)
    low = f" above {above:g}" if above is not None else f" of at least {least:g}" if least > -math.inf else ""
    high = f"{' and' if low else ' of'} at most {most:g}" if most < math.inf else ""
    raise ValueError(f"{name}={value!r}: expected a finite number{low}{high}")


def choice(name: str, value: T, choices: Iterable[str]) -> T:
    """Check a name.

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        choices: Values that are right.

    Raises:
        ValueError: Not one of them.
    """
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(choices)}")
    return value


def interval(name: str, value: Any) -> tuple[float, float]:
    """Check the two ends of an interval.

    Args:
        name: Name of the argument, for the message.
        value: Its value.

    Raises:
        ValueError: Not two finite numbers, the first below the second.
    """
    ends = tuple(value) if isinstance(value, Iterable) else ()
    if len(ends) != 2 or not all(map(is_real, ends)) or not -math.inf < ends[0] < ends[1] < math.inf:
        raise ValueError(f"{name}={value!r}: expected two finite numbers, the first below the second")
    return float(ends[0]), float(ends[1])


def order(name: str, value: Sequence[int], most: int = 8) -> tuple[int, int]:
    """Check the degrees (m, n) of a rational function P / Q.

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        most: Largest degree that the kernels compute.

    Raises:
        ValueError: Not two integers, m in 0..most and n in 1..most.
    """
    degrees = tuple(value) if isinstance(value, Iterable) else ()
    if len(degrees) != 2 or not (is_count(degrees[0], 0) and is_count(degrees[1]) and max(degrees) <= most):
        raise ValueError(f"{name}={value!r}: expected (m, n) with m in 0..{most} and n in 1..{most}")
    return int(degrees[0]), int(degrees[1])
