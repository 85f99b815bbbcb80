"""Training a network: least squares by Levenberg-Marquardt, any loss by L-BFGS or Adam, on a schedule of grids."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor

from ..migration import refuse_arguments, refuse_dataset
from ..network import Network
from ..tables import TableModule
from . import grids
from .descent import Advance, descend
from .fit_options import FitOptions
from .fit_run import History, Run, Samples
from .lm import LeastSquares

logger = logging.getLogger("kat_zoo")

LM_STEPS = 10  # Levenberg-Marquardt steps between two evaluations
MOVING = 0.6  # part of a Levenberg-Marquardt stage in which the grids follow the data


def fit(
    model: Network,
    X: Any,
    y: Any = None,
    X_val: Any = None,
    y_val: Any = None,
    *,
    optimizer: Literal["lm", "lbfgs", "adam"] = "lm",
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
    **unknown: Any,
) -> History:
    """Train a network in place.

    A step that ends in NaN or diverges is taken back, the step size is lowered and the log says so. However `fit` ends,
    by an interrupt too, the network has the parameters of the best stage.

    Args:
        model: the network, changed in place.
        X: (N, inputs) samples.
        y: (N, outputs) targets, or of another shape that `loss` takes.
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
        **unknown: any other argument, which is refused; pykan's are answered with the words to write.

    Returns:
        The history.

    Raises:
        ValueError: data or options that do not fit.
        TypeError: an argument that is not there, no y, or pykan's dictionary of samples.
    """
    refuse_dataset(X)
    refuse_arguments(unknown, inspect.signature(fit).parameters)
    if y is None:
        raise TypeError("fit(X) without y: expected fit(X, y)")
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
        y: (N, outputs) targets, or of another shape that the loss takes.
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
    if run.moves_grids:
        grids.update_grid(run.network, samples.x, adapt=0.0)
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
                grids.refine(run.network, grid_size)
            stage = _least_squares_stage if options.optimizer == "lm" else descend
            stage(run, number * options.steps, advance)


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
    options, network, samples = run.options, run.network, run.samples
    for start in range(0, options.steps, LM_STEPS):
        n = min(LM_STEPS, options.steps - start)
        problem = LeastSquares(network, samples.x, samples.y, weight=samples.weight, l1=options.l1, smoothness=options.coef_smoothness)
        problem.minimize(n)
        run.record(done + start + n, options.early_stopping)
        advance(n)
        if run.moves_grids and start + n < MOVING * options.steps:
            grids.update_grid(network, samples.x, adapt=0.0)
