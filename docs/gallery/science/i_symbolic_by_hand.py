"""
Symbols by hand
===============

Look at the picture, remove an edge, choose a function from the suggestions, train on: the loop that the paper meant as clickable buttons.
"""

import time

import torch

from kat_zoo.kan import KAN

start = time.perf_counter()
X = torch.rand(800, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
Y = torch.sin(3 * X[:, :1]) + torch.exp(X[:, 1:2])  # the third input does nothing
model = KAN([3, 1], grid_size=8, dtype=torch.float64)
model.fit(X, Y)
figure = model.plot(X, variables=["a", "b", "c"])

# %%
# The third edge is faint, and goes. The first one may be a sine.
model.remove_edge(0, 2, 0)
for suggestion in model.suggest_symbolic(0, 0, 0, X, top=4):
    print(f"{suggestion.name:8s} R2 {suggestion.r2:.6f}")

# %%
model.fix_symbolic(0, 0, 0, "sin", X)
model.fix_symbolic(0, 1, 0, "exp", X)
model.fit(X, Y)
print(model.formula(["a", "b", "c"]), f"{time.perf_counter() - start:.1f} s")

# %%
# One edge's function, sampled, and the way back to a spline.
function, (low, high) = model.edge(0, 0, 0)
print(function(torch.linspace(low, high, 5, dtype=torch.float64)))
model.unfix(0, 0, 0, X)
figure = model.plot(X, variables=["a", "b", "c"])
