"""Levenberg-Marquardt for KANs: small least-squares problems, solved to machine precision with the exact Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .network import KAN, KANLayer


@dataclass
class _Block:
    """Where one group of parameters of a layer sits in the flat vector."""

    layer: KANLayer
    outs: Tensor
    ins: Tensor
    kind: str  # "coef", "base" or "affine"
    size: int  # parameters per edge
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(self.outs) * self.size

    def _base(self) -> Tensor:
        weight = self.layer.spline.base_weight
        assert weight is not None  # noqa: S101  no block of kind "base" without it
        return weight

    def get(self) -> Tensor:
        if self.kind == "affine":
            return self.layer.affine[self.outs, self.ins].flatten()
        if self.kind == "coef":
            return self.layer.spline.coef[self.ins, :, self.outs].flatten()
        return self._base()[self.outs, self.ins]

    def set(self, values: Tensor) -> None:
        if self.kind == "affine":
            self.layer.affine[self.outs, self.ins] = values.view(-1, 4)
        elif self.kind == "coef":
            self.layer.spline.coef[self.ins, :, self.outs] = values.view(-1, self.size)
        else:
            self._base()[self.outs, self.ins] = values


def _blocks(model: KAN, numeric: bool) -> list[_Block]:
    blocks, start = [], 0
    for layer in model.layers:
        outs, ins = layer.spline.mask.nonzero(as_tuple=True)
        kinds = [("coef", outs, ins, layer.spline.coef.shape[1])] if numeric and len(outs) else []
        if kinds and layer.spline.base_weight is not None:
            kinds.append(("base", outs, ins, 1))
        outs, ins = (layer.function >= 0).nonzero(as_tuple=True)
        if len(outs):
            kinds.append(("affine", outs, ins, 4))
        for kind, outs, ins, size in kinds:
            blocks.append(_Block(layer, outs, ins, kind, size, start))
            start = blocks[-1].stop
    return blocks


class _Local:
    """One layer's derivatives at its inputs: with respect to the inputs and to each block of its parameters."""

    def __init__(self, layer: KANLayer, x: Tensor, blocks: list[_Block]) -> None:
        self.layer, self.blocks = layer, blocks
        spline = layer.spline
        shape = (len(x), spline.out_features, spline.in_features)
        self.edges, self.slopes = x.new_zeros(shape), x.new_zeros(shape)
        self.features: list[Tensor] = [x.new_empty(0)] * len(blocks)
        if layer._any_numeric:
            self.basis, weights = spline.basis(x), spline.weights()
            self.edges = torch.einsum("nij,ijo->noi", self.basis, weights) * spline.mask
            self.slopes = torch.einsum("nij,ijo->noi", spline.basis(x, 1), weights) * spline.mask
        for n, block in enumerate(blocks):
            if block.kind == "coef":
                self.features[n] = self.basis[:, block.ins, : block.size]
            elif block.kind == "base":
                self.features[n] = self.basis[:, block.ins, -1:]
            else:
                self.features[n] = self._symbolic(x, block)
        self.subnodes = self.edges.sum(-1)

    def _symbolic(self, x: Tensor, block: _Block) -> Tensor:
        features = x.new_empty(len(x), len(block.outs), 4)
        place = {edge: n for n, edge in enumerate(zip(block.outs.tolist(), block.ins.tolist(), strict=True))}
        for outs, ins, function, affine, argument in self.layer.symbolic_edges(x):
            with torch.enable_grad():
                u = argument.detach().requires_grad_()
                f = function.torch(u)
                slope = torch.autograd.grad(f.sum(), u)[0] if f.requires_grad else torch.zeros_like(u)
            f, (a, _, c, d) = f.detach(), affine.unbind(-1)
            self.edges[:, outs, ins] = c * f + d
            self.slopes[:, outs, ins] = c * slope * a
            columns = [place[edge] for edge in zip(outs, ins, strict=True)]
            features[:, columns] = torch.stack([c * slope * x[:, ins], c * slope, f, torch.ones_like(f)], -1)
        return features

    def product_jacobian(self) -> Tensor | None:
        """(N, nodes, sub-nodes), or None where every node is a plain sum."""
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


class LeastSquares:
    """minimise 1/2 mean_w |model(X) - y|^2 + l1 sum_e std(phi_e) + smoothness / 2 sum |D^2 coef|^2 over the parameters.

    The L1 norm of edges (Liu et al., arXiv 2404.19756, section 2.5) enters each step as its quadratic majoriser.

    Args:
        model: a float64 or float32 KAN, changed in place.
        X: (N, inputs).
        y: (N, outputs).
        weight: (N,) non-negative sample weights.
        l1: penalty on the standard deviation of every numeric edge.
        smoothness: penalty on second differences of spline coefficients.
        numeric: also train the splines, not only symbolic edges' a, b, c, d.
    """

    def __init__(
        self,
        model: KAN,
        X: Tensor,  # noqa: N803
        y: Tensor,
        *,
        weight: Tensor | None = None,
        l1: float = 0.0,
        smoothness: float = 0.0,
        numeric: bool = True,
    ) -> None:
        self.model, self.X, self.y, self.l1, self.smoothness = model, X, y, l1, smoothness
        w = torch.ones_like(y[:, :1]) if weight is None else weight.reshape(-1, 1).to(y)
        self.weight = w / w.sum()
        self.blocks = _blocks(model, numeric)
        self.size = self.blocks[-1].stop if self.blocks else 0
        self.damping = 1e-3
        self._quadratics: list[tuple[_Block, Tensor]] = []

    def get(self) -> Tensor:
        """Flat vector of the trained parameters."""
        return torch.cat([block.get() for block in self.blocks])

    def set(self, values: Tensor) -> None:
        """Write a flat vector back into the network."""
        for block in self.blocks:
            block.set(values[block.start : block.stop])

    def _penalty(self) -> float:
        """Value of the quadratic penalties of the latest `system` at the present parameters."""
        value = 0.0
        for block, quadratic in self._quadratics:
            c = block.get().view(-1, block.size)
            value += 0.5 * float(torch.einsum("ej,ejk,ek->", c, quadratic, c))
        return value

    def error(self) -> float:
        """Weighted mean of the squared errors (summed over outputs)."""
        return float(((self.model(self.X) - self.y).square() * self.weight).sum())

    def system(self) -> tuple[Tensor, Tensor]:
        """Gauss-Newton matrix and gradient at the current parameters."""
        h, locals_ = self.X, []
        for layer in self.model.layers:
            local = _Local(layer, h, [block for block in self.blocks if block.layer is layer])
            locals_.append(local)
            h = layer.products(local.subnodes)
        n, outputs = self.y.shape
        jacobian = h.new_empty(n, outputs, self.size)
        sensitivity = torch.eye(outputs, dtype=h.dtype, device=h.device).expand(n, -1, -1)
        for local in reversed(locals_):
            product = local.product_jacobian()
            if product is not None:
                sensitivity = sensitivity @ product
            for block, features in zip(local.blocks, local.features, strict=True):
                torch.mul(
                    sensitivity[:, :, block.outs, None],
                    features.unsqueeze(1),
                    out=jacobian[:, :, block.start : block.stop].unflatten(2, (-1, block.size)),
                )
            sensitivity = sensitivity @ local.slopes
        root = self.weight.sqrt()
        rows = (jacobian * root.unsqueeze(-1)).view(-1, self.size)
        residual = ((h - self.y) * root).reshape(-1)
        matrix, gradient = rows.T @ rows, rows.T @ residual
        self._add_penalties(locals_, matrix, gradient)
        return matrix, gradient

    def _add_penalties(self, locals_: list[_Local], matrix: Tensor, gradient: Tensor) -> None:
        self._quadratics = []
        for local in locals_ if self.l1 or self.smoothness else ():
            coef = [block for block in local.blocks if block.kind == "coef"]
            if not coef:
                continue
            (block,) = coef
            quadratic = matrix.new_zeros(len(block.outs), block.size, block.size)
            if self.l1:
                basis = local.basis[..., : block.size]
                centred = basis - basis.mean(0)
                covariance = torch.einsum("nij,nik->ijk", centred, centred) / len(basis)
                std = local.edges.std(0, correction=0)[block.outs, block.ins]
                quadratic += self.l1 / (std + 1e-6)[:, None, None] * covariance[block.ins]
            if self.smoothness:
                second = torch.eye(block.size, dtype=matrix.dtype, device=matrix.device).diff(n=2, dim=0)
                quadratic += self.smoothness * second.T @ second
            self._quadratics.append((block, quadratic))
            coefficients = block.get().view(-1, block.size)
            gradient[block.start : block.stop] += torch.einsum("ejk,ek->ej", quadratic, coefficients).flatten()
            for e in range(len(block.outs)):
                at = slice(block.start + e * block.size, block.start + (e + 1) * block.size)
                matrix[at, at] += quadratic[e]

    def minimise(self, steps: int, tolerance: float = 1e-9) -> float:
        """Take up to `steps` damped Gauss-Newton steps; return the mean squared error.

        Steps that do not lower error plus (majorised) penalties, or leave a function's domain, are taken back, so
        without penalties the network never gets worse. Ends early when two steps in a row gain less than `tolerance`.
        """
        with torch.no_grad():
            error, stale = self.error(), 0
            for _ in range(steps if self.size else 0):
                if not error > 0 or stale >= 2:
                    break
                matrix, gradient = self.system()
                if not bool(torch.isfinite(matrix).all()):
                    break
                start = self.get()
                value = 0.5 * error + self._penalty()
                new = self._step(matrix, gradient, start, value)
                if new is None:
                    self.set(start)
                    self.damping = 1e-3
                    break
                gained = value - 0.5 * new - self._penalty()
                stale = stale + 1 if gained < tolerance * value else 0
                error = new
        return error

    def _step(self, matrix: Tensor, gradient: Tensor, start: Tensor, value: float) -> float | None:
        """One accepted step (its squared error), or None where no damping gives one."""
        diagonal = matrix.diagonal().clone()
        largest = float(diagonal.max())
        diagonal += 1e-12 * largest + 1e-300
        growth = 2.0
        while self.damping < 1e10:
            factor, info = torch.linalg.cholesky_ex(matrix + torch.diag(self.damping * diagonal + 1e-14 * largest))
            if int(info) == 0:
                step = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
                self.set(start - step)
                error = self.error()
                gained = value - 0.5 * error - self._penalty()
                if gained > 0:  # false for NaN, too
                    predicted = float(step @ (gradient - 0.5 * (matrix @ step)))
                    ratio = gained / predicted if predicted > 0 else 1.0
                    self.damping = max(self.damping * max(1 / 5, 1 - (2 * ratio - 1) ** 3), 1e-15)
                    return error
            self.damping *= growth
            growth *= 2
        return None
