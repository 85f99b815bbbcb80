"""How close a converted model is to the one it was made from, as a whole and MLP by MLP."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .calibration import GroupFits, PreActivations

BULK = 0.999  # of the arguments, the middle


@dataclass(frozen=True)
class BlockFit:
    """How well act2 of one MLP follows its activation.

    Attributes:
        name: name of the MLP in the model.
        range: smallest and largest argument over the images, or the interval of a fit without them.
        bulk_error: largest error over the middle 99.9 % of the arguments that were kept.
        max_error: largest error anywhere in the range, in each group's own if it has one: the extremes.
        rms_error: root mean squared error, over the arguments or, without calibration, uniform over the range.
        output_errors: |difference| / |output| of the MLP's second linear layer without its bias, by step: "default" is the minimax
            fit on [-6, 6] of order (5, 4), "one fit" a rational fitted to all arguments, "groups" one for each group of channels,
            "init_range" the fit on that interval. Neither layer scale nor the residual stream hides it. A norm or a gate
            between the activation and the layer is left out.
    """

    name: str
    range: tuple[float, float]
    bulk_error: float
    max_error: float
    rms_error: float
    output_errors: Mapping[str, float]

    @property
    def output_error(self) -> float:
        """Error of the MLP's output after the last step."""
        return list(self.output_errors.values())[-1]


@dataclass(frozen=True)
class TransferReport:
    """Result of `vit_to_kat` or `to_kat`.

    Attributes:
        activation: classes of the model's activations.
        calibrated: whether act2 was fitted to the images' pre-activations.
        blocks: a `BlockFit` per MLP, in the order of the model.
        relative_logits_error: |kat(x) - vit(x)| / |vit(x)|, Euclidean, over the images given or, without, over noise.
        top1_agreement: fraction of those inputs where the largest outputs (of feature maps: along the last dimension) agree.
        left: names of MLPs that keep their activation.
    """

    activation: str
    calibrated: bool
    blocks: tuple[BlockFit, ...]
    relative_logits_error: float
    top1_agreement: float
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        width = max(len(fit.name) for fit in self.blocks)
        steps = list(self.blocks[0].output_errors)
        lines = [f"{'':{width}s}           range   bulk error   max error   error of the output: {' -> '.join(steps)}"]
        for fit in sorted(self.blocks, key=lambda fit: -fit.output_error):
            low, high = fit.range
            errors = " -> ".join(f"{error:.1e}" for error in fit.output_errors.values())
            lines.append(
                f"{fit.name:{width}s} {f'[{low:.1f}, {high:.1f}]':>15s}   {fit.bulk_error:10.1e}   {fit.max_error:9.1e}   {errors}"
            )
        logits = f"logits differ by {self.relative_logits_error:.2%}, top-1 agreement {self.top1_agreement:.1%}"
        left = f"; {len(self.left)} MLPs keep their activation" if self.left else ""
        lines.append(f"{self.activation}: {logits}{left}")
        return "\n".join(lines)


def assess(
    name: str,
    mlp: Any,
    activation: nn.Module,
    measured: PreActivations,
    steps: Mapping[str, GroupFits],
    interval: tuple[float, float] | None,
) -> BlockFit:
    """Measure the fits of one MLP.

    Args:
        name: name of the MLP.
        mlp: MLP before its conversion, with fc2.
        activation: its activation, for float64 tensors on the CPU.
        measured: arguments of the activation.
        steps: fits by name, of which the last is used.
        interval: interval of the last fit if it did not see the arguments.
    """
    fit = list(steps.values())[-1]
    rows = measured.rows
    expected = activation(rows.double()).float()
    differences = {step: rational(rows) - expected for step, rational in steps.items()}
    weight = mlp.fc2.weight.detach().flatten(1).float().cpu()
    total = (expected @ weight.T).norm().item()
    errors = {step: ratio((difference @ weight.T).norm().item(), total) for step, difference in differences.items()}
    error = list(differences.values())[-1].abs()
    flat = rows.flatten()
    tail = round((1 - BULK) / 2 * flat.numel())
    in_bulk = (flat > flat.kthvalue(tail + 1).values) & (flat < flat.kthvalue(flat.numel() - tail).values)
    bulk = error.flatten()[in_bulk].max().item() if in_bulk.any() else error.max().item()
    groups = len(fit.numerator)
    low, high = (side[fit.channels].view(groups, -1) for side in (measured.low.double(), measured.high.double()))
    first, last = (low.amin(1), high.amax(1)) if interval is None else (low.new_full((groups,), end) for end in interval)
    points = first + (last - first) * torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    on_range = (replace(fit, channels=torch.arange(groups))(points) - activation(points.clone())).abs()
    rms = (error if interval is None else on_range).square().mean().sqrt().item()
    return BlockFit(name, (first.min().item(), last.max().item()), bulk, on_range.max().item(), rms, errors)


def ratio(difference: float, total: float) -> float:
    """Relative error, where nothing may differ from nothing (a head of zeros)."""
    return difference / total if total else math.inf if difference else 0.0


def tensors(output: Any) -> list[Tensor]:
    """Tensors of a model's output, whatever lists, tuples and dicts hold them.

    Raises:
        ValueError: anything else in the output.
    """
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = output.values()
    if output is None or isinstance(output, str) or not isinstance(output, Iterable):
        raise ValueError(f"model that returns {type(output).__name__}: expected tensors, or lists, tuples and dicts of tensors")
    return [tensor for each in output for tensor in tensors(each)]


def compare(model: Callable[[Tensor], Any], batches: Sequence[Tensor], expected: Sequence[Sequence[Tensor]]) -> tuple[float, float]:
    """Return the relative error of a model's outputs and how often the largest along their last dimension agree.

    Args:
        model: converted model.
        batches: inputs.
        expected: outputs of the model it was made from.
    """
    difference = total = agreed = count = 0.0
    for batch, outputs in zip(batches, expected, strict=True):
        for a, b in zip(outputs, tensors(model(batch)), strict=True):
            a, b = a.double(), b.double()
            difference += (a - b).square().sum().item()
            total += a.square().sum().item()
            agreed += (a.argmax(-1) == b.argmax(-1)).sum().item()
            count += a.argmax(-1).numel()
    return ratio(difference**0.5, total**0.5), agreed / count
