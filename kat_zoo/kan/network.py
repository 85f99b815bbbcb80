"""KAN: a stack of layers whose edges are learnable functions, numeric (spline) or symbolic (c f(a x + b) + d)."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..layers.spline import is_count
from .layer import KANLayer
from .library import function_names
from .operations import edit, grids, pruning, symbolic, training
from .operations import plot as pictures


def as_table(x: Any, dtype: torch.dtype, device: torch.device, name: str = "X") -> Tensor:
    """Array-like (N, C) as a tensor.

    Raises:
        ValueError: not two dimensions, or no numbers.
    """
    if not isinstance(x, Tensor):
        try:
            x = np.array(x, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} is no table of numbers: {error}") from error
    if x.ndim != 2:
        hint = f"; {name}[:, None] makes one column of a vector" if x.ndim == 1 else ""
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected a table (samples, columns){hint}")
    return torch.as_tensor(x, dtype=dtype, device=device)


class KAN(nn.Module):
    """A Kolmogorov-Arnold network (Liu et al., arXiv 2404.19756; products: KAN 2.0, arXiv 2408.10205).

    An ordinary nn.Module. Methods that change the shape (`prune`, `expand_width`, ...) return a new network; methods
    that keep it (`fit`, `refine`, `update_grid`, `fix_symbolic`, ...) work in place. Layers, inputs and outputs of an edge
    are counted as (l, i, j): layer l, from node i to sub-node j.

    Args:
        width: nodes of each layer, inputs first; an entry [n_sum, n_mult] has n_mult product nodes after its sums.
        grid_size: intervals of the splines.
        spline_order: degree of the pieces.
        base: "silu", "identity", "sin", "zero" or a callable added to each spline; of a module each layer has a copy.
        mult_arity: factors of a product node.
        grid_range: initial grid.
        extrapolate: "linear" or "zero" outside the grid.
        noise_scale: standard deviation of the initial splines.
        seed: of the initial values; torch's global generator is left alone.
        device: of parameters.
        dtype: of parameters.
        activation_on: "edges", or "nodes": then this is a `kat_zoo.kan.LAN` of the same dtype, which takes that class's
            arguments.

    Raises:
        ValueError: a width, size or option that makes no sense.
    """

    def __new__(cls, *args: Any, activation_on: str = "edges", **options: Any) -> Any:
        """Make room for a network, or return a LAN."""
        if activation_on not in ("edges", "nodes"):
            raise ValueError(f"activation_on={activation_on!r}; expected 'edges' or 'nodes'")
        if activation_on == "edges":
            return super().__new__(cls)
        from .lan import LAN

        return LAN(*args, **({"dtype": torch.float64} | options))

    def __init__(
        self,
        width: Sequence[int | Sequence[int]],
        grid_size: int = 3,
        spline_order: int = 3,
        *,
        base: str | Callable[[Tensor], Tensor] = "silu",
        mult_arity: int = 2,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        extrapolate: str = "linear",
        noise_scale: float = 0.3,
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        activation_on: str = "edges",
    ) -> None:
        super().__init__()
        self.width = _parse_width(width)
        if not is_count(mult_arity, 2):
            raise ValueError(f"mult_arity={mult_arity!r}; expected an integer of at least 2")
        self.mult_arity = int(mult_arity)
        if not is_count(seed, 0):
            raise ValueError(f"seed={seed!r}; expected an integer of at least 0")
        generator = torch.Generator().manual_seed(int(seed))
        spline: dict[str, Any] = {"grid_range": grid_range, "extrapolate": extrapolate, "noise_scale": noise_scale}
        layers = nn.ModuleList(
            KANLayer(
                sum(before),
                *after,
                self.mult_arity,
                base=copy.deepcopy(base),
                grid_size=grid_size,
                spline_order=spline_order,
                generator=generator,
                dtype=dtype,
                **spline,
            )
            for before, after in zip(self.width, self.width[1:], strict=False)
        )
        self.layers = cast("list[KANLayer]", layers)  # what it holds, for type checkers; a ModuleList for torch
        self.to(device, dtype)  # a learned base, too

    @property
    def nodes(self) -> list[int]:
        """Number of nodes of each layer, inputs first."""
        return [sum(entry) for entry in self.width]

    @property
    def grid_size(self) -> int:
        """Intervals of the first layer's splines."""
        return self.layers[0].spline.grid_size

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return self.layers[0].spline.coef.dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.layers[0].spline.coef.device

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        if x.shape[-1] != self.nodes[0]:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected {self.nodes[0]} values in the last dimension")
        for layer in self.layers:
            x = layer(x)
        return x

    def tensor(self, x: Any, name: str = "X") -> Tensor:
        """Array-like (N, C) as a tensor of the network's dtype and device; `name` is for errors."""
        return as_table(x, self.dtype, self.device, name)

    def samples(self, x: Any) -> Tensor:
        """`tensor` of what statistics are taken of: at least 2 rows, as many columns as inputs, all finite."""
        x = self.tensor(x)
        if len(x) < 2 or x.shape[1] != self.nodes[0]:
            raise ValueError(f"X has shape {tuple(x.shape)}; expected at least 2 samples of {self.nodes[0]} inputs")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("X holds NaN or infinity; expected finite numbers")
        return x

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
            count = int(lost.sum())
            raise ValueError(f"{where} has no finite value for {count} of {len(h)} samples; expected a network defined on all of X")
        return values

    def check_edge(self, layer: int, i: int, j: int) -> KANLayer:
        """Return the layer of edge (l, i, j).

        Raises:
            ValueError: there is no such edge.
        """
        if not is_count(layer, 0) or layer >= len(self.layers):
            raise ValueError(f"layer={layer}; expected 0 to {len(self.layers) - 1}")
        spline = self.layers[layer].spline
        if not (is_count(i, 0) and i < spline.in_features and is_count(j, 0) and j < spline.out_features):
            raise ValueError(f"edge ({layer}, {i}, {j}); expected i < {spline.in_features} and j < {spline.out_features}")
        return self.layers[layer]

    def edge(self, layer: int, i: int, j: int) -> tuple[Callable[[Any], Tensor], tuple[float, float]]:
        """One edge as a function of a vector, and the range of its grid."""
        module = self.check_edge(layer, i, j)

        def function(x: Any) -> Tensor:
            x = torch.as_tensor(x, dtype=self.dtype, device=self.device).reshape(-1)
            with torch.no_grad():
                return module.edges(x[:, None].expand(-1, module.spline.in_features))[:, j, i]

        knots, k = module.spline.knots[i], module.spline.spline_order
        return function, (float(knots[k]), float(knots[-k - 1]))

    def edge_kind(self, layer: int, i: int, j: int) -> str:
        """The function's name for a symbolic edge, else "numeric" or "pruned"."""
        module = self.check_edge(layer, i, j)
        index = int(module.function[j, i])
        return function_names()[index] if index >= 0 else "numeric" if module.spline.mask[j, i] else "pruned"

    def edges(self) -> Iterator[tuple[int, int, int]]:
        """Yield (l, i, j) of every edge that is not pruned."""
        for number, layer in enumerate(self.layers):
            for j, i in layer.active.nonzero().tolist():
                yield number, i, j

    def num_edges(self) -> int:
        """Edges that are not pruned."""
        return sum(int(layer.active.sum()) for layer in self.layers)

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

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with weights and configuration; see `kat_zoo.kan.operations.files.save`."""
        from .operations.files import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> KAN:
        """Read a file that `save` wrote; see `kat_zoo.kan.operations.files.load`."""
        from .operations.files import load

        return load(path)

    def formula(self, variables: Sequence[str] | None = None, round: int | None = 4, X: Any = None) -> list[Any]:
        """SymPy expression of each output; see `kat_zoo.kan.formula.expression.formula`."""
        from .formula.expression import formula

        return formula(self, variables, round, X)

    def latex(self, variables: Sequence[str] | None = None, round: int | None = 4, X: Any = None) -> list[str]:
        """LaTeX of each output's formula."""
        import sympy

        return [sympy.latex(expression) for expression in self.formula(variables, round, X)]

    # Functions of other modules, whose first argument is the network.
    fit = training.fit
    refine = grids.refine
    update_grid = grids.update_grid
    attribute = pruning.attribute
    prune = pruning.prune
    prune_inputs = pruning.prune_inputs
    remove_edge = pruning.remove_edge
    remove_node = pruning.remove_node
    expand_width = edit.expand_width
    expand_depth = edit.expand_depth
    suggest_symbolic = symbolic.suggest_symbolic
    fix_symbolic = symbolic.fix_symbolic
    unfix = symbolic.unfix
    auto_symbolic = symbolic.auto_symbolic
    plot = pictures.plot

    @classmethod
    def from_formula(cls, expressions: Any, variables: Sequence[str] | None = None, **options: Any) -> KAN:
        """Symbolic network that computes SymPy expressions; see `kat_zoo.kan.formula.compiler.from_formula`."""
        from .formula.compiler import from_formula

        return from_formula(expressions, variables, **options)


def _parse_width(width: Sequence[int | Sequence[int]]) -> list[tuple[int, int]]:
    error = ValueError(f"width={width!r}; expected a list of positive integers or pairs [n_sum, n_mult]")
    if not isinstance(width, Sequence) or isinstance(width, str):
        raise error
    entries: list[tuple[int, int]] = []
    for entry in width:
        pair = tuple(entry) if isinstance(entry, Sequence) else (entry, 0)
        if len(pair) != 2 or not all(is_count(n, 0) for n in pair) or not any(pair):
            raise error
        entries.append((int(pair[0]), int(pair[1])))
    if len(entries) < 2 or entries[0][1]:
        raise ValueError(f"width={list(width)}; expected at least inputs and outputs, and inputs without products")
    return entries


# For help() and editors: without it they would show __new__'s.
_init = inspect.signature(KAN.__init__)
KAN.__signature__ = _init.replace(parameters=list(_init.parameters.values())[1:], return_annotation=_init.empty)  # type: ignore[attr-defined]
