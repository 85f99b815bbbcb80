"""Levenberg-Marquardt for KANs: small least-squares problems, solved to machine precision with the exact Jacobian.

A step from the parameters p solves (J' J + Q + damping D) step = J' r + q (`normal.py`). A row of J and r belongs to one
output of one sample and is multiplied by the root of the sample's weight (`derivatives.py`); Q and q belong to the penalties.

The damping follows Nielsen's rule (Madsen, Nielsen, Tingleff, Methods for non-linear least squares problems, 2004, section
3.2): after a step it depends on the ratio of the true to the predicted decrease, after a refused step it grows, each time
by twice the factor before.

The L1 penalty |s| of an edge's standard deviation s has no second derivative to solve with. Its majorizer
s^2 / (2 s_0) + s_0 / 2, which touches it at the present s_0, is quadratic in the edge's parameters, so a step that lowers the
majorizer lowers the penalty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..network import Network
from .derivatives import Block, LayerDerivatives, blocks_of
from .normal import Dual, Primal

JACOBIAN_NUMBERS = 1 << 25  # numbers of the part that is held at a time: 256 MB in float64, however many samples there are
DAMPING = 1e-3  # before the first step
LEAST_DAMPING, MOST_DAMPING = 1e-15, 1e10  # beyond the largest no step is tried
SHRINK = 1 / 5  # smallest factor of the damping after a step; Nielsen's rule has 1/3
PATIENCE = 2  # steps in a row without gain before the end


class _Covariance:
    """Weighted covariance (C_in, size, size) of each input's features, gathered over parts of the samples."""

    def __init__(self) -> None:
        self.mean, self.square = torch.zeros(()), torch.zeros(())

    def add(self, features: Tensor, weight: Tensor) -> None:
        """Take in a part (N, C_in, size), whose weights (N, 1) are shares of all samples."""
        weighted = features * weight[:, :, None]
        self.mean = weighted.sum(0) + self.mean
        self.square = torch.einsum("nij,nik->ijk", weighted, features) + self.square

    def value(self) -> Tensor:
        return self.square - self.mean[:, :, None] * self.mean[:, None, :]


class LeastSquares:
    """Minimize 1/2 mean_w |model(X) - y|^2 + l1 sum_e std(phi_e) + smoothness / 2 sum |D^2 coef|^2 over the parameters.

    The standard deviations are weighted, too. The L1 norm of edges (Liu et al., arXiv 2404.19756, section 2.5) includes the
    base. Parameters with requires_grad = False stay as they are.

    Args:
        model: a float64 or float32 network, changed in place.
        X: (N, inputs) samples.
        y: (N, outputs) targets.
        weight: (N,) non-negative sample weights.
        l1: penalty on the standard deviation of every numeric edge.
        smoothness: penalty on second differences of spline coefficients.
        numeric: whether the splines are trained, not only symbolic edges' a, b, c, d.

    Raises:
        ValueError: a network of another dtype, or one part of a layer's splines frozen.
    """

    def __init__(
        self,
        model: Network,
        X: Tensor,
        y: Tensor,
        *,
        weight: Tensor | None = None,
        l1: float = 0.0,
        smoothness: float = 0.0,
        numeric: bool = True,
    ) -> None:
        if model.dtype not in (torch.float64, torch.float32):
            raise ValueError(f"dtype={model.dtype} of the network: expected float64 or float32 for Levenberg-Marquardt")
        self.model, self.X, self.y, self.l1, self.smoothness = model, X, y, l1, smoothness
        w = torch.ones_like(y[:, :1]) if weight is None else weight.reshape(-1, 1).to(y)
        self.weight = w / w.sum()
        self.blocks = blocks_of(model, numeric)
        self.size = self.blocks[-1].stop if self.blocks else 0
        self.damping = DAMPING
        self._quadratics: list[Tensor] = []

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
        for block, quadratic in zip(self.blocks if self.l1 or self.smoothness else (), self._quadratics, strict=False):
            c = block.get().view(-1, block.size)
            value += 0.5 * float(torch.einsum("ej,ejk,ek->", c, quadratic, c))
        return value

    def error(self) -> float:
        """Weighted mean of the squared errors (summed over outputs)."""
        return float(((self.model(self.X) - self.y).square() * self.weight).sum())

    def system(self, kind: type[Primal] | type[Dual] | None = None) -> Primal | Dual:
        """Gauss-Newton system at the current parameters.

        Args:
            kind: form of the system; `Dual` where there are fewer rows than parameters, else `Primal`, by default.
        """
        if kind is None:
            kind = Dual if self.y.numel() < self.size else Primal
        system = kind(self.X.new_zeros(self.size))
        covariances = {n: _Covariance() for n, block in enumerate(self.blocks) if self.l1 and block.kind == "numeric"}
        rows = max(1, JACOBIAN_NUMBERS // (self.size * self.y.shape[1]))
        for start in range(0, len(self.X), rows):
            self._add_rows(slice(start, start + rows), system, covariances)
        self._quadratics = [self._quadratic(block, covariances.get(n)) for n, block in enumerate(self.blocks)]
        slopes = [torch.einsum("ejk,ek->ej", q, b.get().view(-1, b.size)) for b, q in zip(self.blocks, self._quadratics, strict=True)]
        system.penalize(
            [(b.start, q) for b, q in zip(self.blocks, self._quadratics, strict=True)], torch.cat([s.flatten() for s in slopes])
        )
        return system

    def _add_rows(self, rows: slice, system: Primal | Dual, covariances: dict[int, _Covariance]) -> None:
        h = self.X[rows]
        locals_: list[LayerDerivatives] = []
        for layer in self.model.layers:
            local = LayerDerivatives(layer, h, [block for block in self.blocks if block.layer is layer])
            locals_.append(local)
            h = layer.products(local.subnodes)
            for block in local.blocks:
                if self.blocks.index(block) in covariances:
                    covariances[self.blocks.index(block)].add(local.basis, self.weight[rows])
        n, outputs = h.shape
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
                    out=jacobian[:, :, block.part].unflatten(2, (-1, block.size)),
                )
            sensitivity = sensitivity @ local.slopes
        root = self.weight[rows].sqrt()
        system.add(jacobian.mul_(root.unsqueeze(-1)).view(-1, self.size), ((h - self.y[rows]) * root).reshape(-1))

    def _quadratic(self, block: Block, covariance: _Covariance | None) -> Tensor:
        """Matrices (E, size, size) of the quadratic penalties on a block's edges."""
        parameters = block.get().view(-1, block.size)
        quadratic = parameters.new_zeros(len(block.outs), block.size, block.size)
        if covariance is not None:
            # |s| <= s^2 / 2 s0 + s0 / 2 with s = std(phi), a quadratic form in all that phi is made of.
            own = covariance.value()[block.ins]
            std = torch.einsum("ej,ejk,ek->e", parameters, own, parameters).clamp(min=0).sqrt()
            quadratic += self.l1 / (std + 1e-6)[:, None, None] * own
        if self.smoothness and block.kind == "numeric":
            bases = block.layer.spline.coef.shape[1]
            second = torch.eye(bases, block.size, dtype=parameters.dtype, device=parameters.device).diff(n=2, dim=0)
            quadratic += self.smoothness * second.T @ second
        return quadratic

    def minimize(self, steps: int, tolerance: float = 1e-9) -> float:
        """Take damped Gauss-Newton steps; return the mean squared error.

        Steps that do not lower error plus (majorized) penalties, or leave a function's domain, are taken back, so
        without penalties the network never gets worse.

        Args:
            steps: number of steps at most.
            tolerance: relative gain below which a step counts as none; two of these in a row end it.
        """
        with torch.no_grad():
            error, stale = self.error(), 0
            for _ in range(steps if self.size else 0):
                if not error > 0 or stale >= PATIENCE:
                    break
                system = self.system()
                if not system.finite():
                    break
                start = self.get()
                value = 0.5 * error + self._penalty()
                new = self._step(system, start, value)
                if new is None:
                    self.set(start)
                    self.damping = DAMPING
                    break
                gained = value - 0.5 * new - self._penalty()
                stale = stale + 1 if gained < tolerance * value else 0
                error = new
        return error

    def _step(self, system: Primal | Dual, start: Tensor, value: float) -> float | None:
        """One accepted step (its squared error), or None where no damping gives one."""
        growth = 2.0
        while self.damping < MOST_DAMPING:
            found = system.step(self.damping)
            if found is not None:
                step, predicted = found
                self.set(start - step)
                error = self.error()
                gained = value - 0.5 * error - self._penalty()
                if gained > 0:  # false for NaN, too
                    ratio = gained / predicted if predicted > 0 else 1.0
                    self.damping = max(self.damping * max(SHRINK, 1 - (2 * ratio - 1) ** 3), LEAST_DAMPING)
                    return error
            self.damping *= growth
            growth *= 2
        return None
