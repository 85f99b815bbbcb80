"""Tables of numbers as tensors, and the base of the networks that map one table to another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn


def as_table(x: Any, dtype: torch.dtype, device: torch.device, name: str = "X") -> Tensor:
    """Array-like (N, C) as a tensor.

    Args:
        x: array, data frame, nested list or tensor; a Series is one column.
        dtype: type of the result.
        device: device of the result.
        name: name of the argument, for the message.

    Raises:
        ValueError: not two dimensions, or not numbers.
    """
    if not isinstance(x, Tensor):
        try:
            x = np.array(x.to_frame() if hasattr(x, "to_frame") and not hasattr(x, "columns") else x, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected a table of numbers ({error})") from error
    if x.ndim != 2:
        hint = f"; {name}[:, None] makes one column of a vector" if x.ndim == 1 else ""
        raise ValueError(f"{name} of shape {tuple(x.shape)}: expected a table (samples, columns){hint}")
    return torch.as_tensor(x, dtype=dtype, device=device)


class TableModule(nn.Module, ABC):
    """A network from (N, inputs) to (N, outputs) whose parameters have one dtype and one device."""

    if TYPE_CHECKING:  # nn.Module's own is Any

        def __call__(self, x: Tensor) -> Tensor:
            """Map (..., inputs) to (..., outputs)."""

    @property
    @abstractmethod
    def nodes(self) -> list[int]:
        """Number of nodes of each layer, inputs first."""

    @property
    @abstractmethod
    def grid_size(self) -> int:
        """Intervals of the splines; those of the first layer where layers differ."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def tensor(self, x: Any, name: str = "X") -> Tensor:
        """Array-like (N, C) as a tensor of the network's dtype and device; `name` is for errors."""
        return as_table(x, self.dtype, self.device, name)
