"""KANLinear: a layer of learnable one-dimensional functions, base(x) + B-spline, one per input and output."""

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.bspline_op import MAX_SPLINE_ORDER, bspline_basis, spline_linear

BASES: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "identity": lambda x: x,
    "sin": torch.sin,
    "zero": torch.zeros_like,
}


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is an integer, NumPy's included, of at least `least`."""
    return isinstance(value, Integral) and int(value) >= least


def is_real(value: Any) -> bool:
    """Whether a value is a real number, NumPy's included; NaN and infinity are."""
    return isinstance(value, Real)


def check_range(grid_range: Any) -> None:
    """Raise a ValueError unless grid_range is two finite numbers, low < high."""
    values = tuple(grid_range) if isinstance(grid_range, Iterable) else ()
    if len(values) != 2 or not all(map(is_real, values)) or not -math.inf < values[0] < values[1] < math.inf:
        raise ValueError(f"grid_range={grid_range}; expected two finite numbers, low < high")


def check_base(base: Any) -> None:
    """Raise a ValueError unless base is a name of `BASES` or a callable."""
    if base not in BASES if isinstance(base, str) else not callable(base):
        raise ValueError(f"base={base!r}; expected one of {', '.join(BASES)} or a callable")


def uniform_knots(grid_size: int, order: int, low: Tensor, high: Tensor) -> Tensor:
    """Uniform knots (C, G + 2 * order + 1) on [low, high], both (C,), extended by `order` steps on either side."""
    steps = torch.arange(-order, grid_size + order + 1, dtype=low.dtype, device=low.device)
    return low[:, None] + (high - low)[:, None] * steps / grid_size


class KANLinear(nn.Module):
    """y_o = sum_i base_weight[o, i] * base(x_i) + spline_{i,o}(x_i), a layer of a Kolmogorov-Arnold network.

    Liu et al., KAN (arXiv 2404.19756), equations 2.10 to 2.12; their scale of the spline is absorbed in its
    coefficients.

    Args:
        in_features: C_in.
        out_features: C_out.
        grid_size: G, intervals of the grid.
        spline_order: k, degree of the pieces, 0 to 7.
        base: "silu", "identity", "sin", "zero" or a callable applied elementwise.
        grid_range: (low, high) of the initial uniform grid; the same for each input, which has knots of its own from there on.
        extrapolate: "linear" or "zero", see `kat_zoo.kernels.bspline_basis`.
        noise_scale: standard deviation of a spline's initial values.
        generator: source of the initial values; torch's global one by default.
        device: of parameters and buffers.
        dtype: of parameters; float32, float64 or bfloat16.

    Attributes:
        coef: (C_in, G + k, C_out) spline coefficients.
        base_weight: (C_out, C_in), absent where base is "zero".
        knots: (C_in, G + 2k + 1) buffer, one knot vector per input, float64 whatever the parameters' dtype.
        mask: (C_out, C_in) buffer, 0 for a pruned edge; written by `set_mask`.

    Raises:
        ValueError: a size, order, base or range that makes no sense.
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
        if not all(is_count(n) for n in (in_features, out_features, grid_size)):
            raise ValueError(
                f"in_features={in_features}, out_features={out_features}, grid_size={grid_size}; expected integers of at least 1"
            )
        if not is_count(spline_order, 0) or spline_order > MAX_SPLINE_ORDER:
            raise ValueError(f"spline_order={spline_order}; expected an integer from 0 to {MAX_SPLINE_ORDER}")
        if not is_real(noise_scale) or not 0 <= noise_scale < math.inf:
            raise ValueError(f"noise_scale={noise_scale}; expected a finite number of at least 0")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"dtype={dtype}; expected a floating-point type, such as torch.float32")
        check_range(grid_range)
        check_base(base)
        if extrapolate not in ("linear", "zero"):
            raise ValueError(f"extrapolate={extrapolate!r}; expected 'linear' or 'zero'")
        self.in_features, self.out_features = int(in_features), int(out_features)
        self.spline_order, self.extrapolate, self.base = int(spline_order), extrapolate, base
        self.noise_scale = float(noise_scale)
        kwargs: dict[str, Any] = {"device": device, "dtype": dtype}
        self.coef = nn.Parameter(torch.empty(in_features, grid_size + spline_order, out_features, **kwargs))
        self.base_weight = None if base == "zero" else nn.Parameter(torch.empty(out_features, in_features, **kwargs))
        low = torch.full((in_features,), float(grid_range[0]), dtype=torch.float64, device=device)
        high = torch.full((in_features,), float(grid_range[1]), dtype=torch.float64, device=device)
        self.knots: Tensor
        self.mask: Tensor
        self.register_buffer("knots", uniform_knots(grid_size, spline_order, low, high))
        self.register_buffer("mask", torch.ones(out_features, in_features, **kwargs))
        self._masked = False  # a copy of "any edge is pruned" on the host, so that the common case costs nothing
        self.reset_parameters(generator)

    @property
    def grid_size(self) -> int:
        """G, the number of intervals."""
        return self.coef.shape[1] - self.spline_order

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new splines (values of standard deviation noise_scale) and base weights (uniform, 1 / sqrt(C_in))."""
        with torch.no_grad():
            self.coef.normal_(0, self.noise_scale / math.sqrt(self.in_features), generator=generator)
            if self.base_weight is not None:
                bound = 1 / math.sqrt(self.in_features)
                self.base_weight.uniform_(-bound, bound, generator=generator)

    def base_values(self, x: Tensor) -> Tensor:
        """base(x), elementwise."""
        return BASES[self.base](x) if isinstance(self.base, str) else self.base(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C_in) to (..., C_out)."""
        coef: Tensor = self.coef
        weight: Tensor | None = self.base_weight
        if self._masked:
            coef = coef * self.mask.T[:, None]
            weight = None if weight is None else weight * self.mask
        # Under autocast the splines stay in their parameters' precision, as norms do: an argument rounded to bfloat16 is another.
        z = x.to(coef.dtype) if torch.is_autocast_enabled(x.device.type) else x
        y = spline_linear(z, self.knots, coef, self.spline_order, extrapolate=self.extrapolate).to(x.dtype)
        return y if weight is None else y + nn.functional.linear(self.base_values(x), weight)

    def basis(self, x: Tensor, derivative: int = 0) -> Tensor:
        """All functions an edge is a combination of, (..., C_in, G + k [+ 1]): the B-splines, then base(x).

        `derivative` 0 or 1; a callable base is differentiated by autograd.
        """
        basis = bspline_basis(x, self.knots, self.spline_order, derivative, self.extrapolate)
        if self.base_weight is None:
            return basis
        if derivative == 0:
            base = self.base_values(x)
        elif derivative == 1:
            with torch.enable_grad():
                z = x.detach().requires_grad_()
                base = torch.autograd.grad(self.base_values(z).sum(), z)[0]
        else:
            raise ValueError(f"derivative={derivative}; expected 0 or 1")
        return torch.cat([basis, base.unsqueeze(-1)], -1)

    def edges(self, x: Tensor) -> Tensor:
        """phi_{o,i}(x_i) of every edge: (N, C_in) to (N, C_out, C_in)."""
        values = torch.einsum("nij,ijo->noi", self.basis(x), self.weights())
        return values * self.mask

    def weights(self) -> Tensor:
        """Coefficients on `basis`, (C_in, G + k [+ 1], C_out), without the mask."""
        if self.base_weight is None:
            return self.coef
        return torch.cat([self.coef, self.base_weight.T.unsqueeze(1)], 1)

    def set_mask(self, mask: Tensor) -> None:
        """Replace the mask (C_out, C_in) of active edges."""
        if mask.shape != self.mask.shape:
            raise ValueError(f"mask has shape {tuple(mask.shape)}; expected {tuple(self.mask.shape)}")
        self.mask.copy_(mask)
        self._masked = not bool((self.mask == 1).all())

    def set_grid(self, knots: Tensor, coef: Tensor) -> None:
        """Replace knots (C_in, G + 2k + 1) and coefficients (C_in, G + k, C_out), e.g. by a finer grid."""
        if knots.shape[1] - self.spline_order - 1 != coef.shape[1] or knots.shape[0] != self.in_features:
            raise ValueError(f"knots {tuple(knots.shape)} and coef {tuple(coef.shape)} do not fit")
        if not bool((knots.diff(dim=1) >= 0).all()) or not bool(
            (knots[:, self.spline_order : -self.spline_order or None].diff(dim=1) > 0).all()
        ):
            raise ValueError("knots decrease or repeat inside the grid; expected increasing knots")
        self.knots = knots.to(self.knots)
        self.coef = nn.Parameter(coef.to(self.coef).contiguous(), requires_grad=self.coef.requires_grad)

    def _apply(self, fn, recurse: bool = True):
        """Keep the knots in float64 under .to(dtype): rounded knots would move every spline."""
        knots = self.knots
        super()._apply(fn, recurse)
        if self.knots.dtype != torch.float64 and self.knots.device.type != "mps":
            self.knots = knots.to(self.knots.device)
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
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
            self.coef = nn.Parameter(self.coef.new_empty(coef.shape), requires_grad=self.coef.requires_grad)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._masked = not self.mask.is_meta and not bool((self.mask == 1).all())

    def extra_repr(self) -> str:
        """Sizes, for print(model)."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, grid_size={self.grid_size}, "
            f"spline_order={self.spline_order}, base={self.base!r}, extrapolate={self.extrapolate!r}"
        )
