"""
Photographs of any size
=======================

A detector on a plain ViT takes photographs as they are: the backbone accepts any size, and a pyramid of four scales feeds torchvision's
heads.
This one has random weights, so it shows the way of the data, not objects: what the pyramid sees, and where the first stage looks.
Trained detectors are in :doc:`the guide </dense>`.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_sample_images

from kat_zoo.dense import mask_rcnn

torch.manual_seed(0)
photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 for image in load_sample_images().images]
photographs[1] = photographs[1][:, :300]  # sizes may differ
detector = mask_rcnn("kat_tiny_patch16_224", num_classes=91, min_size=128, box_score_thresh=0.0).eval()
with torch.no_grad():
    batch, _ = detector.transform(photographs)
    features = detector.backbone(batch.tensors)
    found = detector(photographs)
for name, feature in features.items():
    print(name, tuple(feature.shape))
print([(tuple(result["boxes"].shape), tuple(result["masks"].shape)) for result in found])

# %%
figure, axes = plt.subplots(2, 4, figsize=(10, 3.8), layout="constrained")
for row, photograph, i in zip(axes, photographs, range(2), strict=True):
    row[0].imshow(photograph.permute(1, 2, 0))
    for axis, (name, feature) in zip(row[1:], list(features.items())[:3], strict=True):
        axis.imshow(feature[i].norm(dim=0), cmap="viridis")
        axis.set_title(f"level {name}", fontsize=9)
for axis in axes.flat:
    axis.axis("off")
