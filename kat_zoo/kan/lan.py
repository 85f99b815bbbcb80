"""LAN: learnable activations on nodes, linear weights on edges (arXiv 2404.19756, appendix B)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .._checks import count, interval, is_count
from ..kernels.bspline_op import MAX_SPLINE_ORDER, wide
from ..layers.spline import BASES, check_base, uniform_knots
from .migration import hint
from .operations.fit_options import LEARNING_RATES, FitOptions
from .operations.fit_run import History
from .operations.training import train
from .tables import TableModule

# Operations of a KAN that a network with activations on nodes does not have.
EDGES = frozenset(
    (
        *("attribute", "auto_symbolic", "edge", "edge_kind", "edges", "expand_depth", "expand_width", "fix_symbolic", "formula"),
        *("from_formula", "latex", "load", "num_edges", "plot", "prune", "prune_inputs", "refine", "remove_edge", "remove_node"),
        *("save", "suggest_symbolic", "unfix", "update_grid"),
    )
)


class NodeActivation(nn.Module):
    """phi_n(x_n) = base(x_n) + spline_n(x_n), one function per channel.

    Args:
        features: number of channels.
        grid_size: number of intervals of a spline.
        spline_order: degree of the spline's pieces, 0 to 7.
        base: function added to the splines, a name in `kat_zoo.layers.spline.BASES` or a callable.
        grid_range: (low, high) of the grid.

    Raises:
        ValueError: an unknown base, a size below 1, or a range whose ends are not in order.
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
        grid_size = count("grid_size", grid_size)
        if not is_count(spline_order, 0) or spline_order > MAX_SPLINE_ORDER:
            raise ValueError(f"spline_order={spline_order!r}: expected an integer from 0 to {MAX_SPLINE_ORDER}")
        self.base, self.spline_order = base, int(spline_order)
        self.coef = nn.Parameter(torch.zeros(features, grid_size + self.spline_order))
        low, high = (torch.tensor([v], dtype=torch.float64) for v in interval("grid_range", grid_range))
        self.knots: Tensor
        self.register_buffer("knots", uniform_knots(grid_size, spline_order, low, high))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., features) elementwise."""
        rows = wide(x.reshape(-1, x.shape[-1]))
        ones = rows.new_ones(len(rows), 1)  # the projection on a single output of weight 1 is the spline itself
        coef = wide(self.coef).unsqueeze(-1)
        spline = torch.ops.kat_zoo.spline_project(ones, rows, self.knots, coef, self.spline_order, 0)
        base = BASES[self.base] if isinstance(self.base, str) else self.base
        y: Tensor = base(x) + spline.reshape(x.shape).to(x.dtype)
        return y


class LAN(TableModule):
    """An MLP whose activations are learned, one per node.

    Args:
        width: nodes of each layer, inputs first, such as [2, 128, 128, 1].
        grid_size: number of intervals of the activations' splines.
        spline_order: degree of the splines' pieces, 0 to 7.
        base: function added to the splines: "silu", "identity", "sin", "zero" or a callable; "sin" makes a SIREN with learnable
            activations.
        omega: factor of the first layer's argument and of the weights' scale for base "sin" (SIREN, arXiv 2006.09661).
        seed: seed of the weights; torch's global generator is left alone.
        grid_range: (low, high) of the activations' grids.
        device: device of the parameters.
        dtype: type of the parameters; torch's default by default.

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
        if not isinstance(width, Sequence) or len(width) < 2 or not all(map(is_count, width)):
            raise ValueError(f"width={width!r}: expected at least inputs and outputs, integers of at least 1")
        generator = torch.Generator().manual_seed(count("seed", seed, 0))
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(width))
        self.activations = nn.ModuleList(NodeActivation(n, grid_size, spline_order, base, grid_range) for n in width[1:-1])
        self._width, self._grid_size = [int(n) for n in width], count("grid_size", grid_size)
        with torch.no_grad():
            for number, (linear, fan_in) in enumerate(zip(self._linears, width, strict=False)):
                bound = (omega / fan_in if number == 0 else math.sqrt(6 / fan_in)) if base == "sin" else math.sqrt(3 / fan_in)
                linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.uniform_(-math.pi if base == "sin" else -0.1, math.pi if base == "sin" else 0.1, generator=generator)
        if device is not None or dtype is not None:
            self.to(device=device, dtype=dtype)

    def __getattr__(self, name: str) -> Any:
        """nn.Module's parameters, buffers and modules; operations that belong to edges are answered by name."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            told = f"; {name} belongs to activations on edges: expected a KAN" if name in EDGES else hint(name)
            raise AttributeError(f"{error}{told}") from None

    @property
    def nodes(self) -> list[int]:
        """Number of nodes of each layer, inputs first."""
        return list(self._width)

    @property
    def grid_size(self) -> int:
        """Intervals of the activations' splines."""
        return self._grid_size

    @property
    def _linears(self) -> list[nn.Linear]:
        return cast("list[nn.Linear]", list(self.linears))

    def fit(
        self,
        X: Any,
        y: Any,
        X_val: Any = None,
        y_val: Any = None,
        *,
        optimizer: Literal["lbfgs", "adam"] = "lbfgs",
        steps: int = 50,
        lr: float | None = None,
        batch_size: int | None = None,
        sample_weight: Any = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        early_stopping: bool = True,
        seed: int = 0,
        progress: bool = False,
    ) -> History:
        """Train in place with L-BFGS or Adam; grids stay as they are.

        Args:
            X: (N, inputs) samples.
            y: (N, outputs) targets, or of another shape that `loss` takes.
            X_val: (M, inputs) held-out samples; the training data is judged where there are none.
            y_val: (M, outputs) targets of the held-out samples.
            optimizer: "lbfgs" (strong Wolfe, 20 iterations a step) or "adam".
            steps: number of steps.
            lr: step size; 1 for lbfgs, 1e-2 for adam by default.
            batch_size: number of samples of a step, all by default.
            sample_weight: (N,) non-negative weights.
            loss: function (prediction, y) of one value per sample or, without weights, a mean, instead of squared error.
            early_stopping: whether the best state by held-out error is kept, not the last; it also ends the training after 20
                measured errors in a row without gain.
            seed: seed of the batches.
            progress: whether a progress bar is shown (rich).

        Returns:
            The history.

        Raises:
            ValueError: data or options that do not fit.
        """
        if optimizer not in LEARNING_RATES:
            raise ValueError(f"optimizer={optimizer!r}: expected 'lbfgs' or 'adam', for 'lm' needs activations on edges")
        options = FitOptions(
            optimizer=optimizer,
            steps=steps,
            lr=lr,
            batch_size=batch_size,
            loss=loss,
            update_grid=False,
            early_stopping=early_stopping,
            seed=seed,
            progress=progress,
        )
        return train(self, options, X, y, X_val, y_val, sample_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        for linear, activation in zip(self.linears, self.activations, strict=False):
            x = activation(linear(x))
        y: Tensor = self.linears[-1](x)
        return y

    @classmethod
    def from_mlp(cls, mlp: nn.Sequential, base: Callable[[Tensor], Tensor], grid_size: int = 5, spline_order: int = 3) -> LAN:
        """A LAN that computes what a trained MLP computes: its weights, its activation as base, splines of zero.

        Args:
            mlp: the trained MLP, its nn.Linear layers in their order; all modules between two of them must compute `base`.
            base: the MLP's activation.
            grid_size: number of intervals of the splines.
            spline_order: degree of the splines' pieces, 0 to 7.

        Raises:
            ValueError: no linear layer, or the MLP computes something else, with a batch norm or another activation.
        """
        linears = [module for module in mlp.modules() if isinstance(module, nn.Linear)]
        if not linears:
            raise ValueError("mlp holds no nn.Linear: expected at least one")
        first = linears[0]
        width = [first.in_features, *(linear.out_features for linear in linears)]
        lan = cls(width, grid_size, spline_order, base, device=first.weight.device, dtype=first.weight.dtype)
        for source, target in zip(linears, lan._linears, strict=True):
            target.load_state_dict(
                source.state_dict() if source.bias is not None else source.state_dict() | {"bias": torch.zeros(source.out_features)}
            )
        x = torch.randn(64, first.in_features, generator=torch.Generator().manual_seed(0)).to(first.weight)
        with torch.no_grad():
            expected = copy.deepcopy(mlp).eval()(x)
            error = (lan(x) - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
        if not error < 100 * torch.finfo(x.dtype).eps:
            name = base if isinstance(base, str) else getattr(base, "__name__", base)
            raise ValueError(f"mlp differs by {float(error):.1e} from its linear layers with {name} between: expected the same function")
        return lan
