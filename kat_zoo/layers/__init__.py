"""Layers of Kolmogorov-Arnold networks."""

from .gr_kan import GRKAN as GRKAN
from .rational import GroupRational as GroupRational
from .rational_fit import fit_rational as fit_rational
from .spline import KANLinear as KANLinear

__all__ = ["GRKAN", "GroupRational", "KANLinear", "fit_rational"]
