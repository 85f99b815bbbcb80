"""LAN: learnable activations on nodes, linear weights on edges (arXiv 2404.19756, appendix B)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..kernels.bspline_op import MAX_SPLINE_ORDER, wide
from ..layers.spline import BASES, check_base, check_range, is_count, uniform_knots
from .network import as_table
from .operations.training import History, fit


class NodeActivation(nn.Module):
    """phi_n(x_n) = base(x_n) + spline_n(x_n), one function per channel.

    Args:
        features: channels.
        grid_size: intervals of a spline.
        spline_order: degree of its pieces.
        base: name in `kat_zoo.layers.spline.BASES` or a callable.
        grid_range: of the grid.

    Raises:
        ValueError: a base, size or range that makes no sense.
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
        check_base(base)
        check_range(grid_range)
        if not is_count(grid_size):
            raise ValueError(f"grid_size={grid_size}; expected an integer of at least 1")
        if not is_count(spline_order, 0) or spline_order > MAX_SPLINE_ORDER:
            raise ValueError(f"spline_order={spline_order}; expected an integer from 0 to {MAX_SPLINE_ORDER}")
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
        grid_range: of the activations' grids.
        device: of the parameters.
        dtype: of the parameters; torch's default.

    Raises:
        ValueError: a width, base, size, range or seed that makes no sense.
    """

    def __init__(
        self,
        width: Sequence[int],
        grid_size: int = 5,
        spline_order: int = 3,
        base: str | Callable[[Tensor], Tensor] = "silu",
        omega: float = 30.0,
        seed: int = 0,
        grid_range: tuple[float, float] = (-3.0, 3.0),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(width) < 2 or not all(is_count(n) for n in width):
            raise ValueError(f"width={list(width)}; expected at least inputs and outputs, integers of at least 1")
        if not is_count(seed, 0):
            raise ValueError(f"seed={seed!r}; expected an integer of at least 0")
        generator = torch.Generator().manual_seed(int(seed))
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(width))
        self.activations = nn.ModuleList(NodeActivation(n, grid_size, spline_order, base, grid_range) for n in width[1:-1])
        self.nodes, self.grid_size = list(width), grid_size
        with torch.no_grad():
            for number, (linear, fan_in) in enumerate(zip(self.linears, width, strict=False)):
                assert isinstance(linear, nn.Linear)
                bound = (omega / fan_in if number == 0 else math.sqrt(6 / fan_in)) if base == "sin" else math.sqrt(3 / fan_in)
                linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.uniform_(-math.pi if base == "sin" else -0.1, math.pi if base == "sin" else 0.1, generator=generator)
        if device is not None or dtype is not None:
            self.to(device=device, dtype=dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return self._last.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self._last.weight.device

    @property
    def _last(self) -> nn.Linear:
        return cast(nn.Linear, self.linears[-1])

    def tensor(self, x: Any, name: str = "X") -> Tensor:
        """Array-like (N, C) as a tensor of the network's dtype and device; `name` is for errors."""
        return as_table(x, self.dtype, self.device, name)

    def fit(
        self,
        X: Any,
        y: Any,
        X_val: Any = None,
        y_val: Any = None,
        *,
        optimizer: str = "lbfgs",
        steps: int = 50,
        lr: float | None = None,
        batch_size: int | None = None,
        sample_weight: Any = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        early_stopping: bool = True,
        seed: int = 0,
        progress: bool = False,
    ) -> History:
        """Train in place, as `kat_zoo.kan.operations.training.fit` does, with "lbfgs" or "adam"; grids stay as they are.

        Raises:
            ValueError: data or options that do not fit.
        """
        if optimizer == "lm":
            raise ValueError("optimizer='lm' knows activations on edges only; expected 'lbfgs' or 'adam'")
        options: dict[str, Any] = {"optimizer": optimizer, "steps": steps, "lr": lr, "batch_size": batch_size, "loss": loss}
        options |= {"sample_weight": sample_weight, "early_stopping": early_stopping, "seed": seed, "progress": progress}
        return fit(cast(Any, self), X, y, X_val, y_val, update_grid=False, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        for linear, activation in zip(self.linears, self.activations, strict=False):
            x = activation(linear(x))
        return self.linears[-1](x)

    @classmethod
    def from_mlp(cls, mlp: nn.Sequential, base: Callable[[Tensor], Tensor], grid_size: int = 5, spline_order: int = 3) -> LAN:
        """A LAN that computes what a trained MLP computes: its weights, its activation as base, splines of zero.

        Args:
            mlp: its nn.Linear layers are taken in order; whatever lies between must compute `base`.
            base: the MLP's activation.
            grid_size: intervals of the splines.
            spline_order: degree of their pieces.

        Raises:
            ValueError: no linear layer, or the MLP computes something else, with a batch norm or another activation.
        """
        linears = [module for module in mlp.modules() if isinstance(module, nn.Linear)]
        if not linears:
            raise ValueError("mlp holds no nn.Linear")
        first = linears[0]
        width = [first.in_features, *(linear.out_features for linear in linears)]
        lan = cls(width, grid_size, spline_order, base, device=first.weight.device, dtype=first.weight.dtype)
        for source, target in zip(linears, lan.linears, strict=True):
            target.load_state_dict(
                source.state_dict() if source.bias is not None else source.state_dict() | {"bias": torch.zeros(source.out_features)}
            )
        x = torch.randn(64, first.in_features, generator=torch.Generator().manual_seed(0)).to(first.weight)
        with torch.no_grad():
            expected = copy.deepcopy(mlp).eval()(x)
            error = (lan(x) - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
        if not error < 100 * torch.finfo(x.dtype).eps:
            name = base if isinstance(base, str) else getattr(base, "__name__", base)
            raise ValueError(f"mlp differs by {float(error):.1e} from its linear layers with {name} between; expected the same function")
        return lan
