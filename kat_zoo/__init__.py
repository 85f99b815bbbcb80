"""Kolmogorov-Arnold networks for vision and science: `import kat_zoo` registers every model with timm.

In the process of the command `kat-zoo` the models are registered when a subcommand needs them, so that its help and its errors do not
wait for torch.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._lazy import lazy

if TYPE_CHECKING:
    __version__: str
    from . import models as models
    from .transfer import to_kat as to_kat
    from .transfer import vit_to_karat as vit_to_karat
    from .transfer import vit_to_kat as vit_to_kat

__all__ = ["__version__", "models", "to_kat", "vit_to_karat", "vit_to_kat"]


def _register() -> None:
    """Register the models with timm.

    Raises:
        ImportError: the package was imported before in this process and taken out of sys.modules.
    """
    try:
        from . import models  # noqa: F401
    except RuntimeError as error:  # of torch.library, whose registrations outlive the modules that made them
        if "Tried to register an operator (kat_zoo::" not in str(error):
            raise
        raise ImportError(
            "kat_zoo was imported before in this process and removed from sys.modules, but its operators stay registered with torch: "
            "restart the process or the notebook's kernel"
        ) from error


if Path((sys.argv or [""])[0]).name not in ("kat-zoo", "kat-zoo.exe") and sys.orig_argv[1:3] != ["-m", "kat_zoo"]:
    _register()

_get, _ = lazy(__name__, {"to_kat": "transfer", "vit_to_karat": "transfer", "vit_to_kat": "transfer"})


def __getattr__(name: str) -> Any:
    if name == "models":
        from importlib import import_module

        return import_module(".models", __name__)
    if name == "__version__":
        from importlib.metadata import version

        return version("kat_zoo")
    return _get(name)


def __dir__() -> list[str]:
    return sorted(__all__)
