"""Training a network: least squares by Levenberg-Marquardt, any loss by L-BFGS or Adam, on a schedule of grids."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..network import Network
from ..tables import TableModule
from . import grids
from .fit_options import FitOptions
from .fit_run import History, Run, Samples
from .lm import LeastSquares

logger = logging.getLogger("kat_zoo")

LM_STEPS = 10  # Levenberg-Marquardt steps between two evaluations
MOVING = 0.6  # part of a Levenberg-Marquardt stage in which the grids follow the data
MOVES = (0.1, 0.3, 0.5)  # parts of a stage of L-BFGS or Adam after which they do
PATIENCE = 20  # measured errors in a row without a gain of GAIN before the end of a stage of L-BFGS or Adam
GAIN = 1e-4
LOWER_RATE = 0.3  # factor of the step size after a divergence

Advance = Callable[[int], None]


def fit(
    model: Network,
    X: Any,
    y: Any,
    X_val: Any = None,
    y_val: Any = None,
    *,
    optimizer: str = "lm",
    steps: int = 50,
    grid_schedule: Sequence[int] | None = None,
    l1: float = 0.0,
    entropy: float = 0.0,
    coef_smoothness: float = 0.0,
    lr: float | None = None,
    batch_size: int | None = None,
    sample_weight: Any = None,
    sample_weight_val: Any = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    update_grid: bool = True,
    early_stopping: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> History:
    """Train a network in place.

    A step that ends in NaN or diverges is taken back, the step size is lowered and the log says so. However `fit` ends,
    by an interrupt too, the network has the parameters of the best stage.

    Args:
        model: the network, changed in place.
        X: (N, inputs) samples.
        y: (N, outputs) targets, or whatever `loss` takes.
        X_val: (M, inputs) held-out samples; the training data is judged where there are none.
        y_val: (M, outputs) targets of the held-out samples.
        optimizer: "lm" (Levenberg-Marquardt: least squares only, small networks, machine precision), "lbfgs" (strong
            Wolfe, 20 iterations a step) or "adam".
        steps: number of steps for each grid size.
        grid_schedule: grid sizes to go through (grid extension), such as (3, 5, 10, 20, 50); the present one by default.
        l1: penalty on the size of edges.
        entropy: penalty on the entropy of edge sizes in a layer ("lbfgs" and "adam").
        coef_smoothness: penalty on second differences of spline coefficients.
        lr: step size; 1 for lbfgs, 1e-2 for adam by default.
        batch_size: number of samples of a step of "lbfgs" or "adam", all by default. Every pass takes the samples in a new
            order, and the error is measured once a pass.
        sample_weight: (N,) non-negative weights.
        sample_weight_val: (M,) non-negative weights of the held-out samples.
        loss: function (prediction, y) of one value per sample or, without weights, a mean, instead of squared error; not
            for "lm".
        update_grid: whether the grids move to the data first and, for hidden layers, along the way.
        early_stopping: whether the best stage by held-out error is kept, not the last; it also ends "lbfgs" and "adam" after
            20 measured errors in a row without gain.
        seed: seed of the batches.
        progress: whether a progress bar is shown (rich).

    Returns:
        The history.

    Raises:
        ValueError: data or options that do not fit.
    """
    options = FitOptions(
        optimizer=optimizer,
        steps=steps,
        grid_schedule=grid_schedule,
        l1=l1,
        entropy=entropy,
        coef_smoothness=coef_smoothness,
        lr=lr,
        batch_size=batch_size,
        loss=loss,
        update_grid=update_grid,
        early_stopping=early_stopping,
        seed=seed,
        progress=progress,
    )
    return train(model, options, X, y, X_val, y_val, sample_weight, sample_weight_val)


def train(
    model: TableModule,
    options: FitOptions,
    X: Any,
    y: Any,
    X_val: Any = None,
    y_val: Any = None,
    sample_weight: Any = None,
    sample_weight_val: Any = None,
) -> History:
    """Train a network in place, as `fit` describes, also one without edges.

    Args:
        model: the network, changed in place.
        options: options of the training; a network with activations on nodes has neither grids that move nor penalties.
        X: (N, inputs) samples.
        y: (N, outputs) targets, or whatever the loss takes.
        X_val: (M, inputs) held-out samples, or None.
        y_val: (M, outputs) targets of the held-out samples, or None.
        sample_weight: (N,) non-negative weights, or None.
        sample_weight_val: (M,) non-negative weights of the held-out samples, or None.

    Raises:
        ValueError: data or options that do not fit.
    """
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val: expected both or neither")
    if sample_weight_val is not None and X_val is None:
        raise ValueError("sample_weight_val without X_val: expected both or neither")
    samples = Samples.of(model, options.loss, X, y, sample_weight)
    held_out = None if X_val is None else Samples.of(model, options.loss, X_val, y_val, sample_weight_val, "_val")
    run = Run(model, options, samples, held_out)
    run.record(0, best_only=True)
    if _moves_grids(run):
        grids.update_grid(_with_edges(model), samples.x, adapt=0.0)
    try:
        _go_through_grids(run)
    finally:  # an interrupt leaves the best stage so far, too
        if run.state is not None:
            model.load_state_dict(run.state)
        else:
            logger.warning("fit: no step gave a finite error; the network may be undefined on X or X_val, as log is at -1")
    if options.loss is None and len(samples) > 1:
        _warn_of_misfit(samples.y, min(run.history.train))
    return run.history


def _go_through_grids(run: Run) -> None:
    options = run.options
    stages = options.grid_schedule or (run.model.grid_size,)
    with _bar(options.progress, len(stages) * options.steps) as advance:
        for number, grid_size in enumerate(stages):
            if grid_size != run.model.grid_size:
                grids.refine(_with_edges(run.model), grid_size)
            stage = _least_squares_stage if options.optimizer == "lm" else _descent_stage
            stage(run, number * options.steps, advance)


def _with_edges(model: TableModule) -> Network:
    """The network as one of edges, which grids, penalties and Levenberg-Marquardt work on."""
    if not isinstance(model, Network):
        raise ValueError(f"{type(model).__name__}: expected a network with activations on edges")
    return model


def _moves_grids(run: Run) -> bool:
    return run.options.update_grid and len(run.samples) > 1


def _warn_of_misfit(y: Tensor, error: float) -> None:
    spread = float(y.std())
    if 2 * spread < error < math.inf and spread > 1e-6 * float(y.abs().max()):
        logger.warning(
            "fit: the training error, %.3g, is more than twice the targets' standard deviation, %.3g; "
            "X and y of a size near 1 are easier to fit", error, spread,
        )  # fmt: skip


@contextmanager
def _bar(show: bool, total: int) -> Iterator[Advance]:
    """A progress bar, or nothing; yields the function that moves it on."""
    if not show:
        yield lambda n: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as progress:
        task = progress.add_task("fit", total=total)
        yield lambda n: progress.advance(task, n)


def _least_squares_stage(run: Run, done: int, advance: Advance) -> None:
    options, network, samples = run.options, _with_edges(run.model), run.samples
    for start in range(0, options.steps, LM_STEPS):
        n = min(LM_STEPS, options.steps - start)
        problem = LeastSquares(network, samples.x, samples.y, weight=samples.weight, l1=options.l1, smoothness=options.coef_smoothness)
        problem.minimize(n)
        run.record(done + start + n, options.early_stopping)
        advance(n)
        if _moves_grids(run) and start + n < MOVING * options.steps:
            grids.update_grid(network, samples.x, adapt=0.0)


def _descent_stage(run: Run, done: int, advance: Advance) -> None:
    steps, early = run.options.steps, run.options.early_stopping
    moves = {int(steps * part) for part in MOVES} - {0} if _moves_grids(run) else set()
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
            grids.update_grid(_with_edges(run.model), run.samples.x, adapt=0.0)
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
                value = value + regularization(_with_edges(self.run.model), batch.x, *penalties)
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


def regularization(model: Network, x: Tensor, l1: float, entropy: float, coef_smoothness: float) -> Tensor:
    """Penalties l1 * sum |phi| + entropy * S + smoothness * |D^2 coef|^2 (arXiv 2404.19756, equations 2.17 to 2.20).

    |phi| is the mean absolute value of an edge over the batch, S the entropy of the edges' shares in their layer.

    Args:
        model: the network.
        x: (N, inputs) samples.
        l1: factor of the sizes.
        entropy: factor of the entropy.
        coef_smoothness: factor of the squared second differences of spline coefficients.
    """
    total = x.new_zeros(())
    for layer in model.layers:
        if l1 or entropy:
            size = layer.edges(x).abs().mean(0)
            total = total + l1 * size.sum()
            share = size / size.sum().clamp(min=1e-12)
            total = total - entropy * (share * (share + 1e-12).log()).sum()
        if coef_smoothness and layer.spline.coef.shape[1] > 2:
            total = total + coef_smoothness * layer.spline.coef.diff(n=2, dim=1).square().sum()
        x = layer(x)
    return total
