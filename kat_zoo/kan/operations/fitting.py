"""c f(a x + b) + d fitted to samples: a multi-start search over (a, b), then variable projection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..library import DEFAULT_LIBRARY, Function, get_function

SEARCH_POINTS = 96  # samples in the coarse search over (a, b)
REFINE_POINTS = 200  # samples in the refinement: a fit of four constants needs no more
STARTS = 4  # starts that are refined
PATIENCE = 4  # refining steps in a row that gain less than a thousandth before it ends
FIRST_STEPS, STEPS = 8, 30  # steps of every function, and of those that look best
FLOOR = 1e-9  # unexplained share below which fits are equally good: rounding must not outweigh complexity


@dataclass(frozen=True)
class Suggestion:
    """A function that may be an edge.

    Attributes:
        name: name of the function in the library.
        r2: share of the edge's variance that c f(a x + b) + d explains.
        complexity: price of the function in a formula.
        score: complexity + log10 of the unexplained share; lower is better.
        affine: the constants (a, b, c, d).
    """

    name: str
    r2: float
    complexity: float
    score: float
    affine: tuple[float, float, float, float]


def _quantile_subset(x: Tensor, y: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """At most `points` samples, spread over the quantiles of x; both ends are kept."""
    rows = x.argsort()
    if len(x) > points:
        rows = rows[torch.linspace(0, len(x) - 1, points, device=x.device).round().long()]
    return x[rows], y[rows]


def _coarse(function: Function, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R^2 of the best c, d for all starting images; returns (r2, a, b)."""
    low, high = x[0], x[-1]
    images = torch.tensor(function.images(), dtype=x.dtype, device=x.device)
    a = (images[:, 1] - images[:, 0]) / (high - low)
    b = images[:, 0] - a * low
    values = function.torch(a[:, None] * x + b[:, None])
    centered = values - values.mean(1, keepdim=True)
    target = y - y.mean()
    r2 = (centered @ target).square() / (centered.square().sum(1) * target.square().sum()).clamp(min=1e-300)
    return torch.where(torch.isfinite(values).all(1) & torch.isfinite(r2), r2, -1), a, b


def _projected(function: Function, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c, d by linear regression; returns (c, d, residual sum of squares, values), one row per start."""
    values = function.torch(a[:, None] * x + b[:, None])
    mean = values.mean(1, keepdim=True)
    centered = values - mean
    c = (centered @ (y - y.mean())) / centered.square().sum(1).clamp(min=1e-300)
    d = y.mean() - c * mean[:, 0]
    loss = (c[:, None] * values + d[:, None] - y).square().sum(1)
    return c, d, torch.where(torch.isfinite(loss), loss, math.inf), values


def _refine(function: Function, x: Tensor, y: Tensor, a: Tensor, b: Tensor, steps: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Damped Gauss-Newton on (a, b) with c, d eliminated (variable projection), all starts at once."""
    damping = torch.full_like(a, 1e-3)
    c, d, loss, values = _projected(function, x, y, a, b)
    stale = 0
    for _ in range(steps):
        previous = float(loss.min())
        with torch.enable_grad():
            u = (a[:, None] * x + b[:, None]).requires_grad_()
            f = function.torch(u)
            slope = torch.autograd.grad(f.sum(), u)[0] if f.requires_grad else torch.zeros_like(u)
        slope = torch.nan_to_num(c[:, None] * slope, posinf=0.0, neginf=0.0)
        jacobian = torch.stack([slope * x, slope, torch.nan_to_num(values), torch.ones_like(slope)], -1)
        residual = torch.nan_to_num(c[:, None] * values + d[:, None] - y)
        matrix = jacobian.mT @ jacobian
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        matrix = matrix + torch.diag_embed(damping[:, None] * diagonal + 1e-14 * diagonal.amax(1, keepdim=True) + 1e-300)
        step, info = torch.linalg.solve_ex(matrix, (jacobian.mT @ residual.unsqueeze(-1)))
        step = torch.nan_to_num(step[..., 0])
        trial = _projected(function, x, y, a - step[:, 0], b - step[:, 1])
        better = (trial[2] < loss) & (info == 0)
        a, b = torch.where(better, a - step[:, 0], a), torch.where(better, b - step[:, 1], b)
        c, d, loss = (torch.where(better, new, old) for new, old in zip(trial[:3], (c, d, loss), strict=True))
        values = torch.where(better[:, None], trial[3], values)
        damping = torch.where(better, damping / 5, damping * 4).clamp(1e-12, 1e12)
        stale = 0 if float(loss.min()) < 0.999 * previous else stale + 1
        if stale == PATIENCE:
            break
    return loss, (a, b, c, d)


def fit_function(
    name: str,
    x: Tensor,
    y: Tensor,
    worth: float = 0.0,
    steps: int = STEPS,
    affine: Sequence[float] | None = None,
) -> Suggestion | None:
    """Fit c f(a x + b) + d to samples: a multi-start search over (a, b), then variable projection.

    The starts are images of the samples' range, so that the scale of x does not matter; memory does not depend on the
    number of samples.

    Args:
        name: name of the function in the library.
        x: (N,) samples of the argument.
        y: (N,) values.
        worth: least R^2 of a start that is refined.
        steps: number of Gauss-Newton steps of the refinement.
        affine: the constants (a, b, ...) of one start, instead of the search.

    Returns:
        The best fit, or None where the function is defined nowhere on the samples or not worth refining.
    """
    function = get_function(name)
    spread, mean = float(y.std(correction=0)), float(y.mean())
    low, high = float(x.min()), float(x.max())
    constant = spread <= 1e-12 * (1 + float(y.abs().max())) or high - low <= 0
    if name == "0":
        if constant:
            return Suggestion(name, 1.0, function.complexity, function.complexity - 12, (0, 0, 0, mean))
        # It explains nothing of an edge that varies.
        return None if worth > 0 else Suggestion(name, 0.0, function.complexity, function.complexity, (0, 0, 0, mean))
    if constant:
        return None
    z, target = (2 * x - low - high) / (high - low), (y - mean) / spread
    if affine is not None:  # a x + b = (a / scale) z + (b + a middle)
        a, b = (
            torch.tensor([v], dtype=x.dtype, device=x.device)
            for v in (affine[0] * (high - low) / 2, affine[1] + affine[0] * (high + low) / 2)
        )
    else:
        r2, a, b = _coarse(function, *_quantile_subset(z, target, SEARCH_POINTS))
        best = r2.topk(min(STARTS, len(r2)))
        keep = best.values > max(worth, 0.9 * float(best.values[0]), 0.0)
        if not bool(keep.any()):
            return None
        a, b = a[best.indices[keep]], b[best.indices[keep]]
    points = _quantile_subset(z, target, REFINE_POINTS)
    loss, found = _refine(function, *points, a, b, 0 if name == "x" else steps)
    n = int(loss.argmin())
    fitted = float(loss[n] / points[1].square().sum())
    a0, b0, c0, d0 = (float(p[n]) for p in found)
    if not math.isfinite(fitted):
        return None
    scale = 2 / (high - low)
    affine_x = (a0 * scale, b0 - a0 * (low + high) / (high - low), c0 * spread, d0 * spread + mean)
    score = function.complexity + math.log10(max(fitted, FLOOR))
    return Suggestion(name, 1 - fitted, function.complexity, score, affine_x)


def fit_library(x: Tensor, y: Tensor, library: Sequence[str] | None = None, worth: float = 0.5, top: int = 6) -> list[Suggestion]:
    """All functions that fit samples, best score first; only the `top` are refined to the end.

    Args:
        x: (N,) samples of the argument.
        y: (N,) values.
        library: names of the functions to try, `DEFAULT_LIBRARY` by default.
        worth: least R^2 of a start that is refined.
        top: number of functions that are refined to the end.
    """
    x, y = x.double(), y.double()
    with torch.no_grad():
        first = [fit_function(name, x, y, worth, FIRST_STEPS) for name in (DEFAULT_LIBRARY if library is None else library)]
        found = sorted((s for s in first if s is not None), key=lambda s: s.score)
        final = [fit_function(s.name, x, y, worth, STEPS, s.affine) or s for s in found[:top]]
    return sorted(final, key=lambda s: s.score) + found[top:]
