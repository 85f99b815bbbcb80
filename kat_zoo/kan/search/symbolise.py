"""From a trained numeric network to a formula: functions instead of splines, as far as the held-out error allows."""

from __future__ import annotations

import copy
import math

from ..library import get_function
from ..network import KAN
from ..operations.fitting import Suggestion
from ..operations.symbolic import fix_symbolic, suggest_symbolic
from .problem import EXACT, Candidate, Problem, Width
from .shapes import prune_by_trying

Alternatives = dict[tuple[int, int, int], list[Suggestion]]


def _suggestions(problem: Problem, model: KAN, edge: tuple[int, int, int]) -> list[Suggestion]:
    found = suggest_symbolic(model, *edge, problem.X, 8, problem.library, worth=0.9)
    return [s for s in found if s.r2 > 0.9]


def _symbolise(problem: Problem, model: KAN, error: float, tolerance: float) -> tuple[KAN, float, Alternatives]:
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
        if error > EXACT and error > tolerance * numeric and error < 0.05:
            model, error = _swap(problem, model, error, alternatives)
        model, error = _simplify(problem, model, error)
        error = problem.train(model, 60)
    return Candidate(model, error, symbolic, width)
