"""Numbers for how good attention maps are: how focused, how rich, and whether they point at the object."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import capture_attention, token_maps
from .output import save

MEASURES = {
    "entropy": "entropy of the map / log N (0: one patch, 1: uniform)",
    "effective_rank": "effective rank of the attention / N",
    "pointing": "pointing game: the peak is on the object",
    "foreground": "part of the map's mass on the object",
    "chance": "part of the patches on the object (chance)",
}


def attention_quality(model: nn.Module, images: Tensor, foreground: Tensor | None) -> list[dict[str, Any]]:
    """Measure every layer's attention, and where it points to on images whose object is known.

    Entropy is that of the normalized token map (see `token_maps`). Effective rank is exp of the entropy of the normalized
    singular values of the whole attention after its activation (Roy and Vetterli, 2007). Pointing game: the part of
    (image, head) pairs whose peak lies on the object (Zhang et al., arXiv 1608.00507).

    Args:
        model: vision transformer.
        images: (B, C, H, W), preprocessed.
        foreground: (B, H, W), True on the object. A patch counts as object if at least half of it is. None where the object is
            not known.

    Returns:
        A dict per layer with the keys layer and those of `MEASURES`, averaged over images and heads; without a foreground only
        entropy and effective_rank.

    Raises:
        ValueError: foreground does not fit the images.
    """
    if foreground is not None and foreground.shape != (len(images), *images.shape[-2:]):
        raise ValueError(f"foreground of shape {tuple(foreground.shape)}: expected {(len(images), *images.shape[-2:])}")
    rows = []
    for name, layer in capture_attention(model, images).items():
        maps = token_maps(model, layer)
        height, width = maps.shape[-2:]
        maps = maps.flatten(2)
        mass = maps / maps.sum(-1, keepdim=True).clamp(min=1e-12)
        entropy = torch.special.entr(mass).sum(-1) / torch.tensor(float(maps.shape[-1])).log()
        spectrum = torch.linalg.svdvals(layer.attention.double())
        spectrum = spectrum / spectrum.sum(-1, keepdim=True).clamp(min=1e-300)
        values = {"entropy": entropy, "effective_rank": torch.special.entr(spectrum).sum(-1).exp() / spectrum.shape[-1]}
        if foreground is not None:
            patches = F.adaptive_avg_pool2d(foreground.float().unsqueeze(1), (height, width)).flatten(1) >= 0.5
            peak = patches.unsqueeze(1).expand_as(maps).gather(-1, maps.argmax(-1, keepdim=True))
            values["pointing"] = peak.float()
            values["foreground"] = (mass * patches.unsqueeze(1)).sum(-1)
            values["chance"] = patches.float()
        rows.append({"layer": name, **{key: float(value.mean()) for key, value in values.items()}})
    return rows


def plot_quality(models: Mapping[str, nn.Module], images: Tensor, foreground: Tensor | None, path: Path) -> Path:
    """Draw every measure over the depth, one line per model.

    Args:
        models: vision transformers by label.
        images: (B, C, H, W), preprocessed.
        foreground: (B, H, W), True on the object; None where the object is not known.
        path: path of the picture (.png).

    Returns:
        The picture's path.
    """
    return draw_quality([{"model": label, **r} for label, m in models.items() for r in attention_quality(m, images, foreground)], path)


def draw_quality(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw results of `attention_quality`.

    Args:
        rows: results of all models, with one more key, model.
        path: path of the picture (.png).

    Returns:
        The picture's path.
    """
    from matplotlib.figure import Figure

    shown = [key for key in MEASURES if key != "chance" and key in rows[0]]
    figure = Figure(figsize=(3.2 * len(shown), 3.2), layout="constrained")
    axes = figure.subplots(1, len(shown))
    for axis, key in zip(axes, shown, strict=True):
        for label in dict.fromkeys(r["model"] for r in rows):
            series = [float(r[key]) for r in rows if r["model"] == label]
            axis.plot(range(1, len(series) + 1), series, marker="o", label=label)
        if key in ("pointing", "foreground"):
            axis.axhline(float(rows[0]["chance"]), color="gray", linestyle="--", label="chance")
        axis.set(xlabel="layer", ylabel=MEASURES[key].split(" (")[0], ylim=(0, 1))
        axis.yaxis.label.set_fontsize(8)
    axes[-1].legend(fontsize=8)
    return save(figure, rows, path)
