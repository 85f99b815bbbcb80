"""Sums: T(y) = c_1 B_1 + ... + c_k B_k, with terms B of a large library and few of them in the sum.

The terms are chosen by orthogonal matching pursuit with a beam: each of the best sums of k terms is continued by the terms that
explain most of its rest; the best sums of k + 1 terms go on. In the space orthogonal to a sum's terms (Q), term b explains
(b' r)^2 / (|b|^2 - |Q' b|^2) of the rest r, so one product of the library with r judges all continuations.

Fractions of sums are sums, too: y (1 + d B) = c A is y = c A - d B y, linear in c and d, so the terms y B join the library.

Rows weigh 1 / |y T'(y)|, as fits y of many decades, or by the noise of T(y) where that of y has one size, 1 / |T'(y)|.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .judge import Judge
from .tree import Tree, evaluate, monomial, power, product, size, total, variables

ROWS = 400  # rows of the regression
BEAM = 32  # sums that are continued
BRANCH = 12  # continuations of each
TERMS = 7  # terms of a sum at most
SOLVED = 1e-7  # relative rest of a regression without noise
USABLE = 0.5  # part of the rows on which a transform of y has to be defined
CLEAR = 0.25  # part of the largest arccosh from which its sign is taken for known
TOSSED = 0.02  # part of the sum of y^2 that rows of the wrong sign may hold
GAIN = 0.7  # part of the rest that a further term must come below to be worth a fit


@dataclass
class Library:
    """Terms of a sum.

    Attributes:
        trees: The terms; constants in them are fitted later.
        values: (N, terms) values on the training rows.
    """

    trees: list[Tree]
    values: np.ndarray

    @classmethod
    def of(cls, trees: Sequence[Tree], X: np.ndarray) -> Library:
        """The terms that are finite on X, each value pattern once, the simplest first."""
        kept, columns, seen = [], [], set()
        for tree in sorted(trees, key=size):
            with np.errstate(all="ignore"):
                column = evaluate(tree, X) + np.zeros(len(X))
                norm = float(np.linalg.norm(column))
            if not math.isfinite(norm) or norm == 0 or norm > 1e100:
                continue
            key = np.round(column[:8] / norm, 9).tobytes()
            if key not in seen:
                seen.add(key)
                kept.append(tree)
                columns.append(column)
        return cls(kept, np.column_stack(columns) if columns else np.empty((len(X), 0)))


def pursue(A: np.ndarray, t: np.ndarray, terms: int = TERMS, beam: int = BEAM) -> list[tuple[float, tuple[int, ...]]]:
    """The best supports of each size: (relative rest, columns), the sizes in order.

    Args:
        A: (N, K) columns.
        t: (N,) target.
        terms: Size of the supports at most.
        beam: Number of supports that are continued.
    """
    norms = np.sqrt((A * A).sum(0))
    usable = np.isfinite(norms) & (norms > 0)
    A = np.where(usable, A, 0.0) / np.where(usable, norms, 1.0)
    length = float(np.linalg.norm(t))
    if not length or not A.shape[1]:
        return []
    states: list[tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]] = [((), np.empty((len(t), 0)), t / length, usable * 1.0)]
    result: list[tuple[float, tuple[int, ...]]] = []
    for _ in range(min(terms, len(t) // 3)):
        R = np.column_stack([r for _, _, r, _ in states])
        inner = A.T @ R
        options: dict[tuple[int, ...], tuple[float, int, int]] = {}
        for s, (support, _, r, rest) in enumerate(states):
            gain = np.where(rest > 1e-10, inner[:, s] ** 2 / np.maximum(rest, 1e-10), 0.0)
            for k in np.argsort(-gain, kind="stable")[:BRANCH]:
                left = float(r @ r) - gain[k]
                key = tuple(sorted((*support, int(k))))
                if key not in options or left < options[key][0]:
                    options[key] = left, s, int(k)
        states_new = []
        for key, (_, s, k) in sorted(options.items(), key=lambda item: item[1][0])[:beam]:
            _, Q, r, rest = states[s]
            q = A[:, k] - Q @ (Q.T @ A[:, k])
            q -= Q @ (Q.T @ q)
            norm = np.linalg.norm(q)
            if norm < 1e-9:
                continue
            q = q / norm
            states_new.append((key, np.column_stack([Q, q]), r - q * (q @ r), np.maximum(rest - (A.T @ q) ** 2, 0.0)))
        if not states_new:
            break
        states = sorted(states_new, key=lambda state: float(state[2] @ state[2]))
        result += [(float(np.linalg.norm(r)), support) for support, _, r, _ in states[:3]]
        if np.linalg.norm(states[0][2]) < SOLVED:
            break
    return result


@dataclass(frozen=True)
class Transform:
    """A function T of y and its inverse.

    Attributes:
        name: Its name.
        apply: The function T.
        slope: Size of the derivative, |T'(y)|.
        back: The tree of y from the tree of T(y) and the sign of y.
    """

    name: str
    apply: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    back: Callable[[Tree, float], Tree]

    @property
    def even(self) -> bool:
        """Whether T(y) forgets the sign of y."""
        return self.name in ("y^2", "1/y^2", "sqrt", "1/sqrt", "log")


def _signed(exponent: float) -> Callable[[Tree, float], Tree]:
    return lambda tree, sign: product(("n", sign), power(tree, exponent))


def _arccosh(y: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        t = np.arccosh(y)
        return np.where(t > CLEAR * np.nanmax(t, initial=0.0), t, np.nan)


TRANSFORMS = [
    Transform("y", lambda y: y, lambda y: np.ones_like(y), lambda tree, _: tree),
    Transform("1/y", lambda y: 1 / y, lambda y: y**-2, lambda tree, _: power(tree, -1)),
    Transform("y^2", lambda y: y * y, np.abs, _signed(0.5)),
    Transform("1/y^2", lambda y: y**-2, lambda y: np.abs(y) ** -3, _signed(-0.5)),
    Transform("sqrt", lambda y: np.sqrt(np.abs(y)), lambda y: np.abs(y) ** -0.5, _signed(2)),
    Transform("1/sqrt", lambda y: np.abs(y) ** -0.5, lambda y: np.abs(y) ** -1.5, _signed(-2)),
    Transform("sin", lambda y: np.where(np.abs(y) <= math.pi / 2, np.sin(y), np.nan), np.cos, lambda tree, _: ("arcsin", tree)),
    Transform("cos", lambda y: np.where((y >= 0) & (y <= math.pi), np.cos(y), np.nan), np.sin, lambda tree, _: ("arccos", tree)),
    # arccosh loses the sign of small arguments
    Transform("cosh", _arccosh, lambda y: 1 / np.sqrt(y * y - 1), lambda tree, _: ("cosh", tree)),
    Transform("exp", np.exp, np.exp, lambda tree, _: ("log", tree)),
    Transform("log", lambda y: np.log(np.abs(y)), lambda y: 1 / np.abs(y), lambda tree, sign: product(("n", sign), ("exp", tree))),
]


def sign_of(X: np.ndarray, y: np.ndarray) -> tuple[float, list[int]] | None:
    """The sign s and inputs i for which y / prod x_i has the sign s on every row, or on all but rows so small that noise tossed the sign.

    Args:
        X: (N, inputs) samples.
        y: (N,) targets.
    """
    mixed = [i for i in range(X.shape[1]) if X[:, i].min() < 0 < X[:, i].max()][:8]
    top = float(np.abs(y).max()) or 1.0
    squares = (y / top) ** 2
    found: list[tuple[float, float, list[int]]] = []
    for count in range(len(mixed) + 1):
        for chosen in itertools.combinations(mixed, count):
            signs = np.sign(y * X[:, list(chosen)].prod(1))
            s = 1.0 if float(squares @ signs) > 0 else -1.0
            found.append((float(squares[signs != s].sum()), s, list(chosen)))
            if not (signs != s).any():
                return s, list(chosen)
    wrong, s, inputs = min(found, key=lambda option: option[0])
    return (s, inputs) if wrong < TOSSED * squares.sum() else None


def weights(transform: Transform, y: np.ndarray, plain: np.ndarray, by_noise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values of T(y) and the weights of the rows in a regression, both 0 where T(y) is undefined.

    Args:
        transform: The transform T.
        y: (N,) targets, divided by inputs where their sign varies.
        plain: (N,) the targets themselves.
        by_noise: Whether noise of one size in the targets makes the weights, instead of one relative to each target.
    """
    with np.errstate(all="ignore"):
        t = transform.apply(y)
        noise = np.abs(y / plain) if by_noise else np.maximum(np.abs(y), 1e-12 * np.abs(y[np.isfinite(y)]).max(initial=0))
        weight = 1 / (noise * transform.slope(y))
    good = np.isfinite(t) & np.isfinite(weight)
    return np.where(good, t, 0.0), np.where(good, weight, 0.0)


class Sums:
    """Sums of terms that explain a table."""

    def __init__(self, judge: Judge, library: Library) -> None:
        self.judge, self.library = judge, library
        self.rows = judge.some_rows(ROWS)
        self.values = library.values[self.rows]
        self.y = judge.data.y[self.rows]
        self.signs = sign_of(judge.data.X, judge.data.y)

    def run(self, transforms: Sequence[Transform] = TRANSFORMS, implicit: bool = True, terms: int = TERMS) -> None:
        """Try every transform of y and, for y itself, fractions."""
        for by_noise in (False, True):
            for transform in transforms:
                if transform.even and self.signs is None:
                    continue
                self._explain(transform, by_noise, terms)
                if self.judge.solved:
                    return
        if implicit:
            self._fractions()

    def _explain(self, transform: Transform, by_noise: bool, terms: int) -> None:
        self.judge.data.clock.check()
        sign, odd = self.signs if self.signs is not None and transform.even else (1.0, [])
        with np.errstate(all="ignore"):
            y = self.y / self.judge.data.X[self.rows][:, odd].prod(1)
            t, weight = weights(transform, np.where(y * sign > 0, y, np.nan) if transform.even else y, self.y, by_noise)
        if (weight > 0).sum() < USABLE * len(t):
            return
        prefix: list[Tree] = [("x", i) for i in odd]
        A = self.values * weight[:, None]
        least: dict[int, float] = {}
        for rest, support in pursue(A, t * weight, terms):
            before = min((v for k, v in least.items() if k < len(support)), default=math.inf)
            least[len(support)] = min(rest, least.get(len(support), math.inf))
            if rest > GAIN * before and rest > SOLVED:
                continue
            coefficients = np.linalg.lstsq(A[:, support], t * weight, rcond=1e-13)[0]
            terms_ = [product(("c", float(c)), self.library.trees[k]) for c, k in zip(coefficients, support, strict=True)]
            self.judge.submit(product(*prefix, transform.back(total(*terms_), sign)))
            if self.judge.solved:
                return

    def _fractions(self) -> None:
        """Solve y = sum c A - sum d B y for few terms A and B."""
        simple = [k for k, tree in enumerate(self.library.trees) if size(tree) <= 7][:400]
        values, trees = self.values[:, simple], [self.library.trees[k] for k in simple]
        with np.errstate(all="ignore"):
            for weight in (1 / np.maximum(np.abs(self.y), 1e-9 * np.abs(self.y).max()), np.ones(len(self.y))):
                self.judge.data.clock.check()
                A = np.column_stack([values, values * self.y[:, None]]) * weight[:, None]
                A[:, [k + len(trees) for k, tree in enumerate(trees) if tree == ("n", 1)]] = 0.0
                A[~np.isfinite(A)] = 0.0
                t = self.y * weight
                for rest, support in pursue(A, t, 5):
                    if all(k < len(trees) for k in support) or all(k >= len(trees) for k in support):
                        continue
                    found = np.linalg.lstsq(A[:, support], t, rcond=1e-13)[0]
                    above = [product(("c", float(c)), trees[k]) for c, k in zip(found, support, strict=True) if k < len(trees)]
                    below = [
                        product(("c", -float(c)), trees[k - len(trees)]) for c, k in zip(found, support, strict=True) if k >= len(trees)
                    ]
                    if rest < 0.3:
                        self.judge.submit(product(total(*above), power(total(("n", 1), *below), -1)))
                    if self.judge.solved:
                        return


def monomials(inputs: int, most: int, waves: Sequence[int] = (), further: Sequence[Tree] = ()) -> list[Tree]:
    """Monomials of the inputs, simple ones first, and those times waves of some inputs or other factors.

    Args:
        inputs: Number of inputs.
        most: Number of terms at most.
        waves: Inputs that may be angles.
        further: Other factors, as logarithms and differences of inputs.
    """
    if inputs == 1:
        powers: list[float] = [p * s for p in (1, 2, 3, 4, 5, 6, 8, 10, 12, 0.5, 1.5, 2.5, 1 / 3, 2 / 3) for s in (1, -1)]
    else:
        powers = [1, -1, 2, -2, 3, -3, 4, -4, 0.5, -0.5] if inputs <= 3 else [1, -1, 2, -2, 3, -3, 0.5] if inputs <= 5 else [1, -1, 2, -2]
    cost = {p: abs(p) + 0.3 * (p < 0) + 1.2 * (not float(p).is_integer()) for p in powers}
    rows: list[tuple[float, tuple[float, ...]]] = [(0.0, (0.0,) * inputs)]
    for used in range(1, min(inputs, 6) + 1):
        limit = 14.0 if inputs == 1 else 8.0 if inputs <= 3 else 7.0 if inputs <= 5 else 5.0
        found = []
        for places in itertools.combinations(range(inputs), used):
            stack: list[tuple[float, tuple[float, ...]]] = [(0.0, ())]
            for _ in range(used):
                stack = [(c + cost[p], (*row, p)) for c, row in stack for p in powers if c + cost[p] <= limit]
                if len(stack) > 4000:
                    stack = sorted(stack)[:4000]
            for c, row in stack:
                full = [0.0] * inputs
                for place, p in zip(places, row, strict=True):
                    full[place] = p
                found.append((c + 0.2 * used, tuple(full)))
        rows += found
    rows.sort(key=lambda pair: (pair[0], pair[1]))
    trees = [monomial(row) for _, row in rows[:most]]
    small = [(row, monomial(row)) for _, row in rows[: max(100, most // 5)]]
    factors: list[tuple[set[int], Tree]] = []
    for k in waves:
        x: Tree = ("x", k)
        factors += [({k}, f) for f in (("sin", x), ("cos", x), power(("sin", x), 2), ("sin", product(("n", 2), x)))]
    for a, b in itertools.combinations(waves, 2):
        difference = total(("x", a), product(("n", -1), ("x", b)))
        factors += [({a, b}, ("cos", difference)), ({a, b}, ("sin", difference))]
    factors += [(variables(tree), tree) for tree in further]
    for used_inputs, factor in factors:
        trees += [product(tree, factor) for row, tree in small if not any(row[k] for k in used_inputs)]
    return trees
