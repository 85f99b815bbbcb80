"""The way to Triton, and what is said where an operator has no kernel."""

import functools
import importlib
import logging
from types import ModuleType

logger = logging.getLogger("kat_zoo")


@functools.cache
def announce(operator: str, device: str) -> None:
    """Say once that an operator has no kernel for tensors of a device."""
    logger.warning("kat_zoo: no kernel for %s tensors; %s runs in plain PyTorch, which is slower.", device, operator)


@functools.cache
def triton_module(name: str) -> ModuleType | None:
    """Import one of the modules of Triton kernels: when the first GPU tensor arrives, never before; None without triton."""
    try:
        return importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return None
