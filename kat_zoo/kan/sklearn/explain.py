"""A page about a formula: how it compares, what it leaves, how it follows the data, and why its numbers are what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy

from ..search.judge import STEPS, least_squares
from ..search.tree import FUNCTIONS, LEAVES, Tree, constants, evaluate, walk, with_constants
from .closed import Law

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .regressor import KANRegressor

MOST_INPUTS = 6  # curves of the most important inputs
MOST_NUMBERS = 20  # of a formula that are explained
POINTS = 200  # of a curve
EXACT = 1e-6


@dataclass
class Explanation:
    """The page.

    Attributes:
        text: the text.
        figure: the pictures, a matplotlib figure.
    """

    text: str
    figure: Figure

    def __str__(self) -> str:
        return self.text

    def save(self, folder: Any) -> None:
        """Write explanation.txt and explanation.png.

        Args:
            folder: the folder; it is made where it is missing.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "explanation.txt").write_text(self.text + "\n", encoding="utf-8")
        self.figure.savefig(folder / "explanation.png", dpi=150)


@dataclass
class _Number:
    """A number of a formula: as it prints, as least squares give it, and its standard error (NaN where it has none)."""

    shown: str
    value: float
    fitted: float
    deviation: float

    def line(self) -> str:
        doubt = f" +- {self.deviation:.1g}" if np.isfinite(self.deviation) else ""
        apart = abs(self.fitted - self.value)
        if apart <= 1e-9 * abs(self.value):
            reason = "the rows say the same to rounding"
        elif self.deviation > 0:
            reason = f"{apart / self.deviation:.2g} standard errors apart"
        else:
            reason = "the rows do not tell it apart from other numbers of the formula"
        return f"  {self.fitted:.7g}{doubt} -> {self.shown}: {reason}"


def _to_tree(expression: sympy.Expr, symbols: Sequence[sympy.Symbol]) -> Tree:
    """The tree of a printed formula, each number of it one leaf.

    Raises:
        ValueError: a function that trees do not have.
    """
    if expression.is_Symbol:
        return ("x", list(symbols).index(expression))
    if expression.is_number:
        return ("n", -1) if expression == -1 else ("s", float(expression), expression)
    if expression.is_Pow and expression.exp.is_number:
        return ("^", _to_tree(expression.base, symbols), float(expression.exp))
    if expression.is_Mul or expression.is_Add:
        numbers = [part for part in expression.args if part.is_number]
        parts = [part for part in expression.args if not part.is_number]
        if numbers:
            parts.insert(0, expression.func(*numbers))
        return ("*" if expression.is_Mul else "+", *(_to_tree(part, symbols) for part in parts))
    for name, (_, function) in FUNCTIONS.items():
        if expression.func == function:
            return (name, _to_tree(expression.args[0], symbols))
    raise ValueError(f"{expression}: expected functions of {', '.join(FUNCTIONS)}")


def _numbers(expression: sympy.Expr, names: Sequence[str], columns: np.ndarray, y: np.ndarray) -> tuple[list[_Number], float]:
    """Each number of the printed formula beside its value by least squares, and the growth of the error that its digits cost."""
    try:
        tree = _to_tree(expression, sympy.symbols(list(names)))
    except ValueError:
        return [], 0.0
    leaves = [part for part in walk(tree) if part[0] == "s"]
    if not leaves or len(leaves) > MOST_NUMBERS or len(leaves) >= len(y):
        return [], 0.0
    free = _freed(tree)

    def residuals(values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            out: np.ndarray = evaluate(with_constants(free, values.tolist()), columns) - y
        return out

    start = np.array(constants(free))
    with np.errstate(all="ignore"):
        found, loss = least_squares(residuals, start, STEPS)
        before = float(np.mean(residuals(start) ** 2))
    deviations = _deviations(residuals, found, loss)
    growth = float(np.sqrt(before / loss) - 1) if loss > (1e-9 * float(y.std())) ** 2 else 0.0
    parts = zip(leaves, start, found, deviations, strict=True)
    return [_Number(str(leaf[2]), float(v), float(w), float(d)) for leaf, v, w, d in parts], growth


def _freed(tree: Tree) -> Tree:
    if tree[0] == "s":
        return ("c", tree[1])
    if tree[0] in LEAVES:
        return tree
    return ("^", _freed(tree[1]), tree[2]) if tree[0] == "^" else (tree[0], *map(_freed, tree[1:]))


def _deviations(residuals: Any, values: np.ndarray, loss: float) -> np.ndarray:
    """Standard errors of constants from the Jacobian; NaN where the data cannot tell them apart."""
    steps = 1e-6 * np.where(values != 0, np.abs(values), 1.0)
    columns = [(residuals(values + step) - residuals(values - step)) / (2 * h) for h, step in zip(steps, np.diag(steps), strict=True)]
    J = np.column_stack(columns)
    unknown = np.full(len(values), np.nan)
    if not np.isfinite(J).all():
        return unknown
    size = np.sqrt((J * J).sum(0))
    if not size.all() or np.linalg.cond(J / size) > 1e8:
        return unknown
    noise = loss * len(J) / max(len(J) - len(values), 1)
    errors: np.ndarray = np.sqrt(noise * np.diag(np.linalg.inv((J / size).T @ (J / size)))) / size
    return errors


def _text(model: KANRegressor, law: Law | None, X: np.ndarray, y: np.ndarray) -> str:
    from sympy import sstr

    lines = [f"y = {sstr(model.formula_, full_prec=False)}", "", model.summary_, ""]
    residuals = y - model._values(X)
    spread = float(y.std()) or 1.0
    lines += [
        f"Rows: {len(y)}. Residuals: root mean square {np.sqrt(np.mean(residuals**2)):.3g}, largest {np.abs(residuals).max():.3g}, "
        f"R^2 {1 - float(np.mean(residuals**2)) / spread**2:.6g}.",
        "",
        "Formulas that no shorter one beats (number of table_, length, error):",
    ]
    rows, chosen = model._findings.rows, model._findings.chosen
    for number, row in enumerate(rows):
        mark = "*" if row is chosen else " "
        lines.append(f"{mark} {number:>2} {row.complexity:>5} {row.loss:>10.3g}  {sstr(row.equation, full_prec=False)}")
    names, columns = (law.names, law.columns(X)) if law is not None else (model._input_names(), X)
    numbers, growth = _numbers(model.formula_, names, columns, y)
    if numbers:
        lines += ["", "Numbers, as least squares give them -> as printed:", *(number.line() for number in numbers)]
        lines += [f"  Together they let the error grow by {100 * growth:.2g} %."]
    if law is not None and hasattr(model, "constant_units_") and model.constant_units_:
        lines += ["", "Units of numbers:", *(f"  {value:.6g} {unit}" for value, unit in model.constant_units_)]
    if law is not None and law.constants:
        lines += ["", "Constants:", *(f"  {name} = {value:.10g} in base units" for name, value in law.constants.items())]
    return "\n".join(lines)


def _draw_front(axes: Axes, model: KANRegressor) -> None:
    rows, chosen = model._findings.rows, model._findings.chosen
    floor = EXACT * model._unit
    axes.step([row.complexity for row in rows], [max(row.loss, floor) for row in rows], where="post", color="0.6")
    axes.plot([row.complexity for row in rows], [max(row.loss, floor) for row in rows], "o", color="C0")
    axes.plot([chosen.complexity], [max(chosen.loss, floor)], "o", color="C3", label="the formula")
    axes.set(yscale="log", xlabel="length (nodes)", ylabel="error", title="formulas of the table")
    axes.legend()


def _draw_residuals(axes: Axes, y: np.ndarray, predicted: np.ndarray) -> None:
    axes.axhline(0, color="0.6", lw=1)
    axes.plot(predicted, y - predicted, ".", ms=3)
    axes.set(xlabel="predicted", ylabel="y - predicted", title="residuals")


def _draw_input(axes: Axes, model: KANRegressor, X: np.ndarray, y: np.ndarray, i: int, name: str) -> None:
    """The formula along one input with the others at their medians, and each row moved there by the formula."""
    middle = np.median(X, 0)
    x = np.linspace(X[:, i].min(), X[:, i].max(), POINTS)
    if X[:, i].min() > 0 and X[:, i].max() > 100 * X[:, i].min():
        x = np.geomspace(X[:, i].min(), X[:, i].max(), POINTS)
        axes.set_xscale("log")
    line = np.tile(middle, (POINTS, 1))
    line[:, i] = x
    moved = np.tile(middle, (len(X), 1))
    moved[:, i] = X[:, i]
    points = model._values(moved) + (y - model._values(X))
    axes.plot(X[:, i], points, ".", ms=3, color="0.6", label="rows, others at their medians")
    axes.plot(x, model._values(line), color="C3", label="formula")
    axes.set(xlabel=name, ylabel="y")


def explain(model: KANRegressor, folder: Any = None) -> Explanation:
    """The page about a fitted regressor.

    Args:
        model: the regressor, fitted with symbolic=True to one output.
        folder: folder that gets the page; nothing is written by default.
    """
    from matplotlib.figure import Figure

    X, y = model._rows
    law = model.law_ if hasattr(model, "law_") else None
    names = model._input_names()
    important = np.argsort(-model.feature_importances_, kind="stable")
    used = {str(symbol) for symbol in sympy.sympify(model.formula_).free_symbols}
    inputs = [int(i) for i in important if names[i] in used][:MOST_INPUTS]
    panels = 2 + len(inputs)
    columns = min(panels, 4) if panels != 5 else 3
    lines = -(-panels // columns)
    figure = Figure(figsize=(3.6 * columns, 3.0 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    _draw_front(axes[0], model)
    _draw_residuals(axes[1], y, model._values(X))
    for panel, i in zip(axes[2:], inputs, strict=False):
        _draw_input(panel, model, X, y, i, str(names[i]))
    if inputs:
        axes[2].legend(fontsize="small")
    for panel in axes[panels:]:
        panel.set_axis_off()
    page = Explanation(_text(model, law, X, y), figure)
    if folder is not None:
        page.save(folder)
    return page
