"""Weights of a trained ViT in a KAT or a KArAt that computes the same."""

from .activations import vit_to_kat as vit_to_kat
from .attention import vit_to_karat as vit_to_karat
