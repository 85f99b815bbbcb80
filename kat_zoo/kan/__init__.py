"""Regression and symbolic Kolmogorov-Arnold networks."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .lan import LAN as LAN
    from .library import register_function as register_function
    from .model import KAN as KAN
    from .model import from_formula as from_formula
    from .sklearn.classifier import KANClassifier as KANClassifier
    from .sklearn.regressor import KANRegressor as KANRegressor

__all__ = ["KAN", "LAN", "KANClassifier", "KANRegressor", "from_formula", "register_function"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "KAN": "model",
        "KANClassifier": "sklearn.classifier",
        "KANRegressor": "sklearn.regressor",
        "LAN": "lan",
        "from_formula": "model",
        "register_function": "library",
    },
    extra="kan",
)
