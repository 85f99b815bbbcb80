"""Kolmogorov-Arnold networks for vision and science: `import kat_zoo` registers every model with timm."""

from typing import TYPE_CHECKING, Any

from . import models as models
from ._lazy import lazy

if TYPE_CHECKING:
    __version__: str
    from .transfer import vit_to_karat as vit_to_karat
    from .transfer import vit_to_kat as vit_to_kat

__all__ = ["__version__", "models", "vit_to_karat", "vit_to_kat"]

_get, _ = lazy(__name__, {"vit_to_karat": "transfer", "vit_to_kat": "transfer"})


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kat_zoo")
    return _get(name)


def __dir__() -> list[str]:
    return sorted(__all__)
