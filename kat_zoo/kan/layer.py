"""A layer of a KAN: numeric and symbolic edges, sums and products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.spline import KANLinear
from .library import Function, get_function

SymbolicEdges = tuple[list[int], list[int], Function, Tensor, Tensor]  # outs, ins, function, affine (E, 4), argument (N, E)


def _refresh_after_load(layer: KANLayer, _: Any) -> None:
    layer.refresh()


class KANLayer(nn.Module):
    """One layer: numeric edges (a `KANLinear`), symbolic edges, then products of sub-nodes.

    An edge from input i to sub-node o is numeric (spline.mask = 1), symbolic (function >= 0) or pruned (neither).

    Args:
        in_features: number of inputs, C_in.
        n_sum: output nodes that add their edges.
        n_mult: output nodes that multiply `arity` sub-nodes.
        arity: number of factors of a product.
        **spline: arguments of `KANLinear`.

    Attributes:
        spline: the numeric edges, from C_in inputs to n_sum + n_mult * arity sub-nodes.
        affine: (sub-nodes, C_in, 4) parameter, (a, b, c, d) of every symbolic edge c f(a x + b) + d.
        function: (sub-nodes, C_in) buffer, position of each symbolic edge's function in the library, -1 for other edges.
        any_numeric: whether an edge is numeric.
    """

    def __init__(self, in_features: int, n_sum: int, n_mult: int, arity: int, **spline: Any) -> None:
        super().__init__()
        self.n_sum, self.n_mult, self.arity = n_sum, n_mult, arity
        self.spline = KANLinear(in_features, n_sum + n_mult * arity, **spline)
        like = self.spline.coef
        shape = (self.spline.out_features, in_features)
        self.affine = nn.Parameter(torch.zeros(*shape, 4, dtype=like.dtype, device=like.device), requires_grad=False)
        self.function: Tensor
        self.register_buffer("function", torch.full(shape, -1, dtype=torch.int64, device=like.device))
        self._groups: list[tuple[int, list[int], list[int]]] = []
        self.any_numeric = self._spline_used = True
        self._affine_used = False
        self._asked: dict[str, bool] = {}  # which of an unused spline's parameters asked for gradients before
        self.register_load_state_dict_post_hook(_refresh_after_load)  # type: ignore[no-untyped-call]  # torch has no annotation

    def refresh(self) -> None:
        """Sort the edges by kind on the host; call it after `function` or the mask has changed."""
        table = self.function.tolist()
        groups: dict[int, tuple[list[int], list[int]]] = {}
        for o, row in enumerate(table):
            for i, index in enumerate(row):
                if index >= 0:
                    outs, ins = groups.setdefault(index, ([], []))
                    outs.append(o)
                    ins.append(i)
        self._groups = [(index, *edges) for index, edges in sorted(groups.items())]
        self.any_numeric = bool((self.spline.mask != 0).any())
        # Parameters that no edge uses must not ask for gradients: DDP waits for each that does.
        # The others keep the requires_grad that the user gave them.
        if self._affine_used != bool(groups):
            self._affine_used = not self._affine_used
            self.affine.requires_grad_(self._affine_used)
        if self._spline_used != (self.any_numeric or not groups):
            self._spline_used = not self._spline_used
            parameters = dict(self.spline.named_parameters())
            if not self._spline_used:
                self._asked = {name: p.requires_grad for name, p in parameters.items()}
            for name, p in parameters.items():
                p.requires_grad_(self._spline_used and self._asked.get(name, True))
        self.spline.set_mask(self.spline.mask)

    def take_over(self, source: KANLayer) -> None:
        """Take a learned base, and which parameters are frozen, from the layer that the edges come from; no edge holds these."""
        if isinstance(self.spline.base, nn.Module) and isinstance(source.spline.base, nn.Module):
            self.spline.base.load_state_dict(source.spline.base.state_dict())
        for name, p in source.spline.named_parameters():
            if not (p.requires_grad if source._spline_used else source._asked.get(name, True)):
                self._asked[name] = False
                self.spline.get_parameter(name).requires_grad_(False)
        if source._affine_used and not source.affine.requires_grad:
            self.affine.requires_grad_(False)

    @property
    def frozen(self) -> bool:
        """Whether splines are in use whose coefficients are not to be trained."""
        return self._spline_used and not self.spline.coef.requires_grad

    @property
    def active(self) -> Tensor:
        """Edges that are not pruned, (sub-nodes, inputs) bool."""
        return (self.spline.mask != 0) | (self.function >= 0)

    def symbolic_edges(self, x: Tensor) -> Iterator[SymbolicEdges]:
        """Yield the edges of each function in use: outs, ins, function, affine (E, 4) and argument (..., E) for x (..., C_in)."""
        for index, outs, ins in self._groups:
            affine = self.affine[outs, ins]
            yield outs, ins, get_function(index), affine, affine[:, 0] * x[..., ins] + affine[:, 1]

    def subnodes(self, x: Tensor) -> Tensor:
        """Sums of incoming edges, (..., C_in) to (..., n_sum + n_mult * arity).

        Raises:
            ValueError: x has another dtype than the parameters.
        """
        y = self.spline(x) if self._spline_used else x.new_zeros(*x.shape[:-1], self.spline.out_features)
        if x.dtype != self.affine.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"x of dtype {x.dtype}: expected {self.affine.dtype}, the network's")
        for outs, _, function, affine, argument in self.symbolic_edges(x):
            values = affine[:, 2] * function.torch(argument) + affine[:, 3]
            y = y.index_add(-1, torch.tensor(outs, device=x.device), values.to(y.dtype))
        return y

    def products(self, subnodes: Tensor) -> Tensor:
        """Map (..., sub-nodes) to (..., n_sum + n_mult): sums stay, factors are multiplied."""
        if not self.n_mult:
            return subnodes
        factors = subnodes[..., self.n_sum :].unflatten(-1, (self.n_mult, self.arity))
        return torch.cat([subnodes[..., : self.n_sum], factors.prod(-1)], -1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C_in) to (..., n_sum + n_mult)."""
        return self.products(self.subnodes(x))

    def edges(self, x: Tensor) -> Tensor:
        """Value of every edge, (N, C_in) to (N, sub-nodes, C_in); 0 where pruned."""
        values = self.spline.edges(x)
        for outs, ins, function, affine, argument in self.symbolic_edges(x):
            values[:, outs, ins] = affine[:, 2] * function.torch(argument) + affine[:, 3]
        return values
