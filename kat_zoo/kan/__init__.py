"""Regression and symbolic Kolmogorov-Arnold networks."""

from typing import TYPE_CHECKING, Any

from .library import register_function as register_function
from .network import KAN as KAN

if TYPE_CHECKING:
    from .lan import LAN as LAN
    from .sklearn.classifier import KANClassifier as KANClassifier
    from .sklearn.regressor import KANRegressor as KANRegressor

__all__ = ["KAN", "LAN", "KANClassifier", "KANRegressor", "register_function"]


def __getattr__(name: str) -> Any:
    """Import what needs scikit-learn when it is asked for."""
    if name == "KANRegressor":
        from .sklearn.regressor import KANRegressor

        return KANRegressor
    if name == "KANClassifier":
        from .sklearn.classifier import KANClassifier

        return KANClassifier
    if name == "LAN":
        from .lan import LAN

        return LAN
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
