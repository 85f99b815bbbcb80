"""From data to a formula: train small networks, prune by trying, make edges symbolic, verify, tabulate.

Shapes are tried from small to large, each from several starts. A change (an edge less, a function instead of a
spline) is kept when the held-out error stands it after retraining, so no threshold decides alone.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .library import DEFAULT_LIBRARY, get_function
from .lm import LeastSquares
from .network import KAN
from .pruning import attribute, drop_dead_nodes, remove_edge
from .symbolic import Suggestion, fix_symbolic, suggest_symbolic

logger = logging.getLogger("kat_zoo")

Width = Sequence[int | Sequence[int]]
Alternatives = dict[tuple[int, int, int], list[Suggestion]]

EXACT = 1e-6  # relative error below which a formula counts as exact
GOOD = 2e-3  # relative error of a numeric network whose shape is taken to be right
PROMISING = 0.08  # relative error on a coarse grid that earns a start its refinement
GRIDS = (10, 20, 40)


@dataclass
class Problem:
    """Scaled training and held-out data: y has variance 1, so errors are relative."""

    X: Tensor
    y: Tensor
    X_val: Tensor
    y_val: Tensor
    weight: Tensor | None = None
    library: Sequence[str] = DEFAULT_LIBRARY

    def error(self, model: KAN) -> float:
        """Root mean square error on held-out data."""
        with torch.no_grad():
            value = float((model(self.X_val) - self.y_val).square().mean().sqrt())
        return value if math.isfinite(value) else math.inf

    def train(self, model: KAN, steps: int, **options: Any) -> float:
        """Levenberg-Marquardt; returns the held-out error."""
        LeastSquares(model, self.X, self.y, weight=self.weight, **options).minimise(steps)
        return self.error(model)


@dataclass
class Candidate:
    """A network of the search and what it achieves.

    Attributes:
        model: the network, on standardised data.
        error: relative root mean square error on held-out data.
        symbolic: no numeric edge is left.
        width: the shape the search started from.
    """

    model: KAN
    error: float
    symbolic: bool
    width: Width

    @property
    def complexity(self) -> float:
        """Sum of the functions' complexities; a numeric edge costs 20."""
        kinds = [self.model.edge_kind(*edge) for edge in self.model.edges()]
        return sum(20.0 if kind == "numeric" else get_function(kind).complexity for kind in kinds)

    @property
    def exact(self) -> bool:
        """Symbolic, and right to 1e-6 of the target's standard deviation."""
        return self.symbolic and self.error < EXACT


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
        hidden = max(2, min(inputs, 4)) * outputs
        widths += [[inputs, [0, outputs]], [inputs, [0, outputs], outputs], [inputs, 2 * outputs, outputs]]
        widths += [[inputs, hidden, outputs, outputs], [inputs, 4 * outputs, outputs]]
    return widths


def start(problem: Problem, width: Width, grid_size: int, seed: int) -> KAN:
    """A random network whose hidden grids hold the data; odd seeds begin rough, even ones smooth."""
    noise = 1.0 if seed % 2 else 0.3
    model = KAN(
        width, grid_size, base="zero", noise_scale=noise, seed=seed, dtype=problem.X.dtype, device=problem.X.device
    )
    model.update_grid(problem.X, adapt=0.0)
    return model


def _train_start(problem: Problem, model: KAN) -> float:
    error = math.inf
    for _ in range(3):
        problem.train(model, 12, smoothness=1e-6)
        model.update_grid(problem.X, adapt=0.3)
        new = problem.train(model, 4, smoothness=1e-7)
        if not new < 0.7 * error:
            return min(new, error)
        error = new
    return error


def extend(problem: Problem, model: KAN, error: float) -> tuple[KAN, float]:
    """Finer grids while they help; the best stage by held-out error."""
    best = copy.deepcopy(model)
    for grid_size in GRIDS:
        if grid_size <= model.grid_size or sum(1 for _ in model.edges()) * (grid_size + 3) > len(problem.X):
            continue
        model = copy.deepcopy(best)
        model.refine(grid_size)
        problem.train(model, 8, smoothness=1e-8)
        model.update_grid(problem.X, adapt=0.3)
        new = problem.train(model, 12, smoothness=1e-9)
        if new < error:
            gain = error / max(new, 1e-300)
            best, error = model, new
            if gain < 1.5:
                break
        else:
            break
    return best, error


def prune_by_trying(
    problem: Problem, model: KAN, error: float, tolerance: float = 1.2, steps: int = 8
) -> tuple[KAN, float]:
    """Remove edges, weakest first, as long as the held-out error stands it after retraining."""
    refused: set[tuple[int, int, int]] = set()
    while True:
        scores = attribute(model, problem.X).edges
        edges = [edge for edge in model.edges() if edge not in refused]
        edges.sort(key=lambda e: float(scores[e[0]][e[2], e[1]]))
        for edge in edges[:6]:
            trial = copy.deepcopy(model)
            remove_edge(trial, *edge)
            new = problem.train(trial, steps, smoothness=1e-8)
            if new <= max(tolerance * error, EXACT * 0.01):
                smaller = drop_dead_nodes(trial)
                if smaller is not trial:
                    refused.clear()
                    new = problem.train(smaller, steps, smoothness=1e-8)
                model, error = smaller, min(new, max(error, new / tolerance))
                break
            refused.add(edge)
        else:
            return model, error


def _suggestions(problem: Problem, model: KAN, edge: tuple[int, int, int]) -> list[Suggestion]:
    found = suggest_symbolic(model, *edge, problem.X, 8, problem.library, worth=0.9)
    return [s for s in found if s.r2 > 0.9]


def _symbolise(
    problem: Problem, model: KAN, error: float, tolerance: float
) -> tuple[KAN, float, Alternatives]:
    """Greedy: the clearest edge first, retraining after each; edges that nothing fits stay numeric."""
    pending = [edge for edge in model.edges() if model.edge_kind(*edge) == "numeric"]
    alternatives = {edge: _suggestions(problem, model, edge) for edge in pending}
    pending.sort(key=lambda e: alternatives[e][0].score if alternatives[e] else math.inf)
    limit = max(tolerance * error, EXACT * 0.1)
    for number, edge in enumerate(pending):
        if number:  # functions fixed since then have sharpened this edge
            alternatives[edge] = _suggestions(problem, model, edge) or alternatives[edge]
        trials = []
        for suggestion in alternatives[edge][:4]:
            trial = copy.deepcopy(model)
            fix_symbolic(trial, *edge, suggestion.name, affine=suggestion.affine)
            trials.append((problem.train(trial, 10, smoothness=1e-9), trial))
            if trials[-1][0] <= limit:
                break
        if not trials:
            continue
        new, trial = min(trials, key=lambda t: t[0])
        if new <= limit:
            model, error = trial, new
            limit = max(tolerance * error, min(limit, 3 * tolerance * error), EXACT * 0.1)
        elif new <= 30 * limit:  # go on with it: swapping this or another function may still put it right
            model, error, limit = trial, new, tolerance * new
    return model, error, alternatives


def _swap(problem: Problem, model: KAN, error: float, alternatives: Alternatives) -> tuple[KAN, float]:
    """Try other functions edge by edge while the error falls: one wrong edge spoils all."""
    improved = True
    while improved:
        improved = False
        for edge, suggestions in alternatives.items():
            for suggestion in suggestions[:5]:
                if suggestion.name == model.edge_kind(*edge) or error < EXACT:
                    continue
                trial = copy.deepcopy(model)
                fix_symbolic(trial, *edge, suggestion.name, affine=suggestion.affine)
                new = problem.train(trial, 30)
                if new < 0.7 * error:
                    model, error, improved = trial, new, True
    return model, error


def _simplify(problem: Problem, model: KAN, error: float) -> tuple[KAN, float]:
    """Drop edges and replace functions by simpler ones where the error stands it."""
    model, error = prune_by_trying(problem, model, error, 1.02, 20)
    for edge in list(model.edges()):
        kind = model.edge_kind(*edge)
        for simpler in ("x", "x^2"):
            if kind in ("numeric", "0") or get_function(kind).complexity <= get_function(simpler).complexity:
                continue
            trial = copy.deepcopy(model)
            try:
                fix_symbolic(trial, *edge, simpler, problem.X)
            except ValueError:
                continue
            new = problem.train(trial, 20)
            if new <= max(1.02 * error, EXACT * 0.01):
                model, error = trial, new
                break
    return model, error


def symbolise(problem: Problem, model: KAN, error: float, width: Width, tolerance: float = 1.5) -> Candidate:
    """Turn a trained numeric network into a formula, as far as the held-out error allows."""
    numeric = error
    model, error, alternatives = _symbolise(problem, copy.deepcopy(model), error, tolerance)
    symbolic = all(model.edge_kind(*edge) != "numeric" for edge in model.edges())
    if symbolic:
        error = problem.train(model, 100)
        if EXACT < error and error > tolerance * numeric and error < 0.05:
            model, error = _swap(problem, model, error, alternatives)
        model, error = _simplify(problem, model, error)
        error = problem.train(model, 60)
    return Candidate(model, error, symbolic, width)


def _sparser(problem: Problem, model: KAN, error: float) -> tuple[KAN, float]:
    """Fewer edges at the same error: L1 to break ties between equivalent networks, then removal by trying."""
    if model.num_edges() > model.nodes[0] + model.nodes[-1]:
        sparse = copy.deepcopy(model)
        for l1 in (1e-2, 1e-3):
            problem.train(sparse, 10, smoothness=1e-7, l1=l1 * max(error, 1e-3))
        new = problem.train(sparse, 8, smoothness=1e-7)
        if new < 1.5 * error:
            model, error = sparse, new
    return prune_by_trying(problem, model, error)


def structure(problem: Problem, width: Width, seeds: Sequence[int], attempts: int = 3) -> tuple[KAN, float]:
    """The best numeric network of one shape.

    Starts are trained on coarse grids, then on finer ones; the promising ones (at most `attempts`) are made sparse and
    refined, until one is good.
    """
    best: tuple[KAN, float] | None = None
    for grid_size in (4, 20):
        for seed in seeds:
            model = start(problem, width, grid_size, seed)
            error = _train_start(problem, model)
            if error < PROMISING and attempts:
                attempts -= 1
                model, error = extend(problem, *_sparser(problem, model, error))
            if best is None or error < best[1]:
                best = model, error
            if best[1] < GOOD or not attempts or len(width) == 2 and isinstance(width[1], int):
                return best if attempts else extend(problem, *best)
    assert best is not None  # noqa: S101  there is at least one seed
    return extend(problem, *best)


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
        All candidates, the chosen one in `best`. The search ends with the first exact formula.
    """
    began, result = time.monotonic(), Search()
    shapes = list(widths) if widths is not None else default_widths(problem.X.shape[1], problem.y.shape[1])
    numeric: list[Candidate] = []
    for number, width in enumerate(shapes):
        if number and max_seconds is not None and time.monotonic() - began > max_seconds:
            logger.info("formula search: out of time before shape %s", width)
            break
        seeds = range(seed * 1000 + 100 * number, seed * 1000 + 100 * number + restarts)
        model, error = structure(problem, width, seeds)
        logger.info("formula search: shape %s, %d edges, numeric error %.2e", width, model.num_edges(), error)
        numeric.append(Candidate(model, error, False, width))
        if error < GOOD:
            result.candidates.append(symbolise(problem, model, error, width))
            logger.info("formula search: symbolic error %.2e", result.candidates[-1].error)
            if result.candidates[-1].exact:
                break
    if not any(c.exact for c in result.candidates):
        least = min(c.error for c in numeric)
        done = {id(c.width) for c in result.candidates}
        near = [c for c in numeric if id(c.width) not in done and c.error <= 1.3 * least]
        for candidate in sorted(near, key=lambda c: c.complexity)[:3]:
            if candidate.error < 0.5:
                result.candidates.append(symbolise(problem, candidate.model, candidate.error, candidate.width, 1.03))
    result.candidates += numeric
    result.best = result.choose()
    return result
