"""Forty laws of physics, chemistry and biology with real ranges.

Each entry is name -> (formula, {input: (unit, low, high, sampling)}, unit of the value, source).
"""

from .biology import LAWS as BIOLOGY
from .chemistry import LAWS as CHEMISTRY
from .law import Law, known_constants
from .physics import LAWS as PHYSICS

_SAMPLING = {"uniform": "uni", "log": "log", "integer": "int"}

LAWS = {
    name: Law(
        formula,
        {symbol: (low, high, _SAMPLING[kind], "pos") for symbol, (_, low, high, kind) in inputs.items()},
        {symbol: unit for symbol, (unit, *_) in inputs.items()},
        target,
        known_constants(formula),
        source=source,
    )
    for name, (formula, inputs, target, source) in (PHYSICS | CHEMISTRY | BIOLOGY).items()
}
