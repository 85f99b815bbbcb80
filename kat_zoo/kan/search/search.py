"""From data to formulas: train small networks, prune by trying, make edges symbolic, verify, choose.

Shapes of networks are tried from small to large, each from several starts; a small shape that fits is the simpler formula, and
it is found in seconds. One criterion decides everything: the held-out error after retraining. An edge is dropped, or a spline
replaced by a function, where that error stands it, so no threshold on the size of an edge decides alone. Held-out rows are
those that no network of the search was trained on; a formula is exact where it is right to `EXACT` of the target's standard
deviation on them.

The search ends with the first formula that fits exactly, for no larger shape can be simpler, or when `PATIENCE` shapes in a row
are no better than a good one before them: the rest is noise. Among formulas that are not exact the simplest is chosen
whose error is within a tenth of the least (`choose`): a larger one has then only fitted more of the noise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from torch import Tensor

from ..._checks import count, real
from ..model import KAN
from ..network import Width
from ..operations.fitting import fit_library
from ..operations.pruning import remove_edge
from ..operations.symbolic import fix_symbolic
from .outer import outer_starts
from .problem import EXACT, Candidate, OutOfTime, Problem
from .shapes import GOOD, PROMISING, linear_groups, structure
from .symbolize import symbolize

logger = logging.getLogger("kat_zoo")

PATIENCE = 2  # shapes tried in a row that do not better a promising one by a tenth, before the end
GAIN = 0.9  # part of the least error that a shape has to come below to count as better
NEAR = 1.1  # part of the least error within which the simplest candidate is chosen
GROUPED = 10  # times the error of a good shape that is good enough where inputs are known to enter as sums
SEEDS_PER_SHAPE, SEEDS_PER_SEARCH = 100, 1000  # distances of the first seeds: up to 100 starts of each shape are all different
SIMPLE_STEPS = 30  # Levenberg-Marquardt steps of a candidate without hidden layer
SIMPLE_WORTH, SIMPLE_NEAR = 0.1, 0.02  # least R^2 of one input's function, and R^2 given up for a simpler one
# Growth of the error that a function may cost: in a shape that is good, in one that only noise may have spoiled, and in the
# first shape, whose formula is wanted for comparison.
TOLERANCE, NOISY_TOLERANCE, FIRST_TOLERANCE = 1.5, 1.03, 1.1
NOISY_NEAR, NOISY_MOST, NOISY_SHAPES = 1.3, 0.5, 3  # part of the least error, error and number of the shapes of the second kind
WORTH_A_ROW = 0.9  # relative error of a sum of functions of one input that earns it a formula for comparison


@dataclass
class Search:
    """Result of `find_formulas`.

    Attributes:
        candidates: all networks of the search, numeric ones last.
        best: the chosen one.
    """

    candidates: list[Candidate]
    best: Candidate


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """An exact formula if there is one, else the simplest within 10 % of the least error (at least EXACT)."""
    fitting = [c for c in candidates if c.fits]
    if fitting:
        return min(fitting, key=lambda c: c.complexity)
    least = min(c.error for c in candidates)
    near = [c for c in candidates if c.error <= max(NEAR * least, EXACT)]
    return min(near, key=lambda c: c.complexity)


def _solved(candidates: Sequence[Candidate]) -> bool:
    """Whether a formula fits exactly, so that no larger shape can be simpler."""
    return any(c.fits for c in candidates)


class _Shape(NamedTuple):
    """A shape to try; `groups` are the weights of a linear first layer, or None."""

    width: Width
    groups: Tensor | None = None


@dataclass
class _Trial:
    """A shape that was tried: its numeric network, and the formulas made from it."""

    numeric: Candidate
    formulas: list[Candidate]


def _sum_of(problem: Problem, edges: dict[tuple[int, int], tuple[str, Sequence[float]]]) -> Candidate:
    """A network without hidden layer that has these edges (i, j) only: name and (a, b, c, d) to train from."""
    width = [problem.inputs, problem.outputs]
    model = KAN(width, base="zero", dtype=problem.X.dtype, device=problem.X.device)
    for i, j in product(*(range(n) for n in width)):
        if (i, j) in edges:
            fix_symbolic(model, 0, i, j, edges[i, j][0], affine=edges[i, j][1])
        else:
            remove_edge(model, 0, i, j)
    return Candidate(model, problem.train(model, SIMPLE_STEPS), True, width, problem.held_out)


def simple_candidates(problem: Problem, found: list[Candidate]) -> None:
    """Add a constant, a linear model and (of one output) the best function of each input alone; they are quick to find.

    Args:
        problem: the scaled data.
        found: list to add to; the constant is added however late it is.

    Raises:
        OutOfTime: the deadline has passed.
    """
    inputs, outputs = range(problem.inputs), range(problem.outputs)
    found.append(_sum_of(replace(problem, deadline=math.inf), {(0, j): ("0", (0, 0, 0, 0)) for j in outputs}))
    found.append(_sum_of(problem, {(i, j): ("x", (1, 0, 0, 0)) for i in inputs for j in outputs}))
    X, y = problem.resampled()
    for i in inputs if problem.outputs == 1 else ():
        problem.check()
        options = fit_library(X[:, i], y[:, 0], problem.library, SIMPLE_WORTH)
        if options:
            near = max(s.r2 for s in options) - SIMPLE_NEAR
            best = min((s for s in options if s.r2 >= near), key=lambda s: s.complexity)
            found.append(_sum_of(problem, {(i, 0): (best.name, best.affine)}))


def formulas(problem: Problem, numeric: Candidate, tolerance: float = TOLERANCE) -> list[Candidate]:
    """The formula of a numeric network; none where it is undefined between the rows or lives on extreme constants.

    An exact formula may be undefined where there are no rows, as sqrt(x_1 - x_2) is. Any other is searched once more,
    bound to be finite where it was not.

    Args:
        problem: the scaled data.
        numeric: the trained network.
        tolerance: largest growth of the error per edge, as a factor.
    """
    found = symbolize(problem, numeric, tolerance)
    if not found.exact and len(holes := problem.undefined(found.model)):
        found = symbolize(problem.defined_at(holes), numeric, tolerance)
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
        # Of many inputs, some may enter as one sum; the wide shape shows it (`linear_groups`).
        widths += [wide, *more] if inputs > 2 else [*more, wide]
        widths.append([inputs, 4 * outputs, outputs])
    return widths


def find_formulas(
    problem: Problem,
    widths: Sequence[Width] | None = None,
    *,
    restarts: int = 8,
    seed: int = 0,
    max_seconds: float | None = None,
) -> Search:
    """Find formulas for a problem.

    Args:
        problem: the scaled data.
        widths: shapes to try in turn, `default_widths` by default.
        restarts: number of starts per shape and grid.
        seed: number from which the seeds of all starts are counted.
        max_seconds: time in seconds after which nothing more is trained; None for no limit. With a limit the result depends
            on the machine's speed. An interrupt (Ctrl-C) ends the search like the limit.

    Returns:
        All candidates, simple ones to compare with among them, the chosen one in `best`. The search ends with the first
        exact formula, or when `PATIENCE` shapes in a row are no better than a good one before them.

    Raises:
        ValueError: shapes or limits that make no sense.
    """
    restarts = count("restarts", restarts)
    if max_seconds is not None:
        real("max_seconds", max_seconds, above=0.0)
    if widths is not None:
        _check_widths(widths, problem)
    if max_seconds is not None:
        problem = replace(problem, deadline=min(problem.deadline, problem.now() + max_seconds))
    candidates: list[Candidate] = []
    trials: list[_Trial] = []
    further: list[Candidate] = []
    try:
        simple_candidates(problem, candidates)
        if not _solved(candidates):
            _try_shapes(problem, widths, restarts, seed * SEEDS_PER_SEARCH, trials)
        if not _solved([*candidates, *(formula for trial in trials for formula in trial.formulas)]):
            further += _noisy_formulas(problem, trials)
        if widths is None and trials and not trials[0].formulas and trials[0].numeric.error < WORTH_A_ROW:
            further += formulas(problem, trials[0].numeric, FIRST_TOLERANCE)
    except (OutOfTime, KeyboardInterrupt):
        if not candidates:  # interrupted before there was anything to return
            raise
        logger.info("formula search: out of time after %d shapes", len(trials))
    candidates += [formula for trial in trials for formula in trial.formulas]
    candidates += [*further, *(trial.numeric for trial in trials)]
    return Search(candidates, choose(candidates))


def _check_widths(widths: Sequence[Width], problem: Problem) -> None:
    if not widths:
        raise ValueError(f"widths={widths}: expected at least one shape, or None for a list of its own")
    for width in widths:
        if KAN(width).nodes[:: len(width) - 1] != [problem.inputs, problem.outputs]:
            raise ValueError(f"widths={widths}: expected shapes from {problem.inputs} inputs to {problem.outputs} outputs")


def _try_shapes(problem: Problem, widths: Sequence[Width] | None, restarts: int, seed: int, trials: list[_Trial]) -> None:
    """Add a trial of each shape in turn, those of summed inputs first once they are known, until one is exact or none gets better."""
    shapes = [_Shape(width) for width in widths or default_widths(problem.inputs, problem.outputs)]
    least, stale = math.inf, 0
    while shapes and stale < PATIENCE and not (trials and _solved(trials[-1].formulas)):
        shape = shapes.pop(0)
        first = seed + SEEDS_PER_SHAPE * len(trials)
        _try_shape(problem, shape, range(first, first + restarts), trials)
        error = trials[-1].numeric.error
        if widths is None and all(s.groups is None for s in (*shapes, shape)):
            shapes = _grouped_shapes(problem, trials[-1].numeric) + shapes
        stale = stale + 1 if error > GAIN * least and least < PROMISING else 0
        least = min(least, error)


def _try_shape(problem: Problem, shape: _Shape, seeds: range, trials: list[_Trial]) -> None:
    """Add the best numeric network of a shape and, if it is good, its formula."""
    of_sum = shape.width == [problem.inputs, 1, 1] and problem.outputs == 1
    model, error = structure(problem, shape.width, seeds, shape.groups, outer_starts(problem) if of_sum else ())
    logger.info("formula search: shape %s, %d edges, numeric error %.2e", shape.width, model.num_edges(), error)
    numeric = Candidate(model, error, False, shape.width, problem.held_out)
    good = error < (GOOD if shape.groups is None else GROUPED * GOOD)
    trials.append(_Trial(numeric, []))
    if good:
        trials[-1].formulas = formulas(problem, numeric)


def _grouped_shapes(problem: Problem, numeric: Candidate) -> list[_Shape]:
    """Shapes whose first layer only sums inputs, if a promising network shows that they enter the function so."""
    groups = linear_groups(numeric.model, problem.X) if numeric.error < PROMISING else None
    if groups is None:
        return []
    sums, inputs = groups.shape
    logger.info("formula search: %d inputs enter as %d sums", inputs, sums)
    inner = default_widths(sums, problem.outputs)
    return [_Shape([inputs, *width], groups) for width in inner[: 4 if sums > 1 else 2]]


def _noisy_formulas(problem: Problem, trials: list[_Trial]) -> list[Candidate]:
    """Formulas of the simplest of the best shapes that have none: noise hides how good they are."""
    most = min(NOISY_NEAR * min(t.numeric.error for t in trials), NOISY_MOST)
    near = sorted((t.numeric for t in trials if not t.formulas and t.numeric.error <= most), key=lambda c: c.complexity)
    return [formula for numeric in near[:NOISY_SHAPES] for formula in formulas(problem, numeric, NOISY_TOLERANCE)]
