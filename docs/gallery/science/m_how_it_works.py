r"""
How a KAN works
===============

An edge of a Kolmogorov-Arnold network computes a function of one number; a node adds the functions that reach it:
:math:`y_j = \sum_i \varphi_{ij}(x_i)`. Each function is a spline with a smooth base function beside it,
:math:`\varphi(x) = s\,\mathrm{silu}(x) + \sum_k c_k B_k(x)` (arXiv 2404.19756).
"""

import matplotlib.pyplot as plt
import torch

from kat_zoo.kan import KAN
from kat_zoo.kernels import bspline_basis

# %%
# The basis
# ---------
# On a grid of 5 intervals there are 8 cubic B-splines. Only four of them are not zero at any point, so a sample costs four multiply-adds an
# edge, whatever the grid. Outside the grid a function continues with its slope.
knots = torch.linspace(-2.2, 2.2, 12, dtype=torch.float64)[None]  # 3 knots beyond either end of [-1, 1]
x = torch.linspace(-1.4, 1.4, 400, dtype=torch.float64)[:, None]
figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
axes.plot(x, bspline_basis(x, knots)[:, 0])
axes.axvspan(-1, 1, color="lightgray", alpha=0.4)
axes.set(xlabel="x", title="cubic B-splines; the grid is gray")

# %%
# The network
# -----------
# A picture of a network shows each edge's function, as opaque as its share of the output's variation. Layers, inputs and outputs of an edge
# are counted as (l, i, j).
X = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
Y = torch.sin(torch.pi * X[:, :1]) + X[:, 1:] ** 2
model = KAN([2, 1, 1], grid_size=5, dtype=torch.float64)
model.fit(X, Y)
figure = model.plot(X)

# %%
# Training
# --------
# The default optimizer is Levenberg-Marquardt with the exact Jacobian: a small network reaches the limit of its grid in some tens of steps.
# A finer grid then starts from the very same function.
figure, axes = plt.subplots(figsize=(6, 2.8), layout="constrained")
for optimizer in ("lm", "lbfgs", "adam"):
    model = KAN([2, 1, 1], grid_size=5, dtype=torch.float64)
    axes.plot(model.fit(X, Y, optimizer=optimizer, steps=25).train, label=optimizer)
axes.set(xlabel="record", ylabel="training RMSE", yscale="log")
legend = axes.legend()

# %%
# From edges to symbols
# ---------------------
# An edge becomes :math:`c f(a x + b) + d`: (a, b) are searched on a grid of starts and refined, (c, d) are a linear regression.
# `KANRegressor` tries closed forms first, and networks only for tables that no closed form explains: :doc:`/kan` has its steps.
