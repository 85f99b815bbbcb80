"""`GroupRational`: the learnable activation of KAT as a module."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from kat_zoo.kernels import rational

from .. import _checks
from .init import rational_coefficients

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("kat_zoo")


class GroupRational(nn.Module):
    """y = P(x) / Q(x) with coefficients per group of channels (KAT, arXiv 2409.10594, section 4.2).

    P = a_0 + ... + a_m x^m and Q = 1 + |b_1||x| + ... + |b_n||x|^n, so there are no poles. Shapes: (..., C) -> (..., C)
    with C divisible by num_groups, or any shape with channels along `channel_dim`.

    Args:
        num_groups: number of contiguous groups of channels with their own denominator.
        init: function to start from: identity, relu, leaky_relu, gelu, silu, swish, tanh, sigmoid or mish.
        order: degrees (m, n) of numerator and denominator; (5, 4) is the kernels' fast case.
        share_numerator: whether all groups share one numerator, as in the published weights.
        share_denominator: whether all groups share one denominator.
        channel_dim: dimension of the channels: -1 for (..., C), 1 for NCHW.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Attributes:
        weight_numerator: (1 or num_groups, m + 1) coefficients.
        weight_denominator: (1 or num_groups, n) coefficients.

    Raises:
        ValueError: num_groups below 1, an unknown init, a bad order, or a channel_dim that is not an integer.
    """

    channel_dim: Final[int]

    def __init__(
        self,
        num_groups: int = 8,
        init: str = "swish",
        order: Sequence[int] = (5, 4),
        *,
        share_numerator: bool = True,
        share_denominator: bool = False,
        channel_dim: int = -1,
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
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every group to the function `init`."""
        self.set_coefficients(*rational_coefficients(self.init, self.order))

    @torch.no_grad()
    def set_coefficients(self, numerator: Tensor, denominator: Tensor) -> None:
        """Copy coefficients into the parameters.

        Args:
            numerator: (m + 1,), or a row per group.
            denominator: (n,), or a row per group.

        Raises:
            ValueError: shapes that do not fit the parameters (a shared row takes one row, or equal rows).
        """
        for name, values in (("weight_numerator", numerator), ("weight_denominator", denominator)):
            parameter = getattr(self, name)
            try:
                parameter.copy_(torch.atleast_2d(values).expand_as(parameter))
            except RuntimeError as error:
                shapes = f"{tuple(values.shape)}: expected {tuple(parameter.shape)} or one row of it"
                raise ValueError(f"{name} of shape {shapes}") from error

    def adapt_state_dict(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Bring the entries under `prefix` to this module's names and, where the functions allow it, shapes; in place.

        FlashKAT's names are numerator_v and denominator_v. One row serves all groups, and equal rows become one.

        Args:
            state_dict: state dict, changed.
            prefix: prefix of this module's entries.
        """
        for name, other in (("weight_numerator", "numerator_v"), ("weight_denominator", "denominator_v")):
            if prefix + other in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + other)
            values, rows = state_dict.get(prefix + name), len(getattr(self, name))
            if values is None or values.ndim != 2 or len(values) == rows:
                continue
            if len(values) == 1:
                state_dict[prefix + name] = values.expand(rows, -1)
            elif rows == 1 and bool((values == values[:1]).all()):
                state_dict[prefix + name] = values[:1]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.adapt_state_dict(state_dict, prefix)
        for name in ("weight_numerator", "weight_denominator"):
            values, parameter = state_dict.get(prefix + name), getattr(self, name)
            if values is not None and values.shape == (self.num_groups, parameter.shape[1]) != parameter.shape:
                # The checkpoint has a row per group where this module shares one: no shared row could hold it.
                logger.info("%s%s gets a row for each of %d groups, as the checkpoint", prefix, name, self.num_groups)
                grown = parameter.detach().new_empty(values.shape)
                setattr(self, name, nn.Parameter(grown, requires_grad=parameter.requires_grad))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation; x (..., C) float32, float64, bfloat16 or float16."""
        if not torch.jit.is_scripting():  # TorchScript calls registered operators, but not Python functions
            return rational(x, self.weight_numerator, self.weight_denominator, self.channel_dim)
        return torch.ops.kat_zoo.rational(x, self.weight_numerator, self.weight_denominator, self.channel_dim)

    def extra_repr(self) -> str:
        """Arguments shown by print(module)."""
        return f"num_groups={self.num_groups}, init={self.init!r}, order={self.order}"

    def plot(self, range: tuple[float, float] = (-4.0, 4.0), num_points: int = 401) -> "Figure":
        """Draw the learned function of each group over `range` and return the figure (needs matplotlib)."""
        from matplotlib.figure import Figure

        x = torch.linspace(*range, num_points, dtype=torch.float64)
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        a, b = (p.detach().double().cpu() for p in (self.weight_numerator, self.weight_denominator))
        y = torch.ops.kat_zoo.rational(x[:, None].repeat(1, self.num_groups), a, b)
        for group, values in enumerate(y.unbind(1)):
            axes.plot(x, values, label=str(group), linewidth=1)
        axes.set(xlabel="x", ylabel="P(x) / Q(x)")
        axes.legend(title="group", fontsize="x-small", ncols=2)
        return figure
