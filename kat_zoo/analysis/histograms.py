"""Distributions of weights, and of the coefficients of learnable layers, over a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .output import save

# What is shown: label -> suffixes of parameter names.
GROUPS = {
    "qkv": ("attn.qkv.weight",),
    "attention output": ("attn.proj.weight",),
    "MLP": ("mlp.fc1.weight", "mlp.fc2.weight"),
    "operator a (cos)": (".a",),
    "operator b (sin)": (".b",),
    "operator w": (".w",),
    "edge coefficients": (".coefficients",),
    "numerator": (".weight_numerator",),
    "denominator": (".weight_denominator",),
}


def group_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Flatten the weights of a state dict into the groups of `GROUPS` that it has."""
    groups = {}
    for label, suffixes in GROUPS.items():
        found = [v.detach().float().flatten() for name, v in state.items() if name.endswith(suffixes)]
        if found:
            groups[label] = torch.cat(found)
    return groups


def plot_histograms(states: Mapping[str, Mapping[str, Tensor]], path: Path, bins: int = 80) -> Path:
    """Draw the densities of each group of weights, one line per state.

    Args:
        states: label (say, "epoch 3") -> state dict; earliest first.
        path: of the picture (.png).
        bins: of each histogram, over the range of the last state.

    Returns:
        The picture's path.

    Raises:
        ValueError: no known weights in the states.
    """
    import matplotlib.pyplot as plt

    groups = {label: group_weights(state) for label, state in states.items()}
    names: Sequence[str] = list(next(iter(groups.values()), {}))
    if not names:
        raise ValueError("states: no parameters of a transformer found; expected names ending in attn.qkv.weight, ...")
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.4 * columns, 2.6 * lines), squeeze=False, layout="constrained")
    rows: list[dict[str, Any]] = []
    for axis, name in zip(axes.flat, names, strict=False):
        limit = max(float(group[name].abs().quantile(0.999)) if group[name].numel() < 1 << 24 else float(group[name].abs().max())
                    for group in groups.values())  # fmt: skip
        for i, (label, group) in enumerate(groups.items()):
            counts = torch.histc(group[name], bins, -limit, limit)
            density = counts / (counts.sum().clamp(min=1) * (2 * limit / bins))
            centers = torch.linspace(-limit, limit, 2 * bins + 1)[1::2]
            axis.plot(centers, density, label=label, color=plt.get_cmap("viridis")(i / max(len(groups) - 1, 1)))
            rows += [{"group": name, "state": label, "value": float(c), "density": float(d)} for c, d in zip(centers, density, strict=True)]
        axis.set(title=name, xlabel="value", ylabel="density")
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize=7)
    return save(figure, rows, path)
