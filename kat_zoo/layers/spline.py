"""KANLinear: a layer of learnable one-dimensional functions, base(x) + B-spline, one per input and output."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .._checks import choice, count, interval, real
from .._weights import grow
from ..kernels.bspline_op import MAX_SPLINE_ORDER, bspline_basis, spline_linear

BASES: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "identity": lambda x: x,
    "sin": torch.sin,
    "zero": torch.zeros_like,
}


Self = TypeVar("Self", bound="KANLinear")


def check_base(base: Any) -> None:
    """Raise ValueError unless base is a name of `BASES` or a callable."""
    if base not in BASES if isinstance(base, str) else not callable(base):
        raise ValueError(f"base={base!r}: expected one of {', '.join(BASES)}, or a callable")


def uniform_knots(grid_size: int, spline_order: int, low: Tensor, high: Tensor) -> Tensor:
    """Return uniform knots on an interval, extended by k = spline_order further steps on each side.

    Args:
        grid_size: number G of intervals.
        spline_order: degree k of the pieces.
        low: (C,) left ends of the intervals.
        high: (C,) right ends.

    Returns:
        (C, G + 2 k + 1).
    """
    steps = torch.arange(-spline_order, grid_size + spline_order + 1, dtype=low.dtype, device=low.device)
    return low[:, None] + (high - low)[:, None] * steps / grid_size


class KANLinear(nn.Module):
    """y_o = sum_i base_weight[o, i] * base(x_i) + spline_{i,o}(x_i), a layer of a Kolmogorov-Arnold network.

    Liu et al., KAN (arXiv 2404.19756), equations 2.10 to 2.12; their scale of the spline is absorbed in its
    coefficients.

    Args:
        in_features: number C_in of inputs.
        out_features: number C_out of outputs.
        grid_size: number G of intervals of the grid.
        spline_order: degree k of the pieces, 0 to 7.
        base: name "silu", "identity", "sin" or "zero", or a callable applied elementwise.
        grid_range: (low, high) of the initial uniform grid; all inputs start with it, and grid updates then move the knots of each.
        extrapolate: "linear" or "zero" outside the grid, as in `kat_zoo.kernels.bspline_basis`.
        noise_scale: standard deviation of a spline's initial values.
        generator: source of the initial values; torch's global one by default.
        device: device of parameters and buffers.
        dtype: dtype of the parameters; float32, float64, bfloat16 or float16.

    Attributes:
        coef: (C_in, G + k, C_out) spline coefficients.
        base_weight: (C_out, C_in) weights of base(x); None where base is "zero".
        knots: (C_in, G + 2 k + 1) buffer, one knot vector per input, float64 whatever the parameters' dtype.
        mask: (C_out, C_in) buffer, 0 for a pruned edge.

    Raises:
        ValueError: a size, degree, base, range or dtype that does not fit.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        *,
        base: str | Callable[[Tensor], Tensor] = "silu",
        grid_range: tuple[float, float] = (-1.0, 1.0),
        extrapolate: str = "linear",
        noise_scale: float = 0.1,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"dtype={dtype}: expected a floating-point type, such as torch.float32")
        check_base(base)
        in_features, out_features = count("in_features", in_features), count("out_features", out_features)
        grid_size, spline_order = count("grid_size", grid_size), count("spline_order", spline_order, 0, MAX_SPLINE_ORDER)
        ends = interval("grid_range", grid_range)
        self.in_features, self.out_features, self.spline_order, self.base = in_features, out_features, spline_order, base
        self.extrapolate = choice("extrapolate", extrapolate, ("linear", "zero"))
        self.noise_scale = real("noise_scale", noise_scale, 0)
        self.grid_range = ends
        kwargs: dict[str, Any] = {"device": device, "dtype": dtype}
        self.coef = nn.Parameter(torch.empty(in_features, grid_size + spline_order, out_features, **kwargs))
        self.base_weight = None if base == "zero" else nn.Parameter(torch.empty(out_features, in_features, **kwargs))
        low, high = (torch.full((in_features,), end, dtype=torch.float64, device=device) for end in ends)
        self.knots: Tensor
        self.mask: Tensor
        self.register_buffer("knots", uniform_knots(grid_size, spline_order, low, high))
        self.register_buffer("mask", torch.ones(out_features, in_features, **kwargs))
        self._masked = False  # whether an edge may be pruned, on the host, so that the common case costs nothing
        self._mask_seen = (0, -1)  # identity and version of the mask that this was read from
        self.reset_parameters(generator)

    @property
    def grid_size(self) -> int:
        """Number G of intervals of the grid."""
        return self.coef.shape[1] - self.spline_order

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new splines (values of standard deviation noise_scale) and base weights (uniform, 1 / sqrt(C_in)).

        The grid becomes the uniform one again, and no edge is pruned: after device="meta" they hold nothing.
        """
        low, high = (torch.full((self.in_features,), end, dtype=torch.float64, device=self.knots.device) for end in self.grid_range)
        with torch.no_grad():
            self.knots.copy_(uniform_knots(self.grid_size, self.spline_order, low, high))
            self.mask.fill_(1.0)
            self._read_mask()
            self.coef.normal_(0, self.noise_scale / math.sqrt(self.in_features), generator=generator)
            if self.base_weight is not None:
                bound = 1 / math.sqrt(self.in_features)
                self.base_weight.uniform_(-bound, bound, generator=generator)

    def base_values(self, x: Tensor) -> Tensor:
        """Return base(x), elementwise."""
        return BASES[self.base](x) if isinstance(self.base, str) else self.base(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C_in) to (..., C_out)."""
        coef: Tensor = self.coef
        weight: Tensor | None = self.base_weight
        if self._is_masked():
            coef = coef * self.mask.T[:, None]
            weight = None if weight is None else weight * self.mask
        # Under autocast the splines stay in their parameters' precision, as norms do: an argument rounded to bfloat16 is another.
        z = x.to(coef.dtype) if torch.is_autocast_enabled(x.device.type) else x
        y = spline_linear(z, self.knots, coef, self.spline_order, extrapolate=self.extrapolate).to(x.dtype)
        return y if weight is None else y + nn.functional.linear(self.base_values(x), weight)

    def _is_masked(self) -> bool:
        """Whether an edge may be pruned; looked at anew where the mask was written, as averages of weights copy buffers."""
        mask = self.mask
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or mask.is_inference():
            return self._masked
        seen = (id(mask), mask._version)
        if seen == self._mask_seen:
            return self._masked
        if mask.device.type != "cpu" and seen[0] == self._mask_seen[0]:
            # Written on a GPU, as after every step of DDP, which sends buffers around: the host would have to wait for its values.
            self._masked, self._mask_seen = True, seen
        else:
            self._read_mask()
        return self._masked

    def basis(self, x: Tensor, derivative: int = 0) -> Tensor:
        """Return the functions that an edge combines: the B-splines, then base(x) where the layer has a base.

        Args:
            x: (..., C_in).
            derivative: number of derivatives that are taken, 0 or 1.

        Returns:
            (..., C_in, G + k) or, with a base, (..., C_in, G + k + 1).

        Raises:
            ValueError: another derivative.
        """
        if derivative not in (0, 1):
            raise ValueError(f"derivative={derivative!r}: expected 0 or 1")
        basis = bspline_basis(x, self.knots, self.spline_order, derivative, self.extrapolate)
        if self.base_weight is None:
            return basis
        base = self.base_values(x) if derivative == 0 else self._base_slopes(x)
        return torch.cat([basis, base.unsqueeze(-1)], -1)

    def _base_slopes(self, x: Tensor) -> Tensor:
        """The derivative of base(x), with a graph to x where there is one."""
        graph = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            z = x if graph else x.detach().requires_grad_()
            values = self.base_values(z)
            slopes = torch.autograd.grad(values.sum(), z, create_graph=graph, allow_unused=True) if values.requires_grad else (None,)
        return torch.zeros_like(x) if slopes[0] is None else slopes[0]

    def edges(self, x: Tensor) -> Tensor:
        """Return phi_{o,i}(x_i) of every edge: (N, C_in) to (N, C_out, C_in)."""
        values = torch.einsum("nij,ijo->noi", self.basis(x), self.weights())
        return values * self.mask

    def weights(self) -> Tensor:
        """Return the coefficients on `basis`, (C_in, functions, C_out), without the mask."""
        if self.base_weight is None:
            return self.coef
        return torch.cat([self.coef, self.base_weight.T.unsqueeze(1)], 1)

    def set_mask(self, mask: Tensor) -> None:
        """Replace the mask (C_out, C_in) of active edges.

        Raises:
            ValueError: another shape.
        """
        if mask.shape != self.mask.shape:
            raise ValueError(f"mask of shape {tuple(mask.shape)}: expected {tuple(self.mask.shape)}")
        self.mask.copy_(mask)
        self._read_mask()

    def _read_mask(self) -> None:
        mask = self.mask
        if type(mask) is not Tensor or mask.is_meta:  # without values
            return
        self._masked = not bool((mask == 1).all())
        self._mask_seen = (id(mask), -1 if mask.is_inference() else mask._version)

    def set_grid(self, knots: Tensor, coef: Tensor) -> None:
        """Replace the grid and its coefficients, say by a finer one.

        Args:
            knots: (C_in, G + 2 k + 1), non-decreasing, increasing inside the grid.
            coef: (C_in, G + k, C_out).

        Raises:
            ValueError: shapes that do not fit, or knots out of order.
        """
        k, bases = self.spline_order, coef.shape[1] if coef.ndim == 3 else 0
        fits = tuple(knots.shape) == (self.in_features, bases + k + 1) and tuple(coef.shape) == (self.in_features, bases, self.out_features)
        if not fits or bases <= k:
            expected = f"({self.in_features}, G + {2 * k + 1}) and ({self.in_features}, G + {k}, {self.out_features})"
            raise ValueError(f"knots of shape {tuple(knots.shape)} and coef of shape {tuple(coef.shape)}: expected {expected}")
        inside = knots[:, self.spline_order : -self.spline_order or None]
        if not bool((knots.diff(dim=1) >= 0).all()) or not bool((inside.diff(dim=1) > 0).all()):
            raise ValueError("knots decrease, or repeat inside the grid: expected increasing knots")
        self.knots = knots.to(self.knots)
        self.coef = nn.Parameter(coef.to(self.coef).contiguous(), requires_grad=self.coef.requires_grad)

    def _apply(self: Self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Keep the knots in float64 under .to(dtype): rounded knots would move every spline."""
        knots = self.knots
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.knots.dtype != torch.float64 and self.knots.device.type != "mps":
            self.knots = knots.to(self.knots.device)
        self._read_mask()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        knots, coef = state_dict.get(f"{prefix}knots"), state_dict.get(f"{prefix}coef")
        if (
            knots is not None
            and coef is not None
            and coef.shape != self.coef.shape
            and coef.shape[0] == knots.shape[0] == self.in_features
            and coef.shape[2] == self.out_features
            and knots.shape[1] == coef.shape[1] + self.spline_order + 1
        ):
            # A refined grid: the file decides the grid size. Whatever else differs is torch's to refuse.
            self.knots = self.knots.new_empty(knots.shape)
            grow(self.coef, coef.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._read_mask()

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, grid_size={self.grid_size}, "
            f"spline_order={self.spline_order}, base={self.base!r}, extrapolate={self.extrapolate!r}"
        )
