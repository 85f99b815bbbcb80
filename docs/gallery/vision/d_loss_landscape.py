"""
A loss landscape
================

The plane of the two principal directions of a training's path, and the loss on it. Here the shipped KAT has a new head, and 128 of the
images that
ship are learned in a few steps; `kat-zoo analyze RUN --what landscape` draws the same for a run folder.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import timm
import torch
from torch import nn

import kat_zoo  # noqa: F401  (registers the models)
from kat_zoo.analysis import loss_surface, plot_landscape, principal_plane
from kat_zoo.hub.samples import load_samples

samples = load_samples()
images = (torch.from_numpy(samples.images[:128]).float()[:, None] / 255 - 0.2860) / 0.3530
labels = torch.from_numpy(samples.labels[:128]).long()
torch.manual_seed(0)
model = timm.create_model("kat_pico_patch4_28.fmnist", pretrained=True)
model.reset_classifier(10)
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
states = []
for _ in range(12):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    states.append({name: value.detach().clone() for name, value in model.state_dict().items()})
    optimizer.step()

# %%
model.eval()


@torch.no_grad()
def loss(model):
    return nn.functional.cross_entropy(model(images[:64]), labels[:64]).item()


plane = principal_plane(states, [name for name, _ in model.named_parameters()])
print("variance of the path in the plane:", [f"{part:.0%}" for part in plane.explained])
with tempfile.TemporaryDirectory() as folder:
    surface = loss_surface(model, plane, loss, size=7)
    picture = plt.imread(plot_landscape({"KAT": (plane, surface)}, Path(folder) / "landscape.png"))
figure, axes = plt.subplots(figsize=(8, 8 * picture.shape[0] / picture.shape[1]), layout="constrained")
axes.imshow(picture)
axes.axis("off")
