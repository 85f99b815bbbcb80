"""Closed forms of a table, from cheap stages to expensive ones, all under one deadline.

1. `factors`: products of powers of the inputs, and of those with a function of a monomial. `affine`: a function of one, and a constant.
2. `sums`: few monomials, with waves of angles, for y, 1 / y, y^2 and others; fractions of sums. `quadratics`: many terms.
3. The rest that the best forms leave, as a product.
4. `guided`: parts of the table that a network shows, each searched like a table.
5. `compositions`: every small composition of functions, terms with a scale inside, functions of two parts, and the sums of few of them.
6. `sums` of a larger library; `factors` of y - 1, y^2 - 1 and their like; `factors` with two functions.

Every form that a stage proposes has its constants fitted to y and is judged by its description length (`judge`). The search ends
with the first form that is right to rounding, or some stages after the one whose form leaves nothing but noise. Inputs that seem
useless (`useful`) are set aside first, and come back where they are missed. The best forms then have their constants rounded (`rounding`).

The table is brought to size 1 first, by powers of ten that inputs of like ranges share, so that v1 - v2 stays a difference.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from .affine import affine
from .compositions import compositions, nested_terms, scaled_terms
from .factors import Products
from .guided import guided
from .judge import Clock, Data, Form, Judge
from .problem import OutOfTime
from .quadratics import Quadratics
from .rounding import rounded
from .sums import TRANSFORMS, Library, Sums, monomials
from .tree import Tree, evaluate, gathered, power, product, size, substitute, total
from .useful import useful_inputs

logger = logging.getLogger("kat_zoo")

MODERATE = 1e3  # an input whose typical size lies within this factor of 1 keeps its units
ALIKE = 4.0  # factor within which two inputs' sizes are of one scale
MOST_LINEAR = 20  # inputs of a linear model at most
GROWTH = 2.0  # ratio of the residuals at large and small y from which noise is taken to grow with y
MOST_NOISE = 0.25  # error, relative to the spread of y, above which residuals may be waves that are too fast to tell from noise
BOX_POINTS = 4096  # points between the rows at which a form is tried
MISSED = 12.0  # rows expected in a place that all miss, from which this is no chance
LEAST_RANGE = 1.05  # largest value of an input over its least from which its logarithm is tried
USEFUL_SHARE = 0.4  # part of the time for a search without the inputs that seem useless
SEARCH_SHARE = 0.75  # part of the time for the search; the rest is for the rounding
# Stages in a row without a better form after which the search ends where only noise is left: of a short form, and of a long one
PATIENCE, LONG_PATIENCE = 2, 4
SHORT = 20  # nodes of a short form
PLAIN_ENOUGH = 40  # nodes of a form that leaves only noise, beside which no network is asked for parts
ROUNDED = 6  # forms whose constants are rounded


def _scales(X: np.ndarray) -> np.ndarray:
    """A power of ten for each input, shared by inputs of like size."""
    sizes = np.sqrt((X * X).mean(0))
    scales = np.ones(X.shape[1])
    last = (0.0, 1.0)
    for i in np.argsort(sizes, kind="stable"):
        if sizes[i] > 0 and not 1 / MODERATE <= sizes[i] <= MODERATE:
            scales[i] = last[1] if sizes[i] < ALIKE * last[0] else 10.0 ** round(math.log10(sizes[i]))
            last = sizes[i], scales[i]
    return scales


def in_units(tree: Tree, scales: np.ndarray, y_scale: float) -> Tree:
    """The tree of the inputs' own units, the scales joined with constants.

    Args:
        tree: The tree of scaled inputs.
        scales: Scale of each input.
        y_scale: Scale of y.
    """
    inputs = [("x", i) if s == 1 else product(("c", 1 / float(s)), ("x", i)) for i, s in enumerate(scales)]
    raw = substitute(tree, inputs)
    return gathered(raw if y_scale == 1 else product(("c", y_scale), raw))


def _waves(X: np.ndarray) -> list[int]:
    """Inputs that may be angles: of size 1, and not spread over decades."""
    with np.errstate(all="ignore"):
        low, high = np.percentile(np.abs(X), 10, axis=0), np.abs(X).max(0)
    return [i for i in range(X.shape[1]) if 0.2 < high[i] < 20 and low[i] > 0.02 * high[i]]


def _contrasts(X: np.ndarray) -> list[Tree]:
    """Logarithms of positive inputs, and for two of like size the logarithm of the quotient and the difference of the inverses."""
    low, high = X.min(0), X.max(0)
    positive = [i for i in range(X.shape[1]) if low[i] > 0 and high[i] > LEAST_RANGE * low[i]]
    trees: list[Tree] = [("log", ("x", i)) for i in positive]
    for i, j in itertools.combinations(positive, 2):
        if low[i] < high[j] and low[j] < high[i]:
            trees.append(("log", product(("x", i), power(("x", j), -1))))
            trees.append(total(power(("x", i), -1), product(("n", -1), power(("x", j), -1))))
    return trees


def _anchored() -> list[tuple[Callable[[np.ndarray], np.ndarray], Callable[[Tree], Tree]]]:
    """Functions of y that are 0 where a term beside a 1 is, with their inverses."""
    one = ("n", 1)
    return [
        (lambda y: y - 1, lambda tree: total(one, tree)),
        (lambda y: y * y - 1, lambda tree: power(total(one, tree), 0.5)),
        (lambda y: 1 / y - 1, lambda tree: power(total(one, tree), -1)),
        (lambda y: y**-2 - 1, lambda tree: power(total(one, tree), -0.5)),
        (lambda y: np.log(np.abs(y)), lambda tree: ("exp", tree)),
        (lambda y: np.where(np.abs(y) <= math.pi / 2, np.sin(y), np.nan), lambda tree: ("arcsin", tree)),
        (lambda y: np.where((y >= 0) & (y <= math.pi), np.cos(y), np.nan), lambda tree: ("arccos", tree)),
        (np.exp, lambda tree: ("log", tree)),
    ]


def _stages(judge: Judge, raw: np.ndarray, depth: int) -> list[Callable[[], None]]:
    """The stages in their order.

    Args:
        judge: The judge of the scaled table.
        raw: (inputs,) whether an input keeps its units.
        depth: Number of splits that led to the table.
    """
    data = judge.data
    same: Callable[[Tree], Tree] = lambda tree: tree  # noqa: E731 (the identity)

    def products(factors: int, by_size: bool) -> None:
        Products(judge, data.y, same, by_size).run(factors)

    def few_terms(most: int) -> None:
        trees = monomials(data.inputs, most, _waves(data.X) if data.inputs <= 7 else (), _contrasts(data.X))
        library = Library.of(trees, data.X)
        Sums(judge, library).run()

    def small() -> None:
        most = {1: 12000, 2: 12000, 3: 9000}.get(data.inputs, 5000)
        library = Library.of(compositions(data.X, most, data.clock.part(0.3)), data.X)
        Sums(judge, library).run([t for t in TRANSFORMS if t.name in ("y", "log", "1/y", "y^2")], implicit=False, terms=3)

    def scaled() -> None:
        library = Library.of(scaled_terms(data.X), data.X)
        Sums(judge, library).run([t for t in TRANSFORMS if t.name in ("y", "log", "1/y")], implicit=False, terms=4)

    def nested() -> None:
        library = Library.of(nested_terms(data.inputs), data.X)
        Sums(judge, library).run([t for t in TRANSFORMS if t.name in ("y", "log", "1/y", "y^2")], implicit=False, terms=3)

    def anchored() -> None:
        for apply, back in _anchored():
            with np.errstate(all="ignore"):
                target = apply(data.y)
            Products(judge, target, back, False).run(1)
            if judge.solved:
                return

    def quadratics() -> None:
        Quadratics(judge, _waves(data.X) if data.inputs <= 5 else ()).run()

    def rest(factors: int) -> None:
        for form in sorted(judge.forms.values(), key=lambda form: form.cost)[:6]:
            with np.errstate(all="ignore"):
                target = data.y - evaluate(form.tree, data.X)
            Products(judge, target, partial(total, form.tree), False).run(factors, 30)
            if judge.solved:
                return

    def parts() -> None:
        if judge.best is None or size(judge.best.tree) > PLAIN_ENOUGH or not judge.only_noise():
            guided(judge, _solve_part, depth)

    stages: list[Callable[[], None]] = [
        lambda: products(1, False),
        lambda: products(1, True),
        lambda: affine(judge),
        lambda: few_terms(600),
        quadratics,
        lambda: rest(0),
        parts,
        small,
        scaled,
        lambda: few_terms(3000),
        anchored,
        lambda: products(2, False),
        lambda: rest(1),
    ]
    if data.inputs in (2, 3) and raw.any():
        stages.insert(stages.index(small) + 2, nested)
    if data.inputs > 5 or not raw.any():
        stages.remove(small)
    elif data.inputs <= 2:
        stages.remove(scaled)
        stages.insert(stages.index(small), scaled)
    if data.inputs <= 2:  # little can be split, and compositions reach far
        stages.remove(parts)
        stages.insert(stages.index(anchored), parts)
    return stages


def _search(data: Data, raw: np.ndarray) -> Judge:
    """A search in the inputs that seem useful, and in all of them where its forms leave more than noise."""
    judge = Judge(data)
    useful = useful_inputs(data.X, data.y)
    if len(useful) < data.inputs:
        logger.info("formula search: inputs %s first", useful)
        part = replace(data, X=data.X[:, useful], X_val=data.X_val[:, useful], clock=data.clock.part(USEFUL_SHARE))
        smaller = Judge(part)
        _run_stages(smaller, raw[useful])
        if part.clock.deadline == -math.inf:
            data.clock.deadline = -math.inf
        for form in smaller.front():
            judge.adopt(substitute(form.tree, [("x", i) for i in useful]))
        if judge.solved or judge.only_noise():
            return judge
    _run_stages(judge, raw)
    return judge


def _solve_part(data: Data, depth: int) -> Judge:
    """The search of a table that is part of another; an interrupt or the deadline ends that of the other, too.

    Args:
        data: The table.
        depth: Number of splits that led to it.
    """
    judge = Judge(data)
    _run_stages(judge, np.ones(data.inputs, bool), depth)
    if data.clock.deadline == -math.inf:
        raise KeyboardInterrupt
    return judge


def _run_stages(judge: Judge, raw: np.ndarray, depth: int = 0) -> None:
    """All stages, until a form is exact, nothing but noise is left to explain, or the time is over; an interrupt ends the time."""
    data = judge.data
    best, stale = None, 0
    for stage in [lambda: _simplest(judge), *_stages(judge, raw, depth)]:
        try:
            data.clock.check()
            stage()
        except OutOfTime:
            if data.clock.over:
                break
        except KeyboardInterrupt:
            data.clock.deadline = -math.inf
            break
        if judge.best is not None:
            logger.info("formula search: closed forms, error %.2e", judge.best.error)
        if judge.solved:
            break
        stale = stale + 1 if judge.best is best else 0
        best = judge.best
        if best is not None and stale == (PATIENCE if size(best.tree) <= SHORT else LONG_PATIENCE) and judge.only_noise():
            break


def _simplest(judge: Judge) -> None:
    """Submit the constant and the linear model, which every form is compared with."""
    data = judge.data
    judge.submit(("c", float(np.mean(data.y)) or 1e-3))
    if data.inputs <= MOST_LINEAR:
        A = np.column_stack([np.ones(len(data.y)), data.X])
        found = np.linalg.lstsq(A, data.y, rcond=1e-12)[0]
        judge.submit(total(("c", float(found[0])), *(product(("c", float(c)), ("x", i)) for i, c in enumerate(found[1:]))))


def _grows(judge: Judge) -> bool:
    """Whether the residuals of the best form grow with the size of its values."""
    if judge.solved or judge.best is None:
        return False
    with np.errstate(all="ignore"):
        values = evaluate(judge.best.tree, judge.X) + np.zeros(judge.rows)
    left = np.abs(values - judge.y)
    order = np.argsort(np.abs(values), kind="stable")
    third = max(1, len(order) // 3)
    return bool(np.median(left[order[-third:]]) > GROWTH * np.median(left[order[:third]]))


def _with_growing_noise(judge: Judge, raw: np.ndarray, clock: Clock) -> Judge:
    """The judge of a search under noise that grows with y where that reading gives the shorter description, else the same judge.

    Args:
        judge: The judge of the search under noise of one size.
        raw: (inputs,) whether an input keeps its units.
        clock: The deadline.
    """
    if judge.best is None or not _grows(judge):
        return judge
    relative = _search(replace(judge.data, relative=True, clock=clock), raw)
    return relative if relative.best is not None and relative.best.cost < judge.best.cost else judge


def _defined(tree: Tree, X: np.ndarray) -> bool:
    """Whether a form is finite at random points of the box of the rows, or undefined only where the table has no rows for a reason.

    Points whose inputs come from different rows fill the box as the rows would if they knew no limit. A form that is undefined at
    so many of them that no row could have missed the place by chance has the limit of the table, as sqrt(a - b) where a > b.
    """
    generator = np.random.default_rng(0)
    low, high = X.min(0), X.max(0)
    points = low + (high - low) * generator.random((BOX_POINTS, X.shape[1]))
    mixed = np.column_stack([generator.choice(column, BOX_POINTS) for column in X.T])
    with np.errstate(all="ignore"):
        holes = [float(np.mean(~np.isfinite(evaluate(tree, at) + np.zeros(BOX_POINTS)))) for at in (points, mixed)]
    return not any(holes) or holes[1] * len(X) > MISSED


def leaves_only_noise(data: Data, form: Form) -> bool:
    """Whether nothing but noise is left of a table by one of its closed forms, so that no other formula can say more.

    Args:
        data: The table.
        form: The closed form, in the units of the table.
    """
    judge = Judge(data)
    return form.error < MOST_NOISE and judge.adopt(form.tree) is not None and judge.only_noise()


def find_closed_forms(data: Data) -> list[Form]:
    """Closed forms of a table in its own units, that of the least description length first.

    A form that is not exact is finite everywhere in the box of the data, but for places that the rows avoid.

    Args:
        data: The table.
    """
    scales = _scales(np.concatenate([data.X, data.X_val]))
    top = float(np.abs(data.y).max(initial=0.0)) or 1.0
    typical = top * math.sqrt(float(np.mean((data.y / top) ** 2)))
    y_scale = 1.0 if 1 / MODERATE <= typical <= MODERATE else 10.0 ** round(math.log10(typical))
    search = {"X": data.X / scales, "X_val": data.X_val / scales, "y": data.y / y_scale, "y_val": data.y_val / y_scale}
    scaled = replace(data, **search, clock=data.clock.part(SEARCH_SHARE))
    judge = _with_growing_noise(_search(scaled, scales == 1), scales == 1, data.clock.part(SEARCH_SHARE))
    if scaled.clock.deadline == -math.inf:
        data.clock.deadline = -math.inf
    units = Judge(replace(data, relative=judge.data.relative))
    result = []
    for form in sorted(judge.front(), key=lambda form: form.cost)[:ROUNDED]:
        tree = in_units(form.tree, scales, y_scale)
        try:
            found = rounded(units, tree)
        except (OutOfTime, KeyboardInterrupt):
            found = units.measure(gathered(tree))
        if found.exact or _defined(found.tree, data.X):
            result.append(found)
    return sorted(result, key=lambda form: form.cost)
