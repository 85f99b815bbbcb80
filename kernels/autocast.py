"""Autocast and the operators: each computes in the precision it chooses, whatever autocast does to PyTorch's own.

Autocast acts on every matrix product that runs under it, those inside of an operator too: float32 partial results would become
bfloat16 in the middle of a kernel. So the first thing an operator does under autocast is to leave it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import Library

DEVICES = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA", "xpu": "AutocastXPU", "mps": "AutocastMPS"}


def _key_set(names: list[str]) -> Any:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, names[0]))
    for name in names[1:]:
        keys = keys | torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name))
    return keys


AUTOCAST = _key_set([*DEVICES.values(), "AutocastPrivateUse1"])


def register_autocast(library: Library, name: str, cast_first: bool = False) -> None:
    """Make an operator leave autocast before it runs, in the forward pass and in the backward pass.

    Args:
        library: library that defines the operator.
        name: name of the operator.
        cast_first: whether a float32 first argument is cast to autocast's dtype, as those of a matrix product are.
    """
    operator = getattr(torch.ops.kat_zoo, name).default

    def below(*args: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            return operator(*args)

    def casting(x: Tensor, *args: Any) -> Any:
        if x.dtype == torch.float32:
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return below(x, *args)

    for key in [*DEVICES.values(), "AutocastPrivateUse1"]:
        library.impl(name, casting if cast_first else below, key)
