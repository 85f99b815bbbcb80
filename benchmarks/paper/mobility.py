"""Section 4.4: mobility edges of three tight-binding models, from spectra computed here.

Mosaic model (Wang et al., PRL 125, 196604), generalised Aubry-Andre (Ganeshan et al., PRL 114, 146601) and modified
Aubry-Andre with exponential hops (Biddle, Das Sarma, PRL 104, 070601).
"""

import math

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kat_zoo.kan import KAN

from .common import KAN_COLOUR, MLP_COLOUR, PI, Rows, mlp, train_lbfgs

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


def mobility(small: bool) -> tuple[Rows, Figure]:
    """Accuracy of extended against localised on held-out states, beside the exact edge."""
    rows: Rows = []
    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 3)
    generator = np.random.default_rng(0)
    for panel, name in zip(panels, EDGES, strict=True):
        samples = []
        for _ in range(30 if small else 120):
            v, s = (
                generator.uniform(0.2, 1.5) * (2 if name == "MAAM" else 1),
                generator.uniform(0.2, 0.7) * (3 if name == "MAAM" else 1),
            )
            e, extended = spectrum(name, v, s, generator.uniform(0, 2 * PI), 120 if small else 300)
            pick = generator.choice(len(e), 20, replace=False)
            samples += [(e[p], v, s, extended[p]) for p in pick]
        table = np.array(samples, dtype=float)
        x, label = torch.from_numpy(table[:, :3]), torch.from_numpy(table[:, 3:])
        scale = x.std(0)
        half = len(x) // 2

        def loss(logits: Tensor, target: Tensor) -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[:, 0]

        scores = {}
        kan = KAN([3, [1, 1], 1], 5)
        options = {"optimizer": "lbfgs", "loss": loss, "steps": 5 if small else 20, "l1": 1e-3, "coef_smoothness": 1e-3}
        kan.fit(x[:half] / scale, label[:half], x[half:] / scale, label[half:], **options)
        scores["KAN [3,[1,1],1]"] = ((kan(x[half:] / scale) > 0) == (label[half:] > 0)).double().mean().item()
        network = mlp([3, 16, 16, 1])
        train_lbfgs(
            network,
            lambda n=network, x=x, s=scale, y=label, h=half: loss(n(x[:h] / s), y[:h]).mean(),
            5 if small else 20,
        )
        scores["MLP [3,16,16,1]"] = ((network(x[half:] / scale) > 0) == (label[half:] > 0)).double().mean().item()
        exact = EDGES[name](*table[half:, :3].T) > 0
        scores["exact edge"] = float((exact == (table[half:, 3] > 0)).mean())
        rows += [{"model": name, "classifier": c, "test_accuracy": f"{a:.4f}"} for c, a in scores.items()]
        print(name, scores, flush=True)
        for extended, colour in ((1, KAN_COLOUR), (0, MLP_COLOUR)):
            chosen = table[table[:, 3] == extended]
            panel.scatter(chosen[:, 1], chosen[:, 0], s=3, color=colour, alpha=0.5, label="extended" if extended else "localised")
        panel.set(
            title=f"{name}: KAN {scores['KAN [3,[1,1],1]']:.3f}, exact {scores['exact edge']:.3f}",
            xlabel="potential",
            ylabel="energy",
        )
        panel.title.set_size(8)
    panels[0].legend(frameon=False, fontsize=7)
    return rows, figure
