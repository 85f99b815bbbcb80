"""Model families, registered with timm when imported."""

from . import kan_vit as kan_vit
from .karat import KArAt as KArAt
from .kat import KAT as KAT

__all__ = ["KAT", "KArAt"]
