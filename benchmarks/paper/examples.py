"""Section 4.1: small functions whose trained and pruned networks can be read."""

import io
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from kat_zoo.kan import KAN

from .common import Rows, Runs, rmse, uniform

# Name -> (shape, function, range), the shapes of the paper before pruning.
EXAMPLES = {
    "xy": ([2, 5, 1], lambda x: x[:, :1] * x[:, 1:], (-1, 1)),
    "x/y": ([2, 5, 1], lambda x: x[:, :1] / x[:, 1:], (0.5, 2)),
    "digit": ([1, 1], lambda x: torch.floor(10 * x) % 2, (0, 1)),
    "exp(J0(20x)+y^2)": ([2, 5, 1], lambda x: torch.exp(torch.special.bessel_j0(20 * x[:, :1]) + x[:, 1:] ** 2), (-1, 1)),
    "tanh(5(sum x^4 - 1))": ([3, 5, 1], lambda x: torch.tanh(5 * ((x**4).sum(1, keepdim=True) - 1)), (-1, 1)),
    "distance": (
        [4, 3, 3, 1],
        lambda x: torch.hypot(x[:, 0] - x[:, 1], x[:, 2] - x[:, 3])[:, None],
        (-1, 1),
    ),
}


def _panel(model: KAN, x: torch.Tensor) -> np.ndarray:
    buffer = io.BytesIO()
    model.plot(x).savefig(buffer, format="png", dpi=80)
    buffer.seek(0)
    return imread(buffer)


def _run(name: str, seed: int) -> tuple[float, KAN, dict]:
    """Sparse training, pruning, finer grids: the pruned network's error on held-out samples, the network, its row."""
    width, function, (low, high) = EXAMPLES[name]
    x, x_test = uniform(1000, width[0], low, high, 0), uniform(1000, width[0], low, high, 1)
    y, y_test = function(x), function(x_test)
    train, held = slice(800), slice(800, None)
    model = KAN(width, 10, seed=seed, grid_range=(low, high))
    for l1 in (1e-2, 1e-3):
        model.fit(x[train], y[train], steps=20, l1=l1, coef_smoothness=1e-5)
    pruned = model.prune(x[train])
    pruned.fit(x[train], y[train], x[held], y[held], grid_schedule=[10, 20], steps=20, coef_smoothness=1e-8)
    row = {"function": name, "shape": width, "seed": seed, "edges": model.num_edges(), "test_rmse": f"{rmse(model, x_test, y_test):.2e}",
           "pruned_shape": pruned.nodes, "pruned_edges": pruned.num_edges(),
           "pruned_test_rmse": f"{rmse(pruned, x_test, y_test):.2e}"}  # fmt: skip
    return rmse(pruned, x[held], y[held]), pruned, row


def examples(small: bool, runs: Runs) -> tuple[Rows, Figure]:
    """Edges and test RMSE before and after L1 training and pruning, of the seed that held-out samples choose.

    The picture shows the pruned networks.
    """
    seeds = range(8 if small else 20)
    found = runs({(name, seed): partial(_run, name, seed) for name in EXAMPLES for seed in seeds})
    rows: Rows = []
    figure = Figure(figsize=(12, 7), layout="constrained")
    for axes, (name, (width, _, (low, high))) in zip(figure.subplots(2, 3).flat, EXAMPLES.items(), strict=True):
        _, pruned, row = min((found[name, seed] for seed in seeds), key=lambda run: run[0])
        rows.append(row)
        axes.imshow(_panel(pruned, uniform(1000, width[0], low, high, 0)))
        axes.set_title(f"{name}: {pruned.nodes}, test RMSE {row['pruned_test_rmse']}", fontsize=9)
        axes.axis("off")
    return rows, figure
