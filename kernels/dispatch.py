"""Where an operator runs: the import of the Triton kernels, the device of a launch, the warning where there is no kernel."""

import contextlib
import functools
import importlib
import logging
from types import ModuleType

import torch
from torch import Tensor

logger = logging.getLogger("kat_zoo")


@functools.cache
def announce(operator: str, device: str) -> None:
    """Warn once that an operator has no kernel for tensors of a device."""
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


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context whose launches go to the device of x: Triton launches on the current device, which may be another than that of x."""
    return contextlib.nullcontext() if x.device.type == "cpu" else torch.get_device_module(x.device).device(x.device)
