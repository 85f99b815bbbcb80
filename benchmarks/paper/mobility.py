"""Section 4.4: mobility edges of three tight-binding models, from spectra computed here.

Mosaic model (Wang et al., PRL 125, 196604), generalized Aubry-Andre (Ganeshan et al., PRL 114, 146601) and modified
Aubry-Andre with exponential hops (Biddle, Das Sarma, PRL 104, 070601).
"""

import math
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kat_zoo.kan import KAN

from .common import KAN_COLOR, MLP_COLOR, PI, Rows, Runs, mlp, train_lbfgs

GOLDEN = (math.sqrt(5) - 1) / 2


def spectrum(model: str, strength: float, second: float, phase: float, sites: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies and whether each eigenstate is extended (fractal dimension of its participation ratio above 1/2)."""
    n = np.arange(sites)
    wave = np.cos(2 * PI * n * GOLDEN + phase)
    hops = np.eye(sites, k=1) + np.eye(sites, k=-1)
    if model == "mosaic":
        potential = np.where(n % 2 == 0, 2 * strength * wave, 0)
    elif model == "GAAM":
        potential = 2 * strength * wave / (1 - second * wave)
    else:
        potential = strength * wave
        distance = np.abs(n[:, None] - n)
        hops = np.where(distance > 0, np.exp(-second * (distance - 1.0)), 0)
    energies, states = np.linalg.eigh(hops + np.diag(potential))
    dimension = -np.log((states**4).sum(0)) / np.log(sites)
    return energies, dimension > 0.5


# The exact mobility edges in these units; positive where states are extended.
EDGES = {
    "mosaic": lambda e, v, s: 1 - np.abs(e * v),
    "GAAM": lambda e, v, s: 2 - 2 * v - s * e,
    "MAAM": lambda e, v, s: e + np.exp(s) - v * np.cosh(s),
}


def _states(name: str, generator: np.random.Generator, models: int, sites: int) -> np.ndarray:
    """Rows (energy, potential, second parameter, extended), 20 eigenstates of each random model."""
    samples, factor = [], 2 if name == "MAAM" else 1
    for _ in range(models):
        v, s = generator.uniform(0.2, 1.5) * factor, generator.uniform(0.2, 0.7) * (3 if name == "MAAM" else 1)
        e, extended = spectrum(name, v, s, generator.uniform(0, 2 * PI), sites)
        samples += [(e[p], v, s, extended[p]) for p in generator.choice(len(e), 20, replace=False)]
    return np.array(samples, dtype=float)


def _loss(logits: Tensor, target: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[:, 0]


def _run(name: str, models: int, sites: int, steps: int) -> tuple[np.ndarray, dict[str, float]]:
    """The states, and the accuracies on the half that was not trained on."""
    table = _states(name, np.random.default_rng(list(EDGES).index(name)), models, sites)
    x, label = torch.from_numpy(table[:, :3]), torch.from_numpy(table[:, 3:])
    x, half = x / x.std(0), len(table) // 2
    train, test = slice(half), slice(half, None)

    def accuracy(positive: Tensor) -> float:
        return float((positive == (label[test] > 0)).double().mean())

    kan = KAN([3, [1, 1], 1], 5)
    kan.fit(x[train], label[train], optimizer="lbfgs", loss=_loss, steps=steps, l1=1e-3, coef_smoothness=1e-3)
    network = mlp([3, 16, 16, 1])
    train_lbfgs(network, lambda: _loss(network(x[train]), label[train]).mean(), steps)
    exact = torch.from_numpy(EDGES[name](*table[test, :3].T) > 0)[:, None]
    return table, {
        "KAN [3,[1,1],1]": accuracy(kan(x[test]) > 0),
        "MLP [3,16,16,1]": accuracy(network(x[test]) > 0),
        "exact edge": accuracy(exact),
    }


def mobility(small: bool, runs: Runs) -> tuple[Rows, Figure]:
    """Accuracy of extended against localized on held-out states, beside the exact edge."""
    models, sites, steps = (30, 120, 5) if small else (120, 300, 20)
    found = runs({name: partial(_run, name, models, sites, steps) for name in EDGES})
    rows: Rows = []
    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, (name, (table, scores)) in zip(panels, found.items(), strict=True):
        rows += [{"model": name, "classifier": c, "test_accuracy": f"{a:.4f}"} for c, a in scores.items()]
        for extended, color in ((1, KAN_COLOR), (0, MLP_COLOR)):
            chosen = table[table[:, 3] == extended]
            panel.scatter(chosen[:, 1], chosen[:, 0], s=3, color=color, alpha=0.5, label="extended" if extended else "localized")
        title = f"{name}: KAN {scores['KAN [3,[1,1],1]']:.3f}, exact {scores['exact edge']:.3f}"
        panel.set_title(title, size=8)
        panel.set(xlabel="potential", ylabel="energy")
    panels[0].legend(frameon=False, fontsize=7)
    return rows, figure
