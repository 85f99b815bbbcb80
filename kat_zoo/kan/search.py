"""From data to a formula: train small networks, prune by trying, make edges symbolic, verify, tabulate.

Shapes are tried from small to large, each from several starts. A change (an edge less, a function instead of a
spline) is kept when the held-out error stands it after retraining, so no threshold decides alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .network import KAN
from .problem import EXACT, Candidate, Problem, Width
from .shapes import GOOD, PROMISING, linear_groups, structure
from .symbolise import symbolise

logger = logging.getLogger("kat_zoo")

PATIENCE = 2  # further shapes tried after one that none of them betters by a tenth


@dataclass
class Search:
    """Result of `search`: all candidates and the chosen one."""

    candidates: list[Candidate] = field(default_factory=list)
    best: Candidate | None = None

    def choose(self) -> Candidate:
        """An exact formula if there is one, else the simplest within 10 % of the least error (at least EXACT)."""
        exact = [c for c in self.candidates if c.exact]
        if exact:
            return min(exact, key=lambda c: c.complexity)
        least = min(c.error for c in self.candidates)
        near = [c for c in self.candidates if c.error <= max(1.1 * least, EXACT)]
        return min(near, key=lambda c: c.complexity)

    def front(self) -> list[Candidate]:
        """Candidates that no simpler one beats, by complexity."""
        result: list[Candidate] = []
        for candidate in sorted(self.candidates, key=lambda c: (c.complexity, c.error)):
            if not result or candidate.error < 0.99 * result[-1].error:
                result.append(candidate)
        return result


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
        All candidates, the chosen one in `best`. The search ends with the first exact formula, or when `PATIENCE`
        shapes in a row are no better than a good one before them.

    Raises:
        ValueError: shapes or limits that make no sense.
    """
    if restarts < 1 or (max_seconds is not None and not max_seconds > 0):
        raise ValueError(f"restarts={restarts}, max_seconds={max_seconds}; expected at least 1, and above 0 or None")
    inputs, outputs = problem.X.shape[1], problem.y.shape[1]
    if widths is not None and not widths:
        raise ValueError(f"widths={widths}; expected at least one shape, or None for a list of its own")
    for shape in widths or ():
        if KAN(shape).nodes[:: len(shape) - 1] != [inputs, outputs]:
            raise ValueError(f"widths={widths}; expected shapes from {inputs} inputs to {outputs} outputs")
    began, result = time.monotonic(), Search()
    shapes: list[tuple[Width, Tensor | None]] = [
        (width, None) for width in widths or default_widths(inputs, outputs)
    ]
    numeric: list[Candidate] = []
    number = stale = 0
    least = float("inf")
    while shapes and stale < PATIENCE and not any(c.exact for c in result.candidates):
        if number and max_seconds is not None and time.monotonic() - began > max_seconds:
            logger.info("formula search: out of time before shape %s", shapes[0][0])
            break
        width, first = shapes.pop(0)
        seeds = range(seed * 1000 + 100 * number, seed * 1000 + 100 * number + restarts)
        model, error = structure(problem, width, seeds, first=first)
        number += 1
        logger.info("formula search: shape %s, %d edges, numeric error %.2e", width, model.num_edges(), error)
        numeric.append(Candidate(model, error, False, width))
        if error < (GOOD if first is None else 10 * GOOD):
            result.candidates.append(symbolise(problem, model, error, width))
            logger.info("formula search: symbolic error %.2e", result.candidates[-1].error)
        if widths is None and error < PROMISING and not any(known is not None for _, known in [*shapes, (width, first)]):
            groups = linear_groups(model, problem.X)
            if groups is not None:
                inner = default_widths(len(groups), problem.y.shape[1])
                logger.info("formula search: %d inputs enter as %d sums", groups.shape[1], groups.shape[0])
                shapes = [([groups.shape[1], *w], groups) for w in inner[: 2 + 2 * (len(groups) > 1)]] + shapes
        stale = stale + 1 if error > 0.9 * least and least < PROMISING else 0
        least = min(least, error)
    if not any(c.exact for c in result.candidates):
        _symbolise_best(problem, numeric, result)
    result.candidates += numeric
    result.best = result.choose()
    return result


def _symbolise_best(problem: Problem, numeric: list[Candidate], result: Search) -> None:
    """Symbolise the simplest of the best shapes: noise hides how good they are."""
    least = min(c.error for c in numeric)
    done = {id(c.width) for c in result.candidates}
    near = [c for c in numeric if id(c.width) not in done and c.error <= 1.3 * least and c.error < 0.5]
    for candidate in sorted(near, key=lambda c: c.complexity)[:3]:
        result.candidates.append(symbolise(problem, candidate.model, candidate.error, candidate.width, 1.03))
