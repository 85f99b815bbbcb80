"""Sections 3.1 to 3.3: grid extension on toy functions; special functions and Feynman equations beside MLP and pykan."""

import itertools
import math
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure

from kat_zoo.analysis.scaling import fit_power_law
from kat_zoo.kan import KAN

from .common import (
    KAN_COLOR,
    MLP_COLOR,
    PYKAN_COLOR,
    Jobs,
    Rows,
    Runs,
    axes_of,
    matched_mlp,
    parameters,
    pareto,
    rmse,
    train_lbfgs,
    uniform,
)
from .peers import pykan_found, pykan_path
from .tables import FEYNMAN, SPECIAL, TOYS

SAMPLES = 3000  # of a toy function
GRIDS, SMALL_GRIDS = (3, 5, 10, 20), (3, 5, 10)  # of special functions and Feynman equations
PYKAN_STEPS = {False: 50, True: 10}  # per grid, of up to 20 iterations each, for those; small or not


def _toy_run(name: str, grids: tuple[int, ...], small: bool, model: str, seed: int) -> list[tuple[int, float]]:
    """(G, test RMSE) after each grid."""
    width, function = TOYS[name]
    x, x_test = uniform(SAMPLES, width[0], -1, 1, 0), uniform(1000, width[0], -1, 1, 1)
    y, y_test = function(x), function(x_test)
    steps = 20 if small else 60
    if model == "pykan":
        path = pykan_path(width, grids, (x, y, x_test, y_test), steps, seed, (-1, 1))
        return [(grid, error) for grid, (_, error) in zip(grids, path, strict=True)]
    kan, errors = KAN(width, grids[0], seed=seed), []
    for grid in grids:
        kan.fit(x, y, grid_schedule=[grid], steps=steps, coef_smoothness=1e-11)
        errors.append((grid, rmse(kan, x_test, y_test)))
    return errors


def toy(small: bool, runs: Runs) -> tuple[Rows, Figure]:
    """RMSE against G and the fitted exponent; the best of three seeds counts, as in the paper."""
    names = [name for name in TOYS if name != "100-d" or not small]
    peers = ("pykan",) if pykan_found() else ()
    # One seed of pykan in 100 dimensions had not ended after half an hour.
    models = {name: ("KAN",) if name == "100-d" else ("KAN", *peers) for name in names}
    grids = {}  # no more parameters than samples
    for name in names:
        edges = _edges(TOYS[name][0])
        grids[name] = tuple(g for g in ((3, 5, 10, 20) if small else (3, 5, 10, 20, 50, 100)) if edges * (g + 3) <= SAMPLES)
    found = runs(
        {
            (name, model, seed): partial(_toy_run, name, grids[name], small, model, seed)
            for name in names
            for model in models[name]
            for seed in range(3)
        }
    )
    rows: Rows = []
    for name in names:
        for model in models[name]:
            paths = [found[name, model, seed] for seed in range(3)]
            errors = [min(float(np.nan_to_num(error, nan=math.inf)) for _, error in stage) for stage in zip(*paths, strict=True)]
            law = fit_power_law(list(grids[name]), errors, constant=False, bootstrap=50)
            low, high = law.intervals["alpha"]
            rows += [
                {"function": name, "model": model, "shape": TOYS[name][0], "G": g, "parameters": _edges(TOYS[name][0]) * (g + 4),
                 "test_rmse": f"{e:.3e}", "alpha": f"{law.alpha:.2f}", "alpha_90": f"{low:.2f}..{high:.2f}"}
                for g, e in zip(grids[name], errors, strict=True)
            ]  # fmt: skip
    return rows, extension(rows)


def extension(rows: Rows) -> Figure:
    """Test RMSE against G, solid for our KAN and dashed for pykan, with the exponents of ours."""
    figure, axes = axes_of("grid extension", xscale="log", yscale="log", xlabel="grid size G", ylabel="test RMSE")
    for number, name in enumerate(dict.fromkeys(row["function"] for row in rows)):
        for model, line in (("KAN", "-"), ("pykan", "--")):
            part = [row for row in rows if (row["function"], row["model"]) == (name, model)]
            label = f"{name}: {float(part[0]['alpha']):.1f}" if model == "KAN" else None
            points = [(int(row["G"]), float(row["test_rmse"])) for row in part]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linestyle=line, color=f"C{number}", label=label)
            if model == "KAN":
                first, grids = points[0], [g for g, _ in points]
    axes.plot([], [], "k--", linewidth=1, label="dashed: pykan")
    axes.plot(grids, [first[1] * (first[0] / g) ** 4 for g in grids], "k:", linewidth=0.8, label="theory: 4")
    axes.set_xticks(grids, [str(g) for g in grids])
    axes.legend(frameon=False, fontsize=7)
    return figure


def _edges(width: list[int]) -> int:
    return sum(a * b for a, b in itertools.pairwise(width))


def _run(width: list[int], function, small: bool, model: str, seed: int, count: int = 0) -> list[tuple[int, float]]:
    """(parameters, test RMSE) of each stage of one model; all learn from the same 1000 samples."""
    x, x_test = uniform(1000, width[0], 0, 1, 0), uniform(1000, width[0], 0, 1, 1)
    y, y_test = (torch.from_numpy(np.asarray(function(*z.T.numpy()))[:, None]) for z in (x, x_test))
    grids = SMALL_GRIDS if small else GRIDS
    if model == "pykan":
        return pykan_path(width, grids, (x, y, x_test, y_test), PYKAN_STEPS[small], seed)
    if model == "MLP":
        network = matched_mlp(width[0], 1, count, seed)
        train_lbfgs(network, lambda: (network(x) - y).square().mean(), 20 if small else 60)
        return [(parameters(network), rmse(network, x_test, y_test))]
    kan, stages = KAN(width, grids[0], seed=seed, grid_range=(0, 1)), []
    for grid in grids:
        kan.fit(x[:800], y[:800], x[800:], y[800:], grid_schedule=[grid], steps=20 if small else 40, coef_smoothness=1e-10)
        stages.append((parameters(kan), rmse(kan, x_test, y_test)))
    return stages


def _against_mlp(table: dict, small: bool, runs: Runs, title: str) -> tuple[Rows, Figure]:
    names, with_pykan = list(table)[:: 4 if small else 1], pykan_found()
    jobs: Jobs = {}
    for name in names:
        width, function = table[name]
        for seed in range(2 if small else 3):
            jobs[name, "KAN", seed] = partial(_run, width, function, small, "KAN", seed)
            for grid in SMALL_GRIDS if small else GRIDS:
                count = _edges(width) * (grid + 4)
                jobs[name, "MLP", seed, count] = partial(_run, width, function, small, "MLP", seed, count)
            if with_pykan and len(width) < 4 and not (small and seed):
                jobs[name, "pykan", seed] = partial(_run, width, function, small, "pykan", seed)
    best: dict[tuple[str, str, int], float] = {}
    for (name, model, *_), stages in runs(jobs).items():
        for count, error in stages:
            best[name, model, count] = min(best.get((name, model, count), math.inf), error)
    rows = [
        {"function": n, "model": m, "shape": table[n][0] if m != "MLP" else "", "parameters": p, "test_rmse": f"{e:.2e}"}
        for (n, m, p), e in best.items()
    ]
    return rows, fronts(rows, title)


def fronts(rows: Rows, title: str) -> Figure:
    """A panel per function: points and Pareto fronts of test RMSE against parameters."""
    names = list(dict.fromkeys(row["function"] for row in rows))
    columns = min(4, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(2.6 * columns, 0.6 + 2.2 * lines), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.axis("off")
    for name, axes in zip(names, panels.flat, strict=False):
        for model, color in (("KAN", KAN_COLOR), ("MLP", MLP_COLOR), ("pykan", PYKAN_COLOR)):
            points = [(int(r["parameters"]), float(r["test_rmse"])) for r in rows if (r["function"], r["model"]) == (name, model)]
            if points:
                axes.plot(*zip(*points, strict=True), "o", color=color, markersize=3, alpha=0.5)
                axes.plot(*zip(*pareto(points), strict=True), drawstyle="steps-post", color=color, label=model, linewidth=1)
        axes.set(yscale="log", xlabel="parameters", xlim=(0, None))
        axes.set_title(name, fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("test RMSE")
    panels[0, 0].legend(frameon=False, fontsize=8)
    return figure


def special(small: bool, runs: Runs) -> tuple[Rows, Figure]:
    """Table 1."""
    return _against_mlp(SPECIAL, small, runs, "special functions")


def feynman(small: bool, runs: Runs) -> tuple[Rows, Figure]:
    """Table 2."""
    return _against_mlp(FEYNMAN, small, runs, "Feynman equations")
