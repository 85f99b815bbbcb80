"""
Activations on nodes: an image
==============================

A LAN (appendix B of the paper) learns one function for each node. pykan has no LAN. It paints a photograph from its coordinates, beside
the same network with fixed sines. The paper reports a gain; on a larger picture we measured :doc:`next to none </kan>`.
"""

import math
import time

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_images

from kat_zoo.kan import LAN

start = time.perf_counter()
photograph = torch.from_numpy(load_sample_images().images[1].copy()).float().mean(2)[40:360:10, 100:420:10] / 255
t = torch.linspace(-1, 1, 32)
X, Y = torch.cartesian_prod(t, t), photograph.reshape(-1, 1) * 2 - 1

# %%
# The MLP is a LAN whose splines are frozen at zero.
figure, axes = plt.subplots(1, 3, figsize=(8, 3), layout="constrained")
axes[0].imshow(photograph, cmap="gray", vmin=0, vmax=1)
axes[0].set_title("photograph")
for axis, learned in zip(axes[1:], (False, True), strict=True):
    model = LAN([2, 48, 48, 1], base="sin")
    for activation in model.activations:
        activation.coef.requires_grad_(learned)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    for _ in range(500):
        optimizer.zero_grad()
        (model(X) - Y).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        painted = ((model(X) + 1) / 2).reshape(32, 32).clamp(0, 1)
    psnr = -10 * math.log10((painted - photograph).square().mean().item())
    axis.imshow(painted, cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{'LAN' if learned else 'fixed sines'}: {psnr:.1f} dB")
for axis in axes:
    axis.axis("off")
print(f"{time.perf_counter() - start:.1f} s")
