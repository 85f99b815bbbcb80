"""Distributions of weights, and of the coefficients of learnable layers, over a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .output import save

# Suffixes of parameter names by label; "other layers" are further matrices of layers that repeat.
GROUPS: dict[str, tuple[str, ...]] = {
    "qkv": ("attn.qkv.weight",),
    "attention output": ("attn.proj.weight",),
    "MLP": (".fc1.weight", ".fc2.weight"),
    "operator a (cos)": (".a",),
    "operator b (sin)": (".b",),
    "operator w": (".w",),
    "operator scales": (".cos_scale", ".sin_scale"),
    "edge coefficients": (".coefficients",),
    "spline coefficients": (".coef",),
    "numerator": (".weight_numerator",),
    "denominator": (".weight_denominator",),
}


def _group(name: str, value: Tensor) -> str | None:
    for label, suffixes in GROUPS.items():
        if name.endswith(suffixes):
            return label
    repeated = any(part.isdigit() for part in name.split("."))
    return "other layers" if repeated and value.ndim > 1 and not name.endswith(".bias") else None


def group_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Flatten the weights of a state dict into the groups of `GROUPS` and "other layers", or all into one if it has none of these."""
    floats = {name: value.detach().float().flatten().cpu() for name, value in state.items() if value.is_floating_point()}
    labels = {name: _group(name, state[name]) for name in floats}
    groups = {}
    for label in (*GROUPS, "other layers"):
        found = [value for name, value in floats.items() if labels[name] == label]
        if found:
            groups[label] = torch.cat(found)
    return groups or ({"all weights": torch.cat(list(floats.values()))} if floats else {})


def plot_histograms(states: Mapping[str, Mapping[str, Tensor]], path: Path, bins: int = 80) -> Path:
    """Draw the densities of each group of weights, one line per state.

    Args:
        states: state dicts by label (say, "epoch 3"), earliest first.
        path: path of the picture (.png).
        bins: number of bins of each histogram, over plus and minus the largest of all states' 99.9 % quantiles of the magnitude
            (the largest magnitude, of 2^24 weights and more).

    Returns:
        The picture's path.

    Raises:
        ValueError: no weights in the states.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    groups = {label: group_weights(state) for label, state in states.items()}
    names: Sequence[str] = list(next(iter(groups.values()), {}))
    if not names:
        raise ValueError("states without weights: expected at least one state dict with floating-point tensors")
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    rows: list[dict[str, Any]] = []
    for axis, name in zip(axes.flat, names, strict=False):
        limit = max(float(group[name].abs().quantile(0.999)) if group[name].numel() < 1 << 24 else float(group[name].abs().max())
                    for group in groups.values()) or 1.0  # fmt: skip
        for i, (label, group) in enumerate(groups.items()):
            counts = torch.histc(group[name], bins, -limit, limit)
            density = counts / (counts.sum().clamp(min=1) * (2 * limit / bins))
            centers = torch.linspace(-limit, limit, 2 * bins + 1)[1::2]
            axis.plot(centers, density, label=label, color=colormaps["viridis"](i / max(len(groups) - 1, 1)))
            rows += [{"group": name, "state": label, "value": float(c), "density": float(d)} for c, d in zip(centers, density, strict=True)]
        axis.set(title=name, xlabel="value", ylabel="density")
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    axes.flat[0].legend(fontsize=7)
    return save(figure, rows, path)
