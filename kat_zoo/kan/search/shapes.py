"""Numeric networks of one shape: starts, grid extension, pruning by trying, and inputs that only enter as a sum."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..network import KAN
from ..operations.pruning import attribute, drop_dead_nodes, remove_edge
from ..operations.structure import jacobian
from ..operations.symbolic import fix_symbolic
from .problem import EXACT, Problem, Width

GOOD = 2e-3  # relative error of a numeric network whose shape is taken to be right
PROMISING = 0.08  # relative error on a coarse grid that earns a start its refinement
HOPELESS = 0.3  # a shape none of whose first starts comes below is given up on that grid
GRIDS = (10, 20, 40)


def start(problem: Problem, width: Width, grid_size: int, seed: int, first: Tensor | None = None) -> KAN:
    """A random network whose hidden grids hold the data; odd seeds begin rough, even ones smooth.

    `first` (sub-nodes, inputs) makes the first layer linear: edges x with these weights, to be trained on.
    """
    noise = 1.0 if seed % 2 else 0.3
    model = KAN(width, grid_size, base="zero", noise_scale=noise, seed=seed, dtype=problem.X.dtype, device=problem.X.device)
    for j, row in enumerate([] if first is None else first.tolist()):
        for i, weight in enumerate(row):
            if weight:
                fix_symbolic(model, 0, i, j, "x", affine=(weight, 0.0, 1.0, 0.0))
            else:
                remove_edge(model, 0, i, j)
    model.update_grid(problem.X, adapt=0.0)
    return model


def linear_groups(model: KAN, X: Tensor) -> Tensor | None:
    """Weights (groups, inputs) where some inputs enter the function only as weighted sums, else None.

    Within such a group the gradient has one direction everywhere (AI Feynman, arXiv 1905.11481, section II.C, knows
    its case of equal weights); a trained network's is nearly so. Networks with several outputs are not judged.
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
        direction = torch.linalg.eigh(gradient[:, group].T @ gradient[:, group]).eigenvectors[:, -1]
        weights[n, group] = direction / direction.abs().max()
    return weights


def _one_direction(pair: Tensor) -> bool:
    """Whether gradients (N, 2) lie along one oblique line."""
    main = torch.linalg.eigh(pair.T @ pair).eigenvectors[:, -1]
    along = torch.nn.functional.normalize(pair, dim=1) @ main
    return bool(main.abs().min() > 0.1) and float((1 - along.square()).median()) < 5e-3


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


def prune_by_trying(problem: Problem, model: KAN, error: float, tolerance: float = 1.2, steps: int = 8) -> tuple[KAN, float]:
    """Remove edges, weakest first, as long as the held-out error stands it after retraining."""
    refused: set[tuple[int, int, int]] = set()
    while math.isfinite(error):  # a network that is undefined on a row has no scores
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


def structure(problem: Problem, width: Width, seeds: Sequence[int], attempts: int = 3, first: Tensor | None = None) -> tuple[KAN, float]:
    """The best numeric network of one shape.

    Starts are trained on coarse grids, then on finer ones; the promising ones (at most `attempts`) are made sparse and
    refined, until one is good. `first` as in `start`.
    """
    best: tuple[KAN, float] | None = None
    for grid_size in (4, 20):
        coarse = math.inf
        for number, seed in enumerate(seeds):
            if number >= 4 and coarse > HOPELESS:
                break
            model = start(problem, width, grid_size, seed, first)
            error = _train_start(problem, model)
            coarse = min(coarse, error)
            if error < PROMISING and attempts:
                attempts -= 1
                model, error = extend(problem, *_sparser(problem, model, error))
            if best is None or error < best[1]:
                best = model, error
            if best[1] < GOOD or not attempts or (len(width) == 2 and isinstance(width[1], int)):
                return best if attempts else extend(problem, *best)
    assert best is not None
    return extend(problem, *best)
