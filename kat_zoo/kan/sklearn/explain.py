"""A page about a formula: how it compares, what it leaves, how it follows the data, and why its numbers are what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy

from ..search.judge import STEPS, least_squares
from ..search.tree import LEAVES, Tree, constants, evaluate, with_constants
from .closed import Law

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .regressor import KANRegressor

MOST_INPUTS = 6  # curves of the most important inputs
NUMBERS = 20  # numbers of a formula that are explained
STRUCTURAL = (-1.0,)  # signs are no constants of a formula
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
    """A number of a form: what stands there, what the data say, and what the difference costs."""

    shown: str
    value: float
    fitted: float
    deviation: float
    growth: float

    def line(self) -> str:
        before, after = f"{self.fitted:.6g}", self.shown
        doubt = f" +- {self.deviation:.1g}" if np.isfinite(self.deviation) else ""
        if self.fitted == self.value:
            return f"  {after}: fitted{doubt}, no round number is as good"
        apart = abs(self.fitted - self.value)
        if apart <= 1e-9 * abs(self.value):
            reason = "the data give the same to rounding"
        elif np.isfinite(self.deviation) and self.deviation > 0:
            reason = f"{apart / self.deviation:.2g} standard errors away; the error grows by {100 * self.growth:.2g} %"
        else:
            reason = f"the error grows by {100 * self.growth:.2g} %"
        return f"  {before}{doubt} -> {after}: {reason}"


def _free(tree: Tree) -> tuple[Tree, list[bool], list[str]]:
    """The form with its round numbers as constants, whether each constant was a round number, and how it prints."""
    rounded: list[bool] = []
    shown: list[str] = []

    def visit(part: Tree) -> Tree:
        if part[0] in ("c", "n", "s") and part[1] not in STRUCTURAL:
            rounded.append(part[0] != "c")
            shown.append(str(part[2]) if part[0] == "s" else f"{part[1]:.6g}")
            return ("c", float(part[1]))
        if part[0] in LEAVES:
            return part
        if part[0] == "^":
            return ("^", visit(part[1]), part[2])
        return (part[0], *(visit(child) for child in part[1:]))

    return visit(tree), rounded, shown


def _numbers(law: Law, X: np.ndarray, y: np.ndarray) -> list[_Number]:
    """Each number of a form beside what least squares give when the round ones are free again."""
    tree, rounded, shown = _free(law.form.tree)
    start = np.array(constants(tree))
    if not len(start) or len(start) > NUMBERS or len(start) >= len(y):
        return []
    columns = law.columns(X)

    def residuals(values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            out: np.ndarray = evaluate(with_constants(tree, values.tolist()), columns) - y
        return out

    with np.errstate(all="ignore"):
        found, loss = least_squares(residuals, start, STEPS)
        before = float(np.mean(residuals(start) ** 2))
    deviations = _deviations(residuals, found, loss)
    result = []
    for k, value in enumerate(start):
        growth = float(np.sqrt(before / loss) - 1) if loss > 0 else 0.0
        fitted = float(found[k]) if rounded[k] else float(value)
        result.append(_Number(shown[k], float(value), fitted, float(deviations[k]), growth))
    return result


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
    residuals = y - model.predict(X)
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
    numbers = [] if law is None else _numbers(law, X, y)
    if numbers:
        lines += ["", "Numbers (as fitted to these rows -> as printed):", *dict.fromkeys(number.line() for number in numbers)]
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
    names: Sequence[str] = model._names if model._names is not None else [f"x_{i + 1}" for i in range(X.shape[1])]
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
