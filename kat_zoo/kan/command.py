"""`kat-zoo formula data.csv --target y`: a formula for a column of a table."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import ArgumentParser


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and numbers of a CSV file with a header.

    Raises:
        ValueError: no header, no rows, or a cell that is not a number.
    """
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) < 2:
        raise ValueError(f"{path} has {len(rows)} lines; expected a header and rows of numbers")
    names, values = [name.strip() for name in rows[0]], []
    for number, row in enumerate(rows[1:], 2):
        try:
            values.append([float(cell) for cell in row])
        except ValueError:
            raise ValueError(f"{path}, line {number}: {','.join(row)!r}; expected {len(names)} numbers") from None
        if len(row) != len(names):
            raise ValueError(f"{path}, line {number} has {len(row)} cells; expected {len(names)}, as in the header")
    return names, np.array(values)


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
    names, values = read_table(options.data)
    inputs = options.inputs or [name for name in names if name != options.target]
    for name in [options.target, *inputs]:
        if name not in names:
            raise ValueError(f"no column {name!r} in {options.data}; expected one of {', '.join(names)}")
    from sympy import Symbol

    from .regressor import KANRegressor

    regressor: Any = KANRegressor(symbolic=True, random_state=options.seed, max_seconds=options.max_seconds)
    logger = logging.getLogger("kat_zoo")
    level = logger.level
    logger.setLevel(logging.WARNING if options.quiet else logging.INFO)
    try:
        regressor.fit(values[:, [names.index(name) for name in inputs]], values[:, names.index(options.target)])
    finally:
        logger.setLevel(level)
    to_names = {Symbol(f"x_{i + 1}"): Symbol(name) for i, name in enumerate(inputs)}
    print(f"{'complexity':>10}  {'held-out RMSE':>13}  {options.target} =")
    for size, loss, equation in regressor.table_:
        print(f"{size:>10}  {loss:>13.3g}  {equation.subs(to_names)}")
    verdict = "exact on held-out data" if regressor.exact_ else "not exact"
    if "phi_" in str(regressor.formula_):
        verdict += "; edges phi_layer_input_output fit no function of the library and stay numeric"
    print(f"\n{options.target} = {regressor.formula_.subs(to_names)}   ({verdict})")
    if options.latex:
        import sympy

        print(sympy.latex(regressor.formula_.subs(to_names)))
    if options.plot:
        regressor.plot(variables=inputs, outputs=[options.target]).savefig(options.plot)
    return 0
