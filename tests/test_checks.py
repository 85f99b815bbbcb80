"""The checks of arguments: the values that pass, as plain Python, and one sentence for those that do not."""

import math

import numpy as np
import pytest

from kat_zoo import _checks


@pytest.mark.parametrize(
    "check, value, expected",
    [
        (_checks.count, np.int64(3), 3),
        (lambda n, v: _checks.count(n, v, 0), 0, 0),
        (lambda n, v: _checks.count(n, v, -2, 7), np.int8(7), 7),
        (_checks.real, np.float32(0.5), 0.5),
        (lambda n, v: _checks.real(n, v, 0, 1), 1, 1.0),
        (lambda n, v: _checks.choice(n, v, ("a", "b")), "b", "b"),
        (_checks.interval, [np.int8(-1), 2.5], (-1.0, 2.5)),
        (_checks.order, [np.int64(5), 4], (5, 4)),
    ],
)
def test_right_values_come_back_as_plain_python(check, value, expected):
    result = check("x", value)
    assert result == expected
    assert type(result) is type(expected)


COUNT, REAL = "an integer of at least 1", "a finite number"


@pytest.mark.parametrize(
    "check, value, sentence",
    [
        *[(_checks.count, value, COUNT) for value in (True, 0, -1, 1.0, "1", None, np.float64(2), np.True_)],
        *[(lambda n, v: _checks.count(n, v, 0, 7), value, "an integer of at least 0 and at most 7") for value in (-1, 8, 7.0)],
        *[(_checks.real, value, REAL) for value in (math.nan, math.inf, "1", None, True, 1j)],
        (lambda n, v: _checks.real(n, v, 0), -1, f"{REAL} of at least 0"),
        (lambda n, v: _checks.real(n, v, 0, 1), 2, f"{REAL} of at least 0 and at most 1"),
        (lambda n, v: _checks.real(n, v, most=1), 2, f"{REAL} of at most 1"),
        (lambda n, v: _checks.real(n, v, above=0), 0, f"{REAL} above 0"),
        *[(lambda n, v: _checks.choice(n, v, ("a", "b")), value, "one of a, b") for value in ("c", ["a"], None)],
        *[
            (_checks.interval, v, "two finite numbers, the first below the second")
            for v in (3, (1, 1), (0, math.inf), (0, 1, 2), (False, 2))
        ],
        *[(_checks.order, v, "(m, n) with m in 0..8 and n in 1..8") for v in (5, (5,), (9, 4), (5, 0), (5.0, 4), (True, 4), "54")],
    ],
)
def test_wrong_values_are_answered_in_one_form(check, value, sentence):
    with pytest.raises(ValueError) as error:
        check("x", value)
    assert str(error.value) == f"x={value!r}: expected {sentence}"
