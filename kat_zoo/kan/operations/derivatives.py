"""Derivatives of a network's outputs by its parameters, exact and layer by layer.

An output depends on the parameters of an edge (l, i, j) through sub-node j of layer l alone, so its derivative is
S_l[output, j] times the edge's own: the bases and the base function at the input for a spline, and (c f' x, c f', f, 1) for
c f(a x + b) + d. S_l is the derivative of the outputs by the sub-nodes of layer l. It is passed from the last layer to the
first: times the derivative of the nodes by their sub-nodes (1 for sums, the other factors for products), times the slopes of
the edges before. Autograd would need one pass for each output and sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..layer import KANLayer
from ..network import Network

Kind = Literal["numeric", "affine"]


@dataclass(eq=False)
class Block:
    """A group of parameters of a layer, and its place in the flat vector of all.

    Attributes:
        layer: the layer.
        outs: (E,) sub-nodes of the edges that have these parameters.
        ins: (E,) inputs of these edges.
        kind: "numeric", spline coefficients, then the base's weight where there is one; or "affine", (a, b, c, d).
        size: number of parameters of an edge.
        start: position of the first in the flat vector.
    """

    layer: KANLayer
    outs: Tensor
    ins: Tensor
    kind: Kind
    size: int
    start: int

    @property
    def stop(self) -> int:
        """Position behind the last in the flat vector."""
        return self.start + len(self.outs) * self.size

    @property
    def part(self) -> slice:
        """Positions in the flat vector."""
        return slice(self.start, self.stop)

    def get(self) -> Tensor:
        """The parameters, edge by edge."""
        if self.kind == "affine":
            return self.layer.affine[self.outs, self.ins].flatten()
        return self.layer.spline.weights()[self.ins, :, self.outs].flatten()

    def set(self, values: Tensor) -> None:
        """Write parameters, edge by edge."""
        values = values.view(-1, self.size)
        if self.kind == "affine":
            self.layer.affine[self.outs, self.ins] = values
            return
        spline = self.layer.spline
        spline.coef[self.ins, :, self.outs] = values[:, : spline.coef.shape[1]]
        if spline.base_weight is not None:
            spline.base_weight[self.outs, self.ins] = values[:, -1]


def blocks_of(model: Network, numeric: bool) -> list[Block]:
    """Blocks of the parameters that ask for gradients.

    Args:
        model: the network.
        numeric: whether those of the splines are among them.

    Raises:
        ValueError: one part of a layer's splines is frozen.
    """
    blocks: list[Block] = []
    start = 0
    for number, layer in enumerate(model.layers):
        wanted = {p.requires_grad for p in layer.spline.parameters()}
        if len(wanted) > 1:
            raise ValueError(f"layer {number} has either its splines or its base's weights frozen: expected both or neither for 'lm'")
        kinds: list[tuple[Kind, Tensor, int]] = []
        if numeric and wanted == {True}:
            kinds.append(("numeric", layer.spline.mask != 0, layer.spline.weights().shape[1]))
        if layer.affine.requires_grad:
            kinds.append(("affine", layer.function >= 0, 4))
        for kind, edges, size in kinds:
            outs, ins = edges.nonzero(as_tuple=True)
            if len(outs):
                blocks.append(Block(layer, outs, ins, kind, size, start))
                start = blocks[-1].stop
    return blocks


class LayerDerivatives:
    """One layer's derivatives at its inputs: with respect to the inputs and to each block of its parameters.

    Args:
        layer: the layer.
        x: (N, C_in) inputs.
        blocks: the layer's parameters.

    Attributes:
        edges: (N, sub-nodes, C_in) values of the edges.
        slopes: (N, sub-nodes, C_in) derivatives of the edges by their inputs.
        features: derivatives of the edges by their own parameters, (N, E, size) for each block.
        subnodes: (N, sub-nodes) sums of the edges.
    """

    def __init__(self, layer: KANLayer, x: Tensor, blocks: list[Block]) -> None:
        self.layer, self.blocks = layer, blocks
        spline = layer.spline
        shape = (len(x), spline.out_features, spline.in_features)
        self.edges, self.slopes = x.new_zeros(shape), x.new_zeros(shape)
        self.features: list[Tensor] = [x.new_empty(0)] * len(blocks)
        if layer.any_numeric:
            self.basis, weights = spline.basis(x), spline.weights()
            self.edges = torch.einsum("nij,ijo->noi", self.basis, weights) * spline.mask
            self.slopes = torch.einsum("nij,ijo->noi", spline.basis(x, 1), weights) * spline.mask
        for n, block in enumerate(blocks):
            self.features[n] = self.basis[:, block.ins] if block.kind == "numeric" else self._symbolic(x, block)
        self.subnodes = self.edges.sum(-1)

    def _symbolic(self, x: Tensor, block: Block) -> Tensor:
        features = x.new_empty(len(x), len(block.outs), 4)
        place = {edge: n for n, edge in enumerate(zip(block.outs.tolist(), block.ins.tolist(), strict=True))}
        for outs, ins, function, affine, argument in self.layer.symbolic_edges(x):
            with torch.enable_grad():
                u = argument.detach().requires_grad_()
                f = function.torch(u)
                slope = torch.autograd.grad(f.sum(), u)[0] if f.requires_grad else torch.zeros_like(u)
            f, (a, _, c, d) = f.detach(), affine.unbind(-1)
            self.edges[:, outs, ins] = c * f + d
            # A sample where the slope is infinite, as sqrt's at 0, is left out of the direction; the step still counts its error.
            slope = torch.where(torch.isfinite(slope), slope, 0)
            self.slopes[:, outs, ins] = c * slope * a
            columns = [place[edge] for edge in zip(outs, ins, strict=True)]
            features[:, columns] = torch.stack([c * slope * x[:, ins], c * slope, f, torch.ones_like(f)], -1)
        return features

    def product_jacobian(self) -> Tensor | None:
        """Derivatives (N, nodes, sub-nodes) of the nodes, or None where every node is a plain sum."""
        layer = self.layer
        if not layer.n_mult:
            return None
        n = len(self.subnodes)
        result = self.subnodes.new_zeros(n, layer.n_sum + layer.n_mult, layer.spline.out_features)
        result[:, range(layer.n_sum), range(layer.n_sum)] = 1
        factors = self.subnodes[:, layer.n_sum :].unflatten(-1, (layer.n_mult, layer.arity))
        for m in range(layer.n_mult):
            for a in range(layer.arity):
                others = [b for b in range(layer.arity) if b != a]
                result[:, layer.n_sum + m, layer.n_sum + m * layer.arity + a] = factors[:, m, others].prod(-1)
        return result
