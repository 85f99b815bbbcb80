"""
Hello, KAN
==========

The workflow of the paper's first example: train a sparse network on 1,000 samples, prune it, name its functions, read the formula.

pykan's notebook ends with the same formula.
"""

import time

import torch

from kat_zoo.kan import KAN

start = time.perf_counter()
generator = torch.Generator().manual_seed(0)
X = torch.rand(2000, 2, generator=generator, dtype=torch.float64) * 2 - 1
Y = torch.exp(torch.sin(torch.pi * X[:, :1]) + X[:, 1:] ** 2)
X, X_val, Y, Y_val = X[:1000], X[1000:], Y[:1000], Y[1000:]

# %%
# Penalties on the size and the entropy of the edges leave few of them.
model = KAN([2, 5, 1], grid_size=3, dtype=torch.float64, seed=1)
model.fit(X, Y, X_val, Y_val, optimizer="lbfgs", steps=40, l1=3e-2, entropy=6e-2, early_stopping=False)
figure = model.plot(X)

# %%
# `prune` returns a smaller network, which is trained on without penalties.
model = model.prune(X)
model.fit(X, Y, X_val, Y_val, grid_schedule=(3, 10))
print(model.width)
figure = model.plot(X)

# %%
# Each edge becomes a function of the library, checked by training on. The numbers are then exact.
model.auto_symbolic(X, Y)
model.fit(X, Y, X_val, Y_val)
print(model.formula(["x", "y"]))
print(f"RMSE {(model(X_val) - Y_val).square().mean().sqrt().item():.1e}, {time.perf_counter() - start:.1f} s in all")
figure = model.plot(X, variables=["x", "y"])
