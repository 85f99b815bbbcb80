"""Small compositions of functions, all of them up to a size, and terms with a scale inside.

`compositions` builds trees from the bottom up: the inputs and 1, then functions of trees, then sums, differences, products and
quotients of two trees, by growing size. Trees of equal values on the rows are one tree, the first and so the simplest. The
result is a library of terms: `Sums` looks for the few whose sum is T(y), so that a form can be found whose halves are.

`scaled_terms` has terms with a constant inside a function, exp(a x), sin(a x), 1 / (1 + a x), exp(-a x) cos(b x), on a row of
scales so close that Levenberg-Marquardt finds the rest of the way.
"""

from __future__ import annotations

import itertools

import numpy as np

from .judge import Clock
from .tree import Tree, evaluate, power, product, total

ROWS = 48  # rows that tell trees apart while they are built
LARGEST = 1e8  # a value beyond which a tree is of no use
POLES = (0.003, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0)  # distances of a pole from the rows, relative to their span
UNARY = ("sin", "cos", "exp", "log", "sqrt", "square", "inverse")


def _unary(name: str, tree: Tree) -> Tree | None:
    if name == "square":
        return power(tree, 2) if tree[0] not in ("^", "exp") else None
    if name == "inverse":
        return power(tree, -1) if tree[0] not in ("^", "*", "exp") else None
    if name == "sqrt":
        return power(tree, 0.5) if tree[0] not in ("^", "exp") else None
    if name == "exp":
        return None if tree[0] in ("log", "exp") else ("exp", tree)
    if name == "log":
        return None if tree[0] in ("exp", "log", "^") else ("log", tree)
    return None if tree[0] in ("sin", "cos") else (name, tree)


class _Builder:
    """Trees by size, each value pattern once."""

    def __init__(self, X: np.ndarray, most: int, clock: Clock) -> None:
        self.X, self.most, self.clock = X[:: max(1, len(X) // ROWS)][:ROWS], most, clock
        self.levels: list[list[tuple[Tree, np.ndarray]]] = [[]]
        self.seen: set[bytes] = set()
        self.count = 0

    def add(self, level: list[tuple[Tree, np.ndarray]], tree: Tree, values: np.ndarray) -> None:
        top = np.abs(values).max()
        if not top <= LARGEST or top < 1e-8:
            return
        sign = 1.0 if values[np.abs(values).argmax()] > 0 else -1.0
        key = np.round(sign * values / top, 8).tobytes() + np.float32(top).tobytes()
        if key in self.seen:
            return
        self.seen.add(key)
        level.append((tree, values))
        self.count += 1
        if self.count % 512 == 0:
            self.clock.check()

    def leaves(self) -> None:
        level: list[tuple[Tree, np.ndarray]] = []
        for i in range(self.X.shape[1]):
            self.add(level, ("x", i), self.X[:, i])
        self.add(level, ("n", 1), np.ones(len(self.X)))
        self.levels.append(level)

    def grow(self) -> None:
        """All trees of the next size that there is room for."""
        size = len(self.levels)
        level: list[tuple[Tree, np.ndarray]] = []
        with np.errstate(all="ignore"):
            for tree, _ in self.levels[size - 1]:
                for name in UNARY:
                    new = _unary(name, tree)
                    if new is not None and tree != ("n", 1):
                        self.add(level, new, evaluate(new, self.X) + np.zeros(len(self.X)))
            for left in range(1, size - 1):
                right = size - 1 - left
                for (a, u), (b, v) in itertools.product(self.levels[left], self.levels[right]):
                    if self.count >= self.most:
                        break
                    if left <= right:
                        self.add(level, total(a, b), u + v)
                        if ("n", 1) not in (a, b):
                            self.add(level, product(a, b), u * v)
                        self.add(level, total(a, product(("n", -1), b)), u - v)
                    if b != ("n", 1) and a != ("n", 1):
                        self.add(level, product(a, power(b, -1)), u / v)
        self.levels.append(level)


def compositions(X: np.ndarray, most: int, clock: Clock) -> list[Tree]:
    """Compositions of the inputs and 1, by growing size, about as many as `most`.

    Args:
        X: (N, inputs) samples, in the units of the table where these are of size 1.
        most: Number of trees.
        clock: The deadline.
    """
    builder = _Builder(X, most, clock)
    builder.leaves()
    while builder.count < most and len(builder.levels) < 10 and (builder.levels[-1] or len(builder.levels) < 4):
        builder.grow()
    return [tree for level in builder.levels for tree, _ in level]


def scaled_terms(X: np.ndarray) -> list[Tree]:
    """Terms of one input with a constant inside, alone and times a power of an input."""
    terms: list[Tree] = [("n", 1)]
    inputs = [("x", i) for i in range(X.shape[1])]
    for i, x in enumerate(inputs):
        top, span = float(np.abs(X[:, i]).max()), float(np.ptp(X[:, i]))
        if not top or not span:
            continue
        waves = np.arange(1, 31 if len(inputs) > 1 else 60) * 1.5 / span
        rates = np.array([0.3, 0.7, 1.5, 3, 6, 12, 25]) / top
        inner: list[Tree] = [x, power(x, 2)]
        if X[:, i].all():
            inner += [power(x, -1), power(x, -2)]
        for d in POLES:
            inner += [power(total(x, ("c", float(pole))), -1) for pole in (d * span - X[:, i].min(), -d * span - X[:, i].max())]
        for w in waves:
            z = product(("c", float(w)), x)
            inner += [("sin", z), ("cos", z)]
        for a in rates:
            decay = ("exp", product(("c", -float(a)), x))
            inner += [decay, ("exp", product(("c", float(a)), x)), ("exp", product(("c", -float(a / top)), power(x, 2)))]
            inner += [power(total(("n", 1), product(("c", float(a)), x)), -1), ("tanh", product(("c", float(a)), x))]
            inner += [("log", total(("n", 1), product(("c", float(a)), x)))]
            if len(inputs) <= 2:
                for w in waves[:24]:
                    z = product(("c", float(w)), x)
                    terms += [product(decay, ("sin", z)), product(decay, ("cos", z))]
        terms += inner
        others = [other for other in inputs if other != x][:3]
        terms += [product(other, f) for other in others for f in inner if len(inner) < 400]
    return terms


def nested_terms(inputs: int) -> list[Tree]:
    """Functions of a product, quotient or sum of two simple parts, as sin((x - 1) (y - 1)), alone and times an input.

    Args:
        inputs: Number of inputs.
    """
    one: Tree = ("n", 1)
    variables: list[Tree] = [("x", i) for i in range(inputs)]
    parts = [part for x in variables for part in (x, total(x, one), total(x, ("n", -1)), power(x, 2))]
    parts += [total(a, product(("n", sign), b)) for a, b in itertools.combinations(variables, 2) for sign in (1, -1)]
    inner = [product(a, b) for a, b in itertools.combinations_with_replacement(parts, 2)]
    inner += [product(a, power(b, -1)) for a, b in itertools.permutations(parts, 2)]
    inner += [total(a, product(("n", sign), b)) for a, b in itertools.combinations(parts, 2) for sign in (1, -1)]
    outer = [f for z in inner for f in (z, ("sin", z), ("cos", z), ("exp", z), ("log", z), power(z, 0.5), power(z, -1))]
    return [one, *variables, *outer, *(product(x, f) for x in variables for f in outer if inputs <= 2)]
