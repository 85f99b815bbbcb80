"""Model families, registered with timm when imported."""

from . import kat_of_vit as kat_of_vit
from .kan_mlp import PixelClassifier as PixelClassifier
from .kan_vit import MixerViT as MixerViT
from .karat import KArAt as KArAt
from .kat import KAT as KAT
from .kat_mixer import KATMixer as KATMixer

__all__ = ["KAT", "KATMixer", "KArAt", "MixerViT", "PixelClassifier"]


def __dir__() -> list[str]:
    return sorted(__all__)
