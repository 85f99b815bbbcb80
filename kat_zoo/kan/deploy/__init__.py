"""Trained networks and estimators as programs of their own: C, NumPy, torch, ONNX, int8 tables."""

from typing import TYPE_CHECKING

from ..._lazy import lazy

if TYPE_CHECKING:
    from .c import to_c as to_c
    from .int8 import to_int8 as to_int8
    from .program import to_numpy as to_numpy
    from .torch_module import to_onnx as to_onnx
    from .torch_module import to_torch as to_torch

__all__ = ["to_c", "to_int8", "to_numpy", "to_onnx", "to_torch"]

__getattr__, __dir__ = lazy(
    __name__,
    {"to_c": "c", "to_int8": "int8", "to_numpy": "program", "to_onnx": "torch_module", "to_torch": "torch_module"},
    extra="kan",
)
