"""What the experiments of the KAN paper share: data, the MLP to compare with, L-BFGS, pictures."""

import math
from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor, nn

Rows = list[dict]
PI = math.pi
KAN_COLOUR, MLP_COLOUR, PYKAN_COLOUR = "#c1440e", "#1f2933", "#2a7f9e"


def uniform(n: int, d: int, low: float, high: float, seed: int) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * (high - low) + low


def rmse(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x) - y).square().mean().sqrt())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def mlp(width: list[int], seed: int = 0, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [m for a, b in zip(width, width[1:], strict=False) for m in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1]).double()


def matched_mlp(inputs: int, outputs: int, count: int, seed: int = 0) -> nn.Sequential:
    """Two hidden layers of the width that gives about `count` parameters."""
    hidden = max(2, round((-(inputs + 2 + outputs) + math.sqrt((inputs + 2 + outputs) ** 2 + 4 * count)) / 2))
    return mlp([inputs, hidden, hidden, outputs], seed)


def train_lbfgs(model: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=20, history_size=20, line_search_fn="strong_wolfe")
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)


def axes_of(title: str, **options) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, **options)
    axes.xaxis.set_minor_formatter(NullFormatter())  # labels between decades overlap
    return figure, axes


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, error) points that no cheaper one beats, by cost."""
    front: list[tuple[float, float]] = []
    for cost, error in sorted(points):
        if not front or error < front[-1][1]:
            front.append((cost, error))
    return front
