"""What the experiments of the KAN paper share: resumable runs, data, the MLP to compare with, L-BFGS, pictures."""

import itertools
import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor, nn
from tqdm import tqdm

Rows = list[dict]
Jobs = dict[Hashable, Callable[[], Any]]
PI = math.pi
KAN_COLOR, MLP_COLOR, PYKAN_COLOR = "#c1440e", "#1f2933", "#2a7f9e"


class Runs:
    """Runs the parts of an experiment and keeps what each returns in a file, so that an interrupted command goes on.

    Args:
        path: of that file; `finish` removes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, jobs: Jobs) -> dict[Hashable, Any]:
        """Results by key, in the order of the jobs; those in the file are not computed again. Shows the time left."""
        results = torch.load(self.path, weights_only=False) if self.path.exists() else {}
        missing = [key for key in jobs if key not in results]
        if results:
            print(f"{len(jobs) - len(missing)} of {len(jobs)} runs are in {self.path}; delete it to begin anew", flush=True)
        for key in tqdm(missing, total=len(jobs), initial=len(jobs) - len(missing), unit="run", disable=None):
            results[key] = jobs[key]()
            new = self.path.with_suffix(".new")
            torch.save(results, new)
            new.replace(self.path)  # an interrupt leaves the old file or the new one
        return {key: results[key] for key in jobs}

    def finish(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


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
        layers = [m for a, b in itertools.pairwise(width) for m in (nn.Linear(a, b), activation())]
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
