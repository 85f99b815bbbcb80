"""Section 3.5: five Gaussian peaks shown one after another; a KAN keeps the earlier ones, an MLP does not."""

from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kat_zoo.kan import KAN

from .common import KAN_COLOR, MLP_COLOR, Rows, Runs, mlp, rmse, train_lbfgs

CENTERS = [0.4 * (n - 2) for n in range(5)]


def _peaks(x: Tensor) -> Tensor:
    return sum(torch.exp(-300 * (x - c) ** 2) for c in CENTERS)


def _phases(name: str, grid: Tensor, steps: int) -> list[tuple[dict, Tensor]]:
    """One network through all phases: a row and its values on the grid after each."""
    model = KAN([1, 1], 200, base="zero", noise_scale=0.0) if name == "KAN" else mlp([1, 32, 32, 1], activation=nn.Tanh)
    results = []
    for phase, center in enumerate(CENTERS):
        x = torch.linspace(center - 0.2, center + 0.2, 100, dtype=torch.float64)[:, None]
        if isinstance(model, KAN):
            model.fit(x, _peaks(x), steps=5, update_grid=False, early_stopping=False)
        else:
            train_lbfgs(model, lambda x=x: (model(x) - _peaks(x)).square().mean(), steps)
        seen = grid[grid[:, 0] < center + 0.2]
        row = {"phase": phase + 1, "model": name, "rmse_all_seen": f"{rmse(model, seen, _peaks(seen)):.2e}",
               "rmse_new": f"{rmse(model, x, _peaks(x)):.2e}"}  # fmt: skip
        results.append((row, model(grid).detach()))
    return results


def continual(small: bool, runs: Runs) -> tuple[Rows, Figure]:
    """RMSE after each peak on all that was shown so far: what was forgotten shows there."""
    grid = torch.linspace(-1, 1, 500, dtype=torch.float64)[:, None]
    found = runs({name: partial(_phases, name, grid, 5 if small else 20) for name in ("KAN", "MLP")})
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(2, 5, sharex=True, sharey=True)
    for line, (name, phases) in enumerate(found.items()):
        for phase, (_, values) in enumerate(phases):
            axes = panels[line][phase]
            axes.plot(grid, _peaks(grid), color="#c9cfd6")
            axes.plot(grid, values, color=KAN_COLOR if name == "KAN" else MLP_COLOR, linewidth=1)
            axes.set(ylim=(-0.5, 1.5), title=f"{name}, phase {phase + 1}")
            axes.set(xlabel="x" if line else None, ylabel="f(x)" if phase == 0 else None)
    return [row for phase in zip(*found.values(), strict=True) for row, _ in phase], figure
