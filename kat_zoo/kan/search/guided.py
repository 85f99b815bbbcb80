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
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..operations.structure import detect_separability, jacobian, test_symmetry
from .judge import FLOOR, Data, Form, Judge
from .parts import Outer, Split, groupings, outers, table_of_part, values_of_part
from .surrogate import Surrogate
from .tree import LEAVES, Tree, evaluate, gathered, power, product, size, substitute, total, variables, walk

logger = logging.getLogger("kat_zoo")

LEAST_ROWS = 100  # rows of a table that a network can tell the structure of
MOST_INPUTS = 12
WORST = 0.2  # relative error of a network that tells nothing
SAMPLES = 400  # rows at which derivatives are taken
PART_ROWS = 500  # rows of a part's table
BASES = 12  # rows that give the inputs outside of a part
ALONG = 0.02  # median sin^2 of the angle between gradients and those of a function of two inputs
TAKEN = 4  # forms of a part that are joined with the others'
JOINED = 40  # joined forms of a split
DEEPEST = 2  # splits of splits
SPLITS = 3  # splits that are tried
MOST_SEARCHES = (6, 2)  # searches of smaller tables, by depth, from which no other is tried: without a deadline they would take minutes
CLOSE = 5.0  # error of a part's form, relative to that of the part's values, from which it tells nothing of what is inside

Solve = Callable[[Data, int], Judge]


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
        self.judge, self.solve, self.depth, self.searches = judge, solve, depth, 0

    @property
    def found(self) -> bool:
        """Whether a form is right to rounding, or as right as the values of a part."""
        return self.judge.solved or (self.judge.data.floor > FLOOR and self.judge.only_noise())

    @property
    def done(self) -> bool:
        """Whether a form is found, or no more tables may be searched."""
        return self.searches >= MOST_SEARCHES[self.depth] or self.found

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
            if self.done:
                return

    def _searched(self, data: Data, share: float) -> Judge:
        """The search of a smaller table in a share of the time."""
        data.clock.check()
        self.searches += 1
        judge = self.solve(replace(data, clock=data.clock.part(share), report=None), self.depth + 1)
        data.clock.check()
        return judge

    def _splits(self, network: Surrogate, rows: Tensor) -> None:
        """Groups of inputs that do not interact in some function of y."""
        data = self.judge.data
        X, X_val = (part[:: math.ceil(len(part) / PART_ROWS)] for part in (data.X, data.X_val))
        found: list[tuple[float, int, Split]] = []
        for outer in outers(np.concatenate([data.y, data.y_val])):

            def function(x: Tensor, outer: Outer = outer) -> Tensor:
                return outer.apply(network(x))

            interactions = detect_separability(function, rows, outer.mode).interactions
            if not bool(torch.isfinite(interactions).all()):
                continue
            bases = self._bases(function, outer)
            for groups in groupings(interactions):
                values = [values_of_part(function, outer.mode, group, np.concatenate([X, X_val]), bases) for group in groups]
                tables = [table_of_part(data, X[:, g], X_val[:, g], y, error) for g, (y, error) in zip(groups, values, strict=True)]
                worst = max(error for _, error in values)
                if worst < WORST:
                    found.append((worst / len(groups), len(found), Split(outer, groups, tables)))
        for miss, _, split in sorted(found, key=lambda entry: entry[:2])[:SPLITS]:
            logger.info("formula search: %s of %s, miss %.1e", split.outer.mode, split.groups, miss)
            self._joined(split)
            if self.done:
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
            if self.done:
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
            y, _ = values_of_part(network, "add", group, np.concatenate([X, X_val]), bases)
            table = table_of_part(data, X[:, group], X_val[:, group], y, network.error)
            forms = sorted(self._searched(table, 0.2).front(), key=lambda form: form.cost)[:2]
            for tree in _insides(form for form in forms if form.rest < CLOSE * table.floor):
                inner = substitute(tree, [("x", i) for i in group])
                logger.info("formula search: inputs %s enter as %s", group, inner)
                self._replaced(group, inner, 0.3)
                if self.done:
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
