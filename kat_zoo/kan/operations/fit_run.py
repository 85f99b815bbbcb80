"""A training under way: its samples, its objective, and the best parameters so far."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..network import Network
from ..tables import TableModule
from .fit_options import FitOptions, Loss


@dataclass
class History:
    """Record of a `fit`, one entry per evaluation.

    Attributes:
        step: number of steps so far.
        grid_size: number of intervals at that time.
        train: root mean square error (or the given loss) on the training data.
        val: the same on held-out data; equal to `train` where there is none.
        best_step: the step whose parameters the network has now.
        best: held-out value at that step.
    """

    step: list[int] = field(default_factory=list)
    grid_size: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    best_step: int = 0
    best: float = math.inf


@dataclass(frozen=True)
class Samples:
    """Rows to train on or to judge by.

    Attributes:
        x: (N, inputs) inputs.
        y: (N, outputs) targets, or of another shape that the loss takes.
        weight: (N,) weights of mean 1, so that a batch's weighted mean estimates that of all samples; None for equal ones.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None = None

    @classmethod
    def of(cls, model: TableModule, loss: Loss | None, X: Any, y: Any, weight: Any = None, suffix: str = "") -> Samples:
        """Check data and put them on the network's device.

        Args:
            model: the network.
            loss: the given loss, whose targets may be of any shape; None for squared errors.
            X: (N, inputs) inputs.
            y: (N, outputs) targets, or of another shape that the loss takes.
            weight: (N,) non-negative weights.
            suffix: end of the arguments' names, for messages.

        Raises:
            ValueError: data that do not fit each other or the network, or that are not finite.
        """
        inputs = model.tensor(X, f"X{suffix}")
        if loss is None:
            targets = model.tensor(y, f"y{suffix}")
        else:
            targets = torch.as_tensor(y if isinstance(y, Tensor) else np.array(y), device=model.device)
        if len(inputs) != len(targets) or len(inputs) == 0:
            raise ValueError(f"X{suffix} of {len(inputs)} samples, y{suffix} of {len(targets)}: expected the same positive number")
        if loss is None and targets.shape[1] != model.nodes[-1]:
            raise ValueError(f"y{suffix} of {targets.shape[1]} columns: expected {model.nodes[-1]}, the network's outputs")
        for name, data in ((f"X{suffix}", inputs), (f"y{suffix}", targets)):
            if data.is_floating_point() and not bool(torch.isfinite(data).all()):
                raise ValueError(f"{name} holds NaN or infinity: expected finite numbers")
        return cls(inputs, targets, None if weight is None else _weights(f"sample_weight{suffix}", weight, inputs))

    def part(self, rows: Tensor) -> Samples:
        """The samples of these rows."""
        return Samples(self.x[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    def __len__(self) -> int:
        return len(self.x)


def _weights(name: str, values: Any, x: Tensor) -> Tensor:
    try:
        values = values if isinstance(values, Tensor) else np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers ({error})") from error
    weight = torch.as_tensor(values, dtype=x.dtype, device=x.device)
    if weight.shape != (len(x),) or not bool((weight >= 0).all()) or not 0 < float(weight.sum()) < math.inf:
        raise ValueError(
            f"{name} of shape {tuple(weight.shape)}, sum {float(weight.sum()):g}: "
            f"expected ({len(x)},), no negative value, a positive finite sum"
        )
    return weight / weight.mean()


class Run:
    """One call of `fit`: the network, the samples, and the best state so far.

    Args:
        model: the network, changed in place.
        options: options of the training.
        samples: samples to train on.
        held_out: samples to judge by; the training samples where it is None.

    Raises:
        ValueError: the network's parameters are not finite, or none of them can be trained.
    """

    def __init__(self, model: TableModule, options: FitOptions, samples: Samples, held_out: Samples | None) -> None:
        for name, parameter in model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise ValueError(f"the network's {name} holds NaN or infinity: expected finite parameters")
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError("requires_grad=False for every parameter of the network: expected one to train")
        self.model, self.options, self.samples, self.held_out = model, options, samples, held_out
        self.history = History()
        self.state: dict[str, Any] | None = None

    @property
    def network(self) -> Network:
        """The network as one of edges, which grids, penalties and Levenberg-Marquardt work on.

        Raises:
            ValueError: its activations are on nodes.
        """
        if not isinstance(self.model, Network):
            raise ValueError(f"{type(self.model).__name__}: expected a network with activations on edges")
        return self.model

    @property
    def moves_grids(self) -> bool:
        """Whether grids follow the data, which takes two samples."""
        return self.options.update_grid and len(self.samples) > 1

    def objective(self, samples: Samples) -> Tensor:
        """Mean squared error, or the mean of the given loss per sample."""
        x, y, weight, loss = samples.x, samples.y, samples.weight, self.options.loss
        prediction: Tensor = self.model(x)
        values = (prediction - y).square().mean(1) if loss is None else loss(prediction, y)
        if weight is None:
            return values.mean()
        if values.ndim == 0 or len(values) != len(x):
            raise ValueError(f"loss returned shape {tuple(values.shape)}: expected a value for each of {len(x)} samples with sample_weight")
        return (values.flatten(1).mean(1) * weight if values.ndim > 1 else values * weight).mean()

    def measure(self, samples: Samples) -> float:
        """Root mean square error, or the mean of the given loss."""
        with torch.no_grad():
            value = cast(float, self.objective(samples).item())
        return math.sqrt(value) if self.options.loss is None and value >= 0 else value

    def finite(self) -> bool:
        """Whether all parameters are finite."""
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())

    def record(self, step: int, best_only: bool) -> float:
        """Measure, remember and keep the state; return the training error.

        Args:
            step: number of steps so far.
            best_only: whether the state is kept only where it is the best so far, else where it is finite.
        """
        train = self.measure(self.samples)
        val = train if self.held_out is None else self.measure(self.held_out)
        history = self.history
        history.step.append(step)
        history.grid_size.append(self.model.grid_size)
        history.train.append(train)
        history.val.append(val)
        if math.isfinite(val) and (val < history.best or not best_only):
            history.best, history.best_step = val, step
            self.state = copy.deepcopy(self.model.state_dict())
        return train
