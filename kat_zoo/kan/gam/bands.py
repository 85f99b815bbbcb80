"""How much the curves of a model would move on other rows: a bootstrap over groups of rows."""

from __future__ import annotations

import numpy as np

from .basis import chunks
from .losses import Loss
from .model import Fitted, spline_coefficients
from .reml import FREE, Moments, solve

GROUPS = 40  # groups of rows, each with a random weight (Rubin's Bayesian bootstrap, 1981)
REPEATS = 30
ROWS = 10000  # rows of the bootstrap; the deviations of more rows are smaller by the root of their number


def deviations(fitted: Fitted, loss: Loss, x: np.ndarray, y: np.ndarray, weight: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Changes (REPEATS, C, G + 3) of the spline coefficients of the columns when rows get other weights.

    Penalties and pairs stay, and a loss other than squared error is the parabola at the fit.

    Args:
        fitted: the model.
        loss: its loss.
        x: (N, C) rows.
        y: (N,) targets.
        weight: (N,) positive weights.
        rank: (N,) rank of each row, the same for equal rows.
    """
    terms, full = fitted.terms, fitted.solution
    active = np.flatnonzero((full.coefficients != 0) | (terms.blocks() == FREE))
    rows = np.argsort(rank, kind="stable")[:ROWS]
    factor, target = loss.working(y[rows], fitted.eta[rows], weight[rows])
    residual, own_weight = target - fitted.eta[rows], weight[rows] * factor
    size = len(active)
    gram, right = np.zeros((GROUPS, size, size)), np.zeros((GROUPS, size))
    for part in chunks(len(rows)):
        design = terms.design(x[rows[part]])[:, active]
        for group in range(GROUPS):
            at = rank[rows[part]] % GROUPS == group
            weighted = design[at] * own_weight[part][at, None]
            gram[group] += weighted.T @ design[at]
            right[group] += weighted.T @ residual[part][at]
    blocks = terms.blocks()[active]
    _, blocks[blocks != FREE] = np.unique(blocks[blocks != FREE], return_inverse=True)
    kept = full.penalties[np.unique(terms.blocks()[active][terms.blocks()[active] != FREE])]
    share = float(weight[rows].sum() / weight.sum())
    generator, found = np.random.default_rng(0), []
    pull = np.append(kept, 0.0)[blocks] * share * full.coefficients[active]  # the penalty's part of the slope at the fit
    for _ in range(REPEATS):
        w = generator.standard_exponential(GROUPS)
        w *= GROUPS / w.sum()
        moments = Moments(np.einsum("g,gij->ij", w, gram), w @ right - pull, 1.0, 1.0)
        change = np.zeros(len(full.coefficients))
        change[active] = solve(moments, blocks, kept * share, 1.0, 0.0, steps=0).coefficients * np.sqrt(share)
        found.append(spline_coefficients(terms, change))
    changes: np.ndarray = np.stack(found) - np.mean(found, 0)
    return changes
