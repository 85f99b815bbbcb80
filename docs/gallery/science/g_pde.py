r"""
A differential equation
=======================

Poisson's equation :math:`\Delta u = f` on a square, zero on its edge, with :math:`u = \sin \pi x \sin \pi y`: the loss is the residual
of the equation,
by the differentiable Hessian of the network.

pykan's notebook (51 x 51 points, 50 steps a grid, on a GPU, 35 s a grid) records squared errors of 3.1e-3, 1.0e-3 and 1.7e-4 at
G = 5, 10, 20. `benchmarks/kan_paper.py` solves the harder equation of the paper.
"""

import time

import matplotlib.pyplot as plt
import torch

from kat_zoo.kan import KAN
from kat_zoo.kan.operations.structure import hessian


def solution(z):
    return torch.sin(torch.pi * z[:, :1]) * torch.sin(torch.pi * z[:, 1:])


t = torch.linspace(-1, 1, 21, dtype=torch.float64)
inside, one = torch.cartesian_prod(t[1:-1], t[1:-1]), torch.ones_like(t)
edge = torch.cat([torch.stack(pair, 1) for pair in ((t, one), (t, -one), (one, t), (-one, t))])
source = -2 * torch.pi**2 * solution(inside)
model = KAN([2, 4, 1], grid_size=8, dtype=torch.float64)


def loss():
    laplacian = hessian(model, inside, create_graph=True)[:, 0].diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    return 0.01 * (laplacian - source).square().mean() + model(edge).square().mean()


# %%
# The network is an ordinary module, so any optimizer of torch serves.
start = time.perf_counter()
optimizer = torch.optim.LBFGS(model.parameters(), max_iter=250, history_size=50, line_search_fn="strong_wolfe", tolerance_change=0)


def closure():
    optimizer.zero_grad()
    value = loss()
    value.backward()
    return value


optimizer.step(closure)
fine = torch.cartesian_prod(*[torch.linspace(-1, 1, 64, dtype=torch.float64)] * 2)
with torch.no_grad():
    error = (model(fine) - solution(fine)).reshape(64, 64)
print(f"mean squared error {error.square().mean().item():.1e}, {time.perf_counter() - start:.1f} s")

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
with torch.no_grad():
    pictures = (("u", model(fine).reshape(64, 64)), ("error", error))
for axis, (title, values) in zip(axes, pictures, strict=True):
    figure.colorbar(axis.imshow(values.T, extent=(-1, 1, -1, 1), origin="lower", cmap="RdBu_r"), ax=axis, shrink=0.8)
    axis.set(title=title, xlabel="x", ylabel="y")
