"""SymPy expressions as symbolic networks (KAN 2.0, arXiv 2408.10205, section 3.2: the compiler).

A node is a sum of edges, or a product of such sums. An expression becomes one by taking its terms (or the terms of its
factors) apart: each term is c f(a core + b) + d with a function f of the library, and the core is a node of the layer below.
An expression can be a node from the layer on that stands above all of its cores; in the layers between, edges x pass it on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy
import torch

from ..library import function_index
from ..network import Network, NetworkT

SymbolicEdge = tuple[str, tuple[float, float, float, float], sympy.Expr]  # function, (a, b, c, d), argument without its affine part
Node = list[list[SymbolicEdge]]  # sub-nodes: one for a sum, one for each factor of a product
Depths = dict[sympy.Expr, int]

_POWERS = {sympy.Integer(n): f"x^{n}" for n in (2, 3, 4, 5)} | {sympy.Integer(-n): "1/x" if n == 1 else f"1/x^{n}" for n in (1, 2, 3, 4, 5)}
_POWERS |= {sympy.Rational(1, 2): "sqrt", sympy.Rational(-1, 2): "1/sqrt(x)", sympy.Rational(3, 2): "x^1.5"}
_FUNCTIONS = {
    sympy.exp: "exp",
    sympy.log: "log",
    sympy.Abs: "abs",
    sympy.sin: "sin",
    sympy.cos: "cos",
    sympy.tan: "tan",
    sympy.tanh: "tanh",
    sympy.sign: "sgn",
    sympy.asin: "arcsin",
    sympy.acos: "arccos",
    sympy.atan: "arctan",
    sympy.atanh: "arctanh",
    sympy.erf: "erf",
    sympy.gamma: "gamma",
    sympy.sinh: "sinh",
    sympy.cosh: "cosh",
}


def _number(constant: sympy.Expr) -> float:
    """A constant as a float.

    Raises:
        ValueError: it is complex, or too large.
    """
    try:
        value = float(constant)
    except TypeError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{constant.evalf(4)} in the formula: expected finite real numbers")
    return value


def _shifted(expression: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr]:
    """Split into b + rest with b free of variables, be it a number, pi or log(2)."""
    b, rest = expression.as_independent(*expression.free_symbols, as_Add=True)
    return b, rest


def _scaled(expression: sympy.Expr) -> tuple[float, sympy.Expr]:
    """Split into c * rest with c free of variables."""
    c, rest = expression.as_independent(*expression.free_symbols, as_Add=False)
    return _number(c), rest


def _affine(argument: sympy.Expr) -> tuple[float, float, sympy.Expr]:
    """Split into a * core + b; returns (a, b, core)."""
    b, rest = _shifted(argument)
    a, core = _scaled(rest)
    return a, _number(b), core


def _edge(term: sympy.Expr) -> SymbolicEdge:
    """One term of a sum as an edge."""
    if not term.free_symbols:
        return "0", (0.0, 0.0, 0.0, _number(term)), sympy.S.One
    c, g = _scaled(term)
    if g.is_Symbol or g.is_Mul or g.is_Add:
        return "x", (1.0, 0.0, c, 0.0), g
    if g.is_Pow and g.exp in _POWERS:
        name, argument = _POWERS[g.exp], g.base
    elif g.is_Pow and not g.base.free_symbols:
        name, argument = "exp", g.exp * sympy.log(g.base)
    elif g.is_Pow and g.exp.is_number and (not g.exp.is_integer or g.exp.is_even):
        # A power outside the library: exp(p log x), of |x| where the power is even.
        name, argument = "exp", g.exp * sympy.log(sympy.Abs(g.base) if g.exp.is_even else g.base)
    elif isinstance(g, sympy.besselj) and g.args[0] in (0, 1):
        name, argument = f"J{g.args[0]}", g.args[1]
    elif g.func in _FUNCTIONS:
        name, argument = _FUNCTIONS[g.func], g.args[0]
    else:
        raise ValueError(f"{g} is not a function of the library")
    a, b, core = _affine(argument)
    return name, (a, b, c, 0.0), core


def _factors(expression: sympy.Expr) -> list[sympy.Expr] | None:
    """The factors of a product of at least two expressions in the variables, else None."""
    if not expression.is_Mul:
        return None
    c, rest = expression.as_coeff_Mul()
    factors = list(rest.args) if rest.is_Mul else [rest]
    constant = sympy.Mul(c, *(f for f in factors if not f.free_symbols))
    factors = [f for f in factors if f.free_symbols]
    return [constant * factors[0], *factors[1:]] if len(factors) > 1 else None


def _edges(expression: sympy.Expr) -> list[SymbolicEdge]:
    """The edges of a sum, one per node they come from.

    A second function of the same node becomes a node of its own a layer below; a constant joins another edge's d.
    """
    if not expression.free_symbols:
        return [_edge(expression)]
    constant, rest = _shifted(expression)
    pairs, clash = [(term, _edge(term)) for term in rest.as_ordered_terms()], True
    while clash:
        clash, cores = False, set()
        pairs.sort(key=lambda pair: pair[1][0] != "x")  # a linear edge keeps its node, the others can be nodes themselves
        for n, (term, (name, _, core)) in enumerate(pairs):
            if core in cores and name != "x":
                c, core = _scaled(term)
                pairs[n], clash = (term, ("x", (1.0, 0.0, c, 0.0), core)), True
            cores.add(core)
    edges: dict[sympy.Expr, SymbolicEdge] = {}
    for _, (name, (a, b, c, d), core) in pairs:
        if core in edges:  # 2 x + pi x, which SymPy keeps apart
            c += edges[core][1][2]
        edges[core] = name, (a, b, c, d), core
    (name, (a, b, c, d), core), *others = edges.values()
    return [(name, (a, b, c, d + _number(constant)), core), *others]


def _depth(expression: sympy.Expr, depths: Depths) -> int:
    """The first layer where the expression can be a node."""
    if expression.is_Symbol:
        return 0
    if expression not in depths:
        parts = _factors(expression) or [expression]
        depths[expression] = max(1 + max(_depth(core, depths) if core.free_symbols else 0 for _, _, core in _edges(part)) for part in parts)
    return depths[expression]


def compile_formulas(
    kind: type[NetworkT],
    expressions: Any,
    variables: Sequence[str] | None,
    *,
    grid_size: int,
    dtype: torch.dtype,
    **options: Any,
) -> NetworkT:
    """Compile formulas into a network of symbolic edges and product nodes that computes them.

    Args:
        kind: class of the network.
        expressions: a SymPy expression or text, or a list of them, one per output.
        variables: names of the inputs in their order; the expressions' own symbols, sorted, where it is None.
        grid_size: number of intervals of the splines, which are unused until an edge becomes numeric.
        dtype: type of the parameters.
        **options: further arguments of the network.

    Raises:
        ValueError: a function or power outside the library, a number that is complex or too large, symbols that `variables` lacks,
            a name twice, or text that SymPy cannot read.
    """
    listed = list(expressions) if isinstance(expressions, (list, tuple)) else [expressions]
    outputs = [_parse(e, variables) for e in listed]
    nodes, plans = _layout(outputs, _inputs(outputs, variables))
    arity = max([2, *(len(node) for plan in plans for node in plan)])
    width = [[len(nodes[0]), 0]] + [[sum(len(n) == 1 for n in plan), sum(len(n) > 1 for n in plan)] for plan in plans]
    model = kind.make(width, grid_size, mult_arity=arity, dtype=dtype, **options)
    _write(model, nodes, plans)
    return model


def _inputs(outputs: list[sympy.Expr], variables: Sequence[str] | None) -> list[sympy.Symbol]:
    """The inputs as symbols, in their order."""
    found = sorted(set().union(*(e.free_symbols for e in outputs)), key=str)
    symbols = [sympy.Symbol(v) for v in variables] if variables is not None else found
    if not symbols:
        raise ValueError(f"variables={variables}: expected at least one name, for the formula has none")
    if not set(found) <= set(symbols):
        raise ValueError(f"variables={[str(s) for s in symbols]}: expected all of {[str(s) for s in found]}")
    if len(set(symbols)) < len(symbols):
        raise ValueError(f"variables={[str(s) for s in symbols]}: expected distinct names")
    return symbols


def _layout(outputs: list[sympy.Expr], symbols: list[sympy.Symbol]) -> tuple[list[list[sympy.Expr]], list[list[Node]]]:
    """The expressions of all nodes, layer by layer, inputs first, and the edges into each layer behind them."""
    depths: Depths = {}
    layers = max(1, *(_depth(e, depths) for e in outputs))
    plan = [_plan(e, layers, depths) for e in outputs]
    if len(plan) > 1 and any(len(node) > 1 for node in plan):
        # Products come last in a layer, but the order of outputs is the caller's: one more layer passes them on.
        layers, plan = layers + 1, [_output(e) for e in outputs]
    nodes, plans = [outputs], [plan]
    for number in range(layers - 1, 0, -1):
        ordered = sorted(((_plan(e, number, depths), e) for e in _cores(plans[0], []) or symbols[:1]), key=lambda pair: len(pair[0]) > 1)
        nodes.insert(0, [e for _, e in ordered])
        plans.insert(0, [node for node, _ in ordered])
    nodes.insert(0, _cores(plans[0], symbols))
    return nodes, plans


def _cores(plan: list[Node], known: Sequence[sympy.Expr]) -> list[sympy.Expr]:
    """The nodes that edges of a layer come from, after those that are known."""
    level = list(known)
    for core in (core for node in plan for edges in node for _, _, core in edges):
        if core.free_symbols and core not in level:
            level.append(core)
    return level


def _parse(expression: Any, variables: Sequence[str] | None) -> sympy.Expr:
    """An expression or its text with square roots as such and powers of products expanded."""
    try:
        parsed = sympy.sympify(expression, locals={str(v): sympy.Symbol(str(v)) for v in variables or ()})
    except (sympy.SympifyError, TypeError, AttributeError, SyntaxError) as error:
        parsed = error
    if not isinstance(parsed, sympy.Expr) or parsed.has(sympy.I, sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise ValueError(
            f"expressions={expression!r}: expected a formula of real numbers; "
            "`variables` has to hold names that SymPy knows as something else, such as I, N or beta"
        )
    # The power x**0.5 is a square root, too.
    parsed = parsed.replace(lambda e: e.is_Pow and e.exp.is_Float, lambda e: e.base ** sympy.nsimplify(e.exp, rational=True))
    return sympy.expand_power_base(parsed)


def _output(expression: sympy.Expr) -> Node:
    """An edge that passes a node on, or a constant."""
    if not expression.free_symbols:
        return [_edges(expression)]
    return [[("x", (1.0, 0.0, 1.0, 0.0), expression)]]


def _plan(expression: sympy.Expr, number: int, depths: Depths) -> Node:
    """Sub-nodes of a node at layer `number`: one for a sum, one per factor for a product."""
    if _depth(expression, depths) < number and expression.free_symbols:
        return _output(expression)
    return [_edges(part) for part in _factors(expression) or [expression]]


def _write(model: Network, nodes: list[list[sympy.Expr]], plans: list[list[Node]]) -> None:
    """Give a network of the right shape the edges of a layout; factors that a product lacks are 1."""
    one: list[SymbolicEdge] = [("0", (0.0, 0.0, 0.0, 1.0), sympy.S.One)]
    with torch.no_grad():
        for below, layer, plan in zip(nodes, model.layers, plans, strict=False):
            layer.spline.mask.zero_()
            subnodes = [s for node in plan for s in (node if len(node) == 1 else [*node, *[one] * (layer.arity - len(node))])]
            for j, edges in enumerate(subnodes):
                for name, affine, core in edges:
                    i = below.index(core) if core.free_symbols else 0
                    layer.function[j, i] = function_index(name)
                    layer.affine[j, i] = torch.tensor(affine, dtype=model.dtype)
            layer.refresh()
