"""A fitted additive model as a KAN: splines of the inputs, and a product node for each part of a pairwise term."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..library import function_index
from ..model import KAN
from .basis import SPLINE_ORDER
from .model import Fitted, spline_coefficients

RANK = 1e-13  # singular value of a pairwise term, relative to its first, below which it is rounding


def to_network(fits: Sequence[Fitted], inputs: int, columns: np.ndarray) -> KAN:
    """A KAN [inputs, outputs] or, with pairwise terms, [inputs, [outputs, products], outputs] that computes fitted models.

    A pairwise term is a matrix of coefficients. Its singular vectors make it a sum of products of two splines.

    Args:
        fits: model of each output, on the same basis.
        inputs: number of inputs.
        columns: (C,) input of each column of the models.
    """
    basis = fits[0].terms.basis
    grid_size = basis.knots.shape[1] - 2 * SPLINE_ORDER - 1
    factors: list[tuple[int, int, np.ndarray, int, np.ndarray]] = []
    for output, fitted in enumerate(fits):
        factors += [(output, *factor) for factor in _factors(fitted)]
    outputs = len(fits)
    width: list[int | list[int]] = [inputs, [outputs, len(factors)], outputs] if factors else [inputs, outputs]
    network = KAN([*width], grid_size, SPLINE_ORDER, base="zero", noise_scale=0.0)
    first = network.layers[0]
    knots = first.spline.knots.clone()
    knots[columns] = torch.from_numpy(basis.knots)
    coef, mask = torch.zeros_like(first.spline.coef), torch.zeros_like(first.spline.mask)
    for output, fitted in enumerate(fits):
        own, used = _splines(fitted)
        coef[columns, :, output] = torch.from_numpy(own)
        mask[output, columns[used]] = 1.0
    for number, (_, i, left, j, right) in enumerate(factors):
        node = outputs + 2 * number
        for column, values, at in ((i, left, node), (j, right, node + 1)):
            coef[columns[column], :, at] = torch.from_numpy(values)
            mask[at, columns[column]] = 1.0
    with torch.no_grad():
        first.spline.set_grid(knots, coef)
        first.spline.set_mask(mask)
        first.refresh()
        if factors:
            last = network.layers[1]
            last.spline.set_mask(torch.zeros_like(last.spline.mask))
            edges = [(output, output) for output in range(outputs)]
            edges += [(factor[0], outputs + number) for number, factor in enumerate(factors)]
            for output, node in edges:
                last.function[output, node] = function_index("x")
                last.affine[output, node] = torch.tensor([1.0, 0.0, 1.0, 0.0])
            last.refresh()
    return network


def _splines(fitted: Fitted) -> tuple[np.ndarray, np.ndarray]:
    """Spline coefficients (C, G + 3) of the inputs' own functions, the constant in one of them, and the columns in use."""
    own = spline_coefficients(fitted.terms, fitted.solution.coefficients)
    used = np.flatnonzero((own != 0).any(1))
    if not len(used):
        used = np.array([0])
    own[used[0]] += fitted.solution.coefficients[0]  # the B-splines of an input add up to 1
    return own, used


def _factors(fitted: Fitted) -> list[tuple[int, np.ndarray, int, np.ndarray]]:
    """Factors of the pairwise terms: column and spline coefficients (G + 3,), twice."""
    terms, c = fitted.terms, fitted.solution.coefficients
    cost, found = 1 / (1.0 + np.arange(terms.order)), []
    start = 1 + len(terms.lines) + len(terms.curves) * terms.curve_count
    for number, (i, j) in enumerate(terms.pairs):
        matrix = c[start + number * terms.order**2 :][: terms.order**2].reshape(terms.order, terms.order)
        left, sizes, right = np.linalg.svd(cost[:, None] * matrix * cost)
        low = terms.basis.functions[:, :, : terms.order]
        for k, size in enumerate(sizes):
            if size > RANK * sizes[0]:
                found.append((i, np.sqrt(size) * low[i] @ left[:, k], j, np.sqrt(size) * low[j] @ right[k]))
    return found
