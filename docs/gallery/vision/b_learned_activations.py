"""
Learned activations
===================

A KAT's activations are rational functions, one for each group of channels, that start as the identity and as swish. These are those of
the shipped model after training on Fashion-MNIST.
"""

import matplotlib.pyplot as plt
import timm
import torch

import kat_zoo  # noqa: F401  (registers the models)

model = timm.create_model("kat_pico_patch4_28.fmnist", pretrained=True).eval()
x = torch.linspace(-4, 4, 200)
figure, axes = plt.subplots(2, len(model.blocks), figsize=(10, 3.6), layout="constrained", sharex=True)
for block, column in zip(model.blocks, axes.T, strict=True):
    for axis, activation, start in zip(column, (block.mlp.act1, block.mlp.act2), (x, torch.nn.functional.silu(x)), strict=True):
        groups = activation.weight_denominator.shape[0]
        with torch.no_grad():
            axis.plot(x, activation(x[:, None].expand(-1, groups)), linewidth=0.8)
        axis.plot(x, start, "k--", linewidth=0.8)
for axis, name in zip(axes[:, 0], ("in front of fc1", "in front of fc2"), strict=True):
    axis.set_ylabel(name)
for i, axis in enumerate(axes[0]):
    axis.set_title(f"block {i}", fontsize=9)
