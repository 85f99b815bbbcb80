"""Section 3.5: five Gaussian peaks shown one after another; a KAN keeps the earlier ones, an MLP does not."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kat_zoo.kan import KAN

from .common import KAN_COLOUR, MLP_COLOUR, Rows, mlp, rmse, train_lbfgs


def continual(small: bool) -> tuple[Rows, Figure]:
    """RMSE after each peak on all that was shown so far: what was forgotten shows there."""
    centres = [0.4 * (n - 2) for n in range(5)]
    grid = torch.linspace(-1, 1, 500, dtype=torch.float64)[:, None]

    def peaks(x: Tensor) -> Tensor:
        return sum(torch.exp(-300 * (x - c) ** 2) for c in centres)

    rows: Rows = []
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(2, 5, sharex=True, sharey=True)
    kan = KAN([1, 1], 200, base="zero", noise_scale=0.0)
    network = mlp([1, 32, 32, 1], activation=nn.Tanh)
    for phase, centre in enumerate(centres):
        x = torch.linspace(centre - 0.2, centre + 0.2, 100, dtype=torch.float64)[:, None]
        for row, (name, model) in enumerate((("KAN", kan), ("MLP", network))):
            if name == "KAN":
                model.fit(x, peaks(x), steps=5, update_grid=False, early_stopping=False)
            else:
                train_lbfgs(model, lambda m=model, x=x: (m(x) - peaks(x)).square().mean(), 5 if small else 20)
            seen = grid[(grid[:, 0] > -1.0) & (grid[:, 0] < centre + 0.2)]
            rows.append({"phase": phase + 1, "model": name, "rmse_all_seen": f"{rmse(model, seen, peaks(seen)):.2e}",
                         "rmse_new": f"{rmse(model, x, peaks(x)):.2e}"})  # fmt: skip
            axes = panels[row][phase]
            axes.plot(grid, peaks(grid), color="#c9cfd6")
            with torch.no_grad():
                axes.plot(grid, model(grid), color=KAN_COLOUR if name == "KAN" else MLP_COLOUR, linewidth=1)
            axes.set(ylim=(-0.5, 1.5), title=f"{name}, phase {phase + 1}")
            axes.set(xlabel="x" if row else None, ylabel="f(x)" if phase == 0 else None)
    return rows, figure
