r"""
A mobility edge
===============

In a quasiperiodic chain some eigenstates are extended and others are localized. For the mosaic model the edge between them is known:
:math:`|E V| = 1`. The states come from diagonalized matrices, and a network learns which ones are extended.

`benchmarks/kan_paper.py` has the three models of the paper, at 300 sites.
"""

import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from kat_zoo.kan import KAN

start = time.perf_counter()
generator, n, rows = np.random.default_rng(0), np.arange(120), []
for _ in range(60):
    strength = generator.uniform(0.2, 1.5)
    wave = np.cos(math.pi * (math.sqrt(5) - 1) * n + generator.uniform(0, 2 * math.pi))
    potential = np.where(n % 2 == 0, 2 * strength * wave, 0)
    energies, states = np.linalg.eigh(np.diag(potential) + np.eye(120, k=1) + np.eye(120, k=-1))
    extended = -np.log((states**4).sum(0)) / np.log(120) > 0.5  # fractal dimension of the participation ratio
    rows += [(energies[i], strength, extended[i]) for i in generator.choice(120, 20, replace=False)]
table = torch.tensor(np.array(rows, dtype=float))
X, label = table[:, :2], table[:, 2:]

# %%
# A product node can multiply energy and potential.
model = KAN([2, [1, 1], 1], grid_size=5, dtype=torch.float64)


def loss(logits, target):
    return nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")[:, 0]


model.fit(X[:800], label[:800], optimizer="lbfgs", loss=loss, steps=15, l1=1e-3, coef_smoothness=1e-3)
found = ((model(X[800:]) > 0) == (label[800:] > 0)).double().mean().item()
exact = (((X[800:].prod(1).abs() < 1)[:, None]) == (label[800:] > 0)).double().mean().item()
print(f"accuracy on states not trained on: KAN {found:.3f}, exact edge {exact:.3f}; {time.perf_counter() - start:.1f} s")

# %%
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
energy, strength = torch.meshgrid(torch.linspace(-3.5, 3.5, 150).double(), torch.linspace(0.2, 1.5, 100).double(), indexing="ij")
with torch.no_grad():
    logits = model(torch.stack([energy.ravel(), strength.ravel()], 1)).reshape(150, 100)
axes.contour(strength, energy, logits, [0], colors="black")
for value, name in ((1, "extended"), (0, "localized")):
    chosen = X[label[:, 0] == value]
    axes.scatter(chosen[:, 1], chosen[:, 0], s=4, label=name)
axes.set(xlabel="potential", ylabel="energy", title="the network's edge in black")
legend = axes.legend(fontsize=8)
