"""Training a KAN: least squares by Levenberg-Marquardt, any loss by L-BFGS or Adam, on a schedule of grids."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kat_zoo.layers.spline import is_count, is_real

from .lm import LeastSquares

if TYPE_CHECKING:
    from ..network import KAN

logger = logging.getLogger("kat_zoo")

OPTIMIZERS = ("lm", "lbfgs", "adam")


@dataclass
class History:
    """What happened in `fit`, one entry per evaluation.

    Attributes:
        step: steps so far.
        grid_size: intervals at that time.
        train: root mean square error (or the given loss) on the training data.
        val: the same on held-out data; equal to `train` where there is none.
        best_step: the step whose parameters the network has now.
        best: its held-out value.
    """

    step: list[int] = field(default_factory=list)
    grid_size: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    best_step: int = 0
    best: float = math.inf


def regularisation(model: KAN, x: Tensor, l1: float, entropy: float, coef_smoothness: float) -> Tensor:
    """l1 * sum |phi| + entropy * S + smoothness * |D^2 coef|^2 (arXiv 2404.19756, equations 2.17 to 2.20).

    |phi| is the mean absolute value of an edge over the batch, S the entropy of the edges' shares in their layer.
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


class _Fit:
    """The data and options of one call of `fit`."""

    def __init__(
        self,
        model: KAN,
        X: Any,
        y: Any,
        X_val: Any,
        y_val: Any,
        weight: Any,
        weight_val: Any,
        loss: Any,
    ) -> None:
        self.model, self.loss = model, loss
        for name, parameter in model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise ValueError(f"the network's {name} holds NaN or infinity; expected finite parameters")
        self.x = model.tensor(X)
        self.y = self._targets("y", y)
        if len(self.x) != len(self.y) or len(self.x) == 0:
            raise ValueError(f"X has {len(self.x)} samples and y {len(self.y)}; expected the same positive number")
        if loss is None and self.y.shape[1] != model.nodes[-1]:
            raise ValueError(f"y has {self.y.shape[1]} columns; expected {model.nodes[-1]}, the network's outputs")
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val: expected both or neither")
        if not bool(torch.isfinite(self.x).all()) or (self.y.is_floating_point() and not bool(torch.isfinite(self.y).all())):
            raise ValueError("X or y holds NaN or infinity; expected finite numbers")
        self.val: tuple[Tensor, Tensor] | None = None
        if X_val is not None:
            self.val = model.tensor(X_val, "X_val"), self._targets("y_val", y_val)
            if len(self.val[0]) != len(self.val[1]) or len(self.val[0]) == 0:
                raise ValueError(f"X_val has {len(self.val[0])} samples and y_val {len(self.val[1])}; expected the same positive number")
            if loss is None and self.val[1].shape[1] != model.nodes[-1]:
                raise ValueError(f"y_val has {self.val[1].shape[1]} columns; expected {model.nodes[-1]}, the network's outputs")
            for data in self.val:
                if data.is_floating_point() and not bool(torch.isfinite(data).all()):
                    raise ValueError("X_val or y_val holds NaN or infinity; expected finite numbers")
        if weight_val is not None and self.val is None:
            raise ValueError("sample_weight_val without X_val; expected both or neither")
        self.weight = self._weights("sample_weight", weight, self.x)
        self.weight_val = None if self.val is None else self._weights("sample_weight_val", weight_val, self.val[0])
        self.history = History()
        self.state: dict[str, Any] | None = None

    def _targets(self, name: str, values: Any) -> Tensor:
        if self.loss is None:
            return self.model.tensor(values, name)
        return torch.as_tensor(values if isinstance(values, Tensor) else np.array(values), device=self.model.device)

    def _weights(self, name: str, values: Any, x: Tensor) -> Tensor | None:
        if values is None:
            return None
        try:
            values = values if isinstance(values, Tensor) else np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} holds no numbers: {error}") from error
        weight = torch.as_tensor(values, dtype=self.model.dtype, device=self.model.device)
        if weight.shape != (len(x),) or not bool((weight >= 0).all()) or not 0 < float(weight.sum()) < math.inf:
            raise ValueError(
                f"{name} has shape {tuple(weight.shape)}, sum {float(weight.sum()):g}; "
                f"expected ({len(x)},), no negative value, a positive finite sum"
            )
        return weight / weight.mean()  # of a batch, too, the weighted mean then estimates that of all samples

    def objective(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean squared error, or the mean of the given loss per sample."""
        values = (self.model(x) - y).square().mean(1) if self.loss is None else self.loss(self.model(x), y)
        if weight is None:
            return values.mean()
        if values.ndim == 0 or len(values) != len(x):
            raise ValueError(f"loss returned shape {tuple(values.shape)}; expected a value for each of {len(x)} samples with sample_weight")
        return (values.flatten(1).mean(1) * weight if values.ndim > 1 else values * weight).mean()

    def measure(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> float:
        with torch.no_grad():
            value = self.objective(x, y, weight).item()
        return math.sqrt(value) if self.loss is None and value >= 0 else value

    def record(self, step: int, early_stopping: bool) -> float:
        """Measure, remember, keep the best; return the training error."""
        train = self.measure(self.x, self.y, self.weight)
        val = train if self.val is None else self.measure(*self.val, self.weight_val)
        history = self.history
        history.step.append(step)
        history.grid_size.append(self.model.grid_size)
        history.train.append(train)
        history.val.append(val)
        if math.isfinite(val) and (val < history.best or not early_stopping):
            history.best, history.best_step = val, step
            self.state = copy.deepcopy(self.model.state_dict())
        return train


def fit(
    model: KAN,
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
        model: the network.
        X: (N, inputs).
        y: (N, outputs), or whatever `loss` takes.
        X_val: held-out samples; the training data is judged where there are none.
        y_val: their targets.
        optimizer: "lm" (Levenberg-Marquardt: least squares only, small networks, machine precision), "lbfgs" (strong
            Wolfe, 20 iterations a step) or "adam".
        steps: per grid size.
        grid_schedule: grid sizes to go through (grid extension), such as (3, 5, 10, 20, 50); the present one by
            default.
        l1: penalty on the size of edges.
        entropy: penalty on the entropy of edge sizes in a layer ("lbfgs" and "adam").
        coef_smoothness: penalty on second differences of spline coefficients.
        lr: step size; 1 for lbfgs, 1e-2 for adam by default.
        batch_size: samples of a step of "lbfgs" or "adam", all by default. Every pass takes the samples in a new order, and
            the error is measured once a pass.
        sample_weight: (N,) non-negative.
        sample_weight_val: the same for X_val.
        loss: (prediction, y) -> one value per sample or, without weights, a mean, instead of squared error; not for "lm".
        update_grid: move the grids to the data first and, for hidden layers, along the way.
        early_stopping: keep the best stage by held-out error, not the last; it also ends "lbfgs" and "adam" after 20
            measured errors in a row without gain.
        seed: of the batches.
        progress: show a progress bar (rich).

    Returns:
        The history.

    Raises:
        ValueError: data or options that do not fit.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer={optimizer!r}; expected one of {', '.join(OPTIMIZERS)}")
    if optimizer == "lm" and (loss is not None or entropy or batch_size is not None):
        raise ValueError("optimizer='lm' minimises squared errors; expected 'lbfgs' or 'adam' for loss, entropy or batches")
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("every parameter of the network has requires_grad=False; expected one to train")
    if grid_schedule is not None and not isinstance(grid_schedule, Iterable):
        raise ValueError(f"grid_schedule={grid_schedule!r}; expected a sequence of grid sizes, such as (3, 5, 10)")
    stages = list(grid_schedule) if grid_schedule is not None else [model.grid_size]
    _check_options(steps, batch_size, stages, lr, {"l1": l1, "entropy": entropy, "coef_smoothness": coef_smoothness})
    if optimizer == "lm" and lr is not None:
        raise ValueError(f"lr={lr}; expected None for optimizer='lm', which finds its own step size")
    run = _Fit(model, X, y, X_val, y_val, sample_weight, sample_weight_val, loss)
    run.record(0, True)
    if update_grid and len(run.x) > 1:
        model.update_grid(run.x, adapt=0.0)
    done = 0
    try:
        with _bar(progress, len(stages) * steps) as advance:
            for grid_size in stages:
                if grid_size != model.grid_size:
                    model.refine(grid_size)
                if optimizer == "lm":
                    _lm_stage(run, steps, l1, coef_smoothness, update_grid, early_stopping, done, advance)
                else:
                    penalties = (l1, entropy, coef_smoothness)
                    _torch_stage(run, optimizer, steps, lr, batch_size, penalties, update_grid, early_stopping, seed, done, advance)
                done += steps
    finally:  # an interrupt leaves the best stage so far, too
        if run.state is not None:
            model.load_state_dict(run.state)
        else:
            logger.warning("fit: no step gave a finite error; the network may be undefined on X or X_val, as log is at -1")
    if loss is None and len(run.y) > 1:
        error, spread = min(run.history.train), float(run.y.std())
        if 2 * spread < error < math.inf and spread > 1e-6 * float(run.y.abs().max()):
            logger.warning(
                "fit: the training error, %.3g, is more than twice the targets' standard deviation, %.3g; "
                "X and y of a size near 1 are easier to fit", error, spread,
            )  # fmt: skip
    return run.history


def _check_options(steps: int, batch_size: int | None, stages: list[int], lr: float | None, penalties: dict[str, float]) -> None:
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        if count is not None and not is_count(count):
            raise ValueError(f"{name}={count}; expected an integer of at least 1")
    if not stages or not all(is_count(n) for n in stages):
        raise ValueError(f"grid_schedule={stages}; expected at least one grid size, integers of at least 1")
    if lr is not None and not (is_real(lr) and 0 < lr < math.inf):
        raise ValueError(f"lr={lr}; expected a positive number")
    for name, value in penalties.items():
        if not is_real(value) or not 0 <= value < math.inf:
            raise ValueError(f"{name}={value}; expected a number of at least 0")


class _bar:
    def __init__(self, show: bool, total: int) -> None:
        self.progress = None
        if show:
            from rich.progress import Progress

            self.progress = Progress(transient=True)
            self.task = self.progress.add_task("fit", total=total)

    def __enter__(self) -> Callable[[int], None]:
        if self.progress is None:
            return lambda n: None
        self.progress.start()
        return lambda n: self.progress.advance(self.task, n)  # type: ignore[union-attr]

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()


def _lm_stage(run: _Fit, steps: int, l1: float, smooth: float, update_grid: bool, early: bool, done: int, advance) -> None:
    for start in range(0, steps, 10):
        n = min(10, steps - start)
        LeastSquares(run.model, run.x, run.y, weight=run.weight, l1=l1, smoothness=smooth).minimise(n)
        run.record(done + start + n, early)
        advance(n)
        if update_grid and len(run.x) > 1 and start + n < 0.6 * steps:
            run.model.update_grid(run.x, adapt=0.0)


def _make_optimizer(name: str, parameters: list[Tensor], lr: float) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr)
    return torch.optim.LBFGS(
        parameters,
        lr=lr,
        max_iter=20,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
    )


def _batches(run: _Fit, size: int, seed: int) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor | None], bool]]:
    """Yield batches without end, and whether each is the last of its pass over the samples."""
    generator, count = torch.Generator().manual_seed(seed), len(run.x)
    while size >= count:
        yield (run.x, run.y, run.weight), True
    while True:
        order = torch.randperm(count, generator=generator).to(run.x.device)
        for start in range(0, count, size):
            part = order[start : start + size]
            yield (run.x[part], run.y[part], None if run.weight is None else run.weight[part]), start + size >= count


def _torch_stage(run: _Fit, name, steps, lr, batch_size, penalties, update_grid, early, seed, done, advance) -> None:
    model, stale = run.model, 0
    rate = lr if lr is not None else 1.0 if name == "lbfgs" else 1e-2
    optimizer = _make_optimizer(name, [p for p in model.parameters() if p.requires_grad], rate)
    safe = copy.deepcopy(model.state_dict())
    grid_updates = {int(steps * part) for part in (0.1, 0.3, 0.5)} - {0} if update_grid and len(run.x) > 1 else set()
    batches = _batches(run, batch_size or len(run.x), seed)
    for step, ((x, y, weight), ends_pass) in zip(range(steps), batches, strict=False):

        def closure(x=x, y=y, weight=weight, optimizer=optimizer):
            optimizer.zero_grad()
            value = run.objective(x, y, weight)
            if any(penalties):
                value = value + regularisation(model, x, *penalties)
            value.backward()
            return value

        optimizer.step(closure)
        advance(1)
        finite = all(bool(torch.isfinite(p).all()) for p in model.parameters())
        measured = ends_pass or step == steps - 1
        if finite and measured:
            before = run.history.best
            finite = math.isfinite(run.record(done + step + 1, early))
        if not finite:
            rate *= 0.3
            logger.warning("fit: step %d diverged; going back and lowering the step size to %.2g", done + step + 1, rate)
            model.load_state_dict(safe)
        elif measured:
            safe = copy.deepcopy(model.state_dict())
            stale = 0 if before == math.inf or run.history.best < before - 1e-4 * abs(before) else stale + 1
            if early and stale >= 20:
                break
        if finite and step in grid_updates:
            model.update_grid(run.x, adapt=0.0)
            safe = copy.deepcopy(model.state_dict())
        if not finite or step in grid_updates:  # the curvature of other coefficients is stale
            optimizer = _make_optimizer(name, [p for p in model.parameters() if p.requires_grad], rate)
