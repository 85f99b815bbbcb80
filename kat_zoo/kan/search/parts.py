"""Parts of a function: functions of y that may be sums or products, groups of inputs that do not interact, and their tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..operations.structure import connected
from .judge import FLOOR, Data
from .tree import Tree, power, product

APART = 0.15  # largest interaction, relative to y's spread, of groups that may be apart
GAP = 2.5  # ratio by which interactions within groups exceed those between them
SLACK = 1.5  # error of a part's form over that of its values, from which longer forms are not better


@dataclass(frozen=True)
class Outer:
    """A function of y that may be a sum or product of parts.

    Attributes:
        mode: Kind of the decomposition, "add" or "mul".
        apply: The function, of (N, 1) values.
        back: Tree of y from that of the function's value.
    """

    mode: str
    apply: Callable[[Tensor], Tensor]
    back: Callable[[Tree], Tree]


@dataclass(frozen=True)
class Split:
    """Groups of inputs that do not interact in a function of y.

    Attributes:
        outer: The function of y.
        groups: The inputs of each part.
        tables: The table of each part.
    """

    outer: Outer
    groups: list[list[int]]
    tables: list[Data]


def outers(y: np.ndarray) -> Iterator[Outer]:
    """Functions of y, those first that laws have most often."""
    same: Callable[[Tree], Tree] = lambda tree: tree  # noqa: E731 (the identity)
    yield Outer("add", lambda y: y, same)
    yield Outer("mul", lambda y: y, same)
    if (y > 0).all() or (y < 0).all():
        sign: Tree = ("n", float(np.sign(y[0])))
        yield Outer("add", lambda y: 1 / y, lambda tree: power(tree, -1))
        yield Outer("add", lambda y: y * y, lambda tree: product(sign, power(tree, 0.5)))
        yield Outer("add", lambda y: y**-2, lambda tree: product(sign, power(tree, -0.5)))
    if np.ptp(y) < 10:
        yield Outer("add", lambda y: y.exp(), lambda tree: ("log", tree))


def groupings(interactions: Tensor) -> list[list[list[int]]]:
    """Groups of inputs that interact far more within than between."""
    strengths = torch.maximum(interactions, interactions.T)
    found: dict[str, list[list[int]]] = {}
    for threshold in sorted({float(s) for s in strengths.flatten() if 0 < s < APART}):
        groups = connected(strengths > threshold)
        if len(groups) == 1:
            continue
        member = torch.empty(len(strengths), dtype=torch.long)
        for n, group in enumerate(groups):
            member[group] = n
        between = strengths[member[:, None] != member]
        within = strengths[strengths > threshold]
        least = float(within.min()) if len(within) else 1.0
        if least > GAP * float(between.max()):
            found[str(groups)] = groups
    return list(found.values())


def values_of_part(
    function: Callable[[Tensor], Tensor], mode: str, group: list[int], X: np.ndarray, bases: np.ndarray
) -> tuple[np.ndarray, float]:
    """Values (N,) of a group's part, those of other inputs being held at several rows; up to a constant term or factor.

    The second value is their error relative to their spread: by how much the rows disagree.

    Args:
        function: The function that is a sum or product of parts.
        mode: Kind of the decomposition, "add" or "mul".
        group: Inputs of the part.
        X: (N, inputs) rows that the group's inputs are taken from.
        bases: (K, inputs) rows that the others are taken from.
    """
    mixed = np.repeat(bases[None], len(X), 0)
    mixed[:, :, group] = X[:, None, group]
    with torch.no_grad():
        values = function(torch.from_numpy(mixed.reshape(-1, X.shape[1]))).numpy().reshape(len(X), len(bases))
    if not np.isfinite(values).all():
        return values[:, 0], math.inf
    if mode == "add":
        part = values.mean(1)
        miss = values - values.mean(0) - part[:, None] + part.mean()
        spread = float(np.std(part)) or 1.0
        return part / spread, float(np.sqrt(np.mean(miss**2))) / spread
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    part = left[:, 0] * math.copysign(math.sqrt(len(X)), float(np.median(left[:, 0])))
    return part, float(np.sqrt(np.sum(sizes[1:] ** 2)) / sizes[0]) / (float(np.std(part)) or 1.0)


def table_of_part(data: Data, X: np.ndarray, X_val: np.ndarray, y: np.ndarray, error: float) -> Data:
    """The table of a part.

    Args:
        data: The whole table.
        X: (N, inputs) rows of the part's inputs.
        X_val: (M, inputs) rows to judge by.
        y: (N + M,) values.
        error: Relative error of the values.
    """
    floor = max(FLOOR, SLACK * error)
    noise: dict[str, Any] = {"weight": None, "weight_val": None, "relative": False, "floor": floor}
    return replace(data, X=X, y=y[: len(X)], X_val=X_val, y_val=y[len(X) :], **noise)
