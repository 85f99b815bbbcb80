r"""
A deep formula
==============

:math:`\exp\left(\frac{1}{2}\left(\sin \pi(x_1^2+x_2^2) + \sin \pi(x_3^2+x_4^2)\right)\right)` needs three layers. A network of the
formula's own shape learns it; one of two layers does not.

pykan's notebook (3,000 samples, 50 steps a grid) records 9.2e-3 at G = 3 and 1.1e-3 at G = 10 for the deep one, and 2.2e-2 and 9.1e-3
for the shallow one.
"""

import time

import matplotlib.pyplot as plt
import torch

from kat_zoo.kan import KAN


def target(x):
    return torch.exp((torch.sin(torch.pi * x[:, :2].square().sum(1)) + torch.sin(torch.pi * x[:, 2:].square().sum(1))) / 2)[:, None]


X = torch.rand(3000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
Y = target(X)
X, X_test, Y, Y_test = X[:2000], X[2000:], Y[:2000], Y[2000:]

# %%
# Each grid starts from the coarser one, which keeps the function. Far from the goal L-BFGS gets stuck less often than
# Levenberg-Marquardt, which is the better one near it.
grids = (3, 5, 10)
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for width in ([4, 4, 2, 1], [4, 9, 1]):
    start, errors = time.perf_counter(), []
    model = KAN(width, grid_size=3, dtype=torch.float64)
    for grid in grids:
        model.fit(X, Y, grid_schedule=(grid,), steps=40, optimizer="lbfgs" if grid == 3 else "lm")
        errors.append((model(X_test) - Y_test).square().mean().sqrt().item())
    print(width, [f"{error:.1e}" for error in errors], f"{time.perf_counter() - start:.1f} s")
    axes.plot(grids, errors, "o-", label=str(width))
axes.set(xlabel="grid size", ylabel="test RMSE", xscale="log", yscale="log", xticks=grids, xticklabels=grids)
axes.minorticks_off()
legend = axes.legend()
