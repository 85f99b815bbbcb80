"""A page about a formula: how it compares, what it leaves, how it follows the data, and why its numbers are what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sympy
import torch

from ..search.judge import STEPS, least_squares
from ..search.tree import constants, evaluate, freed, from_sympy, walk, with_constants
from .closed import Law
from .rows import typical_rows
from .symbolic import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_INPUTS = 6  # curves of the most important inputs
MOST_NUMBERS = 20  # of a formula that are explained
POINTS = 200  # of a curve
DECADES = 100  # ratio of an input's largest and smallest value from which its axis is logarithmic
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
class Subject:
    """A formula and the rows that explain it.

    Attributes:
        findings: Result of the search.
        summary: Sentence on how good the formula is.
        names: Names of the inputs in formulas.
        labels: Names of the inputs on the page.
        shares: (inputs,) share of each input in the variation.
        X: (N, inputs) samples.
        y: (N,) targets.
        weight: (N,) positive weights, None for equal ones.
        total: Number of rows of the fit, of which the samples are some.
        spread: Standard deviation of y.
        numbers_with_units: Value and unit of each number of the formula that has a unit.
    """

    findings: Findings
    summary: str
    names: Sequence[str]
    labels: Sequence[str]
    shares: np.ndarray
    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None
    total: int = 0
    spread: float = 1.0
    numbers_with_units: Sequence[tuple[float, str]] = ()

    @property
    def expression(self) -> sympy.Expr:
        """The formula."""
        equation = self.findings.chosen.equation
        return equation[0] if isinstance(equation, list) else equation

    def text(self, expression: Any) -> str:
        """A formula, or a list of one, with the names of the page."""
        expression = expression[0] if isinstance(expression, list) else expression
        labels = {sympy.Symbol(name): sympy.Symbol(label) for name, label in zip(self.names, self.labels, strict=True)}
        text: str = sympy.sstr(expression.xreplace(labels), full_prec=False)
        return text

    @property
    def share(self) -> np.ndarray:
        """(N,) share of each row in the sum of the weights."""
        weight = np.ones(len(self.y)) if self.weight is None else self.weight
        shares: np.ndarray = weight / weight.sum()
        return shares

    def drawn(self) -> Subject:
        """The subject with some of its rows, enough for pictures."""
        rows = typical_rows(torch.from_numpy(np.column_stack([self.X, self.y])), self.weight).numpy()
        return replace(self, X=rows[:, :-1], y=rows[:, -1], weight=None)

    def values(self, X: np.ndarray) -> np.ndarray:
        """Values (N,) of the formula."""
        values: np.ndarray = self.findings.chosen.answer.predict(X).reshape(len(X), -1)[:, 0]
        return values


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


def _numbers(
    expression: sympy.Expr, names: Sequence[str], columns: np.ndarray, y: np.ndarray, share: np.ndarray
) -> tuple[list[_Number], float]:
    """Each number of the printed formula beside its value by least squares, and the growth of the error that its digits cost.

    Args:
        expression: the printed formula.
        names: names of its variables.
        columns: (N, variables) their values.
        y: (N,) targets.
        share: (N,) weights of the rows, of sum 1.
    """
    try:
        tree = from_sympy(expression, [sympy.Symbol(name) for name in names])
    except ValueError:
        return [], 0.0
    leaves = [part for part in walk(tree) if part[0] == "s"]
    if not leaves or len(leaves) > MOST_NUMBERS or len(leaves) >= len(y):
        return [], 0.0
    free, root = freed(tree, lambda leaf: bool(leaf[0] == "s")), np.sqrt(share * len(y))
    rows = float(1 / (share @ share))  # of equal weight that would tell as much

    def residuals(values: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            out: np.ndarray = (evaluate(with_constants(free, values.tolist()), columns) - y) * root
        return out

    start = np.array(constants(free))
    with np.errstate(all="ignore"):
        found, loss = least_squares(residuals, start, STEPS)
        before = float(np.mean(residuals(start) ** 2))
    deviations = _deviations(residuals, found, loss, rows)
    growth = float(np.sqrt(before / loss) - 1) if loss > 1e-18 * _variance(y, share) else 0.0
    parts = zip(leaves, start, found, deviations, strict=True)
    return [_Number(sympy.sstr(leaf[2], full_prec=False), float(v), float(w), float(d)) for leaf, v, w, d in parts], growth


def _variance(y: np.ndarray, share: np.ndarray) -> float:
    return float(share @ (y - share @ y) ** 2)


def _deviations(residuals: Any, values: np.ndarray, loss: float, rows: float) -> np.ndarray:
    """Standard errors of constants from the Jacobian; NaN where the data cannot tell them apart.

    Args:
        residuals: (N,) residuals of constants, of mean weight 1.
        values: the constants.
        loss: mean squared residual.
        rows: number of rows that the weighted ones stand for.
    """
    steps = 1e-6 * np.where(values != 0, np.abs(values), 1.0)
    columns = [(residuals(values + step) - residuals(values - step)) / (2 * h) for h, step in zip(steps, np.diag(steps), strict=True)]
    J = np.column_stack(columns)
    unknown = np.full(len(values), np.nan)
    if not np.isfinite(J).all():
        return unknown
    size = np.sqrt((J * J).sum(0))
    if not size.all() or np.linalg.cond(J / size) > 1e8:
        return unknown
    noise = loss * len(J) / max(rows - len(values), 1)
    errors: np.ndarray = np.sqrt(noise * np.diag(np.linalg.inv((J / size).T @ (J / size)))) / size
    return errors


def _text(subject: Subject) -> str:
    law = subject.findings.chosen.answer
    residuals = subject.y - subject.values(subject.X)
    square = float(subject.share @ residuals**2)
    of_all = f" of {subject.total}" if subject.total > len(subject.y) else ""
    lines = [
        f"y = {subject.text(subject.expression)}",
        "",
        subject.summary,
        "",
        f"Rows: {len(subject.y)}{of_all}{'' if subject.weight is None else ', weighted'}. "
        f"Residuals: root mean square {square**0.5:.3g}, largest {np.abs(residuals).max():.3g}, "
        f"R^2 {1 - square / (_variance(subject.y, subject.share) or 1.0):.6g}.",
        "",
        "Formulas that no shorter one beats (number of table_, length, error):",
    ]
    for number, row in enumerate(subject.findings.rows):
        mark = "*" if row is subject.findings.chosen else " "
        lines.append(f"{mark} {number:>2} {row.complexity:>5} {row.loss:>10.3g}  {subject.text(row.equation)}")
    names, columns = (law.names, law.columns(subject.X)) if isinstance(law, Law) else (subject.names, subject.X)
    numbers, growth = _numbers(subject.expression, names, columns, subject.y, subject.share)
    if numbers:
        lines += ["", "Numbers, as least squares give them -> as printed:", *(number.line() for number in numbers)]
        lines += [f"  Together they let the error grow by {100 * growth:.2g} %."]
    if subject.numbers_with_units:
        lines += ["", "Units of numbers:", *(f"  {value:.6g} {unit}" for value, unit in subject.numbers_with_units)]
    if isinstance(law, Law) and law.constants:
        lines += ["", "Constants:", *(f"  {name} = {value:.10g} in base units" for name, value in law.constants.items())]
    return "\n".join(lines)


def _draw_front(axes: Axes, subject: Subject) -> None:
    rows, chosen, floor = subject.findings.rows, subject.findings.chosen, EXACT * subject.spread
    lengths, errors = [row.complexity for row in rows], [max(row.loss, floor) for row in rows]
    axes.step(lengths, errors, where="post", color="0.6")
    axes.plot(lengths, errors, "o", color="C0")
    axes.plot([chosen.complexity], [max(chosen.loss, floor)], "o", color="C3", label="the formula")
    axes.set(yscale="log", xlabel="length (nodes)", ylabel="error", title="formulas of the table")
    axes.legend()


def _draw_residuals(axes: Axes, y: np.ndarray, predicted: np.ndarray) -> None:
    axes.axhline(0, color="0.6", lw=1)
    axes.plot(predicted, y - predicted, ".", ms=3)
    axes.set(xlabel="predicted", ylabel="y - predicted", title="residuals")


def _draw_input(axes: Axes, subject: Subject, i: int) -> None:
    """The formula along one input with the others at their medians, and each row moved there by the formula."""
    X, column = subject.X, subject.X[:, i]
    x = np.linspace(column.min(), column.max(), POINTS)
    if column.min() > 0 and column.max() > DECADES * column.min():
        x = np.geomspace(column.min(), column.max(), POINTS)
        axes.set_xscale("log")
    line, moved = (np.tile(np.median(X, 0), (n, 1)) for n in (POINTS, len(X)))
    line[:, i], moved[:, i] = x, column
    points = subject.values(moved) + (subject.y - subject.values(X))
    axes.plot(column, points, ".", ms=3, color="0.6", label="rows, others at their medians")
    axes.plot(x, subject.values(line), color="C3", label="formula")
    axes.set(xlabel=str(subject.labels[i]), ylabel="y")


def explain(subject: Subject, folder: Any = None) -> Explanation:
    """The page about a formula.

    Args:
        subject: the formula.
        folder: folder that gets the page; nothing is written by default.
    """
    from matplotlib.figure import Figure

    used = {str(symbol) for symbol in subject.expression.free_symbols}
    inputs = [int(i) for i in np.argsort(-subject.shares, kind="stable") if subject.names[i] in used][:MOST_INPUTS]
    panels = 2 + len(inputs)
    columns = min(panels, 4) if panels != 5 else 3
    lines = -(-panels // columns)
    figure = Figure(figsize=(3.6 * columns, 3.0 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    drawn = subject.drawn()
    _draw_front(axes[0], subject)
    _draw_residuals(axes[1], drawn.y, drawn.values(drawn.X))
    for panel, i in zip(axes[2:], inputs, strict=False):
        _draw_input(panel, drawn, i)
    if inputs:
        axes[2].legend(fontsize="small")
    for panel in axes[panels:]:
        panel.set_axis_off()
    page = Explanation(_text(subject), figure)
    if folder is not None:
        page.save(folder)
    return page
