"""Model families, registered with timm when imported."""

from .karat import KArAt as KArAt
from .kat import KAT as KAT

__all__ = ["KAT", "KArAt"]
