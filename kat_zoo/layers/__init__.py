"""Layers: group-rational activations, GR-KAN, Fourier attention, B-spline KAN."""
