"""
Grid extension
==============

A spline on a finer grid holds the coarser one exactly, so training goes on where it stood. The paper's theory says that the error falls as
the fourth power of the grid size.

pykan's notebook records 1.5e-2, 3.3e-4, 4.0e-5, 1.2e-5 and 1.7e-3 at G = 3, 10, 20, 50 and 100 on this function, and remarks that the last
one got worse.
"""

import time

import matplotlib.pyplot as plt
import torch

from kat_zoo.kan import KAN

X = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
Y = torch.exp(torch.sin(torch.pi * X[:, :1]) + X[:, 1:] ** 2)
X, X_test, Y, Y_test = X[:3000], X[3000:], Y[:3000], Y[3000:]

# %%
# The second column is the relative change of the function by the refinement alone.
model = KAN([2, 1, 1], grid_size=3, dtype=torch.float64)
start, grids, errors = time.perf_counter(), (3, 5, 10, 20, 50), []
for grid in grids:
    change = model.refine(grid) if grid > 3 else 0.0
    model.fit(X, Y, steps=30)
    errors.append((model(X_test) - Y_test).square().mean().sqrt().item())
    print(f"G = {grid:3d}   change {change:.0e}   test RMSE {errors[-1]:.1e}   {time.perf_counter() - start:.1f} s")

# %%
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
axes.plot(grids, errors, "o-", label="kat_zoo")
axes.plot((3, 10, 20, 50, 100), (1.53e-2, 3.29e-4, 4.04e-5, 1.24e-5, 1.74e-3), "s--", color="gray", label="pykan's notebook")
axes.plot(grids, [errors[0] * (3 / grid) ** 4 for grid in grids], ":", color="black", label="fourth power")
axes.set(xlabel="grid size", ylabel="test RMSE", xscale="log", yscale="log")
legend = axes.legend()
