"""Sections 3.1 to 3.3: grid extension on toy functions; special functions and Feynman equations beside MLP and pykan."""

import math

import numpy as np
import torch
from matplotlib.figure import Figure

from kat_zoo.kan import KAN
from kat_zoo.scaling import fit_power_law

from .common import KAN_COLOUR, MLP_COLOUR, PYKAN_COLOUR, Rows, axes_of, matched_mlp, parameters, pareto, rmse, train_lbfgs, uniform
from .peers import pykan_path
from .tables import FEYNMAN, SPECIAL, TOYS


def toy(small: bool) -> tuple[Rows, Figure]:
    """RMSE against G and the fitted exponent; the best of some seeds counts, as in the paper."""
    rows: Rows = []
    grids = (3, 5, 10, 20) if small else (3, 5, 10, 20, 50, 100)
    samples, (steps, seeds) = 3000, (20, 2) if small else (60, 3)
    figure, axes = axes_of("grid extension", xscale="log", yscale="log", xlabel="G", ylabel="test RMSE")
    for name, (width, function) in TOYS.items():
        if small and name == "100-d":
            continue
        x, x_test = uniform(samples, width[0], -1, 1, 0), uniform(1000, width[0], -1, 1, 1)
        y, y_test = function(x), function(x_test)
        best: dict[int, tuple[float, int]] = {}
        for seed in range(seeds):
            model = KAN(width, grids[0], seed=seed)
            for grid in grids:
                if model.num_edges() * (grid + 3) > samples:
                    continue
                model.fit(x, y, grid_schedule=[grid], steps=steps, coef_smoothness=1e-11)
                best[grid] = min(best.get(grid, (math.inf, 0)), (rmse(model, x_test, y_test), parameters(model)))
        errors = [best[grid][0] for grid in best]
        law = fit_power_law(list(best), errors, constant=False, bootstrap=50)
        low, high = law.intervals["alpha"]
        axes.plot(list(best), errors, "o-", markersize=3, label=f"{name}: {law.alpha:.1f}")
        rows += [
            {"function": name, "shape": width, "G": g, "parameters": p, "test_rmse": f"{e:.3e}", "alpha": f"{law.alpha:.2f}",
             "alpha_90": f"{low:.2f}..{high:.2f}"} for g, (e, p) in best.items()
        ]  # fmt: skip
    axes.plot(grids, [errors[0] * (grids[0] / g) ** 4 for g in grids], "k:", linewidth=0.8, label="theory: 4")
    axes.legend(frameon=False, fontsize=7)
    return rows, figure


def _scores(width: list[int], function, small: bool, with_pykan: bool) -> dict[tuple[str, int], float]:
    """(model, parameters) -> least test RMSE over the seeds; all three learn from the same 1000 samples."""
    grids, seeds = ((3, 5, 10), range(2)) if small else ((3, 5, 10, 20), range(3))
    x, x_test = uniform(1000, width[0], 0, 1, 0), uniform(1000, width[0], 0, 1, 1)
    y, y_test = (torch.from_numpy(np.asarray(function(*z.T.numpy()))[:, None]) for z in (x, x_test))
    scores: dict[tuple[str, int], float] = {}

    def note(model: str, count: int, error: float) -> None:
        scores[model, count] = min(scores.get((model, count), math.inf), error)

    for seed in seeds:
        model = KAN(width, grids[0], seed=seed, grid_range=(0, 1))
        for grid in grids:
            model.fit(x[:800], y[:800], x[800:], y[800:], grid_schedule=[grid], steps=20 if small else 40, coef_smoothness=1e-10)
            note("KAN", parameters(model), rmse(model, x_test, y_test))
    for _, count in list(scores):
        for seed in seeds:
            network = matched_mlp(width[0], 1, count, seed)
            train_lbfgs(network, lambda n=network: (n(x) - y).square().mean(), 20 if small else 60)
            note("MLP", parameters(network), rmse(network, x_test, y_test))
    if with_pykan:
        for seed in range(1) if small else seeds:
            for count, error in pykan_path(width, grids, (x, y, x_test, y_test), steps=10 if small else 50, seed=seed):
                note("pykan", count, error)
    return scores


def _against_mlp(table: dict, small: bool, title: str) -> tuple[Rows, Figure]:
    rows: Rows = []
    for name in list(table)[:: 4 if small else 1]:
        width, function = table[name]
        scores = _scores(width, function, small, with_pykan=len(width) < 4)
        rows += [
            {"function": name, "model": m, "shape": width if m != "MLP" else "", "parameters": p, "test_rmse": f"{e:.2e}"}
            for (m, p), e in scores.items()
        ]
        print(name, {f"{m} {p}": f"{e:.1e}" for (m, p), e in scores.items()}, flush=True)
    figure, axes = axes_of(f"{title}: points and Pareto fronts", xscale="log", yscale="log", xlabel="parameters", ylabel="test RMSE")
    for model, colour in (("KAN", KAN_COLOUR), ("MLP", MLP_COLOUR), ("pykan", PYKAN_COLOUR)):
        points = [(r["parameters"], float(r["test_rmse"])) for r in rows if r["model"] == model]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=3, alpha=0.5)
            axes.plot(*zip(*pareto(points), strict=True), drawstyle="steps-post", color=colour, label=model, linewidth=1)
    axes.legend(frameon=False)
    return rows, figure


def special(small: bool) -> tuple[Rows, Figure]:
    """Table 1."""
    return _against_mlp(SPECIAL, small, "special functions")


def feynman(small: bool) -> tuple[Rows, Figure]:
    """Table 2."""
    return _against_mlp(FEYNMAN, small, "Feynman equations")
