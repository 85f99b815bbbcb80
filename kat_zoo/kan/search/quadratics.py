"""Quadratic forms: T(y) = M Q, with a monomial M of some inputs and a polynomial Q of degree 2 in all of the others.

Distances, energies and products of differences are of this kind, in more inputs than a library of terms could hold. For each M the
polynomial is found by ordinary least squares, and the terms of the best are then chosen one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from .judge import Judge
from .sums import TRANSFORMS, USABLE, Transform, pursue, sign_of, weights
from .tree import Tree, evaluate, monomial, power, product, total, variables

ROWS = 240  # rows of the regression
PREFACTORS = 900  # monomials M at most
KEPT = 3  # polynomials of a transform whose terms are chosen
TERMS = 14  # terms of a polynomial at most
ZERO = 1e-8  # relative rest of rounding
FOUND = 1e-5  # relative rest at which no other prefactor is tried
SHARP = 0.25  # relative rest that a polynomial must come below


class Quadratics:
    """Quadratic forms that explain a table.

    Args:
        judge: Judge of the table.
        waves: Inputs that may be angles; products of two other inputs come with their cosines, too.
    """

    def __init__(self, judge: Judge, waves: Sequence[int] = ()) -> None:
        self.judge = judge
        rows = judge.some_rows(ROWS)
        self.X, self.y = judge.data.X[rows], judge.data.y[rows]
        self.sign, self.odd = sign_of(judge.data.X, judge.data.y) or (0.0, [])
        inputs: list[Tree] = [("x", i) for i in range(self.X.shape[1])]
        pairs = [product(a, b) for a, b in itertools.combinations(inputs, 2)]
        self.terms: list[Tree] = [("n", 1), *inputs, *(power(x, 2) for x in inputs), *pairs]
        cosines: list[Tree] = [("cos", ("x", k)) for k in waves[:4]]
        cosines += [("cos", total(("x", a), product(("n", -1), ("x", b)))) for a, b in itertools.combinations(waves[:4], 2)]
        for cosine in cosines:
            more = [product(pair, cosine) for pair in (*inputs, *pairs) if not variables(pair) & variables(cosine)]
            if len(self.terms) + len(more) < ROWS // 3:
                self.terms += more
        self.used = [variables(tree) for tree in self.terms]
        self.weight = self.t = self.y
        self.values = np.column_stack([evaluate(tree, self.X) + np.zeros(len(self.y)) for tree in self.terms])

    def run(self) -> None:
        """Try every transform of y with every prefactor, rows weighing alike by the size of T(y), then by the noise of y."""
        if not 3 <= self.X.shape[1] <= 10 or len(self.y) < 60:
            return
        for by_noise in (False, True):
            for transform in TRANSFORMS[:6]:
                if transform.even and not self.sign:
                    continue
                odd = self.odd if transform.even else []
                with np.errstate(all="ignore"):
                    y = self.y / self.X[:, odd].prod(1)
                    t, weight = weights(transform, np.where(y * self.sign > 0, y, np.nan) if transform.even else y, self.y, by_noise)
                if (weight > 0).sum() < USABLE * len(t):
                    continue
                self.weight, self.t = weight, t * weight
                for rest, prefactor in sorted(self._rests())[:KEPT]:
                    if rest < SHARP:
                        self._choose(rest, prefactor, transform, [("x", i) for i in odd])
                    if self.judge.solved:
                        return

    def _choose(self, rest: float, prefactor: tuple[int, ...], transform: Transform, outside: list[Tree]) -> None:
        """Submit the polynomials of few terms that leave about as little as the whole one."""
        keep = self._usable(prefactor)
        A = self._columns(prefactor)
        least = math.inf
        for left, support in pursue(A, self.t, TERMS, beam=6):
            if left > 0.8 * least and left > ZERO:
                continue
            least = min(least, left)
            if left < 3 * rest + ZERO:
                c = np.linalg.lstsq(A[:, support], self.t, rcond=1e-13)[0]
                inner = total(*(product(("c", float(v)), self.terms[keep[k]]) for v, k in zip(c, support, strict=True)))
                self.judge.submit(product(*outside, transform.back(product(monomial(prefactor), inner), self.sign)))
                if self.judge.solved:
                    return

    def _columns(self, prefactor: tuple[int, ...]) -> np.ndarray:
        """Weighted values of the terms that hold no input of the prefactor, times the prefactor."""
        values: np.ndarray = self.values[:, self._usable(prefactor)] * (evaluate(monomial(prefactor), self.X) * self.weight)[:, None]
        return values

    def _prefactors(self) -> list[tuple[int, ...]]:
        inputs = self.X.shape[1]
        rows = [(0,) * inputs]
        for used in (1, 2, 3):
            for places in itertools.combinations(range(inputs), used):
                for chosen in itertools.product((-1, 1, -2, 2) if used < 3 else (-1, 1), repeat=used):
                    row = [0] * inputs
                    for place, p in zip(places, chosen, strict=True):
                        row[place] = p
                    rows.append(tuple(row))
        return sorted(rows, key=lambda row: sum(map(abs, row)))[:PREFACTORS]

    def _usable(self, prefactor: tuple[int, ...]) -> list[int]:
        """Terms that hold no input of the prefactor."""
        taken = {i for i, p in enumerate(prefactor) if p}
        return [k for k, used in enumerate(self.used) if not used & taken]

    def _rests(self) -> list[tuple[float, tuple[int, ...]]]:
        """Relative rest of the whole polynomial, and the prefactor."""
        result = []
        size, known = float(np.linalg.norm(self.t)) or 1.0, int((self.weight > 0).sum())
        with np.errstate(all="ignore"):
            for n, prefactor in enumerate(self._prefactors()):
                if n % 50 == 0:
                    self.judge.data.clock.check()
                A = self._columns(prefactor)
                A /= np.sqrt((A * A).sum(0))
                if not np.isfinite(A).all() or A.shape[1] > known // 3:
                    continue
                gram = A.T @ A
                gram[np.diag_indices(len(gram))] += 1e-13
                rest = self.t - A @ np.linalg.solve(gram, self.t @ A)
                result.append((float(np.linalg.norm(rest)) / size * math.sqrt(known / (known - A.shape[1])), prefactor))
                if result[-1][0] < FOUND:
                    break
        return result
