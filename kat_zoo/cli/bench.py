"""`kat-zoo bench`: kernels and models on a GPU beside those of PyTorch and timm; a dry run of the same code on a CPU."""

import argparse
import sys

import torch

from .._arguments import require_writable
from .._checks import real
from ..bench import table
from ..bench.run import measure
from ..bench.timing import timer


def run(options: argparse.Namespace) -> int:
    """Measure, and print the page.

    Args:
        options: parsed arguments of `kat-zoo bench`.

    Returns:
        Exit code: 0, or 1 where a figure has failed.

    Raises:
        ValueError: no GPU, a bad option, or a file of another device.
    """
    real("--seconds", options.seconds, 0)
    require_writable("--csv", options.csv)
    require_writable("--page", options.page)
    clock = timer(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    rows, left = measure(clock, options.parts, options.seconds, options.csv, options.page)
    sys.stdout.write(table.page(rows, left))
    return int(any(not row["us"] for row in rows))
