"""From a trained numeric network to a formula: functions instead of splines, as far as the held-out error allows.

Greedy. Of the edges still numeric the clearest comes first, that of the best score (R^2 against complexity). Its function is
fixed, and all parameters are retrained by Levenberg-Marquardt. The sequence matters: a node may have any scale and shift, for the
edges behind it undo them, and splines bend to make up for each other's errors. An exact function takes that freedom away, so
the edges around it become clearer, and their functions are suggested anew.

The criterion is the held-out error after retraining, against a limit that follows it: `tolerance` times the error before. A
function that misses the limit by up to `SWAPPABLE` times is still taken if none does better, for one wrong edge spoils the
error of all, and it may not be this one. When no edge is numeric any more, the functions are swapped one by one for their
runners-up while that lowers the error. At the end edges are dropped and functions replaced by simpler ones where the error
stands it: of two formulas with equal errors the simpler one is wanted.
"""

from __future__ import annotations

import copy
import math

from ..library import get_function
from ..model import KAN
from ..network import Edge
from ..operations.fitting import Suggestion
from ..operations.symbolic import fix_symbolic, suggest_symbolic
from .problem import EXACT, Candidate, Problem
from .shapes import prune_by_trying

Alternatives = dict[Edge, list[Suggestion]]

WORTH = 0.9  # R^2 that a suggestion must pass
SUGGESTIONS, TRIED, SWAPPED = 8, 4, 5  # suggestions for an edge, those tried at first, and those tried as swaps
SWAPPABLE = 30  # times the limit up to which the error of the best function is taken in the hope of swaps
SLACK = 3  # times the new limit up to which an older, looser one stays
SWAP_GAIN = 0.7  # part of the error that a swap has to come below
HOPELESS = 0.05  # error of a formula beyond which swaps are not tried
SAME = 1.02  # growth of the error, as a factor, that a simpler formula may cost
SIMPLER = ("x", "x^2")  # functions tried instead of more complex ones


def _suggestions(problem: Problem, model: KAN, edge: Edge) -> list[Suggestion]:
    found = suggest_symbolic(model, *edge, problem.X, SUGGESTIONS, problem.library, worth=WORTH)
    return [s for s in found if s.r2 > WORTH]


def _with_function(model: KAN, edge: Edge, suggestion: Suggestion) -> KAN:
    """A copy of the network with one edge fixed."""
    trial = copy.deepcopy(model)
    fix_symbolic(trial, *edge, suggestion.name, affine=suggestion.affine)
    return trial


def _best_function(problem: Problem, model: KAN, edge: Edge, suggestions: list[Suggestion], limit: float) -> tuple[float, KAN] | None:
    """Error and network of the first suggestion within the limit, else of the best; None without suggestions."""
    trials = []
    for suggestion in suggestions[:TRIED]:
        trial = _with_function(model, edge, suggestion)
        trials.append((problem.train(trial, 10, smoothness=1e-9), trial))
        if trials[-1][0] <= limit:
            break
    return min(trials, key=lambda t: t[0]) if trials else None


def _fix_edges(problem: Problem, model: KAN, error: float, tolerance: float) -> tuple[KAN, float, Alternatives]:
    """Fix edges, the clearest first, retraining after each; edges that nothing fits stay numeric."""
    pending = [edge for edge in model.edges() if model.edge_kind(*edge) == "numeric"]
    alternatives = {edge: _suggestions(problem, model, edge) for edge in pending}
    pending.sort(key=lambda e: alternatives[e][0].score if alternatives[e] else math.inf)
    limit = max(tolerance * error, EXACT * 0.1)
    for number, edge in enumerate(pending):
        if number:  # functions fixed since then have sharpened this edge
            alternatives[edge] = _suggestions(problem, model, edge) or alternatives[edge]
        found = _best_function(problem, model, edge, alternatives[edge], limit)
        if found is None:
            continue
        new, trial = found
        if new <= limit:
            model, error = trial, new
            limit = max(tolerance * error, min(limit, SLACK * tolerance * error), EXACT * 0.1)
        elif new <= SWAPPABLE * limit:  # go on with it: swapping this or another function may still put it right
            model, error, limit = trial, new, tolerance * new
    return model, error, alternatives


def _swap(problem: Problem, model: KAN, error: float, alternatives: Alternatives) -> tuple[KAN, float]:
    """Try other functions edge by edge while the error falls: one wrong edge spoils all."""
    improved = True
    while improved:
        improved = False
        for edge, suggestions in alternatives.items():
            for suggestion in suggestions[:SWAPPED]:
                if suggestion.name == model.edge_kind(*edge) or error < EXACT:
                    continue
                trial = _with_function(model, edge, suggestion)
                new = problem.train(trial, 30)
                if new < SWAP_GAIN * error:
                    model, error, improved = trial, new, True
    return model, error


def _simplify(problem: Problem, model: KAN, error: float) -> tuple[KAN, float]:
    """Drop edges and replace functions by simpler ones where the error does not grow by it."""
    model, error = prune_by_trying(problem, model, error, SAME, 20)
    for edge in list(model.edges()):
        kind = model.edge_kind(*edge)
        for simpler in SIMPLER:
            if kind in ("numeric", "0") or get_function(kind).complexity <= get_function(simpler).complexity:
                continue
            trial = copy.deepcopy(model)
            try:
                fix_symbolic(trial, *edge, simpler, problem.X)
            except ValueError:  # it cannot be fitted there
                continue
            new = problem.train(trial, 20)
            if new <= max(SAME * error, EXACT * 0.01):
                model, error = trial, new
                break
    return model, error


def symbolize(problem: Problem, numeric: Candidate, tolerance: float) -> Candidate:
    """Turn a trained numeric network into a formula, as far as the held-out error allows.

    Args:
        problem: the scaled data.
        numeric: the network, which stays as it is, and its error.
        tolerance: largest growth of the error per edge, as a factor.
    """
    model, error, alternatives = _fix_edges(problem, copy.deepcopy(numeric.model), numeric.error, tolerance)
    symbolic = all(model.edge_kind(*edge) != "numeric" for edge in model.edges())
    if symbolic:
        error = problem.train(model, 100)
        if EXACT < error < HOPELESS and error > tolerance * numeric.error:
            model, error = _swap(problem, model, error, alternatives)
        model, error = _simplify(problem, model, error)
        error = problem.train(model, 60)
    return Candidate(model, error, symbolic, numeric.width, problem.held_out)
