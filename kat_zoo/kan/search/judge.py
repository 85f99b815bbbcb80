"""The table of a closed-form search, its clock, and the judge of a form: constants by least squares, then description length.

A form with k constants and s nodes that leaves a root mean square error r on n rows, y of spread 1, costs

    n log(max(r, FLOOR)) + k (log n / 2 + CONSTANT) + s NODE

nats: the code length of the residuals, of the constants to the precision that n rows give them (Rissanen 1978), and of the
tree. Constants are fitted on the training rows by Levenberg-Marquardt; the residuals that count are those of the rows that
were held out where these are many enough, and of all rows of a small table. Below FLOOR a form is exact and only its length counts.

Noise may have one size on all rows, or grow with y. Then each row weighs 1 / y^2, and the code length of its residual holds
log |y|, so that both readings of a table can be compared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

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

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return int(self.X.shape[1])


@dataclass
class Form:
    """A form with its fitted constants.

    Attributes:
        tree: The tree.
        error: Root mean square error on the rows that judge, relative to the spread of y.
        cost: Description length in nats.
    """

    tree: Tree
    error: float
    cost: float

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


def _permitted(tree: Tree, library: Sequence[str]) -> bool:
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
        few = len(data.y_val) < ENOUGH_HELD
        self.X = np.concatenate([data.X, data.X_val]) if few else data.X_val
        self.y = np.concatenate([data.y, data.y_val]) if few else data.y_val
        ones, ones_val = np.ones(len(data.y)), np.ones(len(data.y_val))
        train = ones if data.weight is None else data.weight
        val = ones_val if data.weight_val is None else data.weight_val
        weights = np.concatenate([train, val]) if few else val
        self.rows = len(data.y) + len(data.y_val)
        self.share = weights / weights.sum()
        mean = self.share @ self.y
        self.spread = math.sqrt(self.share @ (self.y - mean) ** 2) or 1.0
        size = math.sqrt(self.share @ self.y**2) or 1.0
        self.floor = 1e-9 * size  # no row weighs more than this allows where noise grows with y
        self.root = np.sqrt(train / train.mean())
        if data.relative:
            self.root = self.root * size / np.maximum(np.abs(data.y), 1e-6 * size)
        self.size = size
        self.forms: dict[Tree, Form] = {}
        self.seen: set[Tree] = set()
        self.least = math.inf  # error of the best form

    @property
    def best(self) -> Form | None:
        """The form of the least cost."""
        return min(self.forms.values(), key=lambda form: form.cost) if self.forms else None

    @property
    def solved(self) -> bool:
        """Whether a form is right to rounding."""
        return any(form.error < SOLVED for form in self.forms.values())

    def loss(self, tree: Tree) -> tuple[float, float]:
        """Root mean square error relative to y's spread, and nats of the residuals, on the rows that judge."""
        with np.errstate(all="ignore"):
            residuals = evaluate(tree, self.X) - self.y
            error = math.sqrt(self.share @ residuals**2) / self.spread
            if not math.isfinite(error):
                return math.inf, math.inf
            if not self.data.relative:
                return error, self.rows * math.log(max(error, FLOOR))
            sizes = np.maximum(np.abs(self.y), 1e-6 * self.size)
            relative = math.sqrt(self.share @ (residuals / sizes) ** 2)
            return error, self.rows * (math.log(max(relative, FLOOR)) + float(self.share @ np.log(sizes / self.spread)))

    def measure(self, tree: Tree) -> Form:
        """A form as it is, its constants untouched."""
        error, nats = self.loss(tree)
        return Form(tree, error, nats + len(constants(tree)) * (0.5 * math.log(self.rows) + CONSTANT) + NODE * size(tree))

    def fit(self, tree: Tree, steps: int = STEPS, thorough: bool = False) -> Tree:
        """The tree with its constants fitted to the training rows, some of them at first."""
        start = np.array(constants(tree))
        n = len(self.data.y)
        strides = [max(1, n // FIT_ROWS), 1] if thorough else [max(1, n // FIT_ROWS)]
        for stride in dict.fromkeys(strides):
            X, y, root = self.data.X[::stride], self.data.y[::stride], self.root[::stride]

            def residuals(values: np.ndarray, X: np.ndarray = X, y: np.ndarray = y, root: np.ndarray = root) -> np.ndarray:
                out: np.ndarray = (evaluate(with_constants(tree, values.tolist()), X) - y) * root
                return out

            with np.errstate(all="ignore"):
                start, _ = least_squares(residuals, start, steps)
        return with_constants(tree, start.tolist())

    def submit(self, tree: Tree, steps: int = STEPS) -> Form | None:
        """Fit and judge a form; None where it is undefined on a row."""
        self.data.clock.check()
        if self.data.library is not None and not _permitted(tree, self.data.library):
            return None
        key = with_constants(tree, [float(f"{c:.3g}") for c in constants(tree)])
        if key in self.seen:
            return None
        self.seen.add(key)
        fitted = self.fit(tree, min(steps, FIRST_STEPS))
        form = self.measure(fitted)
        if form.error > WORTH * min(self.least, 1.0):
            return None
        if steps > FIRST_STEPS and form.error > SOLVED:
            fitted = self.fit(fitted, steps - FIRST_STEPS)
            form = self.measure(fitted)
        self.least = min(self.least, form.error)
        if form.error < 1e-3 and len(self.data.y) > FIT_ROWS:
            form = self.measure(self.fit(fitted, steps, thorough=True))
        if not math.isfinite(form.cost) or any(abs(c) > EXTREME for c in constants(form.tree)):
            return None
        self.forms[form.tree] = form
        if self.data.report is not None:
            self.data.report(form)
        return form

    def front(self) -> list[Form]:
        """Forms that no smaller one beats, from small to large."""
        result: list[Form] = []
        for form in sorted(self.forms.values(), key=lambda form: (size(form.tree), form.error)):
            if not result or max(form.error, FLOOR) < 0.99 * max(result[-1].error, FLOOR):
                result.append(form)
        return result
