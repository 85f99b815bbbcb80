"""`kat-zoo formula data.csv --target y`: a formula for a column of a table."""

from __future__ import annotations

import csv
import logging
import math
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arguments import ArgumentParser, require_writable

if TYPE_CHECKING:
    from .sklearn.regressor import KANRegressor

PICTURES = (".svg", ".pdf", ".png")
FIRST = 5  # lines that a message names


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and cells of each line that is not empty, at least two."""
    with path.open(newline="", encoding="utf-8-sig") as file:  # Excel begins its files with a byte order mark
        reader = csv.reader(file)
        try:
            rows = [(reader.line_num, row) for row in reader if row]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} ({error}): expected a text file in UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num} ({error}): expected a CSV file") from None
    if len(rows) < 2:
        raise ValueError(f"{path} of {len(rows)} lines: expected a header and rows of numbers")
    return rows


def _check_header(path: Path, names: list[str]) -> None:
    if all(_is_number(name) for name in names):
        raise ValueError(f"{path} begins with numbers, {','.join(names)!r}: expected a header, a first line of column names")
    if len(names) == 1 and re.search("[;\t]", names[0]):
        raise ValueError(f"{path} begins with {names[0]!r}: expected cells separated by commas")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has several columns named {', '.join(map(repr, twice))}: expected a name of its own for each")


def read_cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names of a CSV file, and line number and cells of each row.

    Args:
        path: the file.

    Raises:
        ValueError: not UTF-8, no header or one that names a column twice, no rows, or rows of another length.
    """
    (_, header), *rows = _read_rows(path)
    names = [name.strip() for name in header]
    _check_header(path, names)
    for number, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {number} of {len(row)} cells: expected {len(names)}, as in the header")
    return names, rows


def to_numbers(path: Path, names: Sequence[str], rows: Sequence[tuple[int, list[str]]], wanted: Sequence[str]) -> np.ndarray:
    """Numbers of some columns, (rows, columns).

    Args:
        path: the file, for messages.
        names: names of all columns.
        rows: line number and cells of each row.
        wanted: names of the columns.

    Raises:
        ValueError: cells that are not finite numbers; the first is named, the others are counted.
    """
    columns = [names.index(name) for name in wanted]
    bad = [(line, i, row[i]) for line, row in rows for i in columns if not _is_number(row[i])]
    if bad:
        (line, i, cell), lines = bad[0], sorted({line for line, *_ in bad})
        text = f"{path}, line {line}, {names[i]}={cell!r}: expected a finite number"
        if len(bad) > 1:
            where = ", ".join(repr(names[i]) for i in columns if any(i == other for _, other, _ in bad))
            shown = ", ".join(map(str, lines[:FIRST])) + (", ..." if len(lines) > FIRST else "")
            text += f"; {len(lines)} of {len(rows)} rows have none in columns {where} (lines {shown})"
        raise ValueError(text)
    return np.array([[float(row[i]) for i in columns] for _, row in rows])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text  # Python reads 1_0 as 10
    except ValueError:
        return False


def _check_columns(options: Namespace, inputs: list[str], names: list[str]) -> None:
    if options.inputs is None and "" in inputs:
        raise ValueError(f"a column of {options.data} has no name: expected --inputs with the columns to use, or a header that names it")
    for name in [options.target, *inputs]:
        if not name or name not in names:
            raise ValueError(f"column {name!r} is not in {options.data}: expected one of {', '.join(filter(None, names))}")
    if options.target in inputs or len(set(inputs)) < len(inputs):
        raise ValueError(f"--inputs {' '.join(inputs)}: expected each column once, and not the target {options.target!r}")
    _check_units(options, inputs)
    if not inputs:
        raise ValueError(f"{options.data} has the column {options.target!r} only: expected at least one input beside the target")


def _check_units(options: Namespace, inputs: list[str]) -> None:
    if options.units is None:
        for option, value in (("--target-units", options.target_units), ("--constants", options.constants)):
            if value is not None:
                raise ValueError(f"{option}: expected --units of the inputs, too")
        return
    if options.target_units is None:
        raise ValueError("--units without --target-units: expected the unit of the target, 1 for none")
    wrong = sorted(set(options.units) ^ set(inputs))
    if wrong:
        raise ValueError(f"--units and inputs differ in {', '.join(map(repr, wrong))}: expected a unit for each input, 1 for none")
    both = sorted(set(options.constants or ()) & {*inputs, options.target})
    if both:
        raise ValueError(f"--constants {', '.join(both)}: expected names that are not those of columns")


def _check_picture(path: Path) -> None:
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"--plot {path}: expected a name that ends in {', '.join(PICTURES)}")
    require_writable("--plot", path)


def _verdict(regressor: KANRegressor) -> str:
    rows = regressor.held_out_
    if not rows:
        verdict = "not verified: no held-out row is new; at least 20 rows, most of them different, are needed"
    else:
        verdict = f"{'exact' if regressor.exact_ else 'not exact, the best trade-off of length and error'} on {rows} held-out rows"
    if "phi_" in str(regressor.formula_):
        verdict += "; edges phi_layer_input_output fit no function of the library and stay numeric"
    if "cut short" in regressor.summary_:
        verdict += "; the search was cut short"
    return verdict


def _pairs(option: str, text: str | None) -> dict[str, str] | None:
    """Names and texts of 'm=kg, r=m'."""
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and value.strip() for name, _, value in parts):
        raise ValueError(f"{option} {text!r}: expected names and units, such as 'm=kg, r=m'")
    return {name.strip(): value.strip() for name, _, value in parts}


def _parse(argv: Sequence[str]) -> Namespace:
    parser = ArgumentParser("kat-zoo formula", description="Find a formula for one column of a CSV file.")
    parser.add_argument("data", type=Path, help="CSV file with a header")
    parser.add_argument("--target", required=True, help="column to explain")
    parser.add_argument("--inputs", nargs="+", help="columns to use; all others by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, help="end the search after this time with the best so far; so does Ctrl-C")
    parser.add_argument("--units", help="units of the inputs, such as 'm=kg, r=m' (1 for none): only consistent formulas are found")
    parser.add_argument("--target-units", help="unit of the target, with --units")
    parser.add_argument("--constants", help="constants that may be in the formula, such as 'G=6.674e-11 m^3/kg/s^2', with --units")
    parser.add_argument("--explain", type=Path, metavar="DIR", help="write a page of text and pictures about the formula to a folder")
    parser.add_argument("--latex", action="store_true", help="print the chosen formula as LaTeX")
    parser.add_argument("--quiet", action="store_true", help="show no progress of the search")
    parser.add_argument("--plot", type=Path, help="write a picture of the network (.svg, .pdf or .png)")
    options: Namespace = parser.parse_args(argv)
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed {options.seed}: expected an integer from 0 to 2**32 - 1")
    if options.max_seconds is not None and not options.max_seconds > 0:
        raise ValueError(f"--max-seconds {options.max_seconds:g}: expected a positive number")
    options.units, options.constants = _pairs("--units", options.units), _pairs("--constants", options.constants)
    if options.explain and options.explain.exists() and not options.explain.is_dir():
        raise ValueError(f"--explain {options.explain}: expected a folder, this is a file")
    if options.plot:
        _check_picture(options.plot)
    return options


def _search(options: Namespace, X: np.ndarray, y: np.ndarray, inputs: Sequence[str]) -> KANRegressor:
    from .sklearn.regressor import KANRegressor

    units = None if options.units is None else {f"x_{i + 1}": options.units[name] for i, name in enumerate(inputs)}
    live = not options.quiet and sys.stderr.isatty()
    given: dict[str, Any] = {"units": units, "target_units": options.target_units, "constants": options.constants}
    regressor = KANRegressor(symbolic=True, random_state=options.seed, max_seconds=options.max_seconds, verbose=live, **given)
    logger = logging.getLogger("kat_zoo")
    level = logger.level
    logger.setLevel(logging.WARNING if options.quiet or live else logging.INFO)
    try:
        return regressor.fit(X, y)
    finally:
        logger.setLevel(level)


def _print(regressor: KANRegressor, options: Namespace, inputs: list[str]) -> None:
    from sympy import Symbol, sstr

    from .formula.export import to_latex
    from .search.judge import ENOUGH_HELD

    to_names = {Symbol(f"x_{i + 1}"): Symbol(name) for i, name in enumerate(inputs)}
    # Fewer held-out rows do not judge alone.
    error = "held-out RMSE" if regressor.held_out_ >= ENOUGH_HELD else "RMSE" if regressor.held_out_ else "training RMSE"
    print(f"{'complexity':>10}  {error:>13}  {options.target} =")
    for row in regressor._findings.rows:
        print(f"{row.complexity:>10}  {row.loss:>13.3g}  {sstr(row.equation.xreplace(to_names), full_prec=False)}")
    found = regressor.formula_.xreplace(to_names)
    print(f"\n{options.target} = {sstr(found, full_prec=False)}   ({_verdict(regressor)})")
    for value, unit in getattr(regressor, "constant_units_", ()):
        print(f"{value:.6g} is in {unit}")
    if options.latex:
        print(to_latex(found))


def main(argv: Sequence[str]) -> int:
    """Search a formula and print a table of candidates; exit code 0."""
    options = _parse(argv)
    names, rows = read_cells(options.data)
    inputs = options.inputs or [name for name in names if name != options.target]
    _check_columns(options, inputs, names)
    values = to_numbers(options.data, names, rows, [*inputs, options.target])
    regressor = _search(options, values[:, :-1], values[:, -1], inputs)
    _print(regressor, options, inputs)
    if options.explain:
        regressor.explain(options.explain, names=inputs)
    if options.plot:
        from .operations.plot import plain

        regressor.plot(variables=plain(inputs), outputs=plain([options.target])).savefig(options.plot)
    return 0
