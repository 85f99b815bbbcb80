"""Launches of Triton kernels: at once, on the device of a tensor, or as nodes of the graph that torch.compile traces.

A compiled graph calls no Python of ours, with torch 2.14 or newer: up to then the operators stay nodes, for an older torch fails where it
looks into a kernel, at numbers that are 1. AOTAutograd traces an operator as one node; where it asks for the operator's parts, the host's
code runs once on tensors without numbers, and each launch becomes a node, as those of torch.library.triton_op do. The operators of CPUs
stay nodes, and so do all in the graphs of torch.export, which are of no device.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.library import Library, wrap_triton
from torch.torch_version import TorchVersion

from .dispatch import triton_module

TRACED_DEVICES = {"cuda", "xpu"} if TorchVersion(torch.__version__) >= "2.14" else set()


def launcher(kernel: Any, x: Tensor) -> Any:
    """Return a Triton kernel that is launched at once, or that becomes a node of the graph to which x belongs."""
    return wrap_triton(kernel) if isinstance(x, FunctionalTensor) else kernel


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context whose launches go to the device of x: Triton launches on the current device, which may be another than that of x.

    A compiled graph chooses the device itself.
    """
    if x.device.type == "cpu" or isinstance(x, FunctionalTensor):
        return contextlib.nullcontext()
    return torch.get_device_module(x.device).device(x.device)


def multiply_adds() -> dict[str, bool]:
    """Return the option with which a product and a sum become one instruction: none where it is the default, up to Triton 3.9.

    The graphs of torch before 2.14 take no option of a compiler.
    """
    from triton import knobs

    return {} if knobs.language.default_fp_fusion else {"enable_fp_fusion": True}


def register_traced(library: Library, name: str, launch: Callable[..., Any], module: str, float64: bool = True) -> None:
    """Make torch.compile see the kernels that an operator launches.

    Args:
        library: library that defines the operator.
        name: name of the operator.
        launch: implementation of the operator on GPUs.
        module: name of the module of Triton kernels that it needs.
        float64: whether there are kernels for float64.
    """

    def rule(mode: Any, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        exported = not torch._functorch.config.decompose_custom_triton_ops
        wanted = not exported and args[0].device.type in TRACED_DEVICES and (float64 or args[0].dtype != torch.float64)
        if not wanted or triton_module(module) is None:
            return mode.__torch_dispatch__(operator, types, args, kwargs)
        with mode:
            return launch(*args, **(kwargs or {}))

    torch.library.register_torch_dispatch(f"kat_zoo::{name}", FunctionalTensorMode, rule, lib=library)
