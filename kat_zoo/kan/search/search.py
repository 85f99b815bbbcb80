"""From data to a formula: train small networks, prune by trying, make edges symbolic, verify, tabulate.

Shapes are tried from small to large, each from several starts. A change (an edge less, a function instead of a
spline) is kept when the held-out error stands it after retraining, so no threshold decides alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from kat_zoo.layers.spline import is_count

from ..network import KAN
from ..operations.fitting import fit_library
from ..operations.pruning import remove_edge
from ..operations.symbolic import fix_symbolic
from .problem import EXACT, Candidate, Problem, Width
from .shapes import GOOD, PROMISING, linear_groups, structure
from .symbolise import symbolise

logger = logging.getLogger("kat_zoo")

WORTH_A_ROW = 0.9  # relative error of a sum of functions of one input that earns it a formula for comparison
PATIENCE = 2  # further shapes tried after one that none of them betters by a tenth


@dataclass
class Search:
    """Result of `search`: all candidates and the chosen one."""

    candidates: list[Candidate] = field(default_factory=list)
    best: Candidate | None = None

    def choose(self) -> Candidate:
        """An exact formula if there is one, else the simplest within 10 % of the least error (at least EXACT)."""
        fitting = [c for c in self.candidates if c.fits]
        if fitting:
            return min(fitting, key=lambda c: c.complexity)
        least = min(c.error for c in self.candidates)
        near = [c for c in self.candidates if c.error <= max(1.1 * least, EXACT)]
        return min(near, key=lambda c: c.complexity)


def _sum_of(problem: Problem, edges: dict[tuple[int, int], tuple[str, Sequence[float]]]) -> Candidate:
    """A network without hidden layer that has these edges (i, j) only: name and (a, b, c, d) to train from."""
    width = [problem.X.shape[1], problem.y.shape[1]]
    model = KAN(width, base="zero", dtype=problem.X.dtype, device=problem.X.device)
    for i, j in product(*(range(n) for n in width)):
        if (i, j) in edges:
            fix_symbolic(model, 0, i, j, edges[i, j][0], affine=edges[i, j][1])
        else:
            remove_edge(model, 0, i, j)
    return Candidate(model, problem.train(model, 30), True, width, problem.held_out)


def simple_candidates(problem: Problem) -> list[Candidate]:
    """A constant, a linear model and (of one output) the best function of each input alone; they are quick to find."""
    inputs, outputs = problem.X.shape[1], problem.y.shape[1]
    result = [
        _sum_of(problem, {(0, j): ("0", (0, 0, 0, 0)) for j in range(outputs)}),
        _sum_of(problem, {(i, j): ("x", (1, 0, 0, 0)) for i in range(inputs) for j in range(outputs)}),
    ]
    X, y = problem.X, problem.y
    if problem.weight is not None:  # functions are fitted to rows of equal weight: draw them by theirs
        rows = problem.weight.multinomial(len(X), replacement=True, generator=torch.Generator(X.device).manual_seed(0))
        X, y = X[rows], y[rows]
    for i in range(inputs if outputs == 1 else 0):
        found = fit_library(X[:, i], y[:, 0], problem.library, 0.1)
        if found:
            near = max(s.r2 for s in found) - 0.02
            best = min((s for s in found if s.r2 >= near), key=lambda s: s.complexity)
            result.append(_sum_of(problem, {(i, 0): (best.name, best.affine)}))
    return result


def formulas(problem: Problem, numeric: Candidate, tolerance: float = 1.5) -> list[Candidate]:
    """The formula of a numeric network; none where it is undefined between the rows or lives on extreme constants.

    An exact formula may be undefined where there are no rows, as sqrt(x_1 - x_2) is. Any other is searched once more,
    bound to be finite where it was not.
    """
    found = symbolise(problem, numeric.model, numeric.error, numeric.width, tolerance)
    found.held_out = problem.held_out
    if not found.exact and len(holes := problem.undefined(found.model)):
        found = symbolise(problem.defined_at(holes), numeric.model, numeric.error, numeric.width, tolerance)
        found.held_out = problem.held_out
        if len(problem.undefined(found.model)):
            logger.info("formula search: rejected a formula that is undefined between the rows")
            return []
    if found.extreme():
        logger.info("formula search: rejected a formula of extreme constants")
        return []
    logger.info("formula search: symbolic error %.2e", found.error)
    return [found]


def default_widths(inputs: int, outputs: int) -> list[Width]:
    """Shapes to try, small to large: sums, functions of sums, products, two hidden layers."""
    widths: list[Width] = [[inputs, outputs], [inputs, outputs, outputs]]
    if inputs > 1:
        wide: Width = [inputs, max(2, min(inputs, 4)) * outputs, outputs, outputs]
        more: list[Width] = [[inputs, [0, outputs]], [inputs, [0, outputs], outputs], [inputs, 2 * outputs, outputs]]
        # Of many inputs, some may enter as one sum; the wide shape is the one to tell (see `linear_groups`).
        widths += [wide, *more] if inputs > 2 else [*more, wide]
        widths.append([inputs, 4 * outputs, outputs])
    return widths


def search(
    problem: Problem,
    widths: Sequence[Width] | None = None,
    *,
    restarts: int = 8,
    seed: int = 0,
    max_seconds: float | None = None,
) -> Search:
    """Find formulas for a problem.

    Args:
        problem: standardised data.
        widths: shapes to try in turn, `default_widths` by default.
        restarts: starts per shape and grid.
        seed: first of the seeds used.
        max_seconds: no further shape is begun after this time; None for no limit. With a limit the result depends on
            the machine's speed.

    Returns:
        All candidates, simple ones to compare with among them, the chosen one in `best`. The search ends with the first
        exact formula, or when `PATIENCE` shapes in a row are no better than a good one before them.

    Raises:
        ValueError: shapes or limits that make no sense.
    """
    if not is_count(restarts) or (max_seconds is not None and not max_seconds > 0):
        raise ValueError(f"restarts={restarts}, max_seconds={max_seconds}; expected an integer of at least 1, and above 0 or None")
    inputs, outputs = problem.X.shape[1], problem.y.shape[1]
    if widths is not None and not widths:
        raise ValueError(f"widths={widths}; expected at least one shape, or None for a list of its own")
    for shape in widths or ():
        if KAN(shape).nodes[:: len(shape) - 1] != [inputs, outputs]:
            raise ValueError(f"widths={widths}; expected shapes from {inputs} inputs to {outputs} outputs")
    began, result = time.monotonic(), Search(simple_candidates(problem))
    shapes: list[tuple[Width, Tensor | None]] = [(width, None) for width in widths or default_widths(inputs, outputs)]
    numeric: list[Candidate] = []
    number = stale = 0
    least = float("inf")
    while shapes and stale < PATIENCE and not any(c.fits for c in result.candidates):
        if number and max_seconds is not None and time.monotonic() - began > max_seconds:
            logger.info("formula search: out of time before shape %s", shapes[0][0])
            break
        width, first = shapes.pop(0)
        seeds = range(seed * 1000 + 100 * number, seed * 1000 + 100 * number + restarts)
        model, error = structure(problem, width, seeds, first=first)
        number += 1
        logger.info("formula search: shape %s, %d edges, numeric error %.2e", width, model.num_edges(), error)
        numeric.append(Candidate(model, error, False, width, problem.held_out))
        if error < (GOOD if first is None else 10 * GOOD):
            result.candidates += formulas(problem, numeric[-1])
        if widths is None and error < PROMISING and not any(known is not None for _, known in [*shapes, (width, first)]):
            groups = linear_groups(model, problem.X)
            if groups is not None:
                inner = default_widths(len(groups), problem.y.shape[1])
                logger.info("formula search: %d inputs enter as %d sums", groups.shape[1], groups.shape[0])
                shapes = [([groups.shape[1], *w], groups) for w in inner[: 2 + 2 * (len(groups) > 1)]] + shapes
        stale = stale + 1 if error > 0.9 * least and least < PROMISING else 0
        least = min(least, error)
    if not any(c.fits for c in result.candidates):
        _symbolise_best(problem, numeric, result)
    if widths is None and not any(c.width is a.width for a in numeric[:1] for c in result.candidates):
        result.candidates += [f for a in numeric[:1] if a.error < WORTH_A_ROW for f in formulas(problem, a, 1.1)]
    result.candidates += numeric
    result.best = result.choose()
    return result


def _symbolise_best(problem: Problem, numeric: list[Candidate], result: Search) -> None:
    """Symbolise the simplest of the best shapes: noise hides how good they are."""
    least = min(c.error for c in numeric)
    done = {id(c.width) for c in result.candidates}
    near = [c for c in numeric if id(c.width) not in done and c.error <= 1.3 * least and c.error < 0.5]
    for candidate in sorted(near, key=lambda c: c.complexity)[:3]:
        result.candidates += formulas(problem, candidate, 1.03)
