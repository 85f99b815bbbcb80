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
    from .transfer import vit_to_karat as vit_to_karat
    from .transfer import vit_to_kat as vit_to_kat

__all__ = ["__version__", "models", "vit_to_karat", "vit_to_kat"]

if Path((sys.argv or [""])[0]).name not in ("kat-zoo", "kat-zoo.exe") and sys.orig_argv[1:3] != ["-m", "kat_zoo"]:
    from . import models as models

_get, _ = lazy(__name__, {"vit_to_karat": "transfer", "vit_to_kat": "transfer"})


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
