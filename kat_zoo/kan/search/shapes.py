"""Numeric networks of one shape: starts, finer grids, fewer edges, and inputs that only enter as a sum.

Starts. A small network has many local minima; on a grid of 4 intervals a start takes a fraction of a second, and its error there
tells whether it is worth more. Only promising starts are made sparse and get finer grids.

Pruning by trying. The weakest edge by attribution is removed, the network retrained, and the removal kept if the held-out error
stands it. That an edge is weak is a guess, the error after retraining the proof: in exp(sin(pi x) + y^2) no edge is weak, yet
a start with two nodes for one has several that can go.

Sums. Where some inputs enter f only as s = sum w_i x_i, the gradient of f within them is f'(s) w: it has the direction w
everywhere. A pair of inputs is tested by the principal axis of its gradients (N, 2), the eigenvector of the Gram matrix
G' G with the larger eigenvalue. The search goes on with s as its input, in which far smaller shapes suffice.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..model import KAN
from ..network import Edge, Width
from ..operations.pruning import attribute, drop_dead_nodes, remove_edge
from ..operations.structure import jacobian
from ..operations.symbolic import fix_symbolic
from .problem import EXACT, Problem

GOOD = 2e-3  # relative error of a numeric network whose shape is taken to be right
PROMISING = 0.08  # relative error on a coarse grid that earns a start its refinement
HOPELESS = 0.3  # relative error that one of the first starts must reach, or the shape is given up on that grid
FIRST_STARTS = 4
ATTEMPTS = 3  # promising starts that are refined
START_GRIDS = (4, 20)  # intervals of the starts; waves of many turns need the second
GRIDS = (10, 20, 40)  # intervals of the refinement
LEAST_GAIN = 1.5  # factor by which a finer grid must lower the error for the next one to be tried
WEAKEST = 6  # edges that are tried for removal before pruning ends
OBLIQUE = 0.1  # least component of a direction that counts as one of two inputs
SPREAD = 5e-3  # median of sin^2 of the angle to the direction up to which gradients lie along it


def start(problem: Problem, width: Width, grid_size: int, seed: int, groups: Tensor | None = None) -> KAN:
    """A random network whose hidden grids hold the data; odd seeds begin rough, even ones smooth.

    Args:
        problem: the scaled data.
        width: shape of the network.
        grid_size: number of intervals of its grids.
        seed: seed of the initial values.
        groups: (sub-nodes, inputs) weights of a linear first layer, edges x to be trained on; None for splines.
    """
    noise = 1.0 if seed % 2 else 0.3
    model = KAN(width, grid_size, base="zero", noise_scale=noise, seed=seed, dtype=problem.X.dtype, device=problem.X.device)
    for j, row in enumerate([] if groups is None else groups.tolist()):
        for i, weight in enumerate(row):
            if weight:
                fix_symbolic(model, 0, i, j, "x", affine=(weight, 0.0, 1.0, 0.0))
            else:
                remove_edge(model, 0, i, j)
    model.update_grid(problem.X, adapt=0.0)
    return model


def linear_groups(model: KAN, X: Tensor) -> Tensor | None:
    """Weights (groups, inputs) where some inputs enter the function only as weighted sums, else None.

    Within such a group the gradient has one direction everywhere (AI Feynman, arXiv 1905.11481, section II.C, has the
    case of equal weights); that of a trained network is nearly constant. Networks with several outputs are not judged.

    Args:
        model: the trained network.
        X: (N, inputs) samples.
    """
    if model.nodes[-1] != 1 or model.nodes[0] < 3:
        return None
    gradient = jacobian(model, X)[:, 0].detach()
    groups: list[list[int]] = []
    for i in range(gradient.shape[1]):
        home = next((group for group in groups if _one_direction(gradient[:, [group[0], i]])), None)
        if home is None:
            groups.append([i])
        else:
            home.append(i)
    if len(groups) == gradient.shape[1]:
        return None
    weights = gradient.new_zeros(len(groups), gradient.shape[1])
    for n, group in enumerate(groups):
        direction = _principal_axis(gradient[:, group])
        weights[n, group] = direction / direction.abs().max()
    return weights


def _principal_axis(vectors: Tensor) -> Tensor:
    """The direction (C,) that vectors (N, C) lie along most."""
    axes: Tensor = torch.linalg.eigh(vectors.T @ vectors).eigenvectors
    return axes[:, -1]


def _one_direction(pair: Tensor) -> bool:
    """Whether gradients (N, 2) lie along one oblique line."""
    main = _principal_axis(pair)
    along = torch.nn.functional.normalize(pair, dim=1) @ main
    return bool(main.abs().min() > OBLIQUE) and float((1 - along.square()).median()) < SPREAD


def _train_start(problem: Problem, model: KAN) -> float:
    """Train a start while rounds of a few steps and a moved grid pay; return the held-out error."""
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
    """Finer grids while they help; the best stage by held-out error, and that error.

    Args:
        problem: the scaled data.
        model: the network, which stays as it is.
        error: held-out error of it.
    """
    best = copy.deepcopy(model)
    for grid_size in GRIDS:
        if grid_size <= model.grid_size or model.num_edges() * (grid_size + 3) > len(problem.X):
            continue
        model = copy.deepcopy(best)
        model.refine(grid_size)
        problem.train(model, 8, smoothness=1e-8)
        model.update_grid(problem.X, adapt=0.3)
        new = problem.train(model, 12, smoothness=1e-9)
        if not new < error:
            break
        gain = error / max(new, 1e-300)
        best, error = model, new
        if gain < LEAST_GAIN:
            break
    return best, error


def prune_by_trying(problem: Problem, model: KAN, error: float, tolerance: float = 1.2, steps: int = 8) -> tuple[KAN, float]:
    """Remove edges, weakest first, as long as the held-out error stands it after retraining; returns network and error.

    Args:
        problem: the scaled data.
        model: the network, which stays as it is.
        error: held-out error of it.
        tolerance: largest growth of the error per edge, as a factor.
        steps: number of Levenberg-Marquardt steps after a removal.
    """
    refused: set[Edge] = set()
    while math.isfinite(error):  # a network that is undefined on a row has no scores
        scores = attribute(model, problem.X).edges
        edges = [edge for edge in model.edges() if edge not in refused]
        edges.sort(key=lambda e: float(scores[e[0]][e[2], e[1]]))
        for edge in edges[:WEAKEST]:
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
            break
    return model, error


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


def structure(
    problem: Problem, width: Width, seeds: Sequence[int], groups: Tensor | None = None, first: Sequence[KAN] = ()
) -> tuple[KAN, float]:
    """The best numeric network of one shape and its held-out error.

    Starts are trained on coarse grids, then on finer ones; the promising ones (at most `ATTEMPTS`) are made sparse and
    refined, until one is good.

    Args:
        problem: the scaled data.
        width: shape of the network.
        seeds: seeds of the starts, at least one.
        groups: (sub-nodes, inputs) weights of a linear first layer; None for splines.
        first: networks of the shape to start from before the random ones; the first good one ends the search.
    """
    attempts = ATTEMPTS
    found: list[tuple[KAN, float]] = []
    for model in first:
        found.append(extend(problem, model, _train_start(problem, model)))
        if found[-1][1] < GOOD:
            return found[-1]
    for grid_size in START_GRIDS:
        coarse = math.inf
        for number, seed in enumerate(seeds):
            if number >= FIRST_STARTS and coarse > HOPELESS:
                break
            model = start(problem, width, grid_size, seed, groups)
            error = _train_start(problem, model)
            coarse = min(coarse, error)
            if error < PROMISING and attempts:
                attempts -= 1
                model, error = extend(problem, *_sparser(problem, model, error))
            found.append((model, error))
            best = min(found, key=lambda pair: pair[1])
            only_start = len(width) == 2 and isinstance(width[1], int)  # without a hidden layer all starts end alike
            if not attempts:
                return extend(problem, *best)
            if best[1] < GOOD or only_start:
                return best
    return extend(problem, *best)
