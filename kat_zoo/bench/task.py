"""A figure to take: what it is, how urgent, how long; and the sizes of a benchmark and of its dry run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .timing import Timer, Timing


class WrongResult(ValueError):
    """A result differs from its formula in float64, so that its time says nothing."""


@dataclass(frozen=True)
class Task:
    """A figure to take.

    Attributes:
        part: part of the benchmark.
        case: operands, which several tasks share.
        what: function or model.
        direction: "forward", "backward", "inference" or "training".
        run: function timer -> figures.
        rank: place in the order, 0 for the most important.
        seconds: expected duration on a GPU.
        amount: bytes, floating-point operations or images of a call; None where none is counted.
    """

    part: str
    case: str
    what: str
    direction: str
    run: Callable[[Timer], Timing]
    rank: int
    seconds: float
    amount: float | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The names that tell a task, or its row, from all others."""
        return self.part, self.case, self.what, self.direction


@dataclass(frozen=True)
class Scale:
    """The sizes of a benchmark.

    Attributes:
        matrix: rows and columns of the matrices that show the device's ceilings.
        rows: tokens of a batch.
        widths: channels of the rational.
        heads: numbers of heads of attention.
        tokens: numbers of tokens of attention.
        networks: rows and widths of KAN networks.
        sizes: sizes of models.
        batches: images in a batch.
    """

    matrix: int
    rows: int
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    tokens: tuple[int, ...]
    networks: tuple[tuple[int, tuple[int, ...]], ...]
    sizes: tuple[str, ...]
    batches: tuple[int, ...]


FULL = Scale(
    matrix=8192,
    rows=128 * 197,
    widths=(192, 384, 768, 1536, 3072),  # act1 of KAT-T, S and B is a quarter as wide as act2, so that B's act1 is T's act2
    heads=(3, 6, 12),
    tokens=(197, 577, 1025),
    networks=((1024, (784, 64, 10)), (36864, (784, 64, 10)), (128 * 197, (192, 768))),
    sizes=("tiny", "small", "base"),
    batches=(128, 256),
)
DRY = Scale(
    matrix=32, rows=34, widths=(16,), heads=(1,), tokens=(17,), networks=((8, (6, 5, 3)), (9, (4, 16))), sizes=("pico",), batches=(4,)
)


def checked(found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float) -> float:
    """Compare results with those in float64.

    Args:
        found: results.
        wanted: the same in float64.
        tolerance: largest norm of an error relative to that of the result.

    Returns:
        The largest relative error.

    Raises:
        WrongResult: an error above the tolerance, or not a number.
    """
    errors = [(a.double() - b.double()).norm() / b.double().norm() for a, b in zip(found, wanted, strict=True)]
    error = float(torch.stack(errors).max())  # NaN, where one of them is
    if not error <= tolerance:
        raise WrongResult(f"relative error {error:.1e}: expected at most {tolerance:.0e}")
    return error
