"""A network, and the columns of its table, as arrays and a few steps that any language can follow.

Each spline becomes its polynomial pieces in local coordinates. A row costs a search of the piece and a Horner scheme for each edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.interpolate import BSpline, PPoly
from scipy.special import expit, softmax

from ..library import function_names, get_function
from ..network import Network
from ..sklearn.columns import Category, Column, Columns, read_column, refuse_lazy, refuse_text, series_of

BASES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "silu": lambda x: x * expit(x),
    "identity": lambda x: x,
    "sin": np.sin,
}


@dataclass
class Input:
    """An input of the network, as a function of one column.

    Attributes:
        column: Number of the column.
        kind: "number", "missing" (1 where the number is missing) or "category" (1 where the code is that of the category).
        center: Number that becomes 0.
        half: Difference from it that becomes 1.
        low: Smallest scaled value that counts.
        high: Largest scaled value that counts.
        fill: Scaled value of a missing number; NaN where a missing number makes the output missing.
        code: Code of the category.
    """

    column: int
    kind: str = "number"
    center: float = 0.0
    half: float = 1.0
    low: float = -np.inf
    high: float = np.inf
    fill: float = np.nan
    code: int = 0

    def values(self, x: np.ndarray) -> np.ndarray:
        """Values (N,) for a column (N,)."""
        if self.kind == "missing":
            x = np.where(np.isnan(x), 1.0, 0.0)
            return x
        if self.kind == "category":
            x = np.where(x == self.code, 1.0, 0.0)
            return x
        scaled: np.ndarray = np.where(np.isnan(x), self.fill, np.clip((x - self.center) / self.half, self.low, self.high))
        return scaled


@dataclass
class Layer:
    """Edges of a layer: polynomial pieces, then functions, then products of the sums.

    Attributes:
        nodes: Number of inputs.
        sums: Number of outputs that are sums.
        products: Number of outputs that are products.
        arity: Number of factors of a product.
        ends: (inputs, S - 1) ends of the pieces.
        origins: (inputs, S) number that each piece takes as its zero.
        edges: (E, 2) output and input of each spline, sorted by input.
        pieces: (E, S, K) coefficients, constant first.
        base: Name of the function that is added to splines, None for none.
        base_weight: (E,) its factors.
        functions: Name, output, input, and a, b, c, d of each edge c f(a x + b) + d.
    """

    nodes: int
    sums: int
    products: int
    arity: int
    ends: np.ndarray
    origins: np.ndarray
    edges: np.ndarray
    pieces: np.ndarray
    base: str | None
    base_weight: np.ndarray
    functions: list[tuple[str, int, int, float, float, float, float]]

    @property
    def subnodes(self) -> int:
        """Number of sums, factors of products among them."""
        return self.sums + self.products * self.arity

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Outputs (N, sums + products) for inputs (N, nodes)."""
        y = np.zeros((len(x), self.subnodes))
        for i in np.unique(self.edges[:, 1]):
            own = np.flatnonzero(self.edges[:, 1] == i)
            column = x[:, i]
            piece = np.searchsorted(self.ends[i], column, side="right")
            t = column - self.origins[i, piece]
            values = np.zeros((len(own), len(x)))
            for power in reversed(range(self.pieces.shape[2])):
                values = values * t + self.pieces[own][:, piece, power]
            if self.base is not None:
                values = values + self.base_weight[own, None] * BASES[self.base](column)
            y[:, self.edges[own, 0]] += np.where(np.isnan(column), np.nan, values).T
        for name, out, i, a, b, c, d in self.functions:
            y[:, out] += c * _function(name)(a * x[:, i] + b) + d
        factors = y[:, self.sums :].reshape(len(x), self.products, self.arity)
        return np.concatenate([y[:, : self.sums], factors.prod(2)], 1) if self.products else y


@cache
def _function(name: str) -> Callable[[np.ndarray], np.ndarray]:
    import sympy

    from ..formula.export import to_numpy as compiled

    x = sympy.Symbol("x")
    function: Callable[[np.ndarray], np.ndarray] = compiled(get_function(name).expression(x), ["x"])
    return function


@dataclass
class Program:
    """A network with its columns and its answer, free of torch: call it with rows (N, columns).

    Attributes:
        columns: Names of the columns.
        categories: Categories of each column in the order of their codes; empty for numbers. None stands for a missing value.
        inputs: Inputs of the network.
        layers: Its layers.
        spread: (outputs,) factor of each output.
        shift: (outputs,) number added to it.
        link: Function that makes predictions of the outputs: "identity", "exp", "sigmoid" (two probabilities) or "softmax".
    """

    columns: list[str]
    categories: list[list[Any]]
    inputs: list[Input]
    layers: list[Layer]
    spread: np.ndarray
    shift: np.ndarray
    link: str = "identity"

    @property
    def outputs(self) -> int:
        """Number of outputs of the network."""
        return len(self.spread)

    def codes(self, X: Any) -> np.ndarray:
        """Rows (N, columns) of numbers for a table: categories become their codes, -1 for one that is not known.

        Args:
            X: data frame with the columns of the training, or (N, columns) numbers, with the codes of categories.

        Raises:
            ValueError: another number of columns, a column that is missing, or one of another kind than in the training.
        """
        refuse_lazy(X)
        if not hasattr(X, "columns"):
            x = np.asarray(X, dtype=np.float64)
            if x.ndim != 2 or x.shape[1] != len(self.columns):
                raise ValueError(f"X of shape {x.shape}: expected (N, {len(self.columns)})")
            return x
        found, series = [], series_of(X)
        for name, values, at in zip(self.columns, self.categories, self._places(list(X.columns)), strict=True):
            column = read_column(name, series[at])
            if values:
                column = Category(name, values).codes(column).astype(np.float64)
            refuse_text(name, column)
            found.append(column)
        return np.stack(found, 1)

    def _places(self, names: list[Any]) -> list[int]:
        """Number of each column in a data frame: by their order where no name of it is text, as scikit-learn has it."""
        if names == self.columns or (len(names) == len(self.columns) and not any(isinstance(name, str) for name in names)):
            return list(range(len(names)))
        lost = [name for name in self.columns if name not in names]
        if lost:
            raise ValueError(f"X without column {lost[0]!r}: expected {', '.join(self.columns[:10])}")
        return [names.index(name) for name in self.columns]

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """Inputs (N, inputs) of the network for rows (N, columns)."""
        return np.stack([one.values(x[:, one.column]) for one in self.inputs], 1)

    def answer(self, y: np.ndarray) -> np.ndarray:
        """Predictions of the network's outputs (N, outputs)."""
        return self.linked(y * self.spread + self.shift)

    def linked(self, y: np.ndarray) -> np.ndarray:
        """Predictions of outputs (N, outputs) in units of y, logarithms of rates, or logits."""
        if self.link == "exp":
            y = np.exp(y)
        if self.link == "sigmoid":
            p = expit(y)
            both: np.ndarray = np.concatenate([1 - p, p], 1)
            return both
        if self.link == "softmax":
            shares: np.ndarray = softmax(y, axis=1)
            return shares
        return y

    def outputs_of(self, X: Any) -> np.ndarray:
        """Outputs (N, outputs) before the link: units of y, logarithms of rates, or logits.

        Args:
            X: (N, columns) numbers, with the codes of categories, or a data frame.

        Raises:
            ValueError: another number of columns.
        """
        h = self.scaled(self.codes(X))
        for layer in self.layers:
            h = layer(h)
        found: np.ndarray = h * self.spread + self.shift
        return found

    def __call__(self, X: Any) -> np.ndarray:
        """Predictions (N, outputs); probabilities of the classes for a classifier.

        Args:
            X: (N, columns) numbers, with the codes of categories, or a data frame.

        Raises:
            ValueError: another number of columns.
        """
        return self.linked(self.outputs_of(X))


def to_numpy(model: Any) -> Program:
    """A function of NumPy arrays that predicts as the model does, equal to rounding, without torch.

    Args:
        model: a `KAN`, or a fitted `KANRegressor` or `KANClassifier`.

    Raises:
        ValueError: a model without a network, or a base function that has no name.
    """
    if isinstance(model, Network):
        inputs = [Input(i) for i in range(model.nodes[0])]
        names, outputs = [f"x_{i + 1}" for i in range(model.nodes[0])], model.nodes[-1]
        return Program(names, [[] for _ in names], inputs, layers_of(model), np.ones(outputs), np.zeros(outputs))
    if hasattr(model, "estimators_"):
        raise ValueError("several outputs with formulas of their own: expected one of model.estimators_")
    if not hasattr(model, "network_"):
        raise ValueError(f"{type(model).__name__} without network_: expected a fitted estimator, or kat_zoo.kan.formula.export")
    return _of_estimator(model)


def _of_estimator(model: Any) -> Program:
    """The program of a fitted estimator, with its columns."""
    scales = model._scales
    names = model._input_names()
    inputs, categories = [], []
    if isinstance(scales, Columns):
        for number, column in enumerate(scales.columns):
            categories.append(column.values if isinstance(column, Category) else [])
            inputs += _inputs(column, number)
    else:  # a symbolic network takes the columns as they are
        inputs = [Input(i, "number", float(c), float(h)) for i, (c, h) in enumerate(zip(scales.center, scales.half, strict=True))]
        categories = [[] for _ in inputs]
    outputs = model.network_.nodes[-1]
    spread, shift = (np.broadcast_to(values, outputs).astype(float) for values in (scales.spread, scales.shift))
    link = getattr(scales, "link", "identity")
    if hasattr(model, "classes_"):
        link = "sigmoid" if outputs == 1 else "softmax"
    return Program(names, categories, inputs, layers_of(model.network_), spread, shift, link)


def _inputs(column: Column | Category, number: int) -> list[Input]:
    if isinstance(column, Category):
        return [Input(number, "category", code=code) for code in range(len(column.values))]
    found = [Input(number, "number", column.center, column.half, column.low, column.high, column.fill)]
    return [*found, Input(number, "missing")] if column.missing else found


def layers_of(network: Network) -> list[Layer]:
    """The layers of a network as arrays.

    Args:
        network: the network.

    Raises:
        ValueError: a base function that has no name.
    """
    return [_layer(layer) for layer in network.layers]


def _layer(layer: Any) -> Layer:
    spline = layer.spline
    order, zero = spline.spline_order, spline.extrapolate == "zero"
    knots = spline.knots.double().cpu().numpy()
    coef, mask = spline.coef.detach().double().cpu().numpy(), spline.mask.cpu().numpy()
    base = None if spline.base_weight is None else spline.base
    if base is not None and base not in BASES:
        raise ValueError(f"base={base!r}: expected one of {', '.join(BASES)}, zero")
    pairs = [(o, i) for i in range(spline.in_features) for o in range(spline.out_features) if mask[o, i]]
    inner = knots if zero else knots[:, order : knots.shape[1] - order]
    ends, origins = inner, np.concatenate([inner[:, :1], inner], 1)
    pieces = np.zeros((len(pairs), ends.shape[1] + 1, max(order, 1) + 1))
    for edge, (o, i) in enumerate(pairs):
        pieces[edge] = _pieces(knots[i], coef[i, :, o], order, zero)
    table = layer.function.cpu().numpy()
    functions = []
    for o, i in np.argwhere(table >= 0):
        a, b, c, d = layer.affine[o, i].detach().double().cpu().tolist()
        functions.append((function_names()[table[o, i]], int(o), int(i), a, b, c, d))
    weight = np.zeros(len(pairs)) if base is None else spline.base_weight.detach().double().cpu().numpy()[tuple(np.array(pairs).T)]
    return Layer(
        spline.in_features, layer.n_sum, layer.n_mult, layer.arity, ends, origins, np.array(pairs, int).reshape(-1, 2), pieces,
        base, weight, functions,
    )  # fmt: skip


def _pieces(knots: np.ndarray, coef: np.ndarray, order: int, zero: bool) -> np.ndarray:
    """Polynomials (S, K) of a spline, the first and the last outside its grid."""
    if zero and order:  # SciPy knows the polynomials between the inner knots alone, so the outer ones become inner ones
        far = np.arange(1, order + 1)
        knots = np.concatenate([knots[0] - far[::-1], knots, knots[-1] + far])
        coef = np.pad(coef, order)
    c = PPoly.from_spline(BSpline(knots, coef, order)).c[::-1].T  # (intervals, order + 1), constant first
    inside = c[order : len(c) - order]
    left, right = np.zeros((1, c.shape[1])), np.zeros((1, c.shape[1]))
    if not zero:
        width = knots[-order - 1] - knots[-order - 2]
        powers = np.arange(c.shape[1])
        left[0, :2] = inside[0, :2]
        right[0, 0] = inside[-1] @ width**powers
        if order:
            right[0, 1] = inside[-1, 1:] @ (powers[1:] * width ** (powers[1:] - 1))
    found = np.concatenate([left, inside, right])
    return np.pad(found, ((0, 0), (0, max(order, 1) + 1 - found.shape[1])))
