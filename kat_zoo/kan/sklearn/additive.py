"""Sparse additive models: networks without a hidden layer, fitted exactly, their penalties chosen by cross-validation.

They minimize 1/2 mean (B c - y)^2 + penalty * sum_i std(B_i c_i) + smoothness / 2 * sum_i |D^2 c_i|^2 over the coefficients c_i of
each input's bases B_i. The group penalty on the standard deviation of an edge drops inputs as a whole (Meier, van de Geer,
Buhlmann, arXiv 0806.4115). It enters by its quadratic majorizer, so that a fit is a few linear systems of the covariances,
which stand for all rows: cross-validation over all pairs of penalties costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from ..network import Network
from ..operations.grids import update_grid

PENALTIES = (0.0, 0.01, 0.03, 0.1, 0.2, 0.4)  # on an edge's standard deviation, weak to strong: an edge that became zero cannot come back
SMOOTHNESS = (1e2, 1.0, 0.1, 1e-2, 1e-3)  # the first forces every function to be a straight line
FOLDS = 5
SWEEPS = 6  # reweighted least squares per penalty, each from the one before


def _moments(basis: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted covariances (P, P) and (O, P), means (P,) and (O,)."""
    w = (weight / weight.sum())[:, None]
    mean, mean_y = (w * basis).sum(0), (w * y).sum(0)
    centered = basis - mean
    return centered.T @ (w * centered), (y - mean_y).T @ (w * centered), mean, mean_y


def _path(gram: Tensor, right: Tensor, inputs: int, smoothness: float, penalties: Sequence[float]) -> Tensor:
    """Coefficients (len(penalties), ..., O, P) for covariances gram (..., P, P) and right (..., O, P).

    Args:
        gram: covariances of the bases, one matrix for each fold.
        right: covariances of the targets with the bases.
        inputs: number of inputs.
        smoothness: penalty on second differences.
        penalties: penalties on the standard deviation of edges, weak to strong, each fitted from the one before.
    """
    size = gram.shape[-1] // inputs
    own = torch.stack([gram[..., i : i + size, i : i + size] for i in range(0, gram.shape[-1], size)], -3)
    second = torch.eye(size, dtype=gram.dtype, device=gram.device).diff(n=2, dim=0) if size > 2 else gram.new_zeros(0, size)
    fixed = gram + smoothness * torch.block_diag(*[second.T @ second] * inputs)
    found, c = [], torch.zeros_like(right)
    for penalty in penalties:
        for _ in range(SWEEPS if penalty else 1):
            std = torch.einsum("...oij,...ijk,...oik->...oi", *(v := c.unflatten(-1, (inputs, size)), own, v)).clamp(min=0).sqrt()
            blocks = (penalty / (std + 1e-6))[..., None, None] * own.unsqueeze(-4)
            matrix = fixed.unsqueeze(-3).expand(*std.shape[:-1], -1, -1).clone()
            for i in range(inputs if penalty else 0):
                at = slice(i * size, (i + 1) * size)
                matrix[..., at, at] += blocks[..., i, :, :]
            diagonal = matrix.diagonal(dim1=-2, dim2=-1)  # a view; each input's constant is free, so the matrix is singular
            diagonal += 1e-10 + 1e-14 * diagonal.amax(-1, keepdim=True)
            c = torch.cholesky_solve(right.unsqueeze(-1), torch.linalg.cholesky(matrix)).squeeze(-1)
        found.append(c)
    return torch.stack(found)


def choose_penalties(basis: Tensor, y: Tensor, weight: Tensor, inputs: int, seed: int) -> tuple[float, int]:
    """Smoothness, and number of the penalty in PENALTIES, of the least cross-validated error.

    Args:
        basis: (N, inputs * bases) values of the bases.
        y: (N, outputs) targets.
        weight: (N,) positive sample weights.
        inputs: number of inputs.
        seed: seed of the folds.
    """
    fold = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)) % min(FOLDS, len(y))
    parts = [(fold != f, fold == f) for f in range(int(fold.max()) + 1)]
    gram, right, mean, mean_y = (torch.stack(m) for m in zip(*(_moments(basis[a], y[a], weight[a]) for a, _ in parts), strict=True))
    errors = {}
    for smoothness in SMOOTHNESS:
        path = _path(gram, right, inputs, smoothness, PENALTIES)
        for number, c in enumerate(path):
            errors[smoothness, number] = sum(
                float((weight[b, None] * ((basis[b] - mean[f]) @ c[f].T + mean_y[f] - y[b]).square()).sum())
                for f, (_, b) in enumerate(parts)
            )
    # Ties, as on exact data, go to the stronger penalties.
    return min(product(SMOOTHNESS, reversed(range(len(PENALTIES)))), key=lambda key: errors[key])


def fit_additive(
    model: Network,
    X: Tensor,
    y: Tensor,
    weight: Tensor | None = None,
    penalties: tuple[float, int] | None = None,
    seed: int = 0,
) -> tuple[float, int]:
    """Train a network without hidden layer as a sparse, smooth additive model; the linear model is one of its cases.

    Args:
        model: a network [inputs, outputs] with base "zero", changed in place.
        X: (N, inputs) samples, at least 2.
        y: (N, outputs) targets.
        weight: (N,) positive sample weights.
        penalties: result of an earlier call; chosen by five-fold cross-validation by default.
        seed: seed of the folds.

    Returns:
        The penalties.

    Raises:
        ValueError: a network with hidden layers, products or a base.
    """
    spline = model.layers[0].spline
    if len(model.layers) > 1 or model.width[-1][1] or spline.base_weight is not None:
        raise ValueError(f"width={model.width}, base={spline.base!r}: expected [inputs, outputs] without products and base 'zero'")
    w = torch.ones_like(y[:, 0]) if weight is None else weight.to(y)
    with torch.no_grad():
        update_grid(model, X, adapt=0.0)
        basis = spline.basis(X).flatten(1)
        if penalties is None:
            penalties = choose_penalties(basis, y, w, spline.in_features, seed)
        gram, right, mean, mean_y = _moments(basis, y, w)
        smoothness, number = penalties
        c = _path(gram, right, spline.in_features, smoothness, PENALTIES[: number + 1])[-1]
        spline.coef.copy_(c.unflatten(-1, (spline.in_features, -1)).permute(1, 2, 0))
        spline.coef[0] += mean_y - c @ mean  # the bases of an input add up to 1
    return penalties
