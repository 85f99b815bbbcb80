"""Kolmogorov-Arnold networks for vision and science: `import kat_zoo` registers every model with timm."""

from typing import TYPE_CHECKING, Any

from . import models as models

if TYPE_CHECKING:
    __version__: str
    from .transfer.activations import vit_to_kat as vit_to_kat
    from .transfer.attention import vit_to_karat as vit_to_karat

__all__ = ["__version__", "models", "vit_to_karat", "vit_to_kat"]


def __getattr__(name: str) -> Any:
    if name == "vit_to_kat":
        from .transfer.activations import vit_to_kat

        return vit_to_kat
    if name == "vit_to_karat":
        from .transfer.attention import vit_to_karat

        return vit_to_karat
    if name == "__version__":
        from importlib.metadata import version

        return version("kat_zoo")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
