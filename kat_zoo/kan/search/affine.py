"""One function of a monomial, times an input or not, with a constant term: y = C + D x f(a u), one regression for each x, f, u and a."""

from __future__ import annotations

import numpy as np

from .factors import groups, scales
from .judge import Judge
from .tree import Tree, evaluate, monomial, power, product, total

ROWS = 300  # rows of the regressions
GROUPS, FEWER = 60, 20  # monomials u at most, and those beside a factor
SUBMITTED = 6  # forms that are fitted


def _functions(argument: Tree) -> dict[str, Tree]:
    one: Tree = ("n", 1)
    return {
        "exp": ("exp", argument),
        "log1": ("log", total(one, argument)),
        "1+": power(total(one, argument), -1),
        "root1": power(total(one, argument), 0.5),
        "inverse1": power(total(one, argument), -0.5),
        "sin": ("sin", argument),
        "cos": ("cos", argument),
        "tanh": ("tanh", argument),
    }


def affine(judge: Judge) -> None:
    """Submit the functions of a monomial that explain most of y beside a constant, one of each kind and monomial.

    Args:
        judge: The judge of the table.

    Raises:
        OutOfTime: The deadline has passed.
    """
    rows = judge.some_rows(ROWS)
    X, y = judge.data.X[rows], judge.data.y[rows]
    target = y - y.mean()
    size = float(np.linalg.norm(target))
    if not size:
        return
    found: list[tuple[float, int, Tree]] = []
    inputs: list[Tree] = [("x", i) for i in range(X.shape[1])]
    factors: list[Tree] = [("n", 1), *(power(x, p) for x in inputs for p in (1, -1, 2) if len(inputs) > 1)]
    some, few = (groups(X.shape[1], most) for most in (GROUPS, FEWER))
    for factor, exponents in [(w, row) for w in factors for row in (some if w == ("n", 1) else few)]:
        judge.data.clock.check()
        u = monomial(exponents)
        with np.errstate(all="ignore"):
            values, beside = evaluate(u, X), evaluate(factor, X) + np.zeros(len(X))
        if not (np.isfinite(values).all() and np.isfinite(beside).all()):
            continue
        for kind in _functions(u):
            steps = scales(kind, values)
            with np.errstate(all="ignore"):
                z = evaluate(_functions(("x", 0))[kind], np.outer(values, steps).reshape(-1, 1)).reshape(len(values), -1)
                z = beside[:, None] * z
                z = z - z.mean(0)
                norms = np.sqrt((z * z).sum(0))
                match = target @ z / (norms * size)
            score = np.where(np.isfinite(match) & (norms > 0), np.abs(match), 0.0)
            k = int(score.argmax())
            if score[k] > 0:
                slope = float(match[k] * size / norms[k])
                tree = product(factor, _functions(product(("c", float(steps[k])), u))[kind])
                mean = float(np.mean(evaluate(tree, X)))
                found.append((-float(score[k]), len(found), total(("c", float(y.mean()) - slope * mean), product(("c", slope), tree))))
    for _, _, tree in sorted(found)[:SUBMITTED]:
        judge.submit(tree)
        if judge.solved:
            return
