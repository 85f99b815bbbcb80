"""Starts of the shape [inputs, 1, 1]: y = F(sum of functions of one input), with F a known function.

Where F is exp, a root, a square or an inverse, the inverse of F on y is a sum of functions of one input: linear least squares, which
has no local minima, finds it at once. A start from random splines must first find the same, with F beside it, and waves of many turns
keep most of them from it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..model import KAN
from ..operations.symbolic import fix_symbolic
from .problem import Problem

GRID = 20  # intervals of the splines
STEPS = 4  # Levenberg-Marquardt steps of the sum, whose parameters are linear
WORTH = 0.3  # largest relative error of a start


class _Outer(NamedTuple):
    """A function F of the library, its inverse for positive values, and the derivative of F as a function of its value."""

    name: str
    inverse: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


OUTERS = (
    _Outer("exp", torch.log, lambda v: v),
    _Outer("sqrt", torch.square, lambda v: 0.5 / v),
    _Outer("x^2", torch.sqrt, lambda v: 2 * v.sqrt()),
    _Outer("1/x", torch.reciprocal, lambda v: v.square()),
)


def outer_starts(problem: Problem) -> list[KAN]:
    """Networks of the shape [inputs, 1, 1] whose last edge is a function of the library, the best first; none where y changes its sign.

    Args:
        problem: the scaled data, of one output.
    """
    v, v_val = problem.y - problem.zero, problem.y_val - problem.zero
    sign = 1.0 if float(v[0]) > 0 else -1.0
    if float(torch.cat([v, v_val]).mul(sign).min()) <= 0:
        return []
    found: list[tuple[float, int, KAN]] = []
    for outer in OUTERS:
        t, t_val = outer.inverse(sign * v), outer.inverse(sign * v_val)
        middle, spread = float(t.mean()), float(t.std())
        weight = outer.slope(sign * v)[:, 0].square()  # an error of t counts as that of y which it means
        if not spread or not torch.isfinite(torch.cat([t, t_val])).all() or not torch.isfinite(weight).all():
            continue
        weight = weight if problem.weight is None else weight * problem.weight
        straight = replace(problem, y=(t - middle) / spread, y_val=(t_val - middle) / spread, weight=weight)
        width = [problem.inputs, 1]
        total = KAN(width, GRID, base="zero", noise_scale=0.0, dtype=problem.X.dtype, device=problem.X.device)
        total.update_grid(problem.X, adapt=0.0)
        straight.train(total, STEPS, smoothness=1e-8)
        model = KAN([*width, 1], GRID, base="zero", noise_scale=0.0, dtype=problem.X.dtype, device=problem.X.device)
        model.layers[0] = copy.deepcopy(total.layers[0])
        fix_symbolic(model, 1, 0, 0, outer.name, affine=(spread, middle, sign, problem.zero))
        error = problem.error(model)
        if error < WORTH:
            found.append((error, len(found), model))
    return [model for _, _, model in sorted(found, key=lambda entry: entry[:2])]
