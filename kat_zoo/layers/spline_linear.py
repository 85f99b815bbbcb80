"""`SplineLinear`: a `KANLinear` as a plain layer of a vision model, which TorchScript and torch.fx take."""

from typing import Any

import torch
from timm.models._features_fx import register_notrace_function
from torch import Tensor

from kat_zoo.kernels import spline_linear

from .._checks import count
from ..kernels.bspline_op import MAX_SPLINE_ORDER
from .spline import KANLinear, uniform_knots


@torch.fx.wrap
@register_notrace_function
def spline_rows(x: Tensor, knots: Tensor, coef: Tensor, spline_order: int) -> Tensor:
    """Map (..., C_in) to (..., C_out) through the operator, which takes rows; 16-bit types are computed in float32."""
    if x.dim() < 1 or x.shape[-1] != coef.shape[0]:
        raise ValueError(f"x of shape {x.shape}: expected (..., {coef.shape[0]}), the layer's in_features last")
    dtype = torch.float64 if coef.dtype == torch.float64 else torch.float32
    rows = x.reshape(-1, x.shape[-1]).to(dtype)
    if not torch.jit.is_scripting():  # TorchScript calls registered operators, but not Python functions
        rows = spline_linear(rows, knots, coef.to(dtype), spline_order)
    else:
        rows = torch.ops.kat_zoo.spline_contract(rows, knots, coef.to(dtype), None, spline_order, 0)
    return rows.to(x.dtype).reshape(x.shape[:-1] + rows.shape[-1:])


class SplineLinear(KANLinear):
    """A `KANLinear` without base branch, on a fixed grid that the state dict leaves out; scriptable and traceable.

    Args:
        in_features: number C_in of inputs.
        out_features: number C_out of outputs.
        num_bases: number of B-splines per edge, at least spline_order + 1.
        spline_order: degree of the pieces, 0 to 7.
        grid_range: (low, high) of the grid; splines continue linearly outside.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        ValueError: too few bases, or an argument that `KANLinear` refuses.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_bases: int = 8,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-2.0, 2.0),
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        spline_order = count("spline_order", spline_order, 0, MAX_SPLINE_ORDER)
        num_bases = count("num_bases", num_bases, spline_order + 1)
        super().__init__(
            in_features,
            out_features,
            num_bases - spline_order,
            spline_order,
            base="zero",
            grid_range=grid_range,
            device=device,
            dtype=dtype,
        )
        for name in ("knots", "mask"):
            self.register_buffer(name, getattr(self, name), persistent=False)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new splines, and build the grid again (after device='meta' it holds nothing)."""
        super().reset_parameters(generator)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Build the grid, which the state dict leaves out.

        timm calls this after it has loaded weights into a model from the meta device.
        """
        for name in ("knots", "mask"):
            buffer = getattr(self, name)
            if buffer.device != self.coef.device:  # still on meta, where load_state_dict(assign=True) leaves it
                setattr(self, name, torch.empty_like(buffer, device=self.coef.device))
        low, high = (torch.full((self.in_features,), end, dtype=torch.float64) for end in self.grid_range)
        self.knots.copy_(uniform_knots(self.grid_size, self.spline_order, low, high))
        self.mask.fill_(1)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if not self.coef.is_meta:  # after to_empty() the grid is as arbitrary as the weights were
            self.init_non_persistent_buffers()

    def set_mask(self, mask: Tensor) -> None:
        """Refuse a mask, which would not be saved.

        Raises:
            ValueError: always.
        """
        raise ValueError("mask of a SplineLinear: expected a KANLinear, as the state dict of a SplineLinear has no mask")

    def set_grid(self, knots: Tensor, coef: Tensor) -> None:
        """Refuse a grid, which would not be saved.

        Raises:
            ValueError: always.
        """
        raise ValueError("grid of a SplineLinear: expected a KANLinear, as the state dict of a SplineLinear has no knots")

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C_in) to (..., C_out)."""
        return spline_rows(x, self.knots, self.coef, self.spline_order)
