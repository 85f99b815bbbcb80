"""The damped Gauss-Newton step of a least-squares problem with block-diagonal penalties, solved on its smaller side.

Both classes gather rows of the Jacobian J and residuals r (to add up `J' J` and `J' r`), take the penalties' matrix Q and
gradient q, and solve (J' J + Q + damping D) step = J' r + q, with D the diagonal of J' J + Q (Marquardt's scaling).
"""

from __future__ import annotations

import torch
from torch import Tensor

Quadratics = list[tuple[int, Tensor]]  # first parameter, (E, size, size) matrices of E groups of parameters in a row


def _indices(start: int, quadratic: Tensor) -> Tensor:
    """Positions (E, size) of a group's parameters."""
    groups, size = quadratic.shape[:2]
    return start + torch.arange(groups * size, device=quadratic.device).view(groups, size)


def _scaled(diagonal: Tensor) -> tuple[Tensor, float]:
    """D, never quite 0, and its largest entry."""
    largest = float(diagonal.max())
    return diagonal + 1e-12 * largest + 1e-300, largest


class Primal:
    """A system of parameters x parameters: memory does not depend on the number of rows."""

    def __init__(self, like: Tensor) -> None:
        self.matrix, self.gradient = like.new_zeros(len(like), len(like)), torch.zeros_like(like)

    def add(self, table: Tensor, residual: Tensor) -> None:
        """Take rows (R, P) of the Jacobian and their residuals (R,)."""
        self.matrix.addmm_(table.T, table)
        self.gradient.addmv_(table.T, residual)

    def penalize(self, quadratics: Quadratics, gradient: Tensor) -> None:
        """Take Q and q (P,); call it once, after all rows."""
        for start, quadratic in quadratics:
            at = _indices(start, quadratic)
            self.matrix[at[:, :, None], at[:, None, :]] += quadratic
        self.gradient += gradient

    def finite(self) -> bool:
        """Whether the system holds neither NaN nor infinity."""
        return bool(torch.isfinite(self.matrix).all())

    def step(self, damping: float) -> tuple[Tensor, float] | None:
        """The step (P,) and the decrease a quadratic model predicts for it; None where the matrix is numerically singular."""
        diagonal, largest = _scaled(self.matrix.diagonal())
        factor, info = torch.linalg.cholesky_ex(self.matrix + torch.diag(damping * diagonal + 1e-14 * largest))
        if int(info):
            return None
        step = torch.cholesky_solve(self.gradient[:, None], factor)[:, 0]
        return step, float(step @ (self.gradient - 0.5 * (self.matrix @ step)))


class Dual:
    """The same system as one of rows x rows, for fewer rows than parameters (Woodbury's identity).

    With M = Q + damping D, block-diagonal, step = M^-1 (q + J' v), where (1 + J M^-1 J') v = r - J M^-1 q.
    """

    def __init__(self, like: Tensor) -> None:
        self.slope, self.groups = torch.zeros_like(like), list[tuple[int, Tensor]]()
        self.tables, self.residuals = list[Tensor](), list[Tensor]()

    def add(self, table: Tensor, residual: Tensor) -> None:
        """Take rows (R, P) of the Jacobian and their residuals (R,)."""
        self.tables.append(table)
        self.residuals.append(residual)

    def penalize(self, quadratics: Quadratics, gradient: Tensor) -> None:
        """Take Q, whose groups must hold every parameter, and q (P,); call it once, after all rows."""
        self.groups, self.slope = quadratics, gradient
        self.table, self.residual = torch.cat(self.tables), torch.cat(self.residuals)
        diagonal = self.table.square().sum(0)
        for start, quadratic in quadratics:
            diagonal[_indices(start, quadratic)] += quadratic.diagonal(dim1=1, dim2=2)
        self.diagonal, self.largest = _scaled(diagonal)

    def finite(self) -> bool:
        """Whether the system holds neither NaN nor infinity."""
        return bool(torch.isfinite(self.table).all()) and all(bool(torch.isfinite(q).all()) for _, q in self.groups)

    def step(self, damping: float) -> tuple[Tensor, float] | None:
        """The step (P,) and the decrease a quadratic model predicts for it; None where the matrix is numerically singular."""
        right = torch.cat([self.table, self.slope[None]]).T  # (P, R + 1)
        solved = torch.empty_like(right)
        for start, quadratic in self.groups:
            at = _indices(start, quadratic)
            damped = quadratic + torch.diag_embed(damping * self.diagonal[at] + 1e-14 * self.largest)
            factor, info = torch.linalg.cholesky_ex(damped)
            if bool(info.any()):
                return None
            solved[at] = torch.cholesky_solve(right[at], factor)
        kernel = self.table @ solved[:, :-1]
        kernel.diagonal().add_(1)
        factor, info = torch.linalg.cholesky_ex(kernel)
        if int(info):
            return None
        v = torch.cholesky_solve((self.residual - self.table @ solved[:, -1])[:, None], factor)[:, 0]
        step = solved[:, :-1] @ v + solved[:, -1]
        change = self.table @ step
        curvature = change @ change
        for start, quadratic in self.groups:
            part = step[_indices(start, quadratic)]
            curvature = curvature + torch.einsum("ej,ejk,ek->", part, quadratic, part)
        return step, float(change @ self.residual + step @ self.slope - 0.5 * curvature)
