"""The steps of a session. Each is a function from a state to the next, and writes itself as lines of Python that do the same.

The lines use `table`, X (N, inputs) and Y (N, 1) in the units of the table, the rows `train` and `held`, and the network `model` on
A and B, which are X and Y on the network's scales. Text of users stands in them as literals of Python, never as code.
"""

from __future__ import annotations

import base64
import binascii
import copy
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sympy

from .._checks import count, real
from ..kan import KAN, KANRegressor
from ..kan.network import Edge
from .examples import EXAMPLES, example_table
from .state import FrontRow, Problem, Scales, State, strengths
from .tables import MAX_NAME, Column, Table, parse_table

Report = Callable[[dict[str, Any]], None]
Lines = list[str]

CHUNK = 10  # Levenberg-Marquardt steps between two reports, and of a call of fit
MOST_CHUNKS = 200
MOST_WIDTH, MOST_LAYERS, MOST_EDGES, MOST_GRID = 20, 3, 4000, 50
MOST_SECONDS = 600.0
SPLIT = ("Y = y[:, None]", "train, held = split(len(X), 0.2, 0)", "check = held if len(held) else train")
USUAL_INPUTS = 8  # inputs of a wide table that are chosen at first


@dataclass(frozen=True)
class Step:
    """A step that was made.

    Attributes:
        name: name of the function in `STEPS`.
        options: its keyword arguments, as JSON holds them.
        text: a line for the history.
        code: lines of Python that do the same.
    """

    name: str
    options: dict[str, Any]
    text: str
    code: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a step.

    Attributes:
        state: the state after it.
        text: a line for the history.
        code: lines of Python that do the same.
        options: options that replace the given ones, so that the step can be repeated as it was; None where it was not cut short.
    """

    state: State
    text: str
    code: Lines
    options: dict[str, Any] | None = None


def open_file(state: State, report: Report, *, name: str, data: str) -> Outcome:
    """Read a CSV file.

    Args:
        state: the state before.
        report: function that takes news.
        name: name of the file.
        data: bytes of the file in base64.

    Raises:
        ValueError: as in `parse_table`.
    """
    name = str(name).replace("\\", "/").split("/")[-1][:MAX_NAME] or "table.csv"
    try:
        table = parse_table(base64.b64decode(data, validate=True), name)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"{name}: expected the bytes of a file in base64 ({error})") from None
    return _usual(State(table), f"Open {name}", [f"table = read_table({name!r})"])


def open_example(state: State, report: Report, *, name: str) -> Outcome:
    """Open one of the examples.

    Args:
        state: the state before.
        report: function that takes news.
        name: name of the example.

    Raises:
        ValueError: an unknown name.
    """
    table = example_table(name)
    return _usual(State(table), f"Example: {EXAMPLES[name].title}", [f"table = example_table({name!r})"])


def open_network(
    state: State, report: Report, *, table: dict[str, list[float]], network: str, scales: dict[str, Any] | None = None
) -> Outcome:
    """Take a network and its data from Python.

    Args:
        state: the state before.
        report: function that takes news.
        table: columns of numbers by name, the target last.
        network: bytes of a file of `KAN.save` in base64.
        scales: fields of `Scales`; None where the network takes the columns as they are.

    Raises:
        ValueError: a file or table that cannot be read, or a network of several outputs or of other inputs.
    """
    names = [str(name)[:MAX_NAME] for name in table]
    columns = tuple(Column(name, np.asarray(values, dtype=np.float64)) for name, values in zip(names, table.values(), strict=True))
    cells = tuple(tuple(f"{column.values[n]:.6g}" for column in columns) for n in range(min(8, len(columns[0].values))))
    opened = Table(columns, cells, (), "network.safetensors")
    problem = Problem.of(opened, names[:-1], names[-1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        path.write_bytes(base64.b64decode(network))
        found = KAN.load(path).double()
    if found.nodes[0] != len(names) - 1 or found.nodes[-1] != 1:
        raise ValueError(f"network of {found.nodes[0]} inputs and {found.nodes[-1]} outputs: expected {len(names) - 1} and 1")
    given = (
        Scales.none(len(names) - 1) if scales is None else Scales(**{k: tuple(v) if isinstance(v, list) else v for k, v in scales.items()})
    )
    lines = [
        "# X (N, inputs) and y (N,) are the data of the call of explore; network.safetensors is its network.",
        'X, y = np.load("X.npy"), np.load("y.npy")',
        *SPLIT,
        *_scale_lines(given),
        'model = KAN.load("network.safetensors").double()',
    ]
    return Outcome(State(opened, problem, found, given), "Open a network", lines)


def _usual(state: State, text: str, lines: Lines) -> Outcome:
    """The state with the last column of numbers as target, explained by the strongest of the others."""
    table = state.need_table()
    if len(table.numeric) < 2:
        return Outcome(state, text, lines)
    target = table.numeric[-1]
    found = strengths(table, target)
    best = sorted(found, key=lambda name: -found[name])[:USUAL_INPUTS]
    inputs = [name for name in table.numeric if name in best]
    try:
        chosen = choose(state, lambda news: None, inputs=inputs, target=target)
    except ValueError:  # columns with too many gaps: the page asks for others
        return Outcome(state, text, lines)
    return Outcome(chosen.state, text, lines + chosen.code)


def choose(state: State, report: Report, *, inputs: Sequence[str], target: str) -> Outcome:
    """Choose the column to explain and those that explain it.

    Args:
        state: the state before.
        report: function that takes news.
        inputs: names of the columns that explain.
        target: name of the column to explain.

    Raises:
        ValueError: as in `Table.numbers`.
    """
    inputs = [str(name) for name in inputs]
    problem = Problem.of(state.need_table(), inputs, str(target))
    lines = [f"X, y = table.numbers({inputs!r}, {str(target)!r})", *SPLIT]
    text = f"Explain {target} by {', '.join(inputs[:3])}{', …' if len(inputs) > 3 else ''}"
    return Outcome(State(state.table, problem), text, lines)


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
            report({"progress": done / chunks, "loss": losses[-1], "outcome": outcome})
    except KeyboardInterrupt:
        if outcome is None:
            raise
    assert outcome is not None  # chunks is at least 1
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
    lines = _scale_lines(scales) + [f"model = KAN({width}, grid_size={grid_size}, seed={seed})"]
    return replace(state, network=KAN(width, grid_size, seed=seed), scales=scales, losses=(), chosen=None), lines


def _scale_lines(scales: Scales) -> Lines:
    center, half = f"np.array({list(scales.center)})", f"np.array({list(scales.half)})"
    return [
        f"center, half, shift, spread = {center}, {half}, {scales.shift!r}, {scales.spread!r}",
        "A, B = (X - center) / half, (Y - shift) / spread",
    ]


def prune(state: State, report: Report, *, threshold: float) -> Outcome:
    """Remove edges and hidden nodes of a score below a threshold.

    Args:
        state: the state before.
        report: function that takes news.
        threshold: least score of an edge or hidden node that stays.
    """
    threshold = real("threshold", threshold, 0)
    A = state.scales.inputs(state.need_problem().X)
    network = state.need_network().prune(A, threshold, threshold)
    gone = state.need_network().num_edges() - network.num_edges()
    return Outcome(
        state.changed(network), f"Prune below {threshold:g}: {gone} edges go", [f"model = model.prune(A, {threshold!r}, {threshold!r})"]
    )


def remove_edge(state: State, report: Report, *, edge: Sequence[int]) -> Outcome:
    """Remove an edge; its mean stays.

    Args:
        state: the state before.
        report: function that takes news.
        edge: (l, i, j) of the edge.
    """
    network = copy.deepcopy(state.need_network())
    layer, i, j = edge_of(network, edge)
    A = state.scales.inputs(state.need_problem().X)
    mean = float(network.layers[layer].edges(network.activations(A)[layer])[:, j, i].detach().mean())
    network.remove_edge(layer, i, j, mean)
    return Outcome(state.changed(network), f"Remove edge {layer},{i},{j}", [f"model.remove_edge({layer}, {i}, {j}, mean={mean!r})"])


def restore_edge(state: State, report: Report, *, edge: Sequence[int]) -> Outcome:
    """Make a removed edge numeric again.

    Args:
        state: the state before.
        report: function that takes news.
        edge: (l, i, j) of the edge.
    """
    network = copy.deepcopy(state.need_network())
    layer, i, j = edge_of(network, edge)
    network.restore_edge(layer, i, j, state.scales.inputs(state.need_problem().X))
    return Outcome(state.changed(network), f"Restore edge {layer},{i},{j}", [f"model.restore_edge({layer}, {i}, {j}, A)"])


def remove_node(state: State, report: Report, *, layer: int, node: int) -> Outcome:
    """Remove a hidden node.

    Args:
        state: the state before.
        report: function that takes news.
        layer: number of the layer of nodes, 1 is the first hidden one.
        node: number of the node in its layer.
    """
    network = state.need_network().remove_node(count("layer", layer), count("node", node, 0))
    return Outcome(state.changed(network), f"Remove node {node} of layer {layer}", [f"model = model.remove_node({layer}, {node})"])


def add_node(state: State, report: Report, *, layer: int) -> Outcome:
    """Add a node to a hidden layer; the function stays until the next training.

    Args:
        state: the state before.
        report: function that takes news.
        layer: number of the layer of nodes, 1 is the first hidden one.
    """
    network = state.need_network()
    if network.nodes[layer if 0 < layer < len(network.nodes) - 1 else 0] >= MOST_WIDTH:
        raise ValueError(f"layer={layer} has {MOST_WIDTH} nodes: expected fewer to add one")
    return Outcome(state.changed(network.expand_width(layer)), f"Add a node to layer {layer}", [f"model = model.expand_width({layer})"])


def fix(state: State, report: Report, *, edge: Sequence[int], function: str) -> Outcome:
    """Make an edge symbolic.

    Args:
        state: the state before.
        report: function that takes news.
        edge: (l, i, j) of the edge.
        function: name of a function of the library.
    """
    network = copy.deepcopy(state.need_network())
    layer, i, j = edge_of(network, edge)
    r2 = network.fix_symbolic(layer, i, j, str(function), state.scales.inputs(state.need_problem().X))
    text = f"Edge {layer},{i},{j} becomes {function}, R² {r2:.5f}"
    return Outcome(state.changed(network), text, [f"model.fix_symbolic({layer}, {i}, {j}, {str(function)!r}, A)"])


def unfix(state: State, report: Report, *, edge: Sequence[int]) -> Outcome:
    """Make a symbolic edge numeric again.

    Args:
        state: the state before.
        report: function that takes news.
        edge: (l, i, j) of the edge.
    """
    network = copy.deepcopy(state.need_network())
    layer, i, j = edge_of(network, edge)
    network.unfix(layer, i, j, state.scales.inputs(state.need_problem().X))
    return Outcome(state.changed(network), f"Edge {layer},{i},{j} becomes a spline again", [f"model.unfix({layer}, {i}, {j}, A)"])


def auto(state: State, report: Report, *, edges: Sequence[Sequence[int]] | None = None) -> Outcome:
    """Make edges symbolic that some function explains, each checked by training the rest.

    Args:
        state: the state before.
        report: function that takes news.
        edges: (l, i, j) of the edges to try; None for all.

    Raises:
        ValueError: no numeric edge among them, or none that a function fits.
    """
    network, problem = copy.deepcopy(state.need_network()), state.need_problem()
    wanted = None if edges is None else [edge_of(network, edge) for edge in edges]
    A, B = state.scales.inputs(problem.X[problem.train]), state.scales.targets(problem.y[problem.train])
    found = network.auto_symbolic(A, B, edges=wanted)
    names = [suggestion.name for suggestion in found.values() if suggestion is not None]
    if not names:
        raise ValueError(
            "no function of the library fits these edges: expected edges that are splines; remove what hardly matters, train on"
        )
    left = len(found) - len(names)
    text = f"Symbols: {', '.join(names[:4])}{', …' if len(names) > 4 else ''}{f'; {left} stay splines' if left else ''}"
    return Outcome(
        state.changed(network), text, [f"model.auto_symbolic(A[train], B[train]{'' if wanted is None else f', edges={wanted}'})"]
    )


def search(
    state: State,
    report: Report,
    *,
    seconds: float = 60.0,
    units: dict[str, str] | None = None,
    target_units: str | None = None,
) -> Outcome:
    """Search a formula; an interrupt ends it with the best so far.

    Args:
        state: the state before.
        report: function that takes news.
        seconds: time limit.
        units: unit of each input by its name; None where they are not known.
        target_units: unit of the target.
    """
    problem, began = state.need_problem(), time.monotonic()
    seconds = real("seconds", seconds, most=MOST_SECONDS, above=0)
    options: dict[str, Any] = {"max_seconds": seconds}
    if units is not None:
        options["units"] = {symbol: str(units.get(name, "")) for symbol, name in zip(problem.symbols, problem.inputs, strict=True)}
        options["target_units"] = str(target_units)
    regressor = KANRegressor(symbolic=True, **options).fit(problem.X[problem.train], problem.y[problem.train])
    rows = [FrontRow(row.complexity, row.loss, row.answer.printed(None), row.equation) for row in regressor._findings.rows]
    rows = [replace(row, full=_one(row.full), printed=_one(row.printed)) for row in rows]
    chosen = next(n for n, row in enumerate(regressor._findings.rows) if row is regressor._findings.chosen)
    if "cut short" in regressor.summary_:
        options["max_seconds"] = round(min(time.monotonic() - began, seconds), 1)
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    lines = [f"search = KANRegressor(symbolic=True{given}).fit(X[train], y[train])", "print(search.table_)"]
    after, text = replace(state, front=tuple(rows), chosen=None), f"Search: {len(rows)} formulas"
    cut = {"seconds": options["max_seconds"]}
    try:
        taken = take(after, report, row=chosen)
    except ValueError:  # a formula that no network computes; the page shows the others
        return Outcome(after, text, lines, cut)
    return Outcome(taken.state, text, lines + taken.code, cut)


def _one(expression: Any) -> sympy.Expr:
    return expression[0] if isinstance(expression, list) else expression


def take(state: State, report: Report, *, row: int) -> Outcome:
    """Take a formula of the last search; the network becomes one that computes it.

    Args:
        state: the state before.
        report: function that takes news.
        row: number of the formula in the front.

    Raises:
        ValueError: no such formula, or one with edges that have none.
    """
    if not state.front:
        raise ValueError("no formulas: expected a search first")
    found = state.front[count("row", row, 0, len(state.front) - 1)]
    if not found.symbolic:
        raise ValueError(f"formula {row + 1} has edges without a formula: expected another")
    problem, full = state.need_problem(), sympy.sstr(found.full, full_prec=True)
    # The text is our own, of the symbols x_1, x_2, ... and functions of the library.
    network = KAN.from_formula(found.full, problem.symbols)
    scales = Scales.none(len(problem.inputs))
    lines = _scale_lines(scales) + [f"model = KAN.from_formula({full!r}, {problem.symbols!r})"]
    return Outcome(replace(state, network=network, scales=scales, losses=(), chosen=row), f"Take formula {row + 1}", lines)


def edge_of(network: KAN, edge: Sequence[int]) -> Edge:
    """(l, i, j) of an edge that the network has.

    Args:
        network: the network.
        edge: three numbers, as JSON holds them.

    Raises:
        ValueError: there is no such edge.
    """
    if not isinstance(edge, Sequence) or len(edge) != 3:
        raise ValueError(f"edge={edge!r}: expected three numbers, layer, input and output")
    network.check_edge(*edge)
    return edge[0], edge[1], edge[2]


STEPS: dict[str, Callable[..., Outcome]] = {
    function.__name__: function
    for function in (
        *(open_file, open_example, open_network, choose, train, prune, remove_edge, restore_edge),
        *(remove_node, add_node, fix, unfix, auto, search, take),
    )
}
