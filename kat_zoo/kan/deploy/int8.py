"""Lookup tables of int8 for devices without much memory, with a bound of their error.

Each spline becomes a table of evenly spaced entries, a scale and an offset; values between two entries are on the straight line
between them. The error is bounded segment by segment: a straight line is off by at most h^2 / 8 times the largest second derivative
of the segment and by h / 4 times each jump of its slope, an entry by half a step of its scale, and a product by the errors of
its factors. Outside of the tables, where the network goes on straight and they do not, the error grows with the slope.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np

from ..._checks import count
from ..formula.export import check_c_name
from .c import _answer, _head, _input, array, number
from .program import Layer, Program, to_numpy

STEPS = 127  # entries go from -127 to 127
PLACES = ("scale", "offset", "low", "step")  # numbers of the tables


@dataclass
class Int8:
    """A model as tables: call it with rows (N, columns) of numbers, with the codes of categories, or with a data frame.

    Attributes:
        program: The model, whose columns, products and answer stay as they are.
        table: (E, entries) int8 entries of each spline.
        scale: (E,) value of a step; single precision, as offsets and places are.
        offset: (E,) value of the entry 0.
        low: (inputs,) first place of the tables of an input.
        step: (inputs,) distance of two places.
        errors: (E, entries - 1) bound of the error in each segment.
    """

    program: Program
    table: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    low: np.ndarray
    step: np.ndarray
    errors: np.ndarray

    @property
    def layer(self) -> Layer:
        """The layer of the splines."""
        return self.program.layers[0]

    @property
    def bytes(self) -> int:
        """Memory of the constants in `to_c`: entries, float32 for scales, offsets and places, two bytes for each end of an edge."""
        return self.table.size + 4 * (2 * len(self.scale) + 2 * len(self.low)) + 2 * self.layer.edges.size

    def _edges(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Values (N, E) of the edges, and bounds of their errors."""
        h = self.program.scaled(self.program.codes(X))
        last, own = self.table.shape[1] - 1, self.layer.edges[:, 1]
        at = np.clip((h - self.low) / self.step, 0.0, last)[:, own]
        segment = np.minimum(np.nan_to_num(at).astype(int), last - 1)
        edge = np.arange(len(self.scale))
        left, right = (self.table[edge, segment + k].astype(np.float64) for k in (0, 1))
        outside = h - np.clip(h, self.low, self.low + last * self.step)
        slope = np.where(outside[:, own] < 0, *self.layer.pieces[:, [0, -1], 1].T)
        beyond = np.abs(np.where(slope == 0, 0.0, outside[:, own])) * np.abs(slope)
        return (left + (at - segment) * (right - left)) * self.scale + self.offset, self.errors[edge, segment] + beyond

    def _nodes(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Network outputs (N, outputs), and bounds of their errors."""
        layer = self.layer
        values, errors = self._edges(X)
        y, e = np.zeros((len(values), layer.subnodes)), np.zeros((len(values), layer.subnodes))
        for edge, out in enumerate(layer.edges[:, 0]):
            y[:, out] += values[:, edge]
            e[:, out] += errors[:, edge]
        sums, wrong = [y[:, : layer.sums]], [e[:, : layer.sums]]
        if layer.products:
            factors, own = (a[:, layer.sums :].reshape(len(a), layer.products, layer.arity) for a in (y, e))
            sums.append(factors.prod(2))
            # |uv - u'v'| <= (|u'| + e)(|v'| + f) - |u'||v'|
            wrong.append((np.abs(factors) + own).prod(2) - np.abs(factors).prod(2))
        y, e = np.concatenate(sums, 1), np.concatenate(wrong, 1)
        for last in self.program.layers[1:]:
            factor = np.zeros((last.sums, y.shape[1]))
            shift = np.zeros(last.sums)
            for _, out, i, a, b, c, d in last.functions:
                factor[out, i] += c * a
                shift[out] += c * b + d
            y, e = y @ factor.T + shift, e @ np.abs(factor).T
        return y, e

    def outputs_of(self, X: Any) -> np.ndarray:
        """Outputs (N, outputs) before the link, for rows or a data frame: units of y, logarithms of rates, or logits."""
        found: np.ndarray = self._nodes(X)[0] * self.program.spread + self.program.shift
        return found

    def bound(self, X: Any) -> np.ndarray:
        """Bounds (N, outputs) of the error of `outputs_of`, for rows or a data frame."""
        found: np.ndarray = self._nodes(X)[1] * np.abs(self.program.spread)
        return found

    def __call__(self, X: Any) -> np.ndarray:
        """Predictions (N, outputs), as those of the program."""
        return self.program.linked(self.outputs_of(X))

    def to_c(self, name: str = "predict") -> str:
        """C source with the tables: `void name(const double *x, double *y)`, as `kat_zoo.kan.deploy.to_c` describes.

        Args:
            name: name of the function.

        Raises:
            ValueError: a name that C does not allow, or that of a table.
        """
        check_c_name(name, {"table", "edges", *PLACES})
        layer, program, entries = self.layer, self.program, self.table.shape[1]
        lines = [
            _head(program, name),
            "#include <math.h>",
            "",
            array("signed char", "table", self.table),
            array("unsigned short", "edges", layer.edges),
        ]
        lines += [array("float", text, getattr(self, text)) for text in PLACES]
        lines += [f"void {name}(const double *x, double *y)", "{", f"    double h0[{len(program.inputs)}], s[{layer.subnodes}] = {{0}};"]
        lines += [f"    {_input(one, i)}" for i, one in enumerate(program.inputs)]
        lines += [
            f"    for (int e = 0; e < {len(layer.edges)}; e++) {{",
            "        const int i = edges[2 * e + 1];",
            f"        const double at = isnan(h0[i]) ? h0[i] : fmin(fmax((h0[i] - low[i]) / step[i], 0.0), {entries - 1}.0);",
            f"        const int k = at < {entries - 2}.0 ? (int)at : {entries - 2};",
            f"        const signed char *t = table + e * {entries} + k;",
            "        s[edges[2 * e]] += (t[0] + (at - k) * (t[1] - t[0])) * scale[e] + offset[e];",
            "    }",
        ]
        nodes = [f"s[{o}]" for o in range(layer.sums)]
        for product in range(layer.products):
            nodes.append(" * ".join(f"s[{layer.sums + layer.arity * product + k}]" for k in range(layer.arity)))
        for last in program.layers[1:]:
            sums = [["0.0"] for _ in range(last.sums)]
            for _, out, i, a, b, c, d in last.functions:
                sums[out].append(f"{number(c)} * ({number(a)} * ({nodes[i]}) + {number(b)}) + {number(d)}")
            nodes = [" + ".join(parts) for parts in sums]
        last_name = f"h{len(program.layers)}"
        lines += [f"    const double {last_name}[{len(nodes)}] = {{{', '.join(nodes)}}};", *_answer(program), "}", ""]
        return "\n".join(lines)


def to_int8(model: Any, entries: int = 64) -> Int8:
    """Lookup tables of an additive model, with or without pairs, and the bound of their error.

    Args:
        model: a fitted `KANRegressor` or `KANClassifier`, or a `KAN` of splines with at most products and sums behind them.
        entries: number of entries of each table, at least 2.

    Raises:
        ValueError: a network with splines in its second layer, with functions in its first, or with a base.
    """
    count("entries", entries, 2)
    program = to_numpy(model)
    first, *others = program.layers
    if (
        first.base is not None
        or first.functions
        or any(len(o.edges) or o.products or any(f[0] != "x" for f in o.functions) for o in others)
    ):
        raise ValueError(
            "the network has functions, a base or a second layer of splines: expected splines without a base, sums and products"
        )
    low, high = _ranges(program)
    low = _single(low, -np.inf)
    step = _single((high - low) / (entries - 1), np.inf)
    places = low[:, None] + step[:, None] * np.arange(entries)
    size = len(first.edges)
    table, scale, offset = np.zeros((size, entries), np.int8), np.zeros(size), np.zeros(size)
    errors = np.zeros((size, entries - 1))
    for edge, i in enumerate(first.edges[:, 1]):
        values = _spline(first, edge, places[i])
        offset[edge] = np.float32(values.max() / 2 + values.min() / 2)
        scale[edge] = max(np.float32(np.abs(values - offset[edge]).max() / STEPS), np.finfo(np.float32).tiny)
        table[edge] = np.round((values - offset[edge]) / scale[edge]).clip(-STEPS, STEPS)
        entry_errors = np.abs(table[edge] * scale[edge] + offset[edge] - values)
        straight = [_off_a_line(first, edge, a, b) for a, b in pairwise(places[i])]
        errors[edge] = np.maximum(entry_errors[:-1], entry_errors[1:]) + straight
    return Int8(program, table, scale, offset, low, step, errors)


def _single(values: np.ndarray, toward: float) -> np.ndarray:
    """The next numbers of single precision in a direction, as float64: places that hold the whole range."""
    return np.nextafter(values.astype(np.float32), np.float32(toward)).astype(np.float64)


def _ranges(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the values that an input can have; the grid where it has none."""
    first = program.layers[0]
    low, high = first.ends[:, 0].copy(), first.ends[:, -1].copy()
    for i, one in enumerate(program.inputs):
        if one.kind != "number":
            low[i], high[i] = 0.0, 1.0
        elif np.isfinite(one.low):
            low[i], high[i] = one.low, one.high
    return low, np.where(high > low, high, low + 1.0)


def _spline(layer: Layer, edge: int, x: np.ndarray) -> np.ndarray:
    i = layer.edges[edge, 1]
    piece = np.searchsorted(layer.ends[i], x, side="right")
    t, c = x - layer.origins[i, piece], layer.pieces[edge, piece]
    values: np.ndarray = np.einsum("nk,nk->n", c, t[:, None] ** np.arange(c.shape[1]))
    return values


def _off_a_line(layer: Layer, edge: int, a: float, b: float) -> float:
    """Largest distance of a spline in a segment from the straight line between its ends: by its bend, kinks and jumps."""
    i, width = layer.edges[edge, 1], b - a
    ends = layer.ends[i]
    bend, kinks = 0.0, 0.0
    for first, last in pairwise([a, *ends[(ends > a) & (ends < b)].tolist(), b]):
        piece = int(np.searchsorted(ends, (first + last) / 2, side="right"))
        second = np.polynomial.Polynomial(layer.pieces[edge, piece]).deriv(2)
        bend = max(bend, _largest(second(np.polynomial.Polynomial([first - layer.origins[i, piece], last - first])).coef))
    for knot in np.flatnonzero((ends >= a) & (ends <= b)):
        left, right = (np.polynomial.Polynomial(layer.pieces[edge, piece]) for piece in (knot, knot + 1))
        t = ends[knot] - layer.origins[i, [knot, knot + 1]]
        part = (ends[knot] - a) / width
        kinks += abs(right(t[1]) - left(t[0])) + abs(right.deriv()(t[1]) - left.deriv()(t[0])) * width * part * (1 - part)
    return bend * width**2 / 8 + kinks


def _largest(coefficients: np.ndarray) -> float:
    """Bound of a polynomial from 0 to 1: the largest Bernstein coefficient, which is an end of a straight line."""
    degree = len(coefficients) - 1
    bernstein = [sum(comb(j, k) / comb(degree, k) * coefficients[k] for k in range(j + 1)) for j in range(degree + 1)]
    return float(np.abs(bernstein).max())
