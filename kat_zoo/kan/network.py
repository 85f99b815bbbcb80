"""Network: layers of edges that are functions, numeric (splines) or symbolic (c f(a x + b) + d); state, forward and edges."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from .._checks import count, is_count
from .layer import KANLayer
from .library import function_names
from .migration import hint, refuse_arguments
from .tables import TableModule

Width = Sequence[int | Sequence[int]]
Edge = tuple[int, int, int]
NetworkT = TypeVar("NetworkT", bound="Network")


class Network(TableModule):
    """A KAN without its operations, which take it as their first argument.

    `kat_zoo.kan.KAN` adds the operations and describes the arguments of the constructor.
    """

    def __init__(
        self,
        width: Width,
        grid_size: int = 3,
        spline_order: int = 3,
        *,
        base: str | Callable[[Tensor], Tensor] = "silu",
        mult_arity: int = 2,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        extrapolate: Literal["linear", "zero"] = "linear",
        noise_scale: float = 0.3,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        **unknown: Any,
    ) -> None:
        refuse_arguments(unknown, inspect.signature(Network.__init__).parameters)
        super().__init__()
        self.width = parse_width(width)
        self.mult_arity = count("mult_arity", mult_arity, 2)
        spline: dict[str, Any] = {
            "grid_size": grid_size,
            "spline_order": spline_order,
            "grid_range": grid_range,
            "extrapolate": extrapolate,
            "noise_scale": noise_scale,
            "generator": torch.Generator().manual_seed(count("seed", seed, 0)),
            "dtype": dtype,
        }
        layers = nn.ModuleList(
            KANLayer(sum(before), *after, self.mult_arity, base=copy.deepcopy(base), **spline)
            for before, after in zip(self.width, self.width[1:], strict=False)
        )
        self.layers = cast("list[KANLayer]", layers)  # the ModuleList's items have a type for type checkers
        self.to(device, dtype)  # a learned base, too

    def __getattr__(self, name: str) -> Any:
        """nn.Module's parameters, buffers and modules; other names are answered with the words to write instead."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            raise AttributeError(f"{error}{hint(name)}") from None

    @classmethod
    def make(cls: type[NetworkT], *args: Any, **options: Any) -> NetworkT:
        """A network of this class from the arguments of `Network`.

        A subclass with a constructor of its own cannot be made from them: then it is of the nearest class above that can.
        """
        kinds: list[Any] = cls.mro()
        made: NetworkT = next(kind for kind in kinds if kind.__init__ is Network.__init__)(*args, **options)
        return made

    def like(self: NetworkT, width: Width, seed: int = 0) -> NetworkT:
        """A network of this one's class, options, dtype, device and mode.

        Args:
            width: nodes of each layer, as in the constructor.
            seed: seed of the initial values.
        """
        new = self.make(**(self.config() | {"width": width}), seed=seed, dtype=self.dtype, device=self.device)
        return new.train(self.training)

    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this network; the state_dict holds the rest."""
        spline = self.layers[0].spline
        return {
            "width": [list(entry) for entry in self.width],
            "grid_size": self.grid_size,
            "spline_order": spline.spline_order,
            "base": copy.deepcopy(spline.base),  # a module is the network's own
            "mult_arity": self.mult_arity,
            "extrapolate": spline.extrapolate,
            "noise_scale": spline.noise_scale,
        }

    @property
    def nodes(self) -> list[int]:
        """Number of nodes of each layer, inputs first."""
        return [sum(entry) for entry in self.width]

    @property
    def grid_size(self) -> int:
        """Intervals of the first layer's splines."""
        return self.layers[0].spline.grid_size

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs).

        Raises:
            ValueError: no tensor, another dtype than the parameters', or another number of inputs.
        """
        if isinstance(x, Tensor):
            if x.dtype != self.dtype:
                raise ValueError(f"x of dtype {x.dtype}: expected {self.dtype}, the network's; model.tensor(x) or model.to(x.dtype)")
        elif not isinstance(x, torch.fx.Proxy):
            raise ValueError(f"x of type {type(x).__name__}: expected a tensor, model.tensor(x)")
        if x.shape[-1] != self.nodes[0]:
            raise ValueError(f"x of shape {tuple(x.shape)}: expected {self.nodes[0]} values in the last dimension")
        for layer in self.layers:
            x = layer(x)
        return x

    def samples(self, x: Any) -> Tensor:
        """Array-like (N, inputs) as a tensor that statistics can be taken of.

        Raises:
            ValueError: fewer than 2 rows, another number of columns than inputs, or values that are not finite.
        """
        x = self.tensor(x)
        if len(x) < 2 or x.shape[1] != self.nodes[0]:
            raise ValueError(f"X of shape {tuple(x.shape)}: expected at least 2 samples of {self.nodes[0]} inputs")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("X holds NaN or infinity: expected finite numbers")
        return cast(Tensor, x)

    def activations(self, x: Any) -> list[Tensor]:
        """Values of all nodes, layer by layer, inputs first: [(N, width_0), ..., (N, width_L)]."""
        values = [self.tensor(x)]
        for layer in self.layers:
            values.append(layer(values[-1]))
        return values

    def finite_activations(self, x: Any) -> list[Tensor]:
        """`activations` that statistics can be taken of.

        Raises:
            ValueError: a node has no finite value for some sample; names the edge that has none, such as sqrt of a negative sum.
        """
        values = self.activations(x)
        for number, (layer, h) in enumerate(zip(self.layers, values, strict=False)):
            lost = ~torch.isfinite(values[number + 1]).all(1)
            if not bool(lost.any()):
                continue
            with torch.no_grad():
                edges = (~torch.isfinite(layer.edges(h))).any(0).nonzero().tolist()
            where = f"layer {number}" if not edges else f"edge {(number, *edges[0][::-1])}, {self.edge_kind(number, *edges[0][::-1])}"
            raise ValueError(
                f"{where} has no finite value for {int(lost.sum())} of {len(h)} samples: expected a network defined on all of X"
            )
        return values

    def check_edge(self, layer: int, i: int, j: int) -> KANLayer:
        """Return the layer of edge (l, i, j).

        Raises:
            ValueError: there is no such edge.
        """
        if not is_count(layer, 0) or layer >= len(self.layers):
            raise ValueError(f"layer={layer!r}: expected an integer from 0 to {len(self.layers) - 1}")
        spline = self.layers[layer].spline
        if not (is_count(i, 0) and i < spline.in_features and is_count(j, 0) and j < spline.out_features):
            raise ValueError(f"edge ({layer}, {i}, {j}): expected integers i < {spline.in_features} and j < {spline.out_features}")
        return self.layers[layer]

    def edge(self, layer: int, i: int, j: int) -> tuple[Callable[[Any], Tensor], tuple[float, float]]:
        """One edge as a function of a vector, and the range (low, high) of its grid.

        Args:
            layer: number of the layer, 0 is the first.
            i: number of the input node.
            j: number of the output sub-node.

        Raises:
            ValueError: there is no such edge.
        """
        module = self.check_edge(layer, i, j)

        def function(x: Any) -> Tensor:
            x = torch.as_tensor(x, dtype=self.dtype, device=self.device).reshape(-1)
            with torch.no_grad():
                return module.edges(x[:, None].expand(-1, module.spline.in_features))[:, j, i]

        knots, k = module.spline.knots[i], module.spline.spline_order
        return function, (float(knots[k]), float(knots[-k - 1]))

    def edge_kind(self, layer: int, i: int, j: int) -> str:
        """The function's name for a symbolic edge, else "numeric" or "pruned".

        Args:
            layer: number of the layer, 0 is the first.
            i: number of the input node.
            j: number of the output sub-node.

        Raises:
            ValueError: there is no such edge.
        """
        module = self.check_edge(layer, i, j)
        index = int(module.function[j, i])
        return function_names()[index] if index >= 0 else "numeric" if module.spline.mask[j, i] else "pruned"

    def edges(self) -> Iterator[Edge]:
        """Yield (l, i, j) of every edge that is not pruned."""
        for number, layer in enumerate(self.layers):
            for j, i in layer.active.nonzero().tolist():
                yield number, i, j

    def num_edges(self) -> int:
        """Number of edges that are not pruned."""
        return sum(int(layer.active.sum()) for layer in self.layers)


def parse_width(width: Width) -> list[tuple[int, int]]:
    """Sums and products of each layer.

    Args:
        width: nodes of each layer, as in the constructor.

    Raises:
        ValueError: not a list of numbers or pairs, or fewer than two layers.
    """
    error = ValueError(f"width={repr(width)[:200]}: expected a list of positive integers or pairs [n_sum, n_mult]")
    if not isinstance(width, Sequence) or isinstance(width, str):
        raise error
    entries: list[tuple[int, int]] = []
    for entry in width:
        pair = tuple(entry) if isinstance(entry, Sequence) else (entry, 0)
        if len(pair) != 2 or not all(is_count(n, 0) for n in pair) or not any(pair):
            raise error
        entries.append((int(pair[0]), int(pair[1])))
    if len(entries) < 2 or entries[0][1]:
        raise ValueError(f"width={repr(list(width))[:200]}: expected at least inputs and outputs, and inputs without products")
    return entries
