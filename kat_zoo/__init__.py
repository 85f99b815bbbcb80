"""Kolmogorov-Arnold networks for vision and science: `import kat_zoo` registers every model with timm."""
