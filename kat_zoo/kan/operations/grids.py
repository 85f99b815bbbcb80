"""Grids of a trained network: finer ones (grid extension) and ones that follow the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..._checks import count, is_real, real
from ...kernels import bspline_basis
from ...layers.spline import KANLinear
from ..migration import answers_words
from ..network import Network


def refit(spline: KANLinear, knots: Tensor, points: Tensor) -> Tensor:
    """Coefficients (C_in, G' + k, C_out) on new knots, fitted to the splines at `points` (P, C_in)."""
    k = spline.spline_order
    old = bspline_basis(points.double(), spline.knots, k, extrapolate=spline.extrapolate).transpose(0, 1)
    new = bspline_basis(points.double(), knots, k, extrapolate=spline.extrapolate).transpose(0, 1)
    values = old @ spline.coef.detach().double()  # (C_in, P, C_out)
    # gelsd copes with bases that no point touches (pykan's lstsq failures): they get the least-norm coefficients.
    solution: Tensor = torch.linalg.lstsq(new.cpu(), values.cpu(), driver="gelsd").solution
    return solution.to(spline.coef)


def collocation(knots: Tensor, spline_order: int, per_interval: int) -> Tensor:
    """Points (P, C_in) inside the grid: `per_interval` evenly spaced in each interval, and both ends."""
    inner = knots[:, spline_order : -spline_order or None]
    steps = (torch.arange(per_interval, dtype=knots.dtype, device=knots.device) + 0.5) / per_interval
    points = inner[:, :-1, None] + inner.diff(dim=1).unsqueeze(-1) * steps
    return torch.cat([inner[:, :1], points.flatten(1), inner[:, -1:]], 1).T


def _extend(inner: Tensor, spline_order: int) -> Tensor:
    """Knots (C, G + 1) of the domain, extended by `spline_order` end intervals on either side."""
    steps = torch.arange(1, spline_order + 1, dtype=inner.dtype, device=inner.device)
    low = inner[:, :1] - steps.flip(0) * (inner[:, 1:2] - inner[:, :1])
    high = inner[:, -1:] + steps * (inner[:, -1:] - inner[:, -2:-1])
    return torch.cat([low, inner, high], 1)


def finer_knots(inner: Tensor, grid_size: int) -> Tensor:
    """Knots (C, grid_size + 1) that contain all of `inner` (C, G + 1), each old interval split into equal parts."""
    old = inner.shape[1] - 1
    parts = torch.full((old,), grid_size // old)
    # The longest intervals of the average grid get one part more.
    parts[inner.diff(dim=1).mean(0).topk(grid_size % old).indices.cpu()] += 1
    pieces = [
        inner[:, n : n + 1] + (inner[:, n + 1 : n + 2] - inner[:, n : n + 1]) * torch.arange(p, device=inner.device) / p
        for n, p in enumerate(parts.tolist())
    ]
    return torch.cat([*pieces, inner[:, -1:]], 1)


def coarser_knots(inner: Tensor, grid_size: int) -> Tensor:
    """Knots (C, grid_size + 1) spread evenly in the numbering of `inner` (C, G + 1)."""
    at = torch.linspace(0, inner.shape[1] - 1, grid_size + 1, dtype=inner.dtype, device=inner.device)
    left = at.floor().long().clamp(max=inner.shape[1] - 2)
    return inner[:, left] + (at - left) * (inner[:, left + 1] - inner[:, left])


@answers_words
def refine(model: Network, grid_size: int) -> float:
    """Give every spline `grid_size` intervals (grid extension, arXiv 2404.19756, section 2.4), in place.

    A finer grid contains all old knots, so the function stays exactly the same for any two sizes; where the size
    is not a multiple of the old one, the new intervals are unequal (`update_grid` evens them out). A coarser grid is
    fitted by least squares over the whole grid.

    Args:
        model: the network, changed in place.
        grid_size: number of intervals of each new grid, at least 1.

    Returns:
        The largest relative change of a layer's splines (root mean square over the grid, over the splines' own): below
        1e-10 in float64 for a finer grid.

    Raises:
        ValueError: grid_size is not an integer of at least 1.
    """
    grid_size = count("grid_size", grid_size)
    change = 0.0
    for layer in model.layers:
        spline = layer.spline
        k = spline.spline_order
        finer = grid_size >= spline.grid_size
        inner = spline.knots[:, k : -k or None]
        knots = _extend((finer_knots if finer else coarser_knots)(inner, grid_size), k)
        if finer and k and spline.extrapolate == "zero":  # the last bases reach beyond the grid, so the knots there stay
            knots[:, :k], knots[:, -k:] = spline.knots[:, :k], spline.knots[:, -k:]
        points = collocation(knots if finer else spline.knots, k, k + 3)
        if k == 0:
            points = points[1:-1]  # at a knot either of two steps may count
        coef = refit(spline, knots, points)
        old = torch.einsum("pij,ijo->pio", bspline_basis(points, spline.knots, k), spline.coef.detach().double())
        spline.set_grid(knots, coef)
        new = torch.einsum("pij,ijo->pio", bspline_basis(points, spline.knots, k), spline.coef.detach().double())
        change = max(change, float((new - old).square().mean().sqrt() / old.square().mean().sqrt().clamp(min=1e-12)))
    return change


def data_knots(x: Tensor, grid_size: int, spline_order: int, adapt: float, margin: float) -> Tensor:
    """Knots (C, G + 2k + 1) for samples x (N, C): quantiles blended with a uniform grid over the samples' range."""
    x = x.double()
    low, high = x.min(0).values, x.max(0).values
    flat = high - low < 1e-9 * (1 + low.abs().maximum(high.abs()))
    room = (1e-6 * low.abs()).clamp(min=1)
    low, high = torch.where(flat, low - room, low), torch.where(flat, high + room, high)
    low, high = low - margin * (high - low), high + margin * (high - low)
    at = torch.linspace(0, 1, grid_size + 1, dtype=x.dtype, device=x.device)
    uniform = low[:, None] + (high - low)[:, None] * at
    if adapt == 0:
        return _extend(uniform, spline_order)
    quantiles = torch.quantile(x, at, dim=0).T.clone()
    quantiles[:, 0], quantiles[:, -1] = low, high
    # Repeated values (discrete inputs) must not make an interval vanish.
    inner = adapt * quantiles + (1 - adapt) * uniform
    return _extend(inner, spline_order)


def update_grid(
    model: Network,
    X: Any,
    *,
    adapt: float = 0.5,
    margin: float = 0.02,
    max_change: float | None = None,
) -> float:
    """Move every layer's knots to the range of the data and, partly, to its quantiles; coefficients are refitted.

    Layers whose coefficients are frozen (requires_grad = False) keep their grids.

    Args:
        model: the network, changed in place.
        X: (N, inputs) samples.
        adapt: weight of the data's quantiles in the knots, from 0 (uniform grids over the data's range) to below 1.
        margin: part of the range added on either side.
        max_change: largest change of the network's output (root mean square, relative to its standard deviation); a layer
            whose new grid would pass it keeps its old one. None for no bound.

    Returns:
        The relative change of the output.

    Raises:
        ValueError: adapt outside [0, 1), a negative margin or max_change, X too small or not finite, a network that is not
            defined on all of X.
    """
    if not is_real(adapt) or not 0 <= adapt < 1:
        raise ValueError(f"adapt={adapt!r}: expected a number of at least 0 and below 1, a grid of bare quantiles may repeat knots")
    margin = real("margin", margin, 0.0)
    if max_change is not None:
        real("max_change", max_change, 0.0)
    x = model.samples(X)
    with torch.no_grad():
        before = model(x)
        scale = before.std(correction=0).clamp(min=1e-12)
        change = 0.0
        for number, layer in enumerate(model.layers):
            spline = layer.spline
            if layer.frozen:
                continue
            h = model.finite_activations(x)[number]
            knots = data_knots(h, spline.grid_size, spline.spline_order, adapt, margin)
            points = torch.cat([h.double(), collocation(knots, spline.spline_order, 3)])
            old_knots, old_coef = spline.knots, spline.coef.detach()
            spline.set_grid(knots, refit(spline, knots, points))
            new_change = float((model(x) - before).square().mean().sqrt() / scale)
            if max_change is not None and new_change > max_change:
                spline.set_grid(old_knots, old_coef)
            else:
                change = new_change
    return change
