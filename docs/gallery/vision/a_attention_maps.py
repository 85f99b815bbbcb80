"""
Attention maps
==============

The shipped Fourier-KArAt learns the function that stands where softmax stood. Its maps of the last layer, beside those of the shipped ViT:
the mean, over all patches, of the attention that they pay.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import timm
import torch

import kat_zoo  # noqa: F401  (registers the models)
from kat_zoo.analysis import capture_attention, plot_attention_maps
from kat_zoo.hub.samples import load_samples

samples = load_samples()
images = (torch.from_numpy(samples.images[:3]).float()[:, None] / 255 - 0.2860) / 0.3530
models = {name: timm.create_model(f"{name}_pico_patch4_28.fmnist", pretrained=True).eval() for name in ("karat", "vit_mlp")}
with tempfile.TemporaryDirectory() as folder:
    picture = plt.imread(plot_attention_maps(models, images, Path(folder) / "maps.png"))
figure, axes = plt.subplots(figsize=(8, 8 * picture.shape[0] / picture.shape[1]), layout="constrained")
axes.imshow(picture)
axes.axis("off")

# %%
# The same as tensors, for pictures of your own: logits and attention of each layer by its name.
layers = capture_attention(models["karat"], images)
name, layer = list(layers.items())[-1]
print(name, tuple(layer.attention.shape), "learned heads:", sum(layer.learnable))
