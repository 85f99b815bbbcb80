"""Operators of kat_zoo and their reference implementations; imports torch only (triton when the first CUDA tensor arrives)."""

from .rational import rational as rational
from .rational_reference import rational_reference as rational_reference

__all__ = ["rational", "rational_reference"]
