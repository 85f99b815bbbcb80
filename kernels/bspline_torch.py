"""B-spline bases in plain PyTorch (Cox-de Boor): the oracle, and the path of devices without a kernel."""

import torch
from torch import Tensor


def _degree_zero(x: Tensor, knots: Tensor, spline_order: int) -> Tensor:
    """One-hot interval of x, (..., C, intervals), of the knot vector; the domain's last one is closed."""
    grid_size = knots.shape[-1] - 2 * spline_order - 1
    inner = knots[:, spline_order + 1 : spline_order + grid_size]  # the domain's interior knots
    index = spline_order + (x.unsqueeze(-1) >= inner).sum(-1)
    intervals = torch.arange(knots.shape[-1] - 1, device=x.device)  # not one_hot, which torch.vmap cannot batch
    return (index.unsqueeze(-1) == intervals).to(knots.dtype)


def _raise_degree(basis: Tensor, x: Tensor, knots: Tensor, p: int, derivative: bool) -> Tensor:
    """Bases of degree p from those of degree p - 1: the Cox-de Boor recurrence, or its derivative counterpart."""
    left = knots[:, p:-1] - knots[:, : -p - 1]
    right = knots[:, p + 1 :] - knots[:, 1:-p]
    left = torch.where(left > 0, 1 / left, 0)  # 0 / 0 = 0 at repeated knots, the usual convention
    right = torch.where(right > 0, 1 / right, 0)
    if derivative:
        return p * (left * basis[..., :-1] - right * basis[..., 1:])
    x = x.unsqueeze(-1)
    return (x - knots[:, : -p - 1]) * left * basis[..., :-1] + (knots[:, p + 1 :] - x) * right * basis[..., 1:]


def _inside(x: Tensor, knots: Tensor, spline_order: int, derivative: int) -> Tensor:
    basis = _degree_zero(x, knots, spline_order)
    if derivative > spline_order:
        return torch.zeros_like(basis[..., : knots.shape[-1] - spline_order - 1])
    for p in range(1, spline_order + 1):
        basis = _raise_degree(basis, x, knots, p, derivative=p > spline_order - derivative)
    return basis


def bspline_basis_reference(x: Tensor, knots: Tensor, spline_order: int, derivative: int = 0) -> Tensor:
    """B-spline basis functions, or one of their derivatives, continued linearly outside the grid.

    The recurrence of Cox and de Boor (de Boor, A Practical Guide to Splines, chapters IX and X). Differentiable in x by
    autograd any number of times.

    Args:
        x: (..., C) positions.
        knots: (1 or C, G + 2 k + 1) non-decreasing; the grid of G intervals is [knots[k], knots[k + G]].
        spline_order: degree k of the polynomial pieces.
        derivative: number of derivatives with respect to x that are taken.

    Returns:
        (..., C, G + k) in the wider of x's and the knots' dtypes; NaN in every basis where x is not finite.
    """
    dtype = torch.promote_types(x.dtype, knots.dtype)
    x, knots = x.to(dtype), knots.to(dtype)
    low, high = knots[:, spline_order], knots[:, -spline_order - 1]
    inside = torch.minimum(torch.maximum(x, low), high)
    # A step outside has no value of its own: the edge's value plus the edge's slope times the distance.
    excess = (x - inside).unsqueeze(-1)
    outside = excess != 0
    if derivative == 0:
        line = _inside(inside, knots, spline_order, 0) + excess * _inside(inside, knots, spline_order, 1)
        values = _inside(torch.where(outside.squeeze(-1), inside, x), knots, spline_order, 0)
    elif derivative == 1:
        line = _inside(inside, knots, spline_order, 1)
        values = _inside(torch.where(outside.squeeze(-1), inside, x), knots, spline_order, 1)
    else:
        values = _inside(torch.where(outside.squeeze(-1), inside, x), knots, spline_order, derivative)
        line = torch.zeros_like(values)
    # One, or NaN, as a factor that depends on x: the derivatives at a position that is not finite are NaN, too.
    factor = 1 + x * torch.where(x.isfinite(), 0.0, float("nan"))
    return torch.where(outside, line, values) * factor.unsqueeze(-1)


def spline_contract_reference(x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, spline_order: int, derivative: int) -> Tensor:
    """y[b, o] = sum_i scale[b, i] sum_j B_j(x[b, i]) coef[i, j, o], with the dense bases written out."""
    basis = bspline_basis_reference(x, knots, spline_order, derivative)
    if scale is not None:
        basis = basis * scale.unsqueeze(-1)
    return torch.einsum("bij,ijo->bo", basis, coef.to(basis.dtype)).to(x.dtype)


def spline_project_reference(grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, spline_order: int, derivative: int) -> Tensor:
    """u[b, i] = sum_jo B_j(x[b, i]) coef[i, j, o] grad[b, o]."""
    basis = bspline_basis_reference(x, knots, spline_order, derivative)
    return torch.einsum("bij,ijo,bo->bi", basis, coef.to(basis.dtype), grad.to(basis.dtype)).to(x.dtype)


def spline_accumulate_reference(grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, spline_order: int, derivative: int) -> Tensor:
    """w[i, j, o] = sum_b scale[b, i] B_j(x[b, i]) grad[b, o]."""
    basis = bspline_basis_reference(x, knots, spline_order, derivative)
    if scale is not None:
        basis = basis * scale.unsqueeze(-1)
    return torch.einsum("bij,bo->ijo", basis, grad.to(basis.dtype)).to(grad.dtype)
