"""Formulas: a network as SymPy expressions with constants gathered, so that a true 1 prints as 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy
import torch

from ..._checks import count
from ..library import get_function
from ..network import Edge, Network
from .export import to_numpy
from .linear import Linear
from .simplify import apply, multiply

POINTS = 200  # samples of the data at which terms are evaluated
FAITHFUL = 1e-3  # largest error of a formula with rounded numbers, relative to the spread of its values


def linear_forms(model: Network, inputs: Sequence[Linear], digits: int | None) -> list[Linear]:
    """The outputs as sums of terms; a numeric edge (l, i, j) appears as the function phi_l_i_j.

    Args:
        model: the network.
        inputs: the network's inputs as sums of the variables.
        digits: number of decimals of the printed formula; None for all digits.
    """
    values = list(inputs)
    for number, layer in enumerate(model.layers):
        affine = layer.affine.detach().cpu().tolist()
        function, mask = layer.function.tolist(), layer.spline.mask.tolist()
        subnodes = []
        for j in range(layer.spline.out_features):
            total = Linear()
            for i, value in enumerate(values):
                if function[j][i] >= 0:
                    a, b, c, d = affine[j][i]
                    total.add(apply(get_function(function[j][i]), value.affine(a, b), c, d, digits))
                elif mask[j][i]:
                    phi = sympy.Function(f"phi_{number}_{i}_{j}")(value.to_sympy(digits))
                    total.add(Linear(0.0, {phi: 1.0}, {phi: _edge_values(model, (number, i, j), value.values())}))
            subnodes.append(total)
        products = [multiply(subnodes[start : start + layer.arity], digits) for start in range(layer.n_sum, len(subnodes), layer.arity)]
        values = [*subnodes[: layer.n_sum], *products]
    return values


def _edge_values(model: Network, edge: Edge, x: np.ndarray) -> np.ndarray:
    values: np.ndarray = model.edge(*edge)[0](x)[0 if x.ndim == 0 else slice(None)].double().cpu().numpy()
    return values


def variable_names(model: Network, variables: Sequence[str] | None) -> list[str]:
    """The given names, or x_1 ... x_n.

    Args:
        model: the network.
        variables: names of the inputs, or None.

    Raises:
        ValueError: not one distinct name per input.
    """
    names = [f"x_{i + 1}" for i in range(model.nodes[0])] if variables is None else [str(v) for v in variables]
    if len(names) != model.nodes[0] or len(set(names)) != len(names):
        raise ValueError(f"variables={names}: expected {model.nodes[0]} distinct names")
    return names


def formula(
    model: Network,
    variables: Sequence[str] | None = None,
    round: int | None = 4,
    X: Any = None,
    *,
    input_affine: Sequence[tuple[float, float]] | None = None,
    output_affine: Sequence[tuple[float, float]] | None = None,
) -> list[sympy.Expr]:
    """SymPy expression of each output.

    Constants are multiplied out of the functions that allow it (powers, exp, log, signs and phases of waves) before
    they are rounded. Numeric edges stay in the formula as undefined functions phi_l_i_j.

    Numbers have more decimals than asked for where inputs or terms are so small or large that they are needed: in 1e-6 x where
    x goes to 1e6.

    Args:
        model: the network.
        variables: names of the inputs, x_1 ... x_n by default.
        round: number of decimals of the coefficients, where multiples of pi print as such; None for all digits.
        X: (N, inputs) samples that say how large the inputs are; the range of the first layer's grids by default.
        input_affine: pair (scale, shift) for each input x, of which the network was given scale * x + shift.
        output_affine: pair (scale, shift) for each output, the answer being scale * output + shift.

    Raises:
        ValueError: not one distinct name per input, negative decimals, or X of another shape or not finite.
    """
    if round is not None:
        count("round", round, 0)
    symbols = [sympy.Symbol(name) for name in variable_names(model, variables)]
    pairs = input_affine or [(1.0, 0.0)] * len(symbols)
    points = _points(model, X)
    inputs = [
        Linear(shift, {symbol: scale}, {symbol: (x - shift) / scale})
        for symbol, (scale, shift), x in zip(symbols, pairs, points.T, strict=True)
    ]
    outputs = linear_forms(model, inputs, round)
    outputs = [output.affine(*pair) for output, pair in zip(outputs, output_affine or [(1.0, 0.0)] * len(outputs), strict=True)]
    for output in outputs:
        if round is not None and abs(output.constant) < 1e-14 * output.spread():
            output.constant = 0.0  # the rounding of a sum in double precision
    return [output.to_sympy(round) for output in outputs]


def _points(model: Network, X: Any) -> np.ndarray:
    """Some 200 of the samples or, without any, random points within the grids."""
    if X is not None:
        X = model.tensor(X)
        if X.shape[1] != model.nodes[0] or not len(X) or not bool(torch.isfinite(X).all()):
            raise ValueError(f"X of shape {tuple(X.shape)}: expected finite samples of {model.nodes[0]} inputs")
        rows: np.ndarray = X[:: max(1, len(X) // POINTS)].double().cpu().numpy()
        return rows
    spline = model.layers[0].spline
    k = spline.spline_order
    low, high = spline.knots[:, k].cpu().numpy(), spline.knots[:, -k - 1].cpu().numpy()
    points: np.ndarray = low + (high - low) * np.random.default_rng(0).random((POINTS, len(low)))
    return points


def faithful(expressions: Sequence[sympy.Expr], variables: Sequence[str], X: np.ndarray, y: np.ndarray) -> bool:
    """Whether formulas give y at X to a part in a thousand of its spread; those with numeric edges are taken on trust.

    Args:
        expressions: one formula for each output.
        variables: names of the inputs.
        X: (N, inputs) samples.
        y: (N, outputs) values of the network.
    """
    for expression_, target in zip(expressions, y.T, strict=True):
        if expression_.atoms(sympy.core.function.AppliedUndef):
            continue
        with np.errstate(all="ignore"):
            error = np.abs(to_numpy(expression_, variables)(*X.T) - target)
        spread, size = target.std(), np.abs(target).max()
        # The spread of a constant is only its rounding.
        if not np.sqrt(np.mean(error**2)) <= FAITHFUL * (spread if spread > 1e-9 * size else size):
            return False
    return True


def complexity(expressions: Sequence[Any]) -> int:
    """Number of nodes of the expression trees, PySR's measure.

    Args:
        expressions: the SymPy expressions.
    """
    return sum(1 for e in expressions for _ in sympy.preorder_traversal(e))
