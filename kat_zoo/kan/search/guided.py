"""Parts of a table that a network shows: inputs that do not interact, and inputs that enter as one.

A small network is trained on the table, and its derivatives tell the structure of the function behind it (KAN 2.0, arXiv 2408.10205,
section 4.3; AI Feynman, arXiv 1905.11481, section II):

* Groups of inputs that do not interact in y, 1 / y, y^2 and others, or in log |y| (`detect_separability`). Each group's part is a
  table of its own, made by the network with the other inputs held, and is searched alone. Forms of the parts are then joined, and
  the constants of the whole are fitted to the rows.
* Two inputs that enter only by their sum, difference, product, quotient, or the sum of their squares (the gradient has the direction
  of that function's), or by some function of both (`test_symmetry`). The search goes on with it in place of the two.

A network is right to a part in a hundred or a thousand, which is enough to see the structure, and to tell forms of few inputs apart.
Nothing is believed: the rows judge every form, and its constants are theirs.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model import KAN
from ..network import Width
from ..operations.structure import connected, detect_separability, jacobian, test_symmetry
from .judge import FLOOR, Data, Form, Judge
from .problem import Problem
from .shapes import start
from .tree import LEAVES, Tree, evaluate, gathered, power, product, size, substitute, total, variables, walk

logger = logging.getLogger("kat_zoo")

LEAST_ROWS = 100  # rows of a table that a network can tell the structure of
MOST_INPUTS = 12
TRAINED = 1500  # rows that networks are trained on at most
WORST = 0.2  # relative error of a network that tells nothing
RIGHT, CLOSE = 0.02, 0.005  # relative error of a start from which no more are made, once every shape has had one, and before
STARTS, STEPS = 25, 60  # Levenberg-Marquardt steps of every start, and of the best one
WIDE = 10.0  # largest value of an input over its least from which the network sees its logarithm
STEEP = 30.0  # largest |y| over its median from which the network learns log |y|
SAMPLES = 400  # rows at which derivatives are taken
PART_ROWS = 500  # rows of a part's table
BASES = 12  # rows that give the inputs outside of a part
APART = 0.15  # largest interaction, relative to y's spread, of groups that may be apart
GAP = 2.5  # ratio by which interactions within groups exceed those between them
ALONG = 0.02  # median sin^2 of the angle between gradients and those of a function of two inputs
TAKEN = 4  # forms of a part that are joined with the others'
JOINED = 40  # joined forms of a split
DEEPEST = 2  # splits of splits

SPLITS = 3  # splits that are tried
SLACK = 1.5  # error of a part's form over that of its values, from which longer forms are not better

Solve = Callable[[Data, int], Judge]


class Surrogate:
    """A network of a table, as a function of its inputs.

    Attributes:
        error: Relative root mean square error on held-out rows.
    """

    def __init__(self, data: Data) -> None:
        X, y = data.X, data.y
        low, high = X.min(0), X.max(0)
        self._log = torch.from_numpy((low > 0) & (high > WIDE * np.maximum(low, 1e-300)))
        one_sign = bool((y > 0).all() or (y < 0).all())
        self._steep = one_sign and float(np.abs(y).max()) > STEEP * float(np.median(np.abs(y)))
        self._sign = float(np.sign(y[0]))
        rows = np.linspace(0, len(y) - 1, min(len(y), TRAINED)).astype(int)
        inputs = self._seen(torch.from_numpy(X))
        self._mean, self._spread = inputs.mean(0), inputs.std(0, correction=0).clamp(min=1e-12)
        values = np.log(np.abs(y)) if self._steep else y
        self._y_mean, self._y_spread = float(values.mean()), float(values.std()) or 1.0
        held = [torch.from_numpy(data.X_val), torch.from_numpy(data.y_val)[:, None]]
        if self._steep:
            held[1] = held[1].abs().clamp(min=1e-300).log()
        problem = Problem(
            self._scaled(torch.from_numpy(X[rows])),
            torch.from_numpy((values[rows] - self._y_mean) / self._y_spread)[:, None],
            self._scaled(held[0]),
            (held[1] - self._y_mean) / self._y_spread,
            None if data.weight is None else torch.from_numpy(data.weight[rows]),
            None if data.weight_val is None else torch.from_numpy(data.weight_val),
            deadline=data.clock.deadline,
            now=data.clock.now,
        )
        d = data.inputs
        widths: list[Width] = [[d, d + 2, 1], [d, [3, 2], 1], [d, 6, 3, 1], [d, [4, 3], [2, 1], 1]]
        starts: list[tuple[float, int, KAN]] = []
        tried = [(width, seed) for seed in (0, 1) for width in widths] + [(width, seed) for seed in (2, 3, 4) for width in widths[2:]]
        for n, (width, seed) in enumerate(tried):
            if starts and min(starts)[0] < (RIGHT if n >= len(widths) else CLOSE):
                break
            model = start(problem, width, 5, seed)
            starts.append((problem.train(model, STARTS, smoothness=1e-5), n, model))
        error, _, self._model = min(starts)
        self.error = min(error, problem.train(self._model, STEPS, smoothness=1e-6))

    def _seen(self, x: Tensor) -> Tensor:
        return torch.where(self._log, torch.where(self._log, x, 1.0).abs().clamp(min=1e-300).log(), x)

    def _scaled(self, x: Tensor) -> Tensor:
        return (self._seen(x) - self._mean) / self._spread

    def __call__(self, x: Tensor) -> Tensor:
        """Values (N, 1) of samples (N, inputs)."""
        y: Tensor = self._model(self._scaled(x)) * self._y_spread + self._y_mean
        return self._sign * y.exp() if self._steep else y


@dataclass(frozen=True)
class Outer:
    """A function of y that may be a sum or product of parts.

    Attributes:
        mode: Kind of the decomposition, "add" or "mul".
        apply: Function of (N, 1) values; None where y is not in its domain.
        back: Tree of y from that of the function's value.
    """

    mode: str
    apply: Callable[[Tensor], Tensor]
    back: Callable[[Tree], Tree]


@dataclass(frozen=True)
class Split:
    """Groups of inputs that do not interact in a function of y.

    Attributes:
        outer: The function of y.
        groups: The inputs of each part.
        tables: The table of each part.
    """

    outer: Outer
    groups: list[list[int]]
    tables: list[Data]


def _outers(y: np.ndarray) -> Iterator[Outer]:
    """Functions of y, those first that laws have most often."""
    same: Callable[[Tree], Tree] = lambda tree: tree  # noqa: E731 (the identity)
    yield Outer("add", lambda y: y, same)
    yield Outer("mul", lambda y: y, same)
    if (y > 0).all() or (y < 0).all():
        sign: Tree = ("n", float(np.sign(y[0])))
        yield Outer("add", lambda y: 1 / y, lambda tree: power(tree, -1))
        yield Outer("add", lambda y: y * y, lambda tree: product(sign, power(tree, 0.5)))
        yield Outer("add", lambda y: y**-2, lambda tree: product(sign, power(tree, -0.5)))
    if np.ptp(y) < 10:
        yield Outer("add", lambda y: y.exp(), lambda tree: ("log", tree))


def _groupings(interactions: Tensor) -> list[list[list[int]]]:
    """Groups of inputs that interact far more within than between."""
    strengths = torch.maximum(interactions, interactions.T)
    found: dict[str, list[list[int]]] = {}
    for threshold in sorted({float(s) for s in strengths.flatten() if 0 < s < APART}):
        groups = connected(strengths > threshold)
        if len(groups) == 1:
            continue
        member = torch.empty(len(strengths), dtype=torch.long)
        for n, group in enumerate(groups):
            member[group] = n
        between = strengths[member[:, None] != member]
        within = strengths[strengths > threshold]
        least = float(within.min()) if len(within) else 1.0
        if least > GAP * float(between.max()):
            found[str(groups)] = groups
    return list(found.values())


def _part(function: Callable[[Tensor], Tensor], mode: str, group: list[int], X: np.ndarray, bases: np.ndarray) -> tuple[np.ndarray, float]:
    """Values (N,) of a group's part, those of other inputs being held at several rows; up to a constant term or factor.

    The second value is their error relative to their spread: by how much the rows disagree.

    Args:
        function: The function that is a sum or product of parts.
        mode: Kind of the decomposition, "add" or "mul".
        group: Inputs of the part.
        X: (N, inputs) rows that the group's inputs are taken from.
        bases: (K, inputs) rows that the others are taken from.
    """
    mixed = np.repeat(bases[None], len(X), 0)
    mixed[:, :, group] = X[:, None, group]
    with torch.no_grad():
        values = function(torch.from_numpy(mixed.reshape(-1, X.shape[1]))).numpy().reshape(len(X), len(bases))
    if not np.isfinite(values).all():
        return values[:, 0], math.inf
    if mode == "add":
        part = values.mean(1)
        miss = values - values.mean(0) - part[:, None] + part.mean()
        spread = float(np.std(part)) or 1.0
        return part / spread, float(np.sqrt(np.mean(miss**2))) / spread
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    part = left[:, 0] * math.copysign(math.sqrt(len(X)), float(np.median(left[:, 0])))
    return part, float(np.sqrt(np.sum(sizes[1:] ** 2)) / sizes[0]) / (float(np.std(part)) or 1.0)


def _table(data: Data, X: np.ndarray, X_val: np.ndarray, y: np.ndarray, error: float) -> Data:
    """The table of a part.

    Args:
        data: The whole table.
        X: (N, inputs) rows of the part's inputs.
        X_val: (M, inputs) rows to judge by.
        y: (N + M,) values.
        error: Relative error of the values.
    """
    floor = max(FLOOR, SLACK * error)
    noise: dict[str, Any] = {"weight": None, "weight_val": None, "relative": False, "floor": floor}
    return replace(data, X=X, y=y[: len(X)], X_val=X_val, y_val=y[len(X) :], **noise)


def _bare(tree: Tree, mode: str) -> Tree:
    """A part's form without the constant that the joined form has once."""
    if mode == "add" and tree[0] == "+":
        tree = total(*(part for part in tree[1:] if part[0] != "c"))
    if tree[0] == "*":
        tree = product(*(part for part in tree[1:] if part[0] != "c"))
    return ("n", 1) if tree[0] == "c" else tree


class Guide:
    """The search of the parts of one table."""

    def __init__(self, judge: Judge, solve: Solve, depth: int) -> None:
        """Bind the search to a table.

        Args:
            judge: The judge of the table; forms are submitted to it.
            solve: The search of a table at a depth of splits.
            depth: Number of splits that led to this table.
        """
        self.judge, self.solve, self.depth = judge, solve, depth

    @property
    def found(self) -> bool:
        """Whether a form is right to rounding, or as right as the values of a part."""
        return self.judge.solved or (self.judge.data.floor > FLOOR and self.judge.only_noise())

    def run(self) -> None:
        """Train a network, and search the parts that it shows."""
        data = self.judge.data
        if self.depth >= DEEPEST or not 2 + (self.depth > 0) <= data.inputs <= MOST_INPUTS or len(data.y) < LEAST_ROWS:
            return
        network = Surrogate(data)
        logger.info("formula search: a network of error %.1e looks for parts", network.error)
        if not network.error < WORST:
            return
        rows = torch.from_numpy(data.X[:: math.ceil(len(data.y) / SAMPLES)])
        for step in (self._splits, self._pairs, self._inner):
            step(network, rows)
            if self.found:
                return

    def _searched(self, data: Data, share: float) -> Judge:
        """The search of a smaller table in a share of the time."""
        data.clock.check()
        judge = self.solve(replace(data, clock=data.clock.part(share), report=None), self.depth + 1)
        data.clock.check()
        return judge

    def _splits(self, network: Surrogate, rows: Tensor) -> None:
        """Groups of inputs that do not interact in some function of y."""
        data = self.judge.data
        X, X_val = (part[:: math.ceil(len(part) / PART_ROWS)] for part in (data.X, data.X_val))
        found: list[tuple[float, int, Split]] = []
        for outer in _outers(np.concatenate([data.y, data.y_val])):

            def function(x: Tensor, outer: Outer = outer) -> Tensor:
                return outer.apply(network(x))

            interactions = detect_separability(function, rows, outer.mode).interactions
            if not bool(torch.isfinite(interactions).all()):
                continue
            bases = self._bases(function, outer)
            for groups in _groupings(interactions):
                values = [_part(function, outer.mode, group, np.concatenate([X, X_val]), bases) for group in groups]
                tables = [_table(data, X[:, g], X_val[:, g], y, error) for g, (y, error) in zip(groups, values, strict=True)]
                worst = max(error for _, error in values)
                if worst < WORST:
                    found.append((worst / len(groups), len(found), Split(outer, groups, tables)))
        for miss, _, split in sorted(found, key=lambda entry: entry[:2])[:SPLITS]:
            logger.info("formula search: %s of %s, miss %.1e", split.outer.mode, split.groups, miss)
            self._joined(split)
            if self.found:
                return

    def _bases(self, function: Callable[[Tensor], Tensor], outer: Outer) -> np.ndarray:
        """Rows at which inputs are held; for products those at which the function is large tell most."""
        X = self.judge.data.X
        if outer.mode == "add":
            return np.asarray(X[np.linspace(0, len(X) - 1, BASES).astype(int)])
        with torch.no_grad():
            order = np.argsort(-function(torch.from_numpy(X)).abs().numpy()[:, 0], kind="stable")
        return np.asarray(X[order[: len(order) // 2][:: max(1, len(order) // 2 // BASES)]])

    def _joined(self, split: Split) -> None:
        """Search the parts, and submit their forms joined."""
        parts: list[list[Form]] = []
        for n, (group, table) in enumerate(zip(split.groups, split.tables, strict=True)):
            forms = sorted(self._searched(table, 0.7 / (len(split.groups) - n)).front(), key=lambda form: form.cost)[:TAKEN]
            if not forms:
                return
            parts.append([replace(form, tree=substitute(form.tree, [("x", i) for i in group])) for form in forms])
        outer = split.outer
        choices = sorted(itertools.product(*parts), key=lambda choice: sum(form.cost for form in choice))[:JOINED]
        join = self._sum if outer.mode == "add" else self._product
        for choice in choices:
            joined = join([_bare(form.tree, outer.mode) for form in choice], outer)
            self.judge.submit(gathered(outer.back(joined)))
            if self.found:
                return

    def _target(self, outer: Outer) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(outer.apply(torch.from_numpy(self.judge.data.y)[:, None]).numpy()[:, 0])

    def _product(self, trees: list[Tree], outer: Outer) -> Tree:
        """The product of trees and the constant with which it comes closest to the rows."""
        y, tree = self._target(outer), product(*trees)
        with np.errstate(all="ignore"):
            value = evaluate(tree, self.judge.data.X) + np.zeros(len(y))
            factor = float(value @ y / (value @ value))
        return product(("c", factor if math.isfinite(factor) and factor else 1.0), tree)

    def _sum(self, trees: list[Tree], outer: Outer) -> Tree:
        """The weighted sum of trees and a constant that comes closest to the rows."""
        y = self._target(outer)
        with np.errstate(all="ignore"):
            A = np.column_stack([np.ones(len(y)), *(evaluate(tree, self.judge.data.X) + np.zeros(len(y)) for tree in trees)])
        if not (np.isfinite(A).all() and np.isfinite(y).all()):
            return total(("c", 1e-3), *(product(("c", 1.0), tree) for tree in trees))
        weights = np.linalg.lstsq(A, y, rcond=1e-12)[0].tolist()
        return total(("c", weights[0]), *(product(("c", w or 1e-3), tree) for w, tree in zip(weights[1:], trees, strict=True)))

    def _pairs(self, network: Surrogate, rows: Tensor) -> None:
        """Two inputs that enter by a known function of both; the clearest are tried."""
        data = self.judge.data
        gradient = jacobian(network, rows)[:, 0].detach()
        found: list[tuple[float, int, int, Tree]] = []
        for i, j in itertools.combinations(range(data.inputs), 2):
            for tree, direction in _of_two(i, j, rows):
                cosine = torch.nn.functional.cosine_similarity(gradient[:, [i, j]], direction, dim=1)
                found.append((float((1 - cosine.square()).median()), i, j, tree))
        for miss, i, j, tree in sorted(found, key=lambda entry: entry[0])[:3]:
            if miss > ALONG:
                break
            logger.info("formula search: inputs %d and %d enter as %s", i, j, tree)
            self._replaced([i, j], tree, 0.4)
            if self.found:
                return

    def _inner(self, network: Surrogate, rows: Tensor) -> None:
        """Two inputs that enter by one function of both: the search of it, then that of the rest."""
        data = self.judge.data
        if data.inputs < 3:
            return
        found = []
        for i, j in itertools.combinations(range(data.inputs), 2):
            one, miss = test_symmetry(network, rows, [i, j], ALONG)
            if one:
                found.append((miss, [i, j]))
        X, X_val = (part[:: math.ceil(len(part) / PART_ROWS)] for part in (data.X, data.X_val))
        bases = np.median(data.X, 0, keepdims=True)
        for _, group in sorted(found)[:2]:
            y, _ = _part(network, "add", group, np.concatenate([X, X_val]), bases)
            table = _table(data, X[:, group], X_val[:, group], y, network.error)
            forms = sorted(self._searched(table, 0.2).front(), key=lambda form: form.cost)[:2]
            for tree in _insides(forms):
                inner = substitute(tree, [("x", i) for i in group])
                logger.info("formula search: inputs %s enter as %s", group, inner)
                self._replaced(group, inner, 0.3)
                if self.found:
                    return

    def _replaced(self, group: list[int], tree: Tree, share: float) -> None:
        """Search the table with a function of some inputs in their place, and adopt its forms."""
        data = self.judge.data
        with np.errstate(all="ignore"):
            columns = [evaluate(tree, X) + np.zeros(len(X)) for X in (data.X, data.X_val)]
        scale = float(np.sqrt(np.mean(columns[0] ** 2)))
        if not (np.isfinite(columns[0]).all() and np.isfinite(columns[1]).all() and scale > 0):
            return
        others = [i for i in range(data.inputs) if i not in group]
        X, X_val = (np.column_stack([z, X[:, others]]) for z, X in zip(columns, (data.X, data.X_val), strict=True))
        judge = self._searched(replace(data, X=X, X_val=X_val), share)
        for form in judge.front():
            self.judge.adopt(gathered(substitute(form.tree, [tree, *(("x", i) for i in others)])))


def _of_two(i: int, j: int, rows: Tensor) -> Iterator[tuple[Tree, Tensor]]:
    """Functions of two inputs with the directions (N, 2) of their gradients."""
    a, b = rows[:, i], rows[:, j]
    one, x, y = torch.ones_like(a), ("x", i), ("x", j)
    yield total(x, product(("n", -1), y)), torch.stack([one, -one], 1)
    yield total(x, y), torch.stack([one, one], 1)
    yield product(x, y), torch.stack([b, a], 1)
    yield product(x, power(y, -1)), torch.stack([b, -a], 1)
    yield total(power(x, 2), power(y, 2)), torch.stack([a, b], 1)
    yield total(power(x, 2), product(("n", -1), power(y, 2))), torch.stack([a, -b], 1)


def _insides(forms: Iterable[Form]) -> list[Tree]:
    """Parts of forms that hold both inputs and no constant alone, the smallest first."""
    found = {}
    for form in forms:
        for part in walk(form.tree):
            bare = _bare(part, "add")
            if bare[0] not in LEAVES and len(variables(bare)) == 2:
                found[bare] = size(bare)
    return sorted(found, key=lambda tree: found[tree])[:3]


def guided(judge: Judge, solve: Solve, depth: int) -> None:
    """Search the parts of a table that a network shows; OutOfTime ends it.

    Args:
        judge: The judge of the table, to which forms are submitted.
        solve: The search of a table, with the number of splits that led to it.
        depth: Number of splits that led to this table.

    Raises:
        OutOfTime: The deadline has passed.
    """
    try:
        Guide(judge, solve, depth).run()
    except torch.linalg.LinAlgError as error:
        logger.info("formula search: no network of the table: %s", error)
