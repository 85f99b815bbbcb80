"""Steps that open a table, and choose its columns."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..kan import KAN
from .examples import EXAMPLES, example_table
from .outcome import SPLIT, Lines, Outcome, Report, scale_lines
from .state import Problem, Scales, State, strengths
from .tables import MAX_NAME, Column, Table, parse_table, unique_names

USUAL_INPUTS = 8  # inputs of a wide table that are chosen at first
LEAST_FILLED = 0.5  # part of the rows with a target that must have numbers in all of them


def open_file(state: State, report: Report, *, name: str, data: str, target: str | None = None) -> Outcome:
    """Read a CSV file.

    Args:
        state: the state before.
        report: function that takes news.
        name: name of the file.
        data: bytes of the file in base64.
        target: name of the column to explain; the last one of numbers by default.

    Raises:
        ValueError: as in `parse_table`, or a target that is not a column of numbers.
    """
    name = str(name).replace("\\", "/").split("/")[-1][:MAX_NAME] or "table.csv"
    try:
        table = parse_table(base64.b64decode(data, validate=True), name)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"{name}: expected the bytes of a file in base64 ({error})") from None
    return _usual(State(table), f"Open {name}", [f"table = read_table({name!r})"], target)


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


def network_bytes(network: KAN) -> bytes:
    """The file of `KAN.save` as bytes, which `open_network` reads.

    Args:
        network: the network.

    Raises:
        ValueError: as in `KAN.save`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        network.save(path)
        return path.read_bytes()


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
    names = unique_names([str(name) for name in table], [])
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
    given = Scales.none(len(names) - 1) if scales is None else Scales.read(scales, len(names) - 1)
    lines = [
        "# X (N, inputs) and y (N,) are the data of the call of explore; network.safetensors is its network.",
        'X, y = np.load("X.npy"), np.load("y.npy")',
        *SPLIT,
        *scale_lines(given),
        'model = KAN.load("network.safetensors").double()',
    ]
    return Outcome(State(opened, problem, found, given), "Open a network", lines)


def _usual(state: State, text: str, lines: Lines, target: str | None = None) -> Outcome:
    """The state with a target, the last column of numbers by default, explained by the strongest of the others."""
    table = state.need_table()
    if len(table.numeric) < 2:
        return Outcome(state, text, lines)
    target = table.numeric[-1] if target is None else target
    best = _strongest(table, target)
    inputs = [name for name in table.numeric if name in best]
    try:
        chosen = choose(state, lambda news: None, inputs=inputs, target=target)
    except ValueError:  # columns with too many gaps: the page asks for others
        return Outcome(state, text, lines)
    return Outcome(chosen.state, text, lines + chosen.code)


def _strongest(table: Table, target: str) -> list[str]:
    """The strongest columns, without those whose gaps would leave few rows."""
    known = np.isfinite(table.column(target).values)
    found, least, best = strengths(table, target), LEAST_FILLED * known.sum(), list[str]()
    for name in sorted(found, key=lambda name: -found[name]):
        filled = known & np.isfinite(table.column(name).values)
        if len(best) < USUAL_INPUTS and filled.sum() >= least:
            known, best = filled, [*best, name]
    return best


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
