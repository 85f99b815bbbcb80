"""Layers: group-rational activations, GR-KAN, Fourier attention, B-spline KAN."""

from .spline import KANLinear as KANLinear

__all__ = ["KANLinear"]
