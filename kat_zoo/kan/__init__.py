"""Regression and symbolic Kolmogorov-Arnold networks."""

from typing import TYPE_CHECKING

from .._lazy import lazy
from .library import register_function as register_function
from .network import KAN as KAN

if TYPE_CHECKING:
    from .formula.compiler import from_formula as from_formula
    from .lan import LAN as LAN
    from .sklearn.classifier import KANClassifier as KANClassifier
    from .sklearn.regressor import KANRegressor as KANRegressor

__all__ = ["KAN", "LAN", "KANClassifier", "KANRegressor", "from_formula", "register_function"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "register_function": "library",
        "KAN": "network",
        "from_formula": "formula.compiler",
        "LAN": "lan",
        "KANClassifier": "sklearn.classifier",
        "KANRegressor": "sklearn.regressor",
    },
)
