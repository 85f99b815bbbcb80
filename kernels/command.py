"""`kat-zoo kernels`: a table of subcommands, each a module with `add_arguments(parser)` and `run(options)`."""

import argparse
import importlib
from collections.abc import Sequence
from typing import NoReturn

# name -> (module of kat_zoo.kernels, help)
SUBCOMMANDS = {
    "report": ("report", "compile the Triton kernels ahead of time, without a GPU, and tabulate registers, spills and instructions"),
    "hub-export": ("hub_export", "write the kernels as a Kernel Hub kernel, for the kernels package"),
}


class _ArgumentParser(argparse.ArgumentParser):
    """A copy of `kat_zoo._arguments.ArgumentParser`, which this package does not import: it is exported alone."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str]) -> int:
    """Run `kat-zoo kernels SUBCOMMAND ...`.

    Raises:
        ValueError: bad arguments.
    """
    parser = _ArgumentParser(prog="kat-zoo kernels", description="The GPU kernels of kat_zoo.")
    subparsers = parser.add_subparsers(required=True, metavar="SUBCOMMAND")
    for name, (module, text) in SUBCOMMANDS.items():
        implementation = importlib.import_module(f"kat_zoo.kernels.{module}")
        subparser = subparsers.add_parser(name, help=text, description=implementation.__doc__)
        implementation.add_arguments(subparser)
        subparser.set_defaults(run=implementation.run)
    options = parser.parse_args(argv)
    options.run(options)
    return 0
