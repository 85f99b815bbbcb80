"""A model as one C file that needs nothing but math.h."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy

from ..formula.export import c_expression, check_c_name, comment
from ..library import get_function
from .program import Input, Layer, Program, to_numpy

TABLES = ("ends", "origins", "pieces")  # of a layer


def to_c(model: Any, name: str = "predict") -> str:
    """C source of a model: `void name(const double *x, double *y)`.

    x holds a row: numbers, NAN where they are missing, and the codes of categories that the comment at the head lists. y gets the
    predictions; the probabilities of the classes for a classifier.

    Args:
        model: a `KAN`, or a fitted `KANRegressor` or `KANClassifier`.
        name: name of the function.

    Raises:
        ValueError: a name that C does not allow, a function that C lacks, or a model without a network.
    """
    program = to_numpy(model)
    check_c_name(name, {f"{table}{n}" for n in range(len(program.layers)) for table in (*TABLES, "edges", "base")})
    parts = [_head(program, name), "#include <math.h>", ""]
    for number, layer in enumerate(program.layers):
        parts += _tables(layer, number)
    parts += [f"void {name}(const double *x, double *y)", "{"]
    parts += [f"    double h0[{len(program.inputs)}];"]
    parts += [f"    {_input(one, i)}" for i, one in enumerate(program.inputs)]
    for number, layer in enumerate(program.layers):
        parts += _steps(layer, number)
    parts += [*_answer(program), "}", ""]
    return "\n".join(parts)


def number(value: float) -> str:
    """A double in C, all digits of it."""
    if np.isnan(value):
        return "NAN"
    if np.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return repr(float(value))


def array(kind: str, name: str, values: np.ndarray) -> str:
    """A constant array in C, flat.

    Args:
        kind: type of its elements.
        name: its name.
        values: its elements.
    """
    suffix = "f" if kind == "float" else ""
    flat = [number(v) + suffix if values.dtype.kind == "f" else str(int(v)) for v in values.ravel()] or ["0"]
    lines, line = [], ""
    for item in flat:
        if len(line) + len(item) > 130:
            lines.append(line)
            line = ""
        line += item + ","
    return f"static const {kind} {name}[{len(flat)}] = {{\n{chr(10).join([*lines, line])}\n}};"


def _head(program: Program, name: str) -> str:
    lines = [f"/* void {name}(const double *x, double *y): {len(program.columns)} columns, {_width(program)} results.", ""]
    for column, (text, values) in enumerate(zip(program.columns, program.categories, strict=True)):
        labels = ["missing" if value is None else comment(str(value)) for value in values]
        codes = ", ".join(f"{code} = {label}" for code, label in enumerate(labels))
        lines.append(f"   x[{column}]: {comment(text)}" + (f" ({codes}; -1 for others)" if values else ""))
    return "\n".join([*lines, "*/"])


def _width(program: Program) -> int:
    return 2 if program.link == "sigmoid" else program.outputs


def _input(one: Input, i: int) -> str:
    x = f"x[{one.column}]"
    if one.kind == "missing":
        return f"h0[{i}] = isnan({x}) ? 1.0 : 0.0;"
    if one.kind == "category":
        return f"h0[{i}] = {x} == {one.code} ? 1.0 : 0.0;"
    scaled = f"({x} - {number(one.center)}) / {number(one.half)}"
    if np.isfinite(one.low):
        scaled = f"fmin(fmax({scaled}, {number(one.low)}), {number(one.high)})"
    return f"h0[{i}] = isnan({x}) ? {number(one.fill)} : {scaled};"


def _tables(layer: Layer, number_: int) -> list[str]:
    if not len(layer.edges):
        return []
    found = [array("double", f"{name}{number_}", getattr(layer, name)) for name in TABLES]
    found += [array("int", f"edges{number_}", layer.edges)]
    if layer.base is not None:
        found.append(array("double", f"base{number_}", layer.base_weight))
    return found


def _steps(layer: Layer, n: int) -> list[str]:
    pieces, order = layer.origins.shape[1], layer.pieces.shape[2]
    lines = [f"    double s{n}[{layer.subnodes}] = {{0}};"]
    if len(layer.edges):
        base = {None: "", "identity": f" + base{n}[e] * v", "sin": f" + base{n}[e] * sin(v)"}
        base["silu"] = f" + base{n}[e] * v / (1.0 + exp(-v))"
        lines += [
            f"    for (int e = 0, before = -1, piece = 0; e < {len(layer.edges)}; e++) {{",
            f"        const int o = edges{n}[2 * e], i = edges{n}[2 * e + 1];",
            f"        const double v = h{n}[i];",
            "        if (i != before) {",
            "            before = i;",
            f"            for (piece = 0; piece < {pieces - 1} && v >= ends{n}[i * {pieces - 1} + piece]; piece++) {{}}",
            "        }",
            f"        const double t = v - origins{n}[i * {pieces} + piece];",
            f"        const double *p = pieces{n} + (e * {pieces} + piece) * {order};",
            f"        double f = p[{order - 1}];",
            f"        for (int k = {order - 2}; k >= 0; k--) f = f * t + p[k];",
            f"        s{n}[o] += f{base[layer.base]};",
            "    }",
        ]
    for name, out, i, a, b, c, d in layer.functions:
        if name == "x" and (a, b, c, d) == (1.0, 0.0, 1.0, 0.0):
            lines.append(f"    s{n}[{out}] += h{n}[{i}];")
            continue
        body = c_expression(get_function(name).expression(sympy.Symbol("t")))
        argument, value = f"{number(a)} * h{n}[{i}] + {number(b)}", f"{number(c)} * ({body}) + {number(d)}"
        lines.append(f"    {{ const double t = {argument}; (void)t; s{n}[{out}] += {value}; }}")
    lines.append(f"    double h{n + 1}[{layer.sums + layer.products}];")
    if layer.sums:
        lines.append(f"    for (int o = 0; o < {layer.sums}; o++) h{n + 1}[o] = s{n}[o];")
    if layer.products:
        factors = " * ".join(f"f[{k}]" for k in range(layer.arity))
        lines.append(
            f"    for (int o = 0; o < {layer.products}; o++) {{ const double *f = s{n} + {layer.sums} + {layer.arity} * o; "
            f"h{n + 1}[{layer.sums} + o] = {factors}; }}"
        )
    return lines


def _answer(program: Program) -> list[str]:
    last = f"h{len(program.layers)}"
    values = [f"{last}[{o}] * {number(s)} + {number(t)}" for o, (s, t) in enumerate(zip(program.spread, program.shift, strict=True))]
    if program.link == "sigmoid":
        return [f"    y[1] = 1.0 / (1.0 + exp(-({values[0]})));", "    y[0] = 1.0 - y[1];"]
    if program.link == "exp":
        return [f"    y[{o}] = exp({value});" for o, value in enumerate(values)]
    lines = [f"    y[{o}] = {value};" for o, value in enumerate(values)]
    if program.link == "softmax":
        n = program.outputs
        lines += [
            "    double most = y[0], sum = 0.0;",
            f"    for (int o = 1; o < {n}; o++) most = fmax(most, y[o]);",
            f"    for (int o = 0; o < {n}; o++) sum += y[o] = exp(y[o] - most);",
            f"    for (int o = 0; o < {n}; o++) y[o] /= sum;",
        ]
    return lines
