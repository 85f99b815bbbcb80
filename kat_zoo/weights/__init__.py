"""Weights and sample images that ship with the package."""
