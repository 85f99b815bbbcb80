"""LAN: learnable activations on nodes, linear weights on edges (arXiv 2404.19756, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..kernels.bspline import wide
from ..layers.spline import BASES, uniform_knots


class NodeActivation(nn.Module):
    """phi_n(x_n) = base(x_n) + spline_n(x_n), one function per channel.

    Args:
        features: channels.
        grid_size: intervals of a spline.
        spline_order: degree of its pieces.
        base: name in `kat_zoo.layers.spline.BASES` or a callable.
        grid_range: of the grid.
    """

    def __init__(
        self,
        features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        base: str | Callable[[Tensor], Tensor] = "silu",
        grid_range: tuple[float, float] = (-3.0, 3.0),
    ) -> None:
        super().__init__()
        self.base, self.spline_order = base, spline_order
        self.coef = nn.Parameter(torch.zeros(features, grid_size + spline_order))
        low, high = (torch.tensor([v], dtype=torch.float64) for v in grid_range)
        self.knots: Tensor
        self.register_buffer("knots", uniform_knots(grid_size, spline_order, low, high))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., features) elementwise."""
        rows = wide(x.reshape(-1, x.shape[-1]))
        ones = rows.new_ones(len(rows), 1)  # the projection on a single output of weight 1 is the spline itself
        coef = wide(self.coef).unsqueeze(-1)
        spline = torch.ops.kat_zoo.spline_project(ones, rows, self.knots, coef, self.spline_order, 0)
        base = BASES[self.base] if isinstance(self.base, str) else self.base
        return base(x) + spline.reshape(x.shape).to(x.dtype)


class LAN(nn.Module):
    """An MLP whose activations are learned, one per node.

    Args:
        width: nodes of each layer, inputs first, such as [2, 128, 128, 1].
        grid_size: intervals of the activations' splines.
        spline_order: degree of their pieces.
        base: what the splines are added to; "sin" makes a SIREN with learnable activations.
        omega: factor of the first layer's argument and of the weights' scale for base "sin" (SIREN, arXiv 2006.09661).
        seed: of the weights.

    Raises:
        ValueError: fewer than two layers.
    """

    def __init__(
        self,
        width: Sequence[int],
        grid_size: int = 5,
        spline_order: int = 3,
        base: str | Callable[[Tensor], Tensor] = "silu",
        omega: float = 30.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(width) < 2:
            raise ValueError(f"width={list(width)}; expected at least inputs and outputs")
        generator = torch.Generator().manual_seed(seed)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip(width, width[1:], strict=False))
        self.activations = nn.ModuleList(NodeActivation(n, grid_size, spline_order, base) for n in width[1:-1])
        with torch.no_grad():
            for number, (linear, fan_in) in enumerate(zip(self.linears, width, strict=False)):
                assert isinstance(linear, nn.Linear)  # noqa: S101  for type checkers
                if base == "sin":
                    bound = omega / fan_in if number == 0 else math.sqrt(6 / fan_in)
                else:
                    bound = math.sqrt(3 / fan_in)
                linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.uniform_(
                    -math.pi if base == "sin" else -0.1, math.pi if base == "sin" else 0.1, generator=generator
                )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        for linear, activation in zip(self.linears, self.activations, strict=False):
            x = activation(linear(x))
        return self.linears[-1](x)

    @classmethod
    def from_mlp(
        cls, mlp: nn.Sequential, base: Callable[[Tensor], Tensor], grid_size: int = 5, spline_order: int = 3
    ) -> LAN:
        """A LAN that computes what a trained MLP computes: its weights, its activation as base, splines of zero.

        Args:
            mlp: its nn.Linear layers are taken in order; whatever lies between must compute `base`.
            base: the MLP's activation.
            grid_size: intervals of the splines.
            spline_order: degree of their pieces.

        Raises:
            ValueError: no linear layer.
        """
        linears = [module for module in mlp.modules() if isinstance(module, nn.Linear)]
        if not linears:
            raise ValueError("mlp holds no nn.Linear")
        lan = cls([linears[0].in_features, *(linear.out_features for linear in linears)], grid_size, spline_order, base)
        for source, target in zip(linears, lan.linears, strict=True):
            target.load_state_dict(
                source.state_dict()
                if source.bias is not None
                else source.state_dict() | {"bias": torch.zeros(source.out_features)}
            )
        return lan.to(linears[0].weight)
