"""The table of a closed-form search, its clock, and the judge of a form: constants by least squares, then description length.

A form with k constants and s nodes that leaves a root mean square error r on n rows, y of spread 1, costs

    (n - k) log(max(r sqrt(n / (n - k)), FLOOR)) + k (log n / 2 + CONSTANT) + s NODE

nats: the code length of the residuals, of the constants to the precision r / sqrt(n) that the rows give them (Rissanen 1978;
hence n - k, by which a few rows cannot be fitted by as many constants), and of the tree. A node costs the logarithm of the ten
or so symbols that it may be, so the best of all forms of one length is not better by chance than its length allows, however
many were tried. Constants are fitted on the training rows by Levenberg-Marquardt; the residuals of all rows count, for the few
that are held out differ from the rest by more than forms do, above all where y spans decades. Whether a form is exact, the
held-out rows alone tell. Below FLOOR a form is exact and only its length counts.

Noise may have one size on all rows, or grow with y. Then each row weighs 1 / y^2, and the code length of its residual holds
log |y|, so that both readings of a table can be compared.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from .problem import OutOfTime
from .tree import FUNCTIONS, Tree, constants, evaluate, size, walk, with_constants

FLOOR = 1e-8  # relative error below which forms are equally exact
SOLVED = 1e-9  # relative error at which a search ends: approximations are worse
EXTREME = 1e8  # size of a constant on scaled data beyond which a form's terms only cancel
NODE, CONSTANT = 2.3, 2.0  # nats that a node and a constant of a form cost, besides the constant's digits
ENOUGH_HELD = 40  # held-out rows that judge alone
FIT_ROWS = 300  # rows on which constants are fitted first
FIRST_STEPS, WORTH = 6, 30.0  # steps after which a form is given up whose error is so many times the least
STEPS = 30  # Levenberg-Marquardt steps
LEAST_TESTED = 50  # rows of a table whose residuals can be told from noise
CHANCE = 4.0  # standard deviations of a statistic that are taken for chance
PLAIN = 12  # nodes of a form that explains a table of a network to the network's error, and is not one of many that do
DERIVATIVE_STEP = 1e-5  # of a constant, relative to its size, in a central difference


@dataclass
class Clock:
    """The deadline of a search.

    Attributes:
        deadline: The last moment, in seconds of `now`.
        now: The clock; `time.process_time` counts the seconds of this process alone.
    """

    deadline: float = math.inf
    now: Callable[[], float] = time.monotonic

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.now() > self.deadline

    def check(self) -> None:
        """Raise OutOfTime when the deadline has passed."""
        if self.over:
            raise OutOfTime

    def part(self, share: float) -> Clock:
        """A clock that ends after a share of the time that is left."""
        if not math.isfinite(self.deadline):
            return self
        now = self.now()
        return Clock(now + share * (self.deadline - now), self.now)


@dataclass
class Data:
    """A table to explain: scaled so that inputs and y are of size 1.

    Attributes:
        X: (N, inputs) samples to fit on.
        y: (N,) targets.
        X_val: (M, inputs) samples to judge by.
        y_val: (M,) targets of these.
        clock: The deadline.
        relative: Whether the noise grows with y.
        weight: (N,) weights of the samples, None for equal ones.
        weight_val: (M,) weights of X_val.
        library: Names of the functions and powers that a form may hold, None for all; products are always allowed.
        report: Function that is called with every form that is kept; None for no reports.
        floor: Relative error below which forms are equally good, as where y comes from a network that is not more exact.
    """

    X: np.ndarray
    y: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray
    clock: Clock = field(default_factory=Clock)
    relative: bool = False
    weight: np.ndarray | None = None
    weight_val: np.ndarray | None = None
    library: Sequence[str] | None = None
    report: Callable[[Form], None] | None = None
    floor: float = FLOOR

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.X.shape[1])


@dataclass
class Form:
    """A form with its fitted constants.

    Attributes:
        tree: The tree.
        error: Root mean square error on the held-out rows, or on all of a small table, relative to the spread of y on all rows.
        cost: Description length in nats.
        rest: Root mean square residual on all rows, relative to the spread of y, or to y where the noise grows with it.
    """

    tree: Tree
    error: float
    cost: float
    rest: float = math.inf

    @property
    def exact(self) -> bool:
        """Whether nothing but rounding is left."""
        return self.error < 1e-6


def least_squares(residuals: Callable[[np.ndarray], np.ndarray], start: np.ndarray, steps: int = STEPS) -> tuple[np.ndarray, float]:
    """Levenberg-Marquardt with central differences; the constants and their mean squared residual.

    Args:
        residuals: (N,) residuals of constants; NaN where these are impossible.
        start: First constants.
        steps: Number of steps at most.
    """
    value, damping = start.astype(float), 1e-3
    r = residuals(value)
    loss = float(np.mean(r * r))
    if not math.isfinite(loss) or not len(value):
        return value, loss
    for _ in range(steps):
        scale = np.where(value != 0, np.abs(value), 1e-3)
        J = np.empty((len(r), len(value)))
        for k, h in enumerate(DERIVATIVE_STEP * scale):
            step = np.zeros(len(value))
            step[k] = h
            J[:, k] = (residuals(value + step) - residuals(value - step)) / (2 * DERIVATIVE_STEP)
        if not np.isfinite(J).all():
            return value, loss
        norms = np.sqrt((J * J).sum(0))
        norms[norms == 0] = 1.0
        A, before = J / norms, loss
        gram, gradient = A.T @ A, A.T @ r
        for _ in range(6):
            move = scale * np.linalg.lstsq(gram + damping * np.eye(len(value)), -gradient, rcond=1e-15)[0] / norms
            new = residuals(value + move)
            new_loss = float(np.mean(new * new))
            if new_loss < loss:
                value, r, loss, damping = value + move, new, new_loss, max(damping / 10, 1e-15)
                break
            damping = min(damping * 10, 1e6)
        else:
            break
        if loss < 1e-28 or loss > before * (1 - 1e-6):
            break
    return value, loss


def permitted(tree: Tree, library: Sequence[str]) -> bool:
    """Whether a library has all functions and powers of a tree; cos is sin with a phase."""
    for part in walk(tree):
        if part[0] == "^":
            p = part[2]
            root = {0.5: "sqrt", -0.5: "1/sqrt(x)", -1: "1/x"}
            name = root.get(p) or (f"1/x^{-p:g}" if p < 0 else f"x^{p:g}")
        elif part[0] in FUNCTIONS:
            name = part[0]
        else:
            continue
        if name not in library and not (name == "cos" and "sin" in library):
            return False
    return True


class Judge:
    """Fits and compares forms of one table."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.X, self.y = np.concatenate([data.X, data.X_val]), np.concatenate([data.y, data.y_val])
        self.rows = len(self.y)
        train, val = (np.ones(len(y)) if weight is None else weight for y, weight in ((data.y, data.weight), (data.y_val, data.weight_val)))
        self.share = np.concatenate([train, val]) / (train.sum() + val.sum())
        self.held = self.share if len(data.y_val) < ENOUGH_HELD else np.concatenate([np.zeros(len(train)), val / val.sum()])
        mean = self.share @ self.y
        self.spread = math.sqrt(self.share @ (self.y - mean) ** 2) or 1.0
        self.size = math.sqrt(self.share @ self.y**2) or 1.0
        self.sizes = np.maximum(np.abs(self.y), 1e-6 * self.size)  # no row weighs more than this allows where noise grows with y
        self.root = np.sqrt(train / train.mean())
        if data.relative:
            self.root = self.root * self.size / self.sizes[: len(train)]
        self.forms: dict[Tree, Form] = {}
        self.seen: set[Tree] = set()
        self.least = math.inf  # rest of the best form
        self.solved = False  # whether a form is right to rounding

    @property
    def best(self) -> Form | None:
        """The form of the least cost."""
        return min(self.forms.values(), key=lambda form: form.cost) if self.forms else None

    def some_rows(self, most: int) -> np.ndarray:
        """Training rows for a regression: half of them the largest in y, which noise of one size spares, the others evenly spread.

        Where rows have weights, both go by them: large is sqrt(weight) |y|, and even is the sum of the weights.

        Args:
            most: Number of rows at most.
        """
        n, weight = len(self.data.y), self.data.weight
        if n <= most:
            return np.arange(n)
        order = np.argsort(-np.abs(self.data.y) * (1.0 if weight is None else np.sqrt(weight)), kind="stable")
        rest, places = np.sort(order[most // 2 :]), most - most // 2
        if weight is None:
            rest = rest[:: math.ceil(len(rest) / places)]
        else:
            sums = np.cumsum(weight[rest])
            rest = rest[np.unique(np.searchsorted(sums, (np.arange(places) + 0.5) / places * sums[-1]))]
        chosen: np.ndarray = np.sort(np.concatenate([order[: most // 2], rest]))
        return chosen

    def residuals(self, tree: Tree) -> np.ndarray:
        """Residuals on all rows, in units of the noise where it grows with y."""
        with np.errstate(all="ignore"):
            left: np.ndarray = evaluate(tree, self.X) - self.y
        return left / self.sizes if self.data.relative else left

    def error(self, left: np.ndarray) -> float:
        """Root mean square of residuals (rows,) on the rows that judge, relative to the spread of y."""
        return math.sqrt(self.held @ left**2) / self.spread

    def measure(self, tree: Tree) -> Form:
        """A form as it is, its constants untouched."""
        k = len(constants(tree))
        left = self.residuals(tree)
        with np.errstate(all="ignore"):
            rest = math.sqrt(self.share @ left**2)
            error = self.error(left * self.sizes if self.data.relative else left)
        if not math.isfinite(rest) or k >= self.rows - 1:
            return Form(tree, math.inf, math.inf)
        if not self.data.relative:
            rest /= self.spread
        free = self.rows - k
        nats = free * math.log(max(rest * math.sqrt(self.rows / free), self.data.floor))
        if self.data.relative:
            nats += self.rows * float(self.share @ np.log(self.sizes / self.spread))
        return Form(tree, error, nats + k * (0.5 * math.log(self.rows) + CONSTANT) + NODE * size(tree), rest)

    def fit(self, tree: Tree, steps: int = STEPS, thorough: bool = False) -> Tree:
        """The tree with its constants fitted to the training rows, some of them at first."""
        start = np.array(constants(tree))
        n = len(self.data.y)
        for most in dict.fromkeys([min(n, FIT_ROWS), n] if thorough else [min(n, FIT_ROWS)]):
            rows = self.some_rows(most)
            X, y, root = self.data.X[rows], self.data.y[rows], self.root[rows]

            def residuals(values: np.ndarray, X: np.ndarray = X, y: np.ndarray = y, root: np.ndarray = root) -> np.ndarray:
                out: np.ndarray = (evaluate(with_constants(tree, values.tolist()), X) - y) * root
                return out

            with np.errstate(all="ignore"):
                start, _ = least_squares(residuals, start, steps)
        return with_constants(tree, start.tolist())

    def submit(self, tree: Tree, steps: int = STEPS) -> Form | None:
        """Fit and judge a form; None where it is undefined on a row."""
        self.data.clock.check()
        if self.data.library is not None and not permitted(tree, self.data.library):
            return None
        key = with_constants(tree, [float(f"{c:.3g}") for c in constants(tree)])
        if key in self.seen:
            return None
        self.seen.add(key)
        fitted = self.fit(tree, min(steps, FIRST_STEPS))
        form = self.measure(fitted)
        if form.rest > WORTH * min(self.least, 1.0):
            return None
        if steps > FIRST_STEPS and form.rest > SOLVED:
            fitted = self.fit(fitted, steps - FIRST_STEPS)
            form = self.measure(fitted)
        if form.error < 1e-3 and len(self.data.y) > FIT_ROWS:
            form = self.measure(self.fit(fitted, steps, thorough=True))
        return self._keep(form)

    def adopt(self, tree: Tree) -> Form | None:
        """Judge a form whose constants are fitted; None where it is undefined on a row."""
        return self._keep(self.measure(tree))

    def _keep(self, form: Form) -> Form | None:
        if not math.isfinite(form.cost) or any(abs(c) > EXTREME for c in constants(form.tree)):
            return None
        self.least = min(self.least, form.rest)
        self.forms[form.tree] = form
        self.solved = self.solved or form.rest < SOLVED
        if self.data.report is not None:
            self.data.report(form)
        return form

    def only_noise(self) -> bool:
        """Whether the residuals of the best form look like noise: no smooth function of the inputs explains them, nor do neighbors agree.

        A regression on polynomials of the ranks of the inputs and of the form's values, with the products of two inputs, has the
        F statistic of chance, and the residual of a row is uncorrelated with that of its nearest row.
        """
        if self.best is None or self.rows < LEAST_TESTED:
            return False
        if self.data.floor > FLOOR:
            return self.best.rest < self.data.floor and size(self.best.tree) <= PLAIN
        left = self.residuals(self.best.tree)
        left = left - left.mean()
        if not left.any():
            return False
        values = np.column_stack([self.X, self.y + self.residuals(self.best.tree) * (self.sizes if self.data.relative else 1.0)])
        ranks = 2 * values.argsort(0, kind="stable").argsort(0, kind="stable") / (self.rows - 1.0) - 1
        columns = [np.ones(self.rows), *ranks.T, *(1.5 * ranks**2 - 0.5).T, *(2.5 * ranks**3 - 1.5 * ranks).T]
        columns += [ranks[:, i] * ranks[:, j] for i, j in itertools.combinations(range(self.X.shape[1]), 2)]
        A = np.column_stack(columns[: self.rows // 4])
        Q, p = np.linalg.qr(A)[0], A.shape[1]
        explained = float(np.sum((Q.T @ left) ** 2) / (left @ left))
        statistic = explained / p / max((1 - explained) / (self.rows - p), 1e-300)
        if statistic > 1 + CHANCE * math.sqrt(2 / p + 2 / (self.rows - p)):
            return False
        near = cKDTree(ranks[:, :-1]).query(ranks[:, :-1], 2)[1][:, 1]
        return bool(abs(left @ left[near]) < CHANCE / math.sqrt(self.rows) * (left @ left))

    def front(self) -> list[Form]:
        """Forms that no smaller one beats, from small to large."""
        result: list[Form] = []
        for form in sorted(self.forms.values(), key=lambda form: (size(form.tree), form.rest)):
            if not result or max(form.rest, self.data.floor) < 0.99 * max(result[-1].rest, self.data.floor):
                result.append(form)
        return result
