"""`GroupRational`: the learnable activation of KAT as a module."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from kat_zoo.kernels import rational

from .. import _checks
from .._weights import grow
from .init import rational_coefficients

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("kat_zoo")


@torch.fx.wrap
def in_units(numerator: Tensor, denominator: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of x / scale from those of x.

    Args:
        numerator: (m + 1,) or (1 or G, m + 1) coefficients a_0, ..., a_m.
        denominator: (n,) or (1 or G, n) coefficients b_1, ..., b_n.
        scale: (G,) size of each group's arguments.
    """
    powers = torch.arange(max(numerator.shape[-1], denominator.shape[-1] + 1), device=scale.device)
    factors = scale.unsqueeze(-1) ** powers
    return numerator * factors[:, : numerator.shape[-1]], denominator * factors[:, 1 : denominator.shape[-1] + 1]


class GroupRational(nn.Module):
    """y = P(x) / Q(x) with coefficients per group of channels (KAT, arXiv 2409.10594, section 4.2).

    P = a_0 + ... + a_m x^m and Q = 1 + |b_1||x| + ... + |b_n||x|^n, so there are no poles. Shapes: (..., C) -> (..., C)
    with C divisible by num_groups, or any shape with channels along `channel_dim`.

    Args:
        num_groups: number of contiguous groups of channels with their own denominator.
        init: function to start from: identity, relu, leaky_relu, gelu, quick_gelu, silu, swish, tanh, sigmoid or mish.
        order: degrees (m, n) of numerator and denominator; (5, 4) is the kernels' fast case.
        share_numerator: whether all groups share one numerator, as in the published weights.
        share_denominator: whether all groups share one denominator.
        channel_dim: dimension of the channels: -1 for (..., C), 1 for NCHW.
        scaled: whether the parameters are the coefficients of x / scale. Those of x, at arguments of 30, make x^8 of a millionth: a step of
            an optimizer that moves every parameter alike would ruin the function there, and their gradients drown all others. For
            functions that are fitted to wide ranges, as those of converted models.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Attributes:
        weight_numerator: (1 or num_groups, m + 1) coefficients.
        weight_denominator: (1 or num_groups, n) coefficients.
        scale: (num_groups,) size of each group's arguments, a buffer; None if not scaled.

    Raises:
        ValueError: num_groups below 1, an unknown init, a bad order, or a channel_dim that is not an integer.
    """

    channel_dim: Final[int]
    scale: Tensor | None

    def __init__(
        self,
        num_groups: int = 8,
        init: str = "swish",
        order: Sequence[int] = (5, 4),
        *,
        share_numerator: bool = True,
        share_denominator: bool = False,
        channel_dim: int = -1,
        scaled: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not _checks.is_integer(channel_dim):
            raise ValueError(f"channel_dim={channel_dim!r}: expected an integer, -1 for (..., C) or 1 for NCHW")
        self.num_groups = _checks.count("num_groups", num_groups)
        self.init = init
        self.order = _checks.order("order", order)
        self.channel_dim = int(channel_dim)
        m, n = self.order
        rows_a, rows_b = (1 if shared else self.num_groups for shared in (share_numerator, share_denominator))
        self.weight_numerator = nn.Parameter(torch.empty(rows_a, m + 1, device=device, dtype=dtype))
        self.weight_denominator = nn.Parameter(torch.empty(rows_b, n, device=device, dtype=dtype))
        self.register_buffer("scale", torch.empty(self.num_groups, device=device, dtype=dtype) if scaled else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every group to the function `init`, and every scale to 1."""
        self.set_coefficients(*rational_coefficients(self.init, self.order), None if self.scale is None else torch.ones(()))

    @torch.no_grad()
    def set_coefficients(self, numerator: Tensor, denominator: Tensor, scale: Tensor | None = None) -> None:
        """Copy the coefficients of x into the parameters.

        Args:
            numerator: (m + 1,), or a row per group.
            denominator: (n,), or a row per group.
            scale: size of the arguments, positive, () or (num_groups,); the present one by default.

        Raises:
            ValueError: shapes that do not fit the parameters (a shared row takes one row, or equal rows), a scale for a module that
                is not scaled, or one that is not positive; nothing has changed then.
        """
        units = self.scale
        if scale is not None:
            if self.scale is None:
                raise ValueError("scale: expected None, as the module is not scaled")
            if scale.shape not in ((), (1,), (self.num_groups,)):
                raise ValueError(f"scale of shape {tuple(scale.shape)}: expected () or ({self.num_groups},)")
            if not scale.is_meta and not bool(((scale > 0) & scale.isfinite()).all()):
                raise ValueError(f"scale={scale.tolist()}: expected positive numbers")
            units = scale.to(self.scale).expand(self.num_groups)
        given = (("weight_numerator", numerator), ("weight_denominator", denominator))
        for name, values in given:
            wanted = getattr(self, name).shape
            if values.ndim not in (1, 2) or values.shape[-1] != wanted[1] or (values.ndim == 2 and len(values) not in (1, self.num_groups)):
                raise ValueError(f"{name} of shape {tuple(values.shape)}: expected {tuple(wanted)} or one row of it")
        if units is not None and not units.is_meta:
            numerator, denominator = in_units(numerator, denominator, units.to(numerator))
        found = {}
        for name, values in (("weight_numerator", numerator), ("weight_denominator", denominator)):
            parameter, rows = getattr(self, name), torch.atleast_2d(values)
            rows = rows[:1] if len(parameter) == 1 < len(rows) and bool((rows == rows[:1]).all()) else rows
            if len(rows) not in (1, len(parameter)):
                raise ValueError(f"{name} of {len(rows)} different rows: expected one row, which all groups of this module share")
            found[name] = rows.expand_as(parameter)
        if self.scale is not None and units is not None and scale is not None:
            self.scale.copy_(units)
        for name, rows in found.items():
            getattr(self, name).copy_(rows)

    def adapt_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Bring the entries under `prefix` to this module's names and, where the functions allow it, shapes; in place.

        FlashKAT's names are numerator_v and denominator_v. One row serves all groups, and equal rows become one. Coefficients come in units
        of a scale or not, whichever this module does not have.

        Args:
            state_dict: state dict, changed.
            prefix: prefix of this module's entries.
        """
        for name, other in (("weight_numerator", "numerator_v"), ("weight_denominator", "denominator_v")):
            if prefix + other in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + other)
        numerator, denominator = (state_dict.get(f"{prefix}weight_{part}") for part in ("numerator", "denominator"))
        if self.scale is None and prefix + "scale" in state_dict and numerator is not None and denominator is not None:
            scale = state_dict.pop(prefix + "scale")
            scale = scale.float() if scale.dtype in (torch.float16, torch.bfloat16) else scale  # as in `coefficients`
            numerator, denominator = in_units(numerator, denominator, 1 / scale)
            state_dict.update({prefix + "weight_numerator": numerator, prefix + "weight_denominator": denominator})
        if self.scale is not None and numerator is not None:
            scale = state_dict.get(prefix + "scale", numerator.new_ones(1))
            state_dict[prefix + "scale"] = scale.repeat(self.num_groups) if scale.shape == (1,) else scale
        for name in ("weight_numerator", "weight_denominator"):
            values, rows = state_dict.get(prefix + name), len(getattr(self, name))
            if values is None or values.ndim != 2 or len(values) == rows:
                continue
            if len(values) == 1:
                state_dict[prefix + name] = values.repeat(rows, 1)  # no view: load_state_dict(assign=True) makes it the parameter
            elif rows == 1 and bool((values == values[:1]).all()):
                state_dict[prefix + name] = values[:1]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.adapt_state_dict(state_dict, prefix)
        for name in ("weight_numerator", "weight_denominator"):
            values, parameter = state_dict.get(prefix + name), getattr(self, name)
            if values is not None and values.shape == (self.num_groups, parameter.shape[1]) != parameter.shape:
                # The checkpoint has a row per group where this module shares one: no shared row could hold it.
                logger.info("%s%s gets a row for each of %d groups, as the checkpoint", prefix, name, self.num_groups)
                grow(parameter, values.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation; x (..., C) float32, float64, bfloat16 or float16."""
        a, b = self.coefficients()
        if not torch.jit.is_scripting():  # TorchScript calls registered operators, but not Python functions
            return rational(x, a, b, self.channel_dim)
        return torch.ops.kat_zoo.rational(x, a, b, self.channel_dim)

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Coefficients (1 or num_groups, m + 1) and (1 or num_groups, n) of x, with a graph to the parameters."""
        scale = self.scale
        if scale is None:
            return self.weight_numerator, self.weight_denominator
        if scale.dtype == torch.float16 or scale.dtype == torch.bfloat16:  # whose range or digits the powers would leave
            scale = scale.float()
        return in_units(self.weight_numerator, self.weight_denominator, 1 / scale)

    def extra_repr(self) -> str:
        """Arguments shown by print(module)."""
        return f"num_groups={self.num_groups}, init={self.init!r}, order={self.order}"

    def plot(self, range: tuple[float, float] = (-4.0, 4.0), num_points: int = 401) -> "Figure":
        """Draw the learned function of each group over `range` and return the figure (needs matplotlib)."""
        from matplotlib.figure import Figure

        x = torch.linspace(*range, num_points, dtype=torch.float64)
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        a, b = (p.detach().double().cpu() for p in self.coefficients())
        y = torch.ops.kat_zoo.rational(x[:, None].repeat(1, self.num_groups), a, b)
        for group, values in enumerate(y.unbind(1)):
            axes.plot(x, values, label=str(group), linewidth=1)
        axes.set(xlabel="x", ylabel="P(x) / Q(x)")
        axes.legend(title="group", fontsize="x-small", ncols=2)
        return figure
