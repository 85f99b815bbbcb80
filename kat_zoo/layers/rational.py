"""`GroupRational`: the learnable activation of KAT as a module."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

import kat_zoo.kernels  # noqa: F401  (defines torch.ops.kat_zoo.rational)

from .init import rational_coefficients
from .rational_fit import check_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("kat_zoo")


class GroupRational(nn.Module):
    """y = P(x) / Q(x) with coefficients per group of channels (KAT, arXiv 2409.10594, section 4.2).

    Shapes: x (..., C) -> (..., C) with C divisible by num_groups, or channels along `channel_dim`. P = a_0 + ... + a_m x^m and
    Q = 1 + |b_1||x| + ... + |b_n||x|^n, so there are no poles.

    Args:
        num_groups: contiguous groups of channels with their own denominator.
        init: function to start from: identity, relu, leaky_relu, gelu, silu, swish, tanh, sigmoid or mish.
        order: (m, n), the degrees; (5, 4) is the kernels' fast case.
        share_numerator: one numerator for all groups, as in the published weights, or one per group.
        share_denominator: one denominator for all groups.
        channel_dim: -1 for (..., C), 1 for NCHW.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight_numerator: (1 or num_groups, m + 1).
        weight_denominator: (1 or num_groups, n).

    Raises:
        ValueError: num_groups < 1, an unknown init or a bad order.
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
        if num_groups < 1:
            raise ValueError(f"num_groups={num_groups}: expected 1 or more")
        self.num_groups = num_groups
        self.init = init
        self.order = check_order(order)
        self.channel_dim = channel_dim
        m, n = self.order
        rows_a, rows_b = (1 if shared else num_groups for shared in (share_numerator, share_denominator))
        self.weight_numerator = nn.Parameter(torch.empty(rows_a, m + 1, device=device, dtype=dtype))
        self.weight_denominator = nn.Parameter(torch.empty(rows_b, n, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every group to the function `init`."""
        self.set_coefficients(*rational_coefficients(self.init, self.order))

    @torch.no_grad()
    def set_coefficients(self, numerator: Tensor, denominator: Tensor) -> None:
        """Copy coefficients (m + 1,), (n,), or one row a group, into the parameters.

        Raises:
            ValueError: shapes that do not fit the parameters (rows that differ do not fit a shared row).
        """
        for name, values in (("weight_numerator", numerator), ("weight_denominator", denominator)):
            parameter = getattr(self, name)
            try:
                parameter.copy_(torch.atleast_2d(values).expand_as(parameter))
            except RuntimeError as error:
                shapes = f"{tuple(values.shape)}, expected {tuple(parameter.shape)} or one row of it"
                raise ValueError(f"{name}: got coefficients of shape {shapes}") from error

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation; x (..., C) float32, float64, bfloat16 or float16."""
        return torch.ops.kat_zoo.rational(x, self.weight_numerator, self.weight_denominator, self.channel_dim)

    def extra_repr(self) -> str:
        """Arguments shown by print(module)."""
        return f"num_groups={self.num_groups}, init={self.init!r}, order={self.order}"

    def plot(self, range: tuple[float, float] = (-4.0, 4.0), num_points: int = 401) -> "Figure":
        """Draw the learned function of each group over `range` (needs matplotlib); returns the Figure, shows nothing."""
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
