"""
Transfer of a ViT
=================

A trained ViT becomes a KAT that computes the same: each GELU becomes rational functions fitted to the values that reach it. Without images,
one fit on [-6, 6] serves all.
"""

import matplotlib.pyplot as plt
import timm
import torch

import kat_zoo
from kat_zoo.hub.samples import load_samples

samples = load_samples()
images = (torch.from_numpy(samples.images).float()[:, None] / 255 - 0.2860) / 0.3530
vit = timm.create_model("vit_mlp_pico_patch4_28.fmnist", pretrained=True).eval()
kat, report = kat_zoo.vit_to_kat(vit, images=images[:32])
plain, _ = kat_zoo.vit_to_kat(vit)
print(report)

# %%
# On the images that the fit has not seen, the logits and the accuracy.
labels = torch.from_numpy(samples.labels)[32:]
figure, axes = plt.subplots(figsize=(4.4, 3.6), layout="constrained")
with torch.no_grad():
    reference = vit(images[32:])
    for name, model in (("without images", plain), ("fitted to 32 images", kat)):
        logits = model.eval()(images[32:])
        error = ((logits - reference).norm() / reference.norm()).item()
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        print(f"{name:20s} logits off by {error:.2%}, top-1 {accuracy:.1%}")
        axes.plot(reference.flatten(), (logits - reference).flatten(), ".", markersize=3, label=name)
print(f"{'the ViT':20s} top-1 {(reference.argmax(1) == labels).float().mean().item():.1%}")
axes.set(xlabel="logit of the ViT", ylabel="difference of the KAT")
legend = axes.legend()
