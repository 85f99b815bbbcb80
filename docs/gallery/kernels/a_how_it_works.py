r"""
How the kernels work
====================

Three operators, each as a plain reference in PyTorch, in C++ for CPUs, and in Triton for GPUs. They are registered with torch.library, so
`torch.compile`, `torch.export`, `torch.func` and autocast see them.
"""

import time

import matplotlib.pyplot as plt
import torch

from kat_zoo.kernels import bspline_basis, fourier_attention, rational, rational_reference

# %%
# Which code runs
# ---------------
# A CUDA tensor takes Triton's kernels. A CPU tensor takes the compiled library, which chooses the processor's widest instructions when
# it runs, or
# PyTorch where no compiler was at hand at installation; the log says so once. The reference in float64 is the oracle of all tests.
torch.manual_seed(0)
x = torch.randn(512, 64, requires_grad=True)
numerator, denominator = torch.randn(1, 6) / 5, torch.randn(8, 4) / 5
y = rational(x, numerator, denominator)
exact = rational_reference(x.double(), numerator.double(), denominator.double())
print(f"largest difference from the reference in float64: {(y - exact).abs().max().item():.1e}")

# %%
# Only x is kept for the backward pass; numerator and denominator are computed again. Sums over rows have a fixed order, so gradients do not
# depend on the number of threads.
torch.autograd.gradcheck(rational, (x[:4, :8].detach().double().requires_grad_(), numerator.double(), denominator.double()))

# %%
# Time beside nn.GELU
# -------------------
# Figures of a quiet machine are in :doc:`/results`; these are of the machine that built the site, which may have been busy.
x = torch.randn(4096, 768)
seconds = {}
for name, function in (("GELU", torch.nn.functional.gelu), ("rational", lambda x: rational(x, numerator, denominator))):
    function(x)
    runs = []
    for _ in range(5):
        start = time.perf_counter()
        function(x)
        runs.append(time.perf_counter() - start)
    seconds[name] = min(runs)
figure, axes = plt.subplots(figsize=(5, 1.8), layout="constrained")
axes.barh(list(seconds), [1e3 * value for value in seconds.values()])
axes.set(xlabel="ms forward, 4096 x 768, float32")

# %%
# Splines touch four coefficients
# -------------------------------
# A sample lies in one interval, where spline_order + 1 functions are not zero. The kernel of `spline_linear` reads those alone.
knots = torch.linspace(-1.6, 1.6, 17)[None]
values = bspline_basis(torch.linspace(-1, 1, 60)[:, None], knots)[:, 0]
figure, axes = plt.subplots(figsize=(5, 2.4), layout="constrained")
axes.imshow(values.T, aspect="auto", cmap="Blues")
axes.set(xlabel="sample", ylabel="basis function")

# %%
# Attention without a map
# -----------------------
# The learned attention of a KArAt is a sum over keys, so tiles of the logits are made, used and dropped.
q, k, v = torch.randn(3, 1, 2, 50, 8)
a, b, w = torch.randn(2, 4, 50, 3) / 10, torch.randn(2, 4, 50, 3) / 10, torch.randn(2, 50, 4)  # heads, rank, keys, harmonics
print(tuple(fourier_attention(q, k, v, a, b, w).shape))
