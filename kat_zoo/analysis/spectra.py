"""Singular values of attention before and after its activation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .attention import capture_layer
from .output import save


def singular_values(model: nn.Module, images: Tensor, layer: int = -1) -> dict[str, Tensor]:
    """Return the singular values of one layer's maps, largest first, divided by the largest.

    Args:
        model: vision transformer.
        images: (B, C, H, W), preprocessed.
        layer: index of the layer, negative from the end.

    Returns:
        "before" and "after" the activation, each (B, h, N). After a KArAt's operator at most r of them are not 0.

    Raises:
        ValueError: no such layer.
    """
    captured = capture_layer(model, images, layer)
    result = {}
    for name, maps in (("before", captured.logits), ("after", captured.attention)):
        values = torch.linalg.svdvals(maps.double())
        result[name] = values / values[..., :1].clamp(min=1e-300)
    return result


def plot_spectra(models: Mapping[str, nn.Module], images: Tensor, path: Path, layer: int = -1) -> Path:
    """Draw mean, minimum and maximum over heads and images of the singular values, one panel before and one after.

    Args:
        models: models by label.
        images: (B, C, H, W), preprocessed; the paper takes 5.
        path: path of the picture (.png).
        layer: index of the layer, negative from the end.

    Returns:
        The picture's path.
    """
    from matplotlib.figure import Figure

    spectra = {label: singular_values(model, images, layer) for label, model in models.items()}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    rows: list[dict[str, Any]] = []
    for label, found in spectra.items():
        for axis, (when, values) in zip(axes, found.items(), strict=True):
            flat = values.flatten(0, 1).clamp(min=1e-12).cpu()
            low, mean, high = flat.amin(0), flat.log().mean(0).exp(), flat.amax(0)
            index = torch.arange(1, flat.shape[1] + 1)
            axis.plot(index, mean, label=label)
            axis.fill_between(index, low, high, alpha=0.2)
            rows += [
                {"model": label, "activation": when, "index": int(i), "min": float(a), "mean": float(b), "max": float(c)}
                for i, a, b, c in zip(index, low, mean, high, strict=True)
            ]
    for axis, title in zip(axes, ("before the activation", "after the activation"), strict=True):
        axis.set(xlabel="index", ylabel="singular value / largest", yscale="log", ylim=(1e-8, 2), title=title)
        axis.grid(alpha=0.3)
    axes[0].legend()
    return save(figure, rows, path)
