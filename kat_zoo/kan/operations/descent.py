"""L-BFGS and Adam: any loss, penalties on the edges, mini-batches; a step that diverges is taken back."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..network import Network
from . import grids
from .fit_run import Run, Samples

logger = logging.getLogger("kat_zoo")

MOVES = (0.1, 0.3, 0.5)  # parts of a stage after which the grids follow the data
PATIENCE = 20  # measured errors in a row without a gain of GAIN before the end of a stage
GAIN = 1e-4
LOWER_RATE = 0.3  # factor of the step size after a divergence

Advance = Callable[[int], None]


def descend(run: Run, done: int, advance: Advance) -> None:
    """Go through a stage of L-BFGS or Adam.

    Args:
        run: the training.
        done: number of steps of the stages before.
        advance: function that is told how many steps have been taken.
    """
    steps, early = run.options.steps, run.options.early_stopping
    moves = {int(steps * part) for part in MOVES} - {0} if run.moves_grids else set()
    descent, stale = _Descent(run), 0
    for step, (batch, ends_pass) in zip(range(steps), _batches(run), strict=False):
        descent.step(batch)
        advance(1)
        before, measured = run.history.best, ends_pass or step == steps - 1
        if not run.finite() or (measured and not math.isfinite(run.record(done + step + 1, early))):
            descent.go_back(done + step + 1)
            continue
        if measured:
            descent.keep()
            stale = 0 if before == math.inf or run.history.best < before - GAIN * abs(before) else stale + 1
            if early and stale >= PATIENCE:
                break
        if step in moves:
            grids.update_grid(run.network, run.samples.x, adapt=0.0)
            descent.keep()
            descent.restart()


class _Descent:
    """L-BFGS or Adam with a state to go back to."""

    def __init__(self, run: Run) -> None:
        self.run, self.rate = run, run.options.rate
        self.keep()
        self.restart()

    def keep(self) -> None:
        """Take the present parameters as those to go back to."""
        self.safe = copy.deepcopy(self.run.model.state_dict())

    def restart(self) -> None:
        """Forget the curvature, which is that of other coefficients."""
        parameters = [p for p in self.run.model.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer
        if self.run.options.optimizer == "adam":
            self.optimizer = torch.optim.Adam(parameters, lr=self.rate)
        else:
            self.optimizer = torch.optim.LBFGS(
                parameters,
                lr=self.rate,
                max_iter=20,
                history_size=10,
                line_search_fn="strong_wolfe",
                tolerance_grad=1e-12,
                tolerance_change=1e-14,
            )

    def step(self, batch: Samples) -> None:
        """Take a step for a batch."""
        penalties = self.run.options.penalties

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            value = self.run.objective(batch)
            if any(penalties):
                value = value + regularization(self.run.network, batch, *penalties)
            value.backward()
            return value

        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch declares a float, and takes the tensor

    def go_back(self, step: int) -> None:
        """Return to the parameters that were kept, and go on more slowly."""
        self.rate *= LOWER_RATE
        logger.warning("fit: step %d diverged; going back and lowering the step size to %.2g", step, self.rate)
        self.run.model.load_state_dict(self.safe)
        self.restart()


def _batches(run: Run) -> Iterator[tuple[Samples, bool]]:
    """Yield batches without end, and whether each is the last of its pass over the samples."""
    samples = run.samples
    generator, rows = torch.Generator().manual_seed(int(run.options.seed)), len(samples)
    size = run.options.batch_size or rows
    while size >= rows:
        yield samples, True
    while True:
        shuffled = torch.randperm(rows, generator=generator).to(samples.x.device)
        for start in range(0, rows, size):
            yield samples.part(shuffled[start : start + size]), start + size >= rows


def regularization(model: Network, batch: Samples, l1: float, entropy: float, coef_smoothness: float) -> Tensor:
    """Penalties l1 * sum |phi| + entropy * S + smoothness * |D^2 coef|^2 (arXiv 2404.19756, equations 2.17 to 2.20).

    |phi| is the weighted mean absolute value of an edge over the batch, S the entropy of the edges' shares in their layer.

    Args:
        model: the network.
        batch: samples and their weights.
        l1: factor of the sizes.
        entropy: factor of the entropy.
        coef_smoothness: factor of the squared second differences of spline coefficients.
    """
    x, total = batch.x, batch.x.new_zeros(())
    for layer in model.layers:
        if l1 or entropy:
            sizes = layer.edges(x).abs()
            size = sizes.mean(0) if batch.weight is None else (sizes * batch.weight[:, None, None]).mean(0)
            total = total + l1 * size.sum()
            share = size / size.sum().clamp(min=1e-12)
            total = total - entropy * (share * (share + 1e-12).log()).sum()
        if coef_smoothness and layer.spline.coef.shape[1] > 2:
            total = total + coef_smoothness * layer.spline.coef.diff(n=2, dim=1).square().sum()
        x = layer(x)
    return total
