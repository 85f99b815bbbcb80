"""Operators of kat_zoo and their reference implementations; imports torch only (triton when the first CUDA tensor arrives)."""

from .fourier_attention import fourier_attention as fourier_attention
from .fourier_attention_reference import fourier_attention_reference as fourier_attention_reference
from .rational import rational as rational
from .rational_reference import rational_reference as rational_reference

__all__ = ["fourier_attention", "fourier_attention_reference", "rational", "rational_reference"]
