"""A state as JSON for the page: data, network, one edge, a preview of pruning, the formula. Nothing here changes a state."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..kan import KAN
from ..kan.library import function_names
from ..kan.operations.pruning import attribute
from .figures import finite, number
from .formulas import code_of, mathml_tree, typeset, verdict
from .outcome import edge_of, removed_nodes
from .state import Problem, State, strengths
from .training import MOST_GRID, MOST_WIDTH

BINS = 24  # bars of a histogram
THUMBNAIL, CURVE = 32, 160  # points of a small and a large curve
MOST_POINTS = 400  # rows drawn as points
MOST_DRAWN = 300  # edges drawn, the strongest
BETA = 3.0  # steepness of an edge's opacity tanh(BETA * score), as in the KAN paper
PREVIEW_ROWS = 2000  # rows by which a preview of pruning is made
SHOWN_COLUMNS = 60  # columns of the preview of a table
CANDIDATES = 8
MOST_NUMERIC = 24  # edges without a formula in a formula that is shown


def data_view(state: State) -> dict[str, Any] | None:
    """The table: its columns with ranges and histograms, first rows and notes; None where there is no table."""
    table, problem = state.table, state.problem
    if table is None:
        return None
    found = strengths(table, problem.target) if problem else {}
    columns = []
    for column in table.columns:
        values = column.values[np.isfinite(column.values)]
        view = {"name": column.name, "unit": column.unit, "text": column.text, "missing": column.missing}
        if not column.text and len(values):
            view |= {"low": number(values.min()), "high": number(values.max()), "mean": number(values.mean())}
            view["bars"] = np.histogram(values / (np.abs(values).max() or 1.0), BINS)[0].tolist()  # numbers near the largest have no width
            view["strength"] = number(found[column.name]) if column.name in found else None
        columns.append(view)
    view = {"name": table.name, "rows": table.rows, "columns": columns, "notes": list(table.notes)}
    view["cells"] = [row[:SHOWN_COLUMNS] for row in table.cells]
    if problem:
        view |= {"inputs": list(problem.inputs), "target": problem.target, "train": len(problem.train), "held": len(problem.held)}
    return view


def network_view(state: State) -> dict[str, Any] | None:
    """Nodes, and the strongest edges with their curves and scores; None where there is no network."""
    if state.network is None or state.problem is None:
        return None
    network, A = state.network, _rows(state)
    scores = attribute(network, A)
    with torch.no_grad():
        values = network.activations(A)
    edges: list[dict[str, Any]] = []
    for number_, (layer, h) in enumerate(zip(network.layers, values, strict=False)):
        curves = _curves(network, number_, h)
        for j in range(layer.spline.out_features):
            for i in range(layer.spline.in_features):
                score = float(scores.edges[number_][j, i])
                edge: dict[str, Any] = {"edge": [number_, i, j], "kind": network.edge_kind(number_, i, j), "score": number(score)}
                edge |= {"opacity": number(np.tanh(BETA * score)), "curve": finite(curves[:, j, i])}
                edges.append(edge)
    drawn = sorted(edges, key=lambda edge: -(edge["score"] or 0))[:MOST_DRAWN]
    return {
        "nodes": network.nodes,
        "products": [n_mult for _, n_mult in network.width],
        "arity": network.mult_arity,
        "grid_size": network.grid_size,
        "names": list(state.problem.inputs),
        "target": state.problem.target,
        "edges": sorted(drawn, key=lambda edge: edge["edge"]),
        "left_out": len(edges) - len(drawn),
        "removed": removed_nodes(network),
        "node_scores": [finite(score.double()) for score in scores.nodes],
        "error": number(state.error()),
        "losses": [[step, number(train), number(val)] for step, train, val in state.losses],
        "numeric": sum(edge["kind"] == "numeric" for edge in edges),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def _rows(state: State, most: int = PREVIEW_ROWS) -> torch.Tensor:
    """Rows of the network's inputs, thinned evenly."""
    problem = state.need_problem()
    return state.scales.inputs(problem.X[:: -(-len(problem.X) // most)])


def _curves(network: KAN, layer: int, h: torch.Tensor) -> np.ndarray:
    """Values (THUMBNAIL, sub-nodes, inputs) of the edges of a layer, evenly over the range of its samples h."""
    low, high = h.min(0).values, h.max(0).values
    grid = low + (high - low) * torch.linspace(0, 1, THUMBNAIL, dtype=h.dtype)[:, None]
    with torch.no_grad():
        values: np.ndarray = network.layers[layer].edges(grid).numpy()
    return values


def edge_view(state: State, edge: Sequence[int]) -> dict[str, Any]:
    """One edge: its curve, the data on it, and the functions that may replace it with their fits.

    Args:
        state: the state.
        edge: (l, i, j) of the edge.
    """
    network, A = state.need_network(), _rows(state)
    layer, i, j = edge_of(network, edge)
    kind = network.edge_kind(layer, i, j)
    with torch.no_grad():
        h = network.activations(A)[layer][:, i]
    t = torch.linspace(float(h.min()), float(h.max()), CURVE, dtype=h.dtype)
    function, _ = network.edge(layer, i, j)
    points = h[:: -(-len(h) // MOST_POINTS)]
    view = {
        "edge": [layer, i, j],
        "kind": kind,
        "x": finite(t),
        "y": finite(function(t)),
        "points": [finite(points), finite(function(points))],
        "density": np.histogram(h.numpy(), BINS)[0].tolist() if float(h.max()) > float(h.min()) else [],
        "candidates": [],
        "functions": [name for name in function_names() if name != "0"],
    }
    if kind not in ("numeric", "pruned"):
        view["affine"] = finite(network.layers[layer].affine[j, i].detach())
    if kind == "numeric" and view["density"]:
        for found in network.suggest_symbolic(layer, i, j, A, top=CANDIDATES):
            trial = copy.deepcopy(network)
            trial.fix_symbolic(layer, i, j, found.name, affine=found.affine)
            fit = trial.edge(layer, i, j)[0](t)
            view["candidates"].append({"name": found.name, "r2": number(found.r2), "price": found.complexity, "fit": finite(fit)})
    return view


def prune_view(state: State, threshold: float) -> dict[str, Any]:
    """Edges that pruning would remove, and the error before and after.

    Args:
        state: the state.
        threshold: least score of an edge or hidden node that stays.
    """
    network, A = state.need_network(), _rows(state)
    pruned = network.prune(A, threshold, threshold)
    scores = attribute(network, A)
    gone = [
        [number_, i, j]
        for number_, layer in enumerate(network.layers)
        for j, i in layer.active.nonzero().tolist()
        if scores.edges[number_][j, i] < threshold
        or (number_ and scores.nodes[number_][i] < threshold)
        or (number_ < len(network.layers) - 1 and _node_score(network, scores.nodes[number_ + 1], number_, j) < threshold)
    ]
    top = len(network.layers) - 1
    last = scores.edges[top].argmax(1).tolist()  # each output keeps its strongest edge
    gone = [edge for edge in gone if edge[0] < top or edge[1] != last[edge[2]]]
    errors = {"before": number(state.error()), "after": number(state.error(pruned))}
    return {"gone": gone, "nodes": pruned.nodes, "edges": pruned.num_edges(), **errors}


def _node_score(network: KAN, scores: torch.Tensor, layer: int, j: int) -> float:
    module = network.layers[layer]
    return float(scores[j if j < module.n_sum else module.n_sum + (j - module.n_sum) // module.arity])


def formula_view(state: State) -> dict[str, Any] | None:
    """The formula, its verdict, its residuals, and the front of the last search; None where there is no network."""
    problem = state.problem
    if problem is None or (state.network is None and not state.front):
        return None
    view: dict[str, Any] = {"front": _front(state, problem), "chosen": state.chosen}
    if state.network is None:
        return view
    numeric = sum(state.network.edge_kind(*edge) == "numeric" for edge in state.network.edges())
    if numeric > MOST_NUMERIC:
        return view | {"too_long": True}
    full, printed = state.expressions()
    predicted = state.predict(problem.X[problem.check])
    step = -(-len(predicted) // MOST_POINTS)
    y = problem.y[problem.check]
    view |= typeset(printed, problem) | verdict(state, full, printed) | {"code": code_of(full, printed, problem)}
    view["residuals"] = [finite(predicted[::step]), finite((y - predicted)[::step])]
    return view


def _front(state: State, problem: Problem) -> list[dict[str, Any]]:
    return [
        {
            "length": row.complexity,
            "error": number(row.loss / problem.spread),
            "math": mathml_tree(row.printed, problem),
            "symbolic": row.symbolic,
        }
        for row in state.front
    ]


def limits() -> dict[str, int]:
    """Bounds of the sliders."""
    return {"width": MOST_WIDTH, "grid_size": MOST_GRID}
