"""Operators of kat_zoo and their reference implementations; imports torch only (triton when the first CUDA tensor arrives)."""

from .bspline_op import bspline_basis as bspline_basis
from .bspline_op import spline_linear as spline_linear
from .bspline_torch import bspline_basis_reference as bspline_basis_reference
from .fourier_attention_op import fourier_attention as fourier_attention
from .fourier_attention_torch import fourier_attention_reference as fourier_attention_reference
from .rational_op import rational as rational
from .rational_torch import rational_reference as rational_reference

__all__ = [
    "bspline_basis",
    "bspline_basis_reference",
    "fourier_attention",
    "fourier_attention_reference",
    "rational",
    "rational_reference",
    "spline_linear",
]


def __dir__() -> list[str]:
    return sorted(__all__)
