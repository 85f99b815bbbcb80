"""Fit of an additive model with pairwise terms to one target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .basis import CHUNK, Basis, chunks, splines
from .losses import Loss
from .monotone import Part, keep_lines, solve_monotone
from .pairs import COLUMNS, ROWS, screen
from .reml import FREE, Moments, Solution, solve

Pair = tuple[int, int]
ROUNDS = 2  # searches for pairs, the second on what the first has left
LINES, CURVES = 600, 120  # columns with lines and with curves at most
PAIRS = 10  # pairs that a round adds at most
ITERATIONS = 25  # weighted least squares problems of a loss that is not squared error
SETTLED = 1e-6  # change of the loss at which they end, relative to the loss of a constant
CAUTION = 2.5  # cost of an effective parameter in generalized cross-validation: that penalties are chosen, too, costs more than 1


@dataclass
class Terms:
    """Terms of a model.

    Attributes:
        basis: functions of the C columns.
        lines: columns whose lines are in the model.
        curves: columns whose curves are in it.
        pairs: pairs of columns whose products are in it.
        order: number of functions of a column whose products are in a pair.
        shared: whether all lines share one penalty, as in ridge regression.
    """

    basis: Basis
    lines: np.ndarray
    curves: np.ndarray
    pairs: list[Pair] = field(default_factory=list)
    order: int = 4
    shared: bool = False

    def monotone_parts(self, directions: np.ndarray) -> list[Part]:
        """Columns of the design, spline coefficients and direction of each column that must rise (1) or fall (-1)."""
        found = []
        for number, column in enumerate(self.lines):
            if directions[column]:
                own = [1 + number]
                at = np.flatnonzero(self.curves == column)
                if len(at):
                    start = 1 + len(self.lines) + int(at[0]) * self.curve_count
                    own += range(start, start + self.curve_count)
                functions = self.basis.functions[column][:, : len(own)]
                found.append((np.array(own), functions, int(directions[column])))
        return found

    @property
    def curve_count(self) -> int:
        """Number of curves of a column."""
        return int(self.basis.functions.shape[2]) - 1

    def blocks(self) -> np.ndarray:
        """Block of each column of `design`."""
        lines = np.zeros(len(self.lines), int) if self.shared else np.arange(len(self.lines))
        start = int(lines.max(initial=-1)) + 1
        curves = np.repeat(start + np.arange(len(self.curves)), self.curve_count)
        pairs = np.repeat(start + len(self.curves) + np.arange(len(self.pairs)), self.order**2)
        return np.concatenate([[FREE], lines, curves, pairs])

    def design(self, x: np.ndarray) -> np.ndarray:
        """Columns (N, P) of the least squares problem at rows x (N, C): 1, lines, curves, pairs."""
        values = self.basis.values(x)
        parts = [
            np.ones((len(x), 1)),
            values[:, self.lines, 0],
            values[:, self.curves, 1:].reshape(len(x), len(self.curves) * self.curve_count),
        ]
        cost = 1 / (1.0 + np.arange(self.order))
        low = values[:, :, : self.order] * cost
        parts += [(low[:, i, :, None] * low[:, j, None, :]).reshape(len(x), -1) for i, j in self.pairs]
        return np.concatenate(parts, 1)


class Design:
    """Columns of the least squares problem at given rows, part by part; those of a single part are computed once.

    Args:
        terms: terms of the model.
        x: (N, C) rows.
    """

    def __init__(self, terms: Terms, x: np.ndarray) -> None:
        self.terms, self.x = terms, x
        self._only = terms.design(x) if len(x) <= CHUNK else None

    def parts(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Each part of the rows with its (n, P) columns."""
        if self._only is not None:
            yield slice(None), self._only
            return
        for part in chunks(len(self.x)):
            yield part, self.terms.design(self.x[part])

    def predict(self, coefficients: np.ndarray) -> np.ndarray:
        """Values (N,) of the model."""
        return np.concatenate([values @ coefficients for _, values in self.parts()])

    def moments(self, target: np.ndarray, weight: np.ndarray, rows: float, used: np.ndarray | None = None) -> Moments:
        """Products of the columns, summed over the rows part by part.

        Args:
            target: (N,) target.
            weight: (N,) weights.
            rows: number that the weights stand for.
            used: (P,) whether a column's products are wanted, all by default; those of others are 0.
        """
        size = len(self.terms.blocks())
        found = Moments(np.zeros((size, size)), np.zeros(size), 0.0, rows)
        at = np.arange(size) if used is None else np.flatnonzero(used)
        gram, right = np.zeros((len(at), len(at))), np.zeros(len(at))
        for part, every in self.parts():
            values = every if len(at) == size else every[:, at]
            weighted = values * weight[part, None]
            gram += weighted.T @ values
            right += weighted.T @ target[part]
            found.square += float(weight[part] @ target[part] ** 2)
        found.gram[np.ix_(at, at)], found.right[at] = gram, right
        return found


@dataclass
class Fitted:
    """A fitted model.

    Attributes:
        terms: its terms.
        solution: its coefficients and penalties.
        loss: weighted mean loss of the rows.
        criterion: generalized cross-validation with `CAUTION`.
        eta: (N,) predictions of the rows.
    """

    terms: Terms
    solution: Solution
    loss: float
    criterion: float
    eta: np.ndarray


def fit_terms(
    terms: Terms,
    loss: Loss,
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    offset: np.ndarray,
    eta: np.ndarray | None = None,
    directions: np.ndarray | None = None,
    products: Moments | None = None,
) -> Fitted:
    """Coefficients and penalties of given terms.

    Args:
        terms: terms of the model.
        loss: loss to minimize.
        x: (N, C) rows.
        y: (N,) targets.
        weight: (N,) positive weights.
        offset: (N,) known part of the predictions.
        eta: (N,) predictions to begin with.
        directions: (C,) 1 for a column whose function must not fall, -1 for one that must not rise, 0 for others.
        products: moments of the terms, where they are known.
    """
    rows = float(weight.sum())
    blocks = terms.blocks()
    start = np.full(len(y), loss.start(y, weight))
    eta = loss.begin(y, weight) if eta is None else eta
    # The loss itself goes to 0 where classes can be told apart.
    settled = SETTLED * abs(float(weight @ loss.values(y, start))) / rows
    design = Design(terms, x)
    former, penalties, used = np.inf, None, None
    for _ in range(1 if loss.exact else ITERATIONS):
        factor, target = loss.working(y, eta, weight)
        if products is None or not loss.exact:
            products = design.moments(target - offset, weight * factor, rows, used)
        solution = solve(products, blocks, penalties, loss.scale, loss.least)
        penalties = solution.penalties
        used = np.isfinite(np.append(penalties, 0.0)[blocks])  # the last stands for the constant; what has gone stays away
        eta = offset + design.predict(solution.coefficients)
        value = float(weight @ loss.values(y, eta)) / rows
        if abs(former - value) <= settled:
            break
        former = value
    if directions is not None and directions.any():
        parts, former = terms.monotone_parts(directions), np.inf
        every = keep_lines(solution.penalties, blocks, parts)
        for _ in range(1 if loss.exact else ITERATIONS):
            factor, target = loss.working(y, eta, weight)
            products = design.moments(target - offset, weight * factor, rows)
            solution.coefficients = solve_monotone(products, every, parts)
            eta = offset + design.predict(solution.coefficients)
            value = float(weight @ loss.values(y, eta)) / rows
            if abs(former - value) <= settled:
                break
            former = value
    left = max(1 - CAUTION * solution.parameters / rows, 1e-3)
    criterion = value / left**2 if loss.scale is None else value + CAUTION * solution.parameters / rows
    return Fitted(terms, solution, value, criterion, eta)


def fit(
    basis: Basis,
    loss: Loss,
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    offset: np.ndarray | None = None,
    order: int = 4,
    interactions: bool = True,
    rank: np.ndarray | None = None,
    directions: np.ndarray | None = None,
) -> Fitted:
    """An additive model, with the pairs that the rows ask for.

    Args:
        basis: functions of the columns.
        loss: loss to minimize.
        x: (N, C) rows, columns scaled and none of them constant.
        y: (N,) targets.
        weight: (N,) positive weights.
        offset: (N,) known part of the predictions.
        order: number of functions of a column whose products are in a pair.
        interactions: whether pairs are searched.
        rank: (N,) order of the rows, of which the first are searched for pairs; their own by default.
        directions: (C,) 1 for a column whose function must not fall, -1 for one that must not rise, 0 for others.
    """
    offset = np.zeros(len(y)) if offset is None else offset
    columns, curved = _candidates(basis, x, y - offset, weight)
    if directions is not None:  # a curve is monotone by its line alone
        columns = np.union1d(columns, curved[directions[curved] != 0])
    every = Design(Terms(basis, columns, curved), x).moments(y - offset, weight, float(weight.sum())) if loss.exact else None
    fits = []
    for curves in (curved[:0], curved):
        products = (
            None if every is None else every.select(np.arange(1 + len(columns) + len(curves) * Terms(basis, columns, curved).curve_count))
        )
        for shared in (True, False) if loss.selects else (True,):
            terms = Terms(basis, columns, curves, order=order, shared=shared)
            fits.append(fit_terms(terms, loss, x, y, weight, offset, None, directions, products))
    best = fits[0]
    for trial in fits[1:]:
        best = trial if _is_better(trial, best, loss, y, weight) else best
    if not interactions or x.shape[1] < 2:
        return best
    rows = np.arange(len(x)) if rank is None else rank[:ROWS]
    seen = np.sort(rows[:ROWS])
    importance = _importance(best, x[seen], weight[seen])
    if directions is not None:
        importance[directions != 0] = -1.0
    among = np.argsort(-importance, kind="stable")[:COLUMNS]
    among = np.sort(among[importance[among] >= 0])  # products would break what is monotone
    if len(among) < 2:
        return best
    pairs: list[Pair] = []
    for _ in range(ROUNDS):
        factor, target = loss.working(y[seen], best.eta[seen], weight[seen])
        known = {(int(np.searchsorted(among, i)), int(np.searchsorted(among, j))) for i, j in pairs}
        residual, size = target - best.eta[seen], float(weight[seen].sum())
        found = screen(basis.select(among), x[np.ix_(seen, among)], residual, weight[seen] * factor, size, known)[:PAIRS]
        if not found:
            break
        pairs = pairs + [(int(among[i]), int(among[j])) for i, j in found]
        terms = Terms(basis, columns, curved, pairs, order, best.terms.shared)
        trial = fit_terms(terms, loss, x, y, weight, offset, best.eta, directions)
        if not _is_better(trial, best, loss, y, weight):
            break
        best = trial
    return best


def _candidates(basis: Basis, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns whose lines, and columns whose curves are tried: all, or those that say most about y on their own."""
    columns = np.arange(x.shape[1])
    curved = columns[np.abs(basis.functions[:, :, 1:]).max((1, 2)) > 0]
    if len(columns) <= LINES and len(curved) <= CURVES:
        return columns, curved
    scores = np.zeros((len(columns), 2))
    for first in range(0, len(columns), CURVES):
        at = columns[first : first + CURVES]
        values = basis.select(at).values(x[:, at])
        products = np.einsum("n,ncq->cq", weight * (y - np.average(y, weights=weight)), values)
        scores[at, 0] = products[:, 0] ** 2
        scores[at, 1] = (products**2 / np.maximum(np.einsum("n,ncq->cq", weight, values**2), 1e-300)).sum(1)
    lines = np.sort(np.argsort(-scores[:, 0], kind="stable")[:LINES])
    return lines, np.sort(curved[np.argsort(-scores[curved, 1], kind="stable")[:CURVES]])


def _is_better(trial: Fitted, best: Fitted, loss: Loss, y: np.ndarray, weight: np.ndarray) -> bool:
    """Whether a model is better by cross-validation, and not for the sake of one row or two, as outliers would have it."""
    if not trial.criterion < best.criterion:
        return False
    gain = loss.values(y, best.eta) - loss.values(y, trial.eta)
    share = weight / weight.sum()
    mean = float(share @ gain)
    doubt = float(np.sqrt(share @ (gain - mean) ** 2 / weight.sum()))
    return trial.solution.parameters <= best.solution.parameters or mean > doubt


def _importance(fitted: Fitted, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Variance (C,) of each column's own function."""
    own = np.einsum("ncm,cm->nc", splines(x, fitted.terms.basis.knots), spline_coefficients(fitted.terms, fitted.solution.coefficients))
    w = weight / weight.sum()
    found: np.ndarray = w @ (own - w @ own) ** 2
    return found


def spline_coefficients(terms: Terms, coefficients: np.ndarray) -> np.ndarray:
    """Spline coefficients (C, G + 3) of the columns' own functions, without the constant."""
    functions = terms.basis.functions
    weights = np.zeros((len(functions), functions.shape[2]))
    weights[terms.lines, 0] = coefficients[1 : 1 + len(terms.lines)]
    curves = coefficients[1 + len(terms.lines) :][: len(terms.curves) * terms.curve_count]
    weights[terms.curves, 1:] = curves.reshape(len(terms.curves), terms.curve_count)
    found: np.ndarray = np.einsum("cmq,cq->cm", functions, weights)
    return found
