"""Numbers for JSON, which has no NaN and no infinity: None stands in their place, and the page shows a dash."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def finite(values: Any) -> list[float | None]:
    """Six digits of each number, None for NaN and infinity."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in np.asarray(values, dtype=float).ravel()]


def number(value: float) -> float | None:
    """Six digits of one number, None for NaN and infinity."""
    return finite([value])[0]


def known(value: Any) -> Any:
    """A value for JSON with None for each NaN and infinity in it.

    Args:
        value: dicts, lists, texts and numbers in any depth.
    """
    if isinstance(value, dict):
        return {key: known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
