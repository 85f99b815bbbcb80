"""Model families, registered with timm when imported."""

from .kat import KAT as KAT

__all__ = ["KAT"]
