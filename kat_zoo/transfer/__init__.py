"""Weights of a trained ViT in a KAT or a KArAt that computes the same."""

from .activations import vit_to_kat as vit_to_kat
from .attention import vit_to_karat as vit_to_karat

__all__ = ["vit_to_karat", "vit_to_kat"]


def __dir__() -> list[str]:
    return sorted(__all__)
