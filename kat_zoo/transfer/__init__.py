"""Weights of a trained model in a KAT or a KArAt that computes the same."""

from .activations import vit_to_kat as vit_to_kat
from .attention import vit_to_karat as vit_to_karat
from .mlps import to_kat as to_kat

__all__ = ["to_kat", "vit_to_karat", "vit_to_kat"]


def __dir__() -> list[str]:
    return sorted(__all__)
