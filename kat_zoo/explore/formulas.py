"""A formula for the page: typeset, as code, and held against the network and the held-out rows.

Inputs are the symbols x_1, x_2, ... throughout. Names of the table enter at the end, as text that is printed and never read.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import re
import string
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy
from sympy.core.function import AppliedUndef
from sympy.printing.mathml import mathml
from sympy.printing.numpy import SciPyPrinter

from ..kan.formula.export import latex_name, safe_names, to_c, to_numpy
from .figures import known, number
from .state import Problem, State

EXACT = 1e-6  # largest error of an exact formula, relative to the spread of the target
LETTERS = "wxzk"  # of names that SymPy's printers take for plain letters
INDEXED = re.compile(r"([^\W\d_]+)_(\w+)")
MODULES = {"np", "numpy", "scipy"}  # names that code uses
UNIT = re.compile(r"\s*[\[(][^\[\]()]*[\])]\s*$")  # at the end of a column's name
EDGE = re.compile(r"phi_(\d+)_(\d+)_(\d+)")
MOST_TERMS = 4000  # nodes of an expression that is typeset

Tree = list[Any]  # [tag, text or list of trees]


def _stand_ins(problem: Problem) -> tuple[dict[sympy.Symbol, sympy.Symbol], dict[str, str]]:
    """Plain names for printing, and the column that each stands for."""
    symbols, stands, names = {}, {}, labels(problem)
    for n, (symbol, name) in enumerate(zip(problem.symbols, problem.inputs, strict=True)):
        letters = "q" + "".join(LETTERS[int(d)] for d in np.base_repr(n, len(LETTERS)))
        symbols[sympy.Symbol(symbol)], stands[letters] = sympy.Symbol(letters), names[name]
    return symbols, stands


def labels(problem: Problem) -> dict[str, str]:
    """The name of each column without its unit; with it, where another column would have the same name."""
    columns = [*problem.inputs, problem.target]
    short = [UNIT.sub("", name) or name for name in columns]
    return {name: label if short.count(label) == 1 else name for name, label in zip(columns, short, strict=True)}


def mathml_tree(expression: sympy.Expr, problem: Problem) -> Tree:
    """Presentation MathML as lists [tag, text or children], from which the page builds elements one by one.

    Args:
        expression: formula of x_1, x_2, ...
        problem: the columns in use.
    """
    if sum(1 for _ in itertools.islice(sympy.preorder_traversal(expression), MOST_TERMS + 1)) > MOST_TERMS:
        return ["mtext", f"a formula of more than {MOST_TERMS:,} parts"]
    symbols, stands = _stand_ins(problem)
    text = mathml(expression.xreplace(symbols), printer="presentation", mul_symbol="None")
    return _tree(ElementTree.fromstring(_characters(text)), stands)


def _characters(text: str) -> str:
    """MathML with characters in place of named ones, which XML does not know."""
    return re.sub(r"&(?!lt;|gt;|amp;|quot;|#)\w+;", lambda match: html.unescape(match[0]), text)


def _tree(element: ElementTree.Element, stands: dict[str, str]) -> Tree:
    children = [_tree(child, stands) for child in element]
    if children:
        return [element.tag, children]
    text = (element.text or "").strip().replace("\u2147", "e")  # a double-struck e, which is not how books set it
    if element.tag == "mi" and text in stands:
        return _name_tree(stands[text])
    if match := EDGE.fullmatch(text):
        return ["msub", [["mi", "φ"], ["mtext", ",".join(match.groups())]]]
    return [element.tag, text]


def _name_tree(name: str) -> Tree:
    if match := INDEXED.fullmatch(name):
        return ["msub", [["mi", match[1]], ["mi", match[2]]]]
    return ["mi", name]


def latex_label(name: str) -> str:
    """A column's name in LaTeX, every special character escaped.

    Args:
        name: name of the column, one of `labels`.
    """
    if len(name) == 1 and name in string.ascii_letters:
        return name
    if match := re.fullmatch(r"([A-Za-z])_([A-Za-z0-9]+)", name):
        return f"{match[1]}_{{{match[2]}}}"
    return latex_name(name)


def typeset(printed: sympy.Expr, problem: Problem) -> dict[str, Any]:
    """MathML and LaTeX of the formula.

    Args:
        printed: formula with rounded numbers.
        problem: the columns in use.
    """
    short = labels(problem)
    names = {sympy.Symbol(symbol): latex_label(short[name]) for symbol, name in zip(problem.symbols, problem.inputs, strict=True)}
    latex = sympy.latex(printed, symbol_names=names)
    return {
        "math": mathml_tree(printed, problem),
        "target": _name_tree(short[problem.target]),
        "latex": f"{latex_label(short[problem.target])} = {latex}",
        "symbolic": not printed.atoms(AppliedUndef),
    }


def variables(problem: Problem) -> list[str]:
    """Names of the inputs in code: those of the columns where every language takes them, else x_1, x_2, ..."""
    short = labels(problem)
    names = [short[name] for name in problem.inputs]
    return names if safe_names(names, MODULES) == names else problem.symbols


def code_of(full: sympy.Expr, printed: sympy.Expr, problem: Problem) -> dict[str, str]:
    """The formula as SymPy, NumPy and C; empty where it has edges without a formula, or a language lacks a function.

    Args:
        full: formula with all digits.
        printed: formula with rounded numbers.
        problem: the columns in use.
    """
    if full.atoms(AppliedUndef):
        return {}
    names = variables(problem)
    symbols = {sympy.Symbol(old): sympy.Symbol(new) for old, new in zip(problem.symbols, names, strict=True)}
    full, printed = full.xreplace(symbols), printed.xreplace(symbols)
    code = {"sympy": sympy.sstr(printed, full_prec=False)}
    with contextlib.suppress(NotImplementedError):  # SymPy's, of a function that NumPy and SciPy lack
        code["numpy"] = _numpy(full, names)
    with contextlib.suppress(ValueError):
        code["c"] = to_c(full, names)
    if names == problem.symbols:
        meaning = [f"{symbol} is {' '.join(ascii(name).split())}" for symbol, name in zip(names, problem.inputs, strict=True)]
        for language, mark in (("numpy", "# "), ("c", "// ")):
            if language in code:
                code[language] = "".join(f"{mark}{line}\n" for line in meaning) + code[language]
    return code


def _numpy(expression: sympy.Expr, names: Sequence[str]) -> str:
    printer = SciPyPrinter({"fully_qualified_modules": True})
    body = printer.doprint(expression)
    modules = [f"import {module}" for module in ("numpy", "scipy.constants", "scipy.special") if f"{module}." in body]
    return "\n".join([*modules, "", "", f"def formula({', '.join(names)}):", f"    return {body}", ""]).lstrip("\n")


def _values(expression: sympy.Expr, problem: Problem, X: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(to_numpy(expression, problem.symbols)(*X.T), dtype=float) + np.zeros(len(X))


def verdict(state: State, full: sympy.Expr, printed: sympy.Expr) -> dict[str, Any]:
    """How far the formula is from the held-out rows and from the network, relative to the spread of the target.

    It is exact only where it is right to 1e-6 of the spread on held-out rows.

    Args:
        state: the state.
        full: formula with all digits.
        printed: formula with rounded numbers.
    """
    problem = state.need_problem()
    X, y = problem.X[problem.check], problem.y[problem.check]
    found: dict[str, Any] = {"held": len(problem.held), "network_error": number(state.error()), "exact": False}
    if full.atoms(AppliedUndef):
        return found
    network = state.predict(X)
    for name, expression in (("error", full), ("printed_error", printed)):
        values = _values(expression, problem, X)
        found[name] = known(float(np.sqrt(np.mean((values - y) ** 2))) / problem.spread)
        if name == "error":
            found["from_network"] = known(float(np.abs(values - network).max()) / problem.spread)
    found["exact"] = bool(len(problem.held) and found["error"] is not None and found["error"] <= EXACT)
    return found
