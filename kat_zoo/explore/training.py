"""The step that trains a network, in parts, so that it can be stopped."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace

from .._checks import count, real
from ..kan import KAN
from .figures import known
from .outcome import Lines, Outcome, Report, scale_lines
from .state import Problem, Scales, State

CHUNK = 10  # Levenberg-Marquardt steps between two reports, and of a call of fit
MOST_CHUNKS = 200
MOST_WIDTH, MOST_LAYERS, MOST_EDGES, MOST_GRID = 20, 3, 4000, 50


def train(
    state: State,
    report: Report,
    *,
    hidden: Sequence[int] | None = None,
    grid_size: int = 5,
    sparsity: float = 0.0,
    seed: int = 0,
    chunks: int = 10,
) -> Outcome:
    """Train a new network, or train the present one on. An interrupt ends it; the chunks that were done stay.

    Args:
        state: the state before.
        report: function that takes the errors after each chunk.
        hidden: sizes of the hidden layers of a new network; None to train on.
        grid_size: number of intervals of the splines.
        sparsity: penalty on the size of edges.
        seed: seed of a new network.
        chunks: number of calls of fit, of ten Levenberg-Marquardt steps each.

    Raises:
        ValueError: sizes out of range, no columns, or no network to train on.
    """
    problem = state.need_problem()
    count("chunks", chunks, 1, MOST_CHUNKS)
    count("grid_size", grid_size, 1, MOST_GRID)
    real("sparsity", sparsity, 0, 10)
    lines: Lines = []
    if hidden is not None:
        state, lines = _new(state, problem, list(hidden), grid_size, count("seed", seed, 0))
    network, scales = copy.deepcopy(state.need_network()), state.scales
    if hidden is None and network.grid_size != grid_size and any(network.edge_kind(*edge) == "numeric" for edge in network.edges()):
        network.refine(grid_size)
        lines.append(f"model.refine({grid_size})")
    A, B = scales.inputs(problem.X), scales.targets(problem.y)
    rows, held = problem.train, problem.check
    losses = list(state.losses)
    unit = scales.spread / problem.spread
    outcome = None
    try:
        for done in range(1, chunks + 1):
            trial = copy.deepcopy(network)
            history = trial.fit(A[rows], B[rows], A[held], B[held], steps=CHUNK, l1=float(sparsity), early_stopping=sparsity == 0)
            network = trial
            last = history.step.index(history.best_step) if sparsity == 0 else -1
            losses.append(((losses[-1][0] if losses else 0) + CHUNK, history.train[last] * unit, history.val[last] * unit))
            after = replace(state, network=network, losses=tuple(losses), chosen=None)
            outcome = _trained(after, done, hidden, float(sparsity), lines)
            report({"progress": done / chunks, "loss": known(losses[-1]), "outcome": outcome})
    except KeyboardInterrupt:
        pass  # the parts that were done stay
    if outcome is None:
        raise KeyboardInterrupt
    return outcome


def _trained(state: State, done: int, hidden: Sequence[int] | None, sparsity: float, lines: Lines) -> Outcome:
    """The result of a training of some chunks."""
    code = [
        *lines,
        f"for _ in range({done}):",
        f"    model.fit(A[train], B[train], A[check], B[check], steps={CHUNK}, l1={sparsity!r}, early_stopping={sparsity == 0})",
    ]
    shape = "" if hidden is None else f" [{', '.join(map(str, state.need_network().nodes))}]"
    text = f"Train{shape or ' on'}, {done * CHUNK} steps{f', sparsity {sparsity:g}' if sparsity else ''}"
    return Outcome(state, text, code, {"chunks": done})


def _new(state: State, problem: Problem, hidden: list[int], grid_size: int, seed: int) -> tuple[State, Lines]:
    if len(hidden) > MOST_LAYERS:
        raise ValueError(f"hidden={hidden[:9]!r}: expected at most {MOST_LAYERS} layers")
    width = [problem.X.shape[1], *(count("hidden", size, 1, MOST_WIDTH) for size in hidden), 1]
    edges = sum(a * b for a, b in itertools.pairwise(width))
    if edges > MOST_EDGES:
        raise ValueError(f"width={width} of {edges:,} edges: expected at most {MOST_EDGES:,}; choose fewer inputs")
    scales = Scales.of(problem)
    lines = scale_lines(scales) + [f"model = KAN({width}, grid_size={grid_size}, seed={seed})"]
    return replace(state, network=KAN(width, grid_size, seed=seed), scales=scales, losses=(), chosen=None), lines
