"""Products: y = C prod x_i^p_i prod f_k^r_k, found by linear regression of log |y| on log |x_i| and log |f_k|.

The exponents of the inputs cost nothing: their logarithms are projected out of log |y| first. The rest is compared with
log |f(a u)| for monomials u of the inputs, a dozen functions f and a row of scales a, all by one matrix product; a function
that explains the rest has a correlation of 1 with it. Then a is refined by a line search, the exponents are rounded, and the form is
fitted to y itself. Up to two factors f are found so, the second like the first in what the first has left.

Rows weigh alike, as fits y of many decades, or by |y|, as fits noise of one size (a logarithm's noise is that of y over y).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .judge import Judge
from .tree import Tree, evaluate, monomial, power, product, total

ROWS = 300  # rows of the regression
LARGE, LEAST_ROWS = 0.1, 40  # size of y, of its root mean square, above which rows count where these weigh by size; rows at least
GROUPS = 240  # monomials u at most
TINY = 0.3  # largest |a u| up to which (1 + a u)^r is nearly linear, so that r is not known
FRACTIONS = sorted(
    {p / q for q in (1, 2) for p in range(-12, 13)} | {s * p / q for s in (1, -1) for p, q in ((1, 3), (2, 3), (1, 4), (3, 4), (4, 3))}
)
SPREAD_SCALES = np.array(
    [0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.96, 0.99, 1.03, 1.1, 1.3, 1.6, 2, 3, 5, 8, 14, 30, 100, 300, 1e3, 1e4]
)
PLAIN, CLEAR = ("exp", "sin", "cos", "log", "1+"), 0.1  # kinds of which the best is tried, if it leaves no more than such a part
DECADES = 30.0  # ratio of the largest to the middle value from which values span decades
EDGES = np.array([1.003, 1.01, 1.03, 1.1])
WAVES = np.concatenate([np.arange(0.5, 8, 0.25), np.arange(8, 30, 0.5)])
NATURAL = (0.5, 1.0, 2.0, math.pi, 2 * math.pi)  # scales of a wave in the units of the table


def nearest(value: float) -> float:
    """The nearest exponent of `FRACTIONS`."""
    return min(FRACTIONS, key=lambda p: abs(p - value))


def groups(inputs: int, most: int = GROUPS) -> list[tuple[int, ...]]:
    """Exponents of monomials, simple ones first; of u and 1 / u both.

    Args:
        inputs: Number of inputs.
        most: Number of monomials at most.
    """
    reach = 2 if inputs <= 4 else 1
    found: list[tuple[int, ...]] = []
    for used in range(1, min(inputs, 5) + 1):
        powers = [p for p in range(-reach, reach + 1) if p]
        if math.comb(inputs, used) * len(powers) ** used > 40 * most:
            powers = [-1, 1]
        if math.comb(inputs, used) * len(powers) ** used > 40 * most:
            break
        for places in itertools.combinations(range(inputs), used):
            for chosen in itertools.product(powers, repeat=used):
                row = [0] * inputs
                for place, p in zip(places, chosen, strict=True):
                    row[place] = p
                found.append(tuple(row))
    return sorted(found, key=lambda row: (sum(map(abs, row)) + sum(p < 0 for p in row) / 4, row.count(0)))[:most]


def scales(kind: str, u: np.ndarray) -> np.ndarray:
    """Scales a at which a function f(a u) of a kind is tried.

    Args:
        kind: Name of the function.
        u: (N,) values of the monomial.
    """
    top, middle = float(np.abs(u).max()), float(np.median(np.abs(u)))
    if kind in ("sin", "cos"):
        return np.concatenate([WAVES / top, [s for s in NATURAL if s * top < 1e5]])
    inner = SPREAD_SCALES[2:-3] / top
    if middle * DECADES < top:  # values over decades turn from small to large at their middle
        inner = np.concatenate([inner, SPREAD_SCALES[:-1] / (middle or top)])
    if kind in ("tanh", "cosh"):
        return inner
    if kind == "log":
        low = float(np.abs(u).min())
        return (
            np.concatenate([[1.0], SPREAD_SCALES[SPREAD_SCALES > 1] / low, SPREAD_SCALES[SPREAD_SCALES < 1] / top])
            if low > 0
            else np.empty(0)
        )
    if kind in ("1+", "root1", "inverse1", "log1"):
        low = float(np.abs(u).min())
        poles = EDGES / low if low > top / 100 else np.empty(0)  # just outside of the rows
        natural = [1.0, -1.0] if low < 100 and top > 0.01 else []
        return np.concatenate([SPREAD_SCALES / top, -SPREAD_SCALES / top, -poles, poles, natural])
    return np.concatenate([inner, -inner])


_VALUES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "1+": lambda z: 1 + z,
    "expm1": np.expm1,
    "exp1": lambda z: np.exp(z) + 1,
    "root1": lambda z: np.sqrt(1 + z) - 1,
    "inverse1": lambda z: 1 / np.sqrt(1 + z) - 1,
    "log1": np.log1p,
    "tanh": np.tanh,
    "cosh": np.cosh,
    "sin": np.sin,
    "cos": np.cos,
    "log": np.log,
    "exp": np.exp,
    "sum": lambda z: z,
}


@dataclass(frozen=True)
class Factor:
    """A factor f(a u).

    Attributes:
        kind: Name of f, of `_VALUES`.
        argument: The tree u.
        scale: The number a.
    """

    kind: str
    argument: Tree
    scale: float

    def log(self, u: np.ndarray) -> np.ndarray:
        """Values of log |f(a u)| at u."""
        if self.kind == "exp":
            return self.scale * u
        values: np.ndarray = np.log(np.abs(_VALUES[self.kind](self.scale * u)))
        return values

    def tree(self) -> Tree:
        """The tree of f(a u)."""
        inner = product(("c", self.scale), self.argument)
        if self.kind == "sum":
            return self.argument
        if self.kind == "1+":
            return total(("n", 1), inner)
        if self.kind == "expm1":
            return total(("exp", inner), ("n", -1))
        if self.kind == "exp1":
            return total(("exp", inner), ("n", 1))
        if self.kind in ("root1", "inverse1"):
            return total(power(total(("n", 1), inner), 0.5 if self.kind == "root1" else -0.5), ("n", -1))
        if self.kind == "log1":
            return ("log", total(("n", 1), inner))
        return (self.kind, inner)


class Products:
    """Products that explain a table, or a function T of its y."""

    def __init__(self, judge: Judge, target: np.ndarray, back: Callable[[Tree], Tree], by_size: bool) -> None:
        self.judge, self.back = judge, back
        data = judge.data
        known = np.isfinite(target) & (target != 0)
        rows = np.flatnonzero(known)
        if by_size:  # the smallest values may be noise alone
            rows = rows[np.argsort(-np.abs(target[rows]), kind="stable")[:ROWS]]
            large = np.abs(target[rows]) > LARGE * np.sqrt(np.mean(target[known] ** 2))
            rows = np.sort(rows[: max(int(large.sum()), min(LEAST_ROWS, len(rows)))])
        else:
            rows = rows[:: max(1, len(rows) // ROWS)]
        self.X, self.target = data.X[rows], target[rows]
        self.enough = len(rows) > 5 and known.mean() > 0.9
        if not self.enough:
            return
        self.free = [i for i in range(data.inputs) if (data.X[rows, i] != 0).all() and np.ptp(np.abs(data.X[rows, i])) > 0]
        self.weight = np.abs(self.target) / np.abs(self.target).mean() if by_size else np.ones(len(rows))
        self.y = np.log(np.abs(self.target))
        self.base = np.column_stack([np.ones(len(rows)), *(np.log(np.abs(self.X[:, i])) for i in self.free)])
        self.Q = np.linalg.qr(self.base * self.weight[:, None])[0]
        self.left = self._project(self.y * self.weight, self.Q)
        self.size = float(np.linalg.norm(self._project(self.y * self.weight, self.Q[:, :1]))) or 1.0

    @staticmethod
    def _project(columns: np.ndarray, Q: np.ndarray) -> np.ndarray:
        rest: np.ndarray = columns - Q @ (Q.T @ columns)
        return rest

    def run(self, factors: int = 1, most: int = GROUPS) -> None:
        """Submit the plain monomial and products with further factors.

        Args:
            factors: Number of further factors at most.
            most: Number of monomials u in them.
        """
        if not self.enough:
            return
        with np.errstate(all="ignore"):
            self._submit([])
            if np.linalg.norm(self.left) < 1e-9 * self.size or self.judge.solved or not factors:
                return
            firsts = self._scan(self.Q, self.left, self._families(most))
            plain = [next((pair for pair in firsts if pair[1].kind == kind), None) for kind in PLAIN]
            for _, factor in dict.fromkeys(firsts[:8] + [pair for pair in plain if pair is not None and pair[0] < CLEAR]):
                self._submit([self._refined([factor], 0)])
                if self.judge.solved:
                    return
            if factors > 1:
                self._second(firsts)

    def _second(self, firsts: Sequence[tuple[float, Factor]]) -> None:
        families = list(self._families(40))
        for _, factor in firsts[:6]:
            column = factor.log(evaluate(factor.argument, self.X))[:, None] * self.weight[:, None]
            Q = np.linalg.qr(np.column_stack([self.Q, self._project(column, self.Q)]))[0]
            for _, second in self._scan(Q, self._project(self.left, Q), families)[:3]:
                pair = [factor, second]
                for _ in range(4):
                    for k in range(2):
                        pair[k] = self._refined(pair, k)
                self._submit(pair)
                if self.judge.solved:
                    return

    def _families(self, most: int) -> Iterator[tuple[str, Tree]]:
        """Kinds and arguments of factors, the simple ones first."""
        inputs = self.X.shape[1]
        for i, j in itertools.combinations(range(inputs), 2):
            a, b = ("x", i), ("x", j)
            for p in (1, 2):
                for sign in (1, -1):
                    yield "sum", total(power(a, p), product(("n", sign), power(b, p)))
                    yield "cos", total(a, product(("n", sign), b))
                    yield "sin", total(a, product(("n", sign), b))
        for row in groups(inputs, most):
            u = monomial(row)
            for kind in ("1+", "exp", "sin", "cos", "tanh", "expm1", "exp1", "cosh", "log", "root1", "inverse1", "log1"):
                yield kind, u

    def _scan(self, Q: np.ndarray, left: np.ndarray, families: Iterable[tuple[str, Tree]]) -> list[tuple[float, Factor]]:
        """Factors by the part of the rest that they leave, the best scale of each."""
        found: list[tuple[float, Factor]] = []
        target = left / (np.linalg.norm(left) or 1.0)
        values: dict[Tree, np.ndarray] = {}
        for n, (kind, argument) in enumerate(families):
            if n % 50 == 0:
                self.judge.data.clock.check()
            if argument not in values:
                values[argument] = evaluate(argument, self.X)
            u = values[argument]
            if not np.isfinite(u).all() or (kind == "log" and (u <= 0).any()):
                continue
            tried = np.ones(1) if kind in ("sum", "exp") else scales(kind, u)
            if not len(tried):
                continue
            z = np.outer(u, tried)
            columns = (z if kind == "exp" else np.log(np.abs(_VALUES[kind](z)))) * self.weight[:, None]
            rest = self._project(columns, Q)
            norms = np.sqrt((rest * rest).sum(0))
            good = np.isfinite(norms) & (norms > 1e-6 * np.sqrt((columns * columns).sum(0)))
            score = np.where(good, np.abs(target @ np.where(good, rest, 0.0)) / np.where(good, norms, 1.0), 0.0)
            k = int(score.argmax())
            found.append((1 - float(score[k]) ** 2, Factor(kind, argument, float(tried[k]))))
        return sorted(found, key=lambda pair: pair[0])

    def _misfit(self, factors: Sequence[Factor]) -> float:
        columns = np.column_stack([f.log(evaluate(f.argument, self.X)) for f in factors]) * self.weight[:, None]
        if not np.isfinite(columns).all():
            return math.inf
        Q = np.linalg.qr(self._project(columns, self.Q))[0]
        return float(np.linalg.norm(self._project(self.left, Q)))

    def _refined(self, factors: Sequence[Factor], k: int) -> Factor:
        """Factor k with the scale of the least misfit nearby, by golden sections of its logarithm."""
        factor = factors[k]
        if factor.kind in ("sum", "exp"):
            return factor
        wave = factor.kind in ("sin", "cos")
        reach = 0.3 / max(1.0, factor.scale * float(np.abs(evaluate(factor.argument, self.X)).max())) if wave else 0.7

        def misfit(shift: float) -> float:
            changed = list(factors)
            changed[k] = replace(factor, scale=factor.scale * math.exp(shift))
            return self._misfit(changed)

        shifts = np.linspace(-reach, reach, 9)
        losses = [misfit(s) for s in shifts]
        at = int(np.argmin(losses))
        low, high = shifts[max(at - 1, 0)], shifts[min(at + 1, 8)]
        ratio = (math.sqrt(5) - 1) / 2
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        fa, fb = misfit(a), misfit(b)
        for _ in range(24):
            if fa < fb:
                high, b, fb = b, a, fa
                a = high - ratio * (high - low)
                fa = misfit(a)
            else:
                low, a, fa = a, b, fb
                b = low + ratio * (high - low)
                fb = misfit(b)
        best, loss = min([(a, fa), (b, fb), (0.0, misfit(0.0))], key=lambda pair: pair[1])
        return replace(factor, scale=factor.scale * math.exp(best)) if math.isfinite(loss) else factor

    def _submit(self, factors: list[Factor]) -> None:
        """Round the exponents and hand the products over to the judge."""
        arguments = [evaluate(f.argument, self.X) for f in factors]
        columns = [f.log(u) for f, u in zip(factors, arguments, strict=True)]
        if not all(np.isfinite(c).all() for c in columns):
            return
        design = np.column_stack([self.base, *columns])
        found = np.linalg.lstsq(design * self.weight[:, None], self.y * self.weight, rcond=1e-12)[0]
        count = len(self.free)
        exponents = found[1 + count :]
        choices = []
        for factor, u, r in zip(factors, arguments, exponents, strict=True):
            options = [(nearest(r), factor.scale)] if factor.kind != "exp" else [(1.0, factor.scale * r)]
            if factor.kind == "1+" and np.abs(factor.scale * u).max() < TINY:
                options += [(s, factor.scale * r / s) for s in (1, -1, 0.5, -0.5, 2, -2)]
            choices.append([option for option in dict.fromkeys(options) if option[0]] or [(1.0, factor.scale)])
        for chosen in itertools.islice(itertools.product(*choices), 12):
            fixed = [replace(f, scale=a) for f, (_, a) in zip(factors, chosen, strict=True)]
            part = sum((r * f.log(u) for f, (r, _), u in zip(fixed, chosen, arguments, strict=True)), np.zeros(len(self.y)))
            if np.isfinite(part).all():
                self._submit_powers(fixed, [r for r, _ in chosen], part)

    def _submit_powers(self, factors: list[Factor], exponents: list[float], part: np.ndarray) -> None:
        found = np.linalg.lstsq(self.base * self.weight[:, None], (self.y - part) * self.weight, rcond=1e-12)[0]
        tried = set()
        for rounded in (True, False):
            powers, free = [], False
            for p in found[1:]:
                near = nearest(p)
                free = free or abs(p - near) > 0.02
                powers.append(near if rounded else p)
            if not rounded and not free:
                continue
            parts = []
            for i, p in zip(self.free, powers, strict=True):
                x: Tree = ("x", i)
                if (self.X[:, i] < 0).any() and not float(p).is_integer():
                    x = ("abs", x)
                parts.append(power(x, p) if float(p) in FRACTIONS else ("exp", product(("c", float(p)), ("log", x))))
            tree = product(*parts, *(power(f.tree(), r) for f, r in zip(factors, exponents, strict=True)))
            if tree in tried:
                continue
            tried.add(tree)
            values = evaluate(tree, self.X)
            top = values * self.weight**2 if np.ptp(self.weight) else np.sign(values) * 1.0
            sign = 1.0 if float(np.sum(np.sign(self.target) * top)) >= 0 else -1.0
            scale = float(np.exp(np.average(np.log(np.abs(self.target)) - np.log(np.abs(values)), weights=self.weight**2)))
            if math.isfinite(scale):
                self.judge.submit(self.back(product(("c", sign * scale), tree)))
