"""`kat-zoo formula data.csv --target y`: a formula for a column of a table."""

from __future__ import annotations

import csv
import logging
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._arguments import ArgumentParser

PICTURES = (".svg", ".pdf", ".png")


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and numbers of a CSV file with a header.

    Raises:
        ValueError: no UTF-8, no header or one that names a column twice, no rows, or a cell that is not a finite number.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:  # Excel begins its files with a byte order mark
        reader = csv.reader(file)
        try:
            rows = [(reader.line_num, row) for row in reader if row]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 ({error}): expected a text file in UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}: expected a CSV file") from None
    if len(rows) < 2:
        raise ValueError(f"{path} has {len(rows)} lines: expected a header and rows of numbers")
    header = rows[0][1]
    names, values = [name.strip() for name in header], []
    if all(_is_number(name) for name in names):
        raise ValueError(f"{path} begins with numbers, {','.join(header)!r}: expected a header: add a first line of column names")
    if len(names) == 1 and re.search("[;\t]", names[0]):
        raise ValueError(f"{path} begins with {names[0]!r}: expected cells separated by commas")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has several columns named {', '.join(map(repr, twice))}: expected a name of its own for each")
    for number, row in rows[1:]:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {number} has {len(row)} cells: expected {len(names)}, as in the header")
        for name, cell in zip(names, row, strict=True):
            if not _is_number(cell):
                raise ValueError(f"{path}, line {number}: {name or 'the column without a name'} is {cell!r}: expected a finite number")
        values.append([float(cell) for cell in row])
    return names, np.array(values)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text  # Python reads 1_0 as 10
    except ValueError:
        return False


def _check_columns(options: Any, inputs: list[str], names: list[str]) -> None:
    if options.inputs is None and "" in inputs:
        raise ValueError(f"a column of {options.data} has no name: expected --inputs with the columns to use, or a header that names it")
    for name in [options.target, *inputs]:
        if not name or name not in names:
            raise ValueError(f"no column {name!r} in {options.data}: expected one of {', '.join(filter(None, names))}")
    if options.target in inputs or len(set(inputs)) < len(inputs):
        raise ValueError(f"--inputs {' '.join(inputs)}: expected each column once, and not the target {options.target!r}")
    if not inputs:
        raise ValueError(f"{options.data} has the column {options.target!r} only: expected at least one input beside the target")


def _check_picture(path: Path) -> None:
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"--plot {path}: expected a name that ends in {', '.join(PICTURES)}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"--plot {path} cannot be written: expected a file in a folder that exists and is writable")


def _verdict(regressor: Any) -> str:
    rows = regressor.held_out_
    if not rows:
        verdict = "not verified: no held-out row is new; at least 20 rows, most of them different, are needed"
    else:
        verdict = f"{'exact' if regressor.exact_ else 'not exact'} on {rows} held-out rows"
    if "phi_" in str(regressor.formula_):
        verdict += "; edges phi_layer_input_output fit no function of the library and stay numeric"
    return verdict


def main(argv: Sequence[str]) -> int:
    """Search a formula and print a table of candidates; exit code 0."""
    parser = ArgumentParser("kat-zoo formula", description="Find a formula for one column of a CSV file.")
    parser.add_argument("data", type=Path, help="CSV file with a header")
    parser.add_argument("--target", required=True, help="column to explain")
    parser.add_argument("--inputs", nargs="+", help="columns to use; all others by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, help="begin no further network shape after this time")
    parser.add_argument("--latex", action="store_true", help="print the chosen formula as LaTeX")
    parser.add_argument("--quiet", action="store_true", help="do not log each network shape of the search")
    parser.add_argument("--plot", type=Path, help="write a picture of the network (.svg, .pdf or .png)")
    options = parser.parse_args(argv)
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed {options.seed}: expected an integer from 0 to 2**32 - 1")
    if options.max_seconds is not None and not options.max_seconds > 0:
        raise ValueError(f"--max-seconds {options.max_seconds:g}: expected a positive number")
    if options.plot:
        _check_picture(options.plot)
    names, values = read_table(options.data)
    inputs = options.inputs or [name for name in names if name != options.target]
    _check_columns(options, inputs, names)
    from sympy import Symbol, latex, sstr

    from .operations.plot import plain
    from .sklearn.regressor import KANRegressor

    regressor: Any = KANRegressor(symbolic=True, random_state=options.seed, max_seconds=options.max_seconds)
    logger = logging.getLogger("kat_zoo")
    level = logger.level
    logger.setLevel(logging.WARNING if options.quiet else logging.INFO)
    try:
        regressor.fit(values[:, [names.index(name) for name in inputs]], values[:, names.index(options.target)])
    finally:
        logger.setLevel(level)
    to_names = {Symbol(f"x_{i + 1}"): Symbol(name) for i, name in enumerate(inputs)}
    print(f"{'complexity':>10}  {'held-out RMSE' if regressor.held_out_ else 'training RMSE':>13}  {options.target} =")
    for size, loss, equation in regressor.table_:
        print(f"{size:>10}  {loss:>13.3g}  {sstr(equation.xreplace(to_names), full_prec=False)}")
    found = regressor.formula_.xreplace(to_names)
    print(f"\n{options.target} = {sstr(found, full_prec=False)}   ({_verdict(regressor)})")
    if options.latex:
        print(latex(found))
    if options.plot:
        regressor.plot(variables=plain(inputs), outputs=plain([options.target])).savefig(options.plot)
    return 0
