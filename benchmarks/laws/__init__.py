"""Forty laws of physics, chemistry and biology with real ranges: name -> (formula, {input: (unit, low, high, sampling)}, source)."""

from .biology import LAWS as BIOLOGY
from .chemistry import LAWS as CHEMISTRY
from .physics import LAWS as PHYSICS

LAWS = PHYSICS | CHEMISTRY | BIOLOGY
