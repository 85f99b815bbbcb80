"""Closed forms of a table, from cheap stages to expensive ones, all under one deadline.

1. `factors`: products of powers of the inputs, then with a function of a monomial in them.
2. `sums`: few monomials, with waves of angles, for y, 1 / y, y^2 and others; fractions of sums.
3. `compositions`: every small composition of functions, and the sums of few of them.
4. `factors` again with two functions, and of y - 1, y^2 - 1 and their like.

Every form that a stage proposes has its constants fitted to y and is judged by its description length (`judge`). The search ends
with the first exact form. The best forms then have their constants rounded (`rounding`). The table is brought to size 1 first, by powers of ten
that inputs of like ranges share, so that v1 - v2 stays a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .compositions import compositions, scaled_terms
from .factors import Products
from .judge import Clock, Data, Form, Judge, OutOfTime
from .quadratics import Quadratics
from .rounding import rounded
from .sums import TRANSFORMS, Library, Sums, monomials
from .tree import Tree, evaluate, gathered, power, product, substitute, total

MODERATE = 1e3  # an input whose typical size lies within this factor of 1 keeps its units
ALIKE = 4.0  # factor within which two inputs' sizes are of one scale


@dataclass
class ClosedForm:
    """A formula of the inputs in their own units.

    Attributes:
        tree: The tree.
        error: Root mean square error on the rows that judge, relative to the spread of y.
        cost: Description length in nats.
    """

    tree: Tree
    error: float
    cost: float


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


def _anchored() -> list[tuple[Callable[[np.ndarray], np.ndarray], Callable[[Tree], Tree]]]:
    """Functions of y that are 0 where a term beside a 1 is, with their inverses."""
    one = ("n", 1)
    return [
        (lambda y: y - 1, lambda tree: total(one, tree)),
        (lambda y: y * y - 1, lambda tree: power(total(one, tree), 0.5)),
        (lambda y: 1 / y - 1, lambda tree: power(total(one, tree), -1)),
        (lambda y: y**-2 - 1, lambda tree: power(total(one, tree), -0.5)),
        (lambda y: np.log(np.abs(y)), lambda tree: ("exp", tree)),
        (lambda y: np.tan(y), lambda tree: ("arctan", tree)),
    ][:5]


def _stages(judge: Judge, raw: np.ndarray) -> list[Callable[[], None]]:
    """The stages in their order.

    Args:
        judge: The judge of the scaled table.
        raw: (inputs,) whether an input keeps its units.
    """
    data = judge.data
    same: Callable[[Tree], Tree] = lambda tree: tree  # noqa: E731 (the identity)

    def products(factors: int, by_size: bool) -> None:
        Products(judge, data.y, same, by_size).run(factors)

    def few_terms(most: int) -> None:
        trees = monomials(data.inputs, most, _waves(data.X) if data.inputs <= 7 else ())
        library = Library.of(trees, data.X)
        Sums(judge, library).run()

    def small() -> None:
        most = {1: 12000, 2: 12000, 3: 9000}.get(data.inputs, 5000)
        library = Library.of(compositions(data.X, most, data.clock.part(0.3)), data.X)
        Sums(judge, library).run([t for t in TRANSFORMS if t.name in ("y", "log", "1/y", "y^2")], implicit=False, terms=3)

    def scaled() -> None:
        library = Library.of(scaled_terms(data.X), data.X)
        Sums(judge, library).run([t for t in TRANSFORMS if t.name in ("y", "log", "1/y")], implicit=False, terms=4)

    def anchored() -> None:
        for apply, back in _anchored():
            with np.errstate(all="ignore"):
                target = apply(data.y)
            Products(judge, target, back, False).run(1)
            if judge.solved:
                return

    def quadratics() -> None:
        Quadratics(judge, _waves(data.X)).run()

    def rest() -> None:
        for form in sorted(judge.forms.values(), key=lambda form: form.cost)[:6]:
            with np.errstate(all="ignore"):
                target = data.y - evaluate(form.tree, data.X)
            Products(judge, target, lambda tree, start=form.tree: total(start, tree), False).run(1)
            if judge.solved:
                return

    stages = [
        lambda: products(1, False),
        lambda: products(1, True),
        lambda: few_terms(600),
        rest,
        quadratics,
        anchored,
        lambda: few_terms(3000),
        rest,
        lambda: products(2, False),
        scaled,
    ]
    if data.inputs <= 5 and raw.any():
        stages.insert(5, small)
    return stages


def _search(data: Data, raw: np.ndarray, clock: Clock, log: Callable[[str], None]) -> Judge:
    judge = Judge(data)
    for stage in [lambda: judge_constant(judge), *_stages(judge, raw)]:
        try:
            clock.check()
            stage()
        except OutOfTime:
            if clock.over:
                break
        best = judge.best
        if best is not None:
            log(f"closed forms: relative error {best.error:.2e}")
        if judge.solved:
            break
    return judge


def judge_constant(judge: Judge) -> None:
    """Submit the constant and the linear model, which every form is compared with."""
    mean = float(np.mean(judge.data.y)) or 1e-3
    judge.submit(("c", mean))
    inputs = judge.data.inputs
    if inputs <= 20:
        A = np.column_stack([np.ones(len(judge.data.y)), judge.data.X])
        found = np.linalg.lstsq(A, judge.data.y, rcond=1e-12)[0]
        judge.submit(total(("c", float(found[0])), *(product(("c", float(c)), ("x", i)) for i, c in enumerate(found[1:]))))


def find_closed_forms(data: Data, log: Callable[[str], None] = lambda text: None) -> tuple[list[ClosedForm], ClosedForm | None]:
    """Closed forms of a table: those that no smaller one beats, and the one of the least description length.

    Args:
        data: The table in its own units.
        log: Called with a line after each stage.
    """
    scales = _scales(np.concatenate([data.X, data.X_val]))
    top = float(np.abs(data.y).max(initial=0.0)) or 1.0
    size = top * math.sqrt(float(np.mean((data.y / top) ** 2)))
    y_scale = 1.0 if size == 0 or 1 / MODERATE <= size <= MODERATE else 10.0 ** round(math.log10(size))
    clock = data.clock
    scaled = replace(data, X=data.X / scales, X_val=data.X_val / scales, y=data.y / y_scale, y_val=data.y_val / y_scale, clock=clock.part(0.9))
    judge = _search(scaled, scales == 1, scaled.clock, log)
    if not judge.solved and judge.best is not None and _grows(judge):
        relative = _search(replace(scaled, relative=True), scales == 1, scaled.clock, log)
        if relative.best is not None and relative.best.cost < judge.best.cost:
            judge = relative
    units = Judge(replace(data, clock=clock, relative=judge.data.relative))
    forms = sorted(judge.front(), key=lambda form: form.cost)
    front = []
    for form in forms[:6]:
        tree = in_units(form.tree, scales, y_scale)
        try:
            found = rounded(units, tree)
        except OutOfTime:
            found = units.measure(tree)
        front.append(ClosedForm(found.tree, found.error, found.cost))
    best = min(front, key=lambda form: form.cost) if front else None
    return front, best


def _grows(judge: Judge) -> bool:
    """Whether the residuals of the best form grow with y."""
    form = judge.best
    assert form is not None
    data = judge.data
    with np.errstate(all="ignore"):
        fitted = evaluate(form.tree, data.X)
        r = np.abs(fitted - data.y)
    if not np.isfinite(r).all() or not r.any():
        return False
    order = np.argsort(np.abs(data.y))
    third = max(1, len(order) // 3)
    low, high = np.median(r[order[:third]]), np.median(r[order[-third:]])
    return bool(high > 2 * low)
