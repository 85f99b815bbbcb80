"""Regression and symbolic Kolmogorov-Arnold networks."""
