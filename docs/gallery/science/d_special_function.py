"""
A function that no library has
==============================

The search for names knows elementary functions and J0. A function that it lacks is registered by name: here the Airy function. Until then
the edge stays a spline.

pykan's notebook on special functions needs `add_symbolic` too, with a search range by hand (`a_range=(-40, 40)`).
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.special
import torch

from kat_zoo.kan import KAN, register_function

start = time.perf_counter()
X = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
Y = torch.special.airy_ai(4 * X[:, :1]) + X[:, 1:] ** 2
model = KAN([2, 1], grid_size=20, dtype=torch.float64)
model.fit(X, Y)
print([(suggestion.name, f"{suggestion.r2:.4f}") for suggestion in model.suggest_symbolic(0, 0, 0, X, top=3)])

# %%
# The derivative of a registered function comes from automatic differentiation, so it has to be one that torch can differentiate. A sum of
# torch's own functions or a class with a backward will do.


class Airy(torch.autograd.Function):
    """Ai(x), whose second derivative is x Ai(x)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.from_numpy(scipy.special.airy(x.detach().numpy())[0])

    @staticmethod
    def setup_context(context, inputs, output):
        context.save_for_backward(*inputs)

    @staticmethod
    def backward(context, grad):
        (x,) = context.saved_tensors
        return grad * torch.from_numpy(scipy.special.airy(x.detach().numpy())[1])


register_function("airy", Airy.apply, "airyai(x)")
r2 = model.fix_symbolic(0, 0, 0, "airy", X)
model.fix_symbolic(0, 1, 0, "x^2", X)
model.fit(X, Y)
print(f"R2 {r2:.6f}", model.formula(["x", "y"], round=3), f"{time.perf_counter() - start:.1f} s")

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
t = np.linspace(-1, 1, 200)
axes.plot(t, scipy.special.airy(4 * t)[0], color="black", label="Ai(4x)")
with torch.no_grad():
    line = torch.from_numpy(np.stack([t, 0 * t], 1))
    axes.plot(t, model(line)[:, 0], "--", label="the network at y = 0")
axes.set(xlabel="x")
legend = axes.legend()
