"""Weights that come from a file: the one check of them before they are copied into a model, and parameters that take their shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def check_weights(given: Mapping[str, Any], wanted: Mapping[str, Tensor], place: str) -> None:
    """Check values that torch would convert in silence: `load_state_dict` turns integers to floats and 1e300 to infinity.

    Names and shapes are left to `load_state_dict`; names that are not wanted are not looked at.

    Args:
        given: weights by name.
        wanted: tensors that they are for, by name; on any device, meta too.
        place: file that the weights come from, for the message.

    Raises:
        ValueError: not a tensor, numbers of another kind, NaN, infinity, or a number beyond the range of the wanted dtype; it names
            the tensor and the value.
    """
    for name in given.keys() & wanted.keys():
        tensor, dtype = given[name], wanted[name].dtype
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{place}: {name}={str(tensor)[:40]}: expected a tensor")
        if _kind(tensor.dtype) != _kind(dtype):
            raise ValueError(f"{place}: {name} of dtype {_short(tensor.dtype)}: expected {_kind(dtype)}, as {_short(dtype)}")
        if not dtype.is_floating_point or tensor.is_meta:
            continue
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{place}: {_first(name, tensor, ~tensor.isfinite())}: expected finite numbers")
        if torch.finfo(tensor.dtype).max > torch.finfo(dtype).max and not bool((fits := tensor.to(dtype).isfinite()).all()):
            raise ValueError(f"{place}: {_first(name, tensor, ~fits)}: expected numbers in the range of {_short(dtype)}")


def _kind(dtype: torch.dtype) -> str:
    """Kind of numbers of a dtype; those of one kind are converted to each other."""
    if dtype.is_complex:
        return "complex numbers"
    if dtype.is_floating_point:
        return "floating-point numbers"
    return "booleans" if dtype is torch.bool else "integers"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first(name: str, tensor: Tensor, wrong: Tensor) -> str:
    """`name[i, j]=value` of the first element that is wrong."""
    position = wrong.nonzero()[0].tolist()
    return f"{name}{position if position else ''}={float(tensor[tuple(position)]):g}"


def grow(parameter: nn.Parameter, shape: Sequence[int]) -> None:
    """Give a parameter another shape, and no values; it stays the same object, so that an optimizer goes on with it.

    An optimizer that has made a step keeps averages of the old shape, and raises at the next one.

    Args:
        parameter: parameter that is about to be loaded.
        shape: its new shape.
    """
    parameter.data = parameter.data.new_empty(shape)
    parameter.grad = None
