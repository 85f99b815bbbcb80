"""The options of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..._checks import choice, count, is_count, real

OPTIMIZERS = ("lm", "lbfgs", "adam")
LEARNING_RATES = {"lbfgs": 1.0, "adam": 1e-2}
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FitOptions:
    """Options of `fit`, which describes them.

    Raises:
        ValueError: options that make no sense, alone or together.
    """

    optimizer: str = "lm"
    steps: int = 50
    grid_schedule: Sequence[int] | None = None
    l1: float = 0.0
    entropy: float = 0.0
    coef_smoothness: float = 0.0
    lr: float | None = None
    batch_size: int | None = None
    loss: Loss | None = None
    update_grid: bool = True
    early_stopping: bool = True
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        choice("optimizer", self.optimizer, OPTIMIZERS)
        count("steps", self.steps)
        count("seed", self.seed, 0)
        for name in ("l1", "entropy", "coef_smoothness"):
            real(name, getattr(self, name), 0.0)
        if self.batch_size is not None:
            count("batch_size", self.batch_size)
        if self.lr is not None:
            real("lr", self.lr, above=0.0)
        if self.grid_schedule is not None:
            if not isinstance(self.grid_schedule, Iterable):
                raise ValueError(f"grid_schedule={self.grid_schedule!r}: expected a sequence of grid sizes, such as (3, 5, 10)")
            stages = tuple(self.grid_schedule)
            if not stages or not all(map(is_count, stages)):
                raise ValueError(f"grid_schedule={self.grid_schedule!r}: expected at least one grid size, integers of at least 1")
            object.__setattr__(self, "grid_schedule", stages)  # of any iterable
        if self.optimizer == "lm":
            self._check_least_squares()

    def _check_least_squares(self) -> None:
        others = {"loss": self.loss is not None, "entropy": self.entropy > 0, "batch_size": self.batch_size is not None}
        given = [name for name, is_given in others.items() if is_given]
        if given:
            raise ValueError(f"optimizer='lm' with {', '.join(given)}: expected 'lbfgs' or 'adam', for 'lm' minimizes squared errors")
        if self.lr is not None:
            raise ValueError(f"lr={self.lr!r}: expected None for optimizer='lm', which finds its own step size")

    @property
    def penalties(self) -> tuple[float, float, float]:
        """Factors of the size, the entropy and the roughness of edges."""
        return self.l1, self.entropy, self.coef_smoothness

    @property
    def rate(self) -> float:
        """Step size of "lbfgs" and "adam"."""
        return LEARNING_RATES[self.optimizer] if self.lr is None else self.lr
