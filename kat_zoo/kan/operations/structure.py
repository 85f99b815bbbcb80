"""Derivatives of a function, and the structure that they show: separability and symmetry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._checks import choice

Function = Callable[[Tensor], Tensor]


def jacobian(function: Function, x: Tensor, create_graph: bool = False) -> Tensor:
    """Derivatives of all outputs at each sample.

    Args:
        function: function from (N, inputs) to (N, outputs), each row by itself.
        x: (N, inputs) samples.
        create_graph: whether the result is differentiable.

    Returns:
        (N, outputs, inputs).
    """
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        y = function(x)
        return torch.stack([_gradient(y[:, j], x, create_graph) for j in range(y.shape[1])], 1)


def _gradient(values: Tensor, x: Tensor, create_graph: bool) -> Tensor:
    """The derivative d values.sum() / dx, zero where values do not depend on x."""
    if not values.requires_grad:
        return torch.zeros_like(x)
    (result,) = torch.autograd.grad(values.sum(), x, create_graph=create_graph, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x) if result is None else result


def hessian(function: Function, x: Tensor, create_graph: bool = False) -> Tensor:
    """Second derivatives of all outputs at each sample: (N, outputs, inputs, inputs); arguments as in `jacobian`."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        first = jacobian(function, x, create_graph=True)
        rows = [torch.stack([_gradient(first[:, j, i], x, create_graph) for i in range(first.shape[2])], 1) for j in range(first.shape[1])]
    return torch.stack(rows, 1)


def _check_samples(x: Tensor) -> None:
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x of shape {tuple(x.shape)}: expected at least 2 samples, (N, inputs)")


@dataclass(frozen=True)
class Separability:
    """Groups of inputs that do not interact, and the largest interaction left between groups.

    Attributes:
        groups: lists of inputs; f is a sum ("add") or product ("mul") of functions of one group each.
        interactions: (inputs, inputs) relative mixed derivatives, 0 for pairs that do not interact.
    """

    groups: list[list[int]]
    interactions: Tensor


def detect_separability(function: Function, x: Tensor, mode: str = "add", threshold: float = 1e-2) -> Separability:
    """Group the inputs of f so that f is a sum or product of functions of one group each.

    KAN 2.0, arXiv 2408.10205, section 4.3. A pair interacts where the mixed second derivative of f (of log |f|
    for "mul") times the inputs' spreads exceeds `threshold` of f's (log f's) standard deviation, at the median.

    Args:
        function: function from (N, inputs) to (N, 1), each row by itself.
        x: (N, inputs) samples.
        mode: kind of the decomposition, "add" or "mul".
        threshold: least relative interaction that counts.

    Raises:
        ValueError: an unknown mode, several outputs, or fewer than two samples.
    """
    _check_samples(x)
    choice("mode", mode, ("add", "mul"))

    def target(z: Tensor) -> Tensor:
        y = function(z)
        return y if mode == "add" else y.abs().clamp(min=1e-12).log()

    with torch.no_grad():
        y = target(x)
    if y.shape[1] != 1:
        raise ValueError(f"function of {y.shape[1]} outputs: expected 1")
    spread = x.std(0, correction=0)
    mixed = hessian(target, x)[:, 0].abs().median(0).values
    interactions = mixed * spread[:, None] * spread / y.std(correction=0).clamp(min=1e-12)
    interactions.fill_diagonal_(0)
    near = interactions > threshold
    return Separability(connected(near | near.T), interactions)


def connected(near: Tensor) -> list[list[int]]:
    """Groups of numbers that are linked, directly or through others, by a symmetric matrix of booleans."""
    groups: list[list[int]] = []
    left = set(range(len(near)))
    while left:
        group: set[int] = set()
        queue = [min(left)]
        while queue:
            i = queue.pop()
            if i not in group:
                group.add(i)
                queue += [j for j in left if bool(near[i, j])]
        groups.append(sorted(group))
        left -= group
    return groups


def test_symmetry(function: Function, x: Tensor, group: list[int], threshold: float = 1e-2) -> tuple[bool, float]:
    """Whether f depends on the inputs in `group` only through one function of them, f(g(x_group), rest).

    It does if the direction of the gradient within the group does not depend on the other inputs (KAN 2.0, arXiv
    2408.10205, section 4.3): the directions of samples that share the group's values but not the rest are compared.

    Args:
        function: function from (N, inputs) to (N, 1), each row by itself.
        x: (N, inputs) samples.
        group: two or more of the inputs, not all.
        threshold: largest median 1 - |cos| that still counts.

    Returns:
        The answer and the median of 1 - |cos|.

    Raises:
        ValueError: a group of fewer than two inputs, of all, or of others; fewer than two samples.
    """
    _check_samples(x)
    if not 2 <= len(group) < x.shape[1]:
        raise ValueError(f"group={group}: expected at least two of the {x.shape[1]} inputs, not all")
    if len(set(group)) < len(group) or not all(0 <= i < x.shape[1] for i in group):
        raise ValueError(f"group={group}: expected distinct numbers from 0 to {x.shape[1] - 1}")
    other = x.roll(1, 0).clone()
    other[:, group] = x[:, group]
    a, b = (torch.nn.functional.normalize(jacobian(function, z)[:, 0, group], dim=1) for z in (x, other))
    flat = (a == 0).all(1) | (b == 0).all(1)  # no slope has no direction that could differ
    difference = float(torch.where(flat, 0, 1 - (a * b).sum(1).abs()).median())
    return difference < threshold, difference


test_symmetry.__test__ = False  # type: ignore[attr-defined]  # pytest takes its name for that of a test
