"""Layers of Kolmogorov-Arnold networks."""

from .gr_kan import GRKAN as GRKAN
from .learned_attention.attention import KArAtAttention as KArAtAttention
from .learned_attention.fourier import FourierHeads as FourierHeads
from .learned_attention.general_heads import GeneralHeads as GeneralHeads
from .mixers import KANMlp as KANMlp
from .rational import GroupRational as GroupRational
from .rational_fit import fit_rational as fit_rational
from .spline import KANLinear as KANLinear

__all__ = ["GRKAN", "FourierHeads", "GeneralHeads", "GroupRational", "KANLinear", "KANMlp", "KArAtAttention", "fit_rational"]


def __dir__() -> list[str]:
    return sorted(__all__)
