"""A table from a CSV file as people have them: separators, decimal commas, encodings and gaps are guessed, and each guess is told."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

MAX_BYTES = 20_000_000
MAX_ROWS, MAX_COLUMNS = 100_000, 1_000
MAX_NAME = 80  # characters of a column's name
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "?", ".", "#n/a", "missing"})
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
UNIT = re.compile(r"(?P<name>.*\S)\s*[\[(](?P<unit>[^\[\]()]{1,20})[\])]")
LEAST_NUMBERS = 0.5  # part of the filled cells that must be numbers in a column of numbers
SHOWN = 5  # line numbers that a note names
SAMPLE = 50  # lines that the separator is guessed from


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: name in the header, made unique.
        values: (rows,) numbers, NaN where a cell has none.
        unit: unit in the header, as in "mass [kg]"; empty where there is none.
        text: whether most cells are words, so that the column cannot be used.
        missing: number of cells without a number.
    """

    name: str
    values: np.ndarray
    unit: str = ""
    text: bool = False
    missing: int = 0


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes:
        columns: columns in the order of the file.
        cells: first rows as text, for a preview.
        notes: sentences about guesses and faults, with the lines they are at.
        name: name of the file or example.
    """

    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    name: str
    _by_name: dict[str, Column] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_name.update({column.name: column for column in self.columns})

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns[0].values)

    @property
    def numeric(self) -> list[str]:
        """Names of the columns of numbers."""
        return [column.name for column in self.columns if not column.text]

    def column(self, name: str) -> Column:
        """A column by its name.

        Raises:
            ValueError: there is no such column, or it holds words.
        """
        if name not in self._by_name:
            raise ValueError(f"column {name[:MAX_NAME]!r}: expected a column of the table")
        if self._by_name[name].text:
            raise ValueError(f"column {name!r} holds words: expected a column of numbers")
        return self._by_name[name]

    def numbers(self, inputs: Sequence[str], target: str) -> tuple[np.ndarray, np.ndarray]:
        """Inputs X (N, inputs) and target y (N,) of the rows that have a number in each of these columns.

        Args:
            inputs: names of the columns that explain.
            target: name of the column to explain.

        Raises:
            ValueError: no inputs, a column twice or of words, or no row that has all numbers.
        """
        if not inputs or target in inputs or len(set(inputs)) < len(inputs):
            raise ValueError(f"inputs={list(inputs)[:SHOWN]}: expected at least one column, each once, without the target")
        values = np.column_stack([self.column(name).values for name in [*inputs, target]])
        values = values[np.isfinite(values).all(1)]
        if len(values) < 2:
            raise ValueError(f"{len(values)} rows have a number in each chosen column: expected at least 2; leave out columns with gaps")
        return values[:, :-1], values[:, -1]


def read_table(path: str | Path) -> Table:
    """Read a CSV file.

    Args:
        path: the file.

    Raises:
        ValueError: as in `parse_table`.
    """
    path = Path(path)
    return parse_table(path.read_bytes(), path.name)


def parse_table(data: bytes, name: str = "table.csv") -> Table:
    """Read the bytes of a CSV file.

    Args:
        data: the file's bytes.
        name: name of the file, for messages.

    Raises:
        ValueError: an empty file, one that is not text, a table of too many rows or columns, or one without numbers.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} of {len(data) / 1e6:.0f} MB: expected at most {MAX_BYTES // 1_000_000} MB")
    notes: list[str] = []
    text = _decode(data, name, notes)
    separator = _separator(text)
    if separator != ",":
        notes.append(f"Cells are separated by {SEPARATORS[separator]}.")
    rows = _rows(text, separator, name)
    if separator != "," and _has_decimal_commas(rows):
        notes.append("Numbers have decimal commas.")
        rows = [(n, [cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell for cell in row]) for n, row in rows]
    header, lines = _header(rows, notes)
    if len(header) > MAX_COLUMNS:
        raise ValueError(f"{name} of {len(header):,} columns: expected at most {MAX_COLUMNS:,}")
    lines = _full_lines(lines, len(header), notes)
    if not lines:
        raise ValueError(f"{name} has a header and no rows: expected rows of numbers")
    columns = tuple(_column(i, title, lines, notes) for i, title in enumerate(unique_names(header, notes)))
    if not any(not column.text and np.isfinite(column.values).any() for column in columns):
        raise ValueError(f"{name} has no column of numbers: expected at least two")
    _note_repeats(columns, notes)
    return Table(columns, tuple(tuple(cell[:MAX_NAME] for cell in row) for _, row in lines[:8]), tuple(notes), name)


def _decode(data: bytes, name: str, notes: list[str]) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        notes.append("Read as UTF-16.")
        return _some(data.decode("utf-16", errors="replace"), name)
    if b"\0" in data[:4096] or not data.strip():
        raise ValueError(f"{name} is {'not a text file' if data.strip() else 'empty'}: expected a CSV file")
    try:
        return _some(data.decode("utf-8-sig"), name)  # Excel begins its files with a byte order mark
    except UnicodeDecodeError:
        notes.append("The file is not in UTF-8; it was read as Windows-1252.")
        return data.decode("cp1252", errors="replace")


def _some(text: str, name: str) -> str:
    """The text, or a ValueError where there is none."""
    if not text.strip():
        raise ValueError(f"{name} is empty: expected a CSV file")
    return text


def _separator(text: str) -> str:
    """The separator that cuts most of the first lines into the same number of cells, more than one."""
    lines = [line for line in text.splitlines()[:SAMPLE] if line.strip()]

    def agreement(separator: str) -> tuple[float, int]:
        counts = Counter(len(row) for row in csv.reader(lines, delimiter=separator))
        cells, often = counts.most_common(1)[0]
        return (often / len(lines), cells) if cells > 1 else (0.0, 1)

    try:
        return max(SEPARATORS, key=agreement)
    except csv.Error:
        return ","


def _rows(text: str, separator: str, name: str) -> list[tuple[int, list[str]]]:
    """Number and cells of each line that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, [cell.strip() for cell in row]))
            if len(rows) > MAX_ROWS + 1:
                raise ValueError(f"{name} has more than {MAX_ROWS:,} rows: expected at most that; a sample says as much")
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num} ({error}): expected a CSV file") from None
    if not rows:
        raise ValueError(f"{name} has empty cells alone: expected a header and rows of numbers")
    return rows


def _header(rows: list[tuple[int, list[str]]], notes: list[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    first = rows[0][1]
    numbers = [_number(cell) is not None for cell in first]
    if any(numbers) and all(known or cell.lower() in MISSING for known, cell in zip(numbers, first, strict=True)):
        notes.append(f"The file has no header: columns are called x_1 to x_{len(first)}.")
        return [f"x_{i + 1}" for i in range(len(first))], rows
    return first, rows[1:]


def _count(things: Sequence[object] | int, noun: str) -> str:
    number = things if isinstance(things, int) else len(things)
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _lines_text(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:SHOWN]) + (", …" if len(numbers) > SHOWN else "")
    return f"line{'s' if len(numbers) > 1 else ''} {shown}"


def _full_lines(lines: list[tuple[int, list[str]]], width: int, notes: list[str]) -> list[tuple[int, list[str]]]:
    """The lines with as many cells as the header; empty cells at the end are cut or added."""
    full, wrong = [], []
    for number, row in lines:
        if len(row) > width and not any(row[width:]):
            row = row[:width]
        if len(row) == width:
            full.append((number, row))
        else:
            wrong.append(number)
    if wrong:
        notes.append(f"{_count(wrong, 'row')} of another length than the header left out ({_lines_text(wrong)}).")
    return full


def _has_decimal_commas(lines: Sequence[tuple[int, list[str]]]) -> bool:
    cells = [cell for _, row in lines for cell in row]
    commas = sum(bool(DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    return commas > 0 and commas >= sum("." in cell and _number(cell) is not None for cell in cells)


def unique_names(header: Sequence[str], notes: list[str]) -> list[str]:
    """Names of columns, short and distinct.

    Args:
        header: names as they were given.
        notes: sentences for the user, to which one on changed names is added.
    """
    names: list[str] = []
    changed = []
    for i, cell in enumerate(header):
        base = " ".join(cell.split())[:MAX_NAME] or f"column {i + 1}"
        name, copy = base, 2
        while name in names:
            name, copy = f"{base} ({copy})", copy + 1
        if name != cell:
            changed.append(name)
        names.append(name)
    if changed:
        notes.append(f"Columns without a name of their own are called {', '.join(map(repr, changed[:SHOWN]))}.")
    return names


def _number(cell: str) -> float | None:
    """The finite number of a cell, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None  # Python reads 1_0 as 10


def _column(i: int, name: str, lines: Sequence[tuple[int, list[str]]], notes: list[str]) -> Column:
    found = [_number(row[i]) for _, row in lines]
    filled = sum(row[i].lower() not in MISSING for _, row in lines)
    values = np.array([math.nan if value is None else value for value in found])
    numbers = int(np.isfinite(values).sum())
    match = UNIT.fullmatch(name)
    unit = match["unit"].strip() if match else ""
    if numbers < LEAST_NUMBERS * max(filled, 1):
        notes.append(f"Column {name!r} {'holds words' if filled else 'is empty'} and is left out.")
        return Column(name, values, unit, True, len(values) - numbers)
    gaps = [line for (line, _), value in zip(lines, found, strict=True) if value is None]
    if gaps:
        notes.append(f"Column {name!r} has {_count(gaps, 'cell')} without a number ({_lines_text(gaps)}); such rows are left out.")
    elif len(values) > 1 and np.ptp(values) == 0:
        notes.append(f"Column {name!r} is always {values[0]:g}.")
    return Column(name, values, unit, False, len(gaps))


def _note_repeats(columns: Sequence[Column], notes: list[str]) -> None:
    table = np.column_stack([column.values for column in columns if not column.text])
    table = table[np.isfinite(table).all(1)]
    if table.size and (repeats := len(table) - len(np.unique(table, axis=0))):
        notes.append(f"{_count(repeats, 'row')} repeat{'s' if repeats == 1 else ''} another row.")
