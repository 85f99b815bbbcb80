"""Learned functions of a model over the inputs that one image gives them: rationals, splines, and the attention of a KArAt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..analysis.attention import AttentionLayer
from ..layers import GroupRational, KANLinear
from ..layers.learned_attention.fourier import FourierHeads

POINTS, BINS = 80, 40
STRONGEST = 8  # curves of a layer that has thousands


@torch.inference_mode()
def learned_functions(model: nn.Module, x: Tensor, attention: Mapping[str, AttentionLayer]) -> list[dict[str, Any]]:
    """Curves of each layer with learned functions, and a histogram of its inputs.

    Args:
        model: model in evaluation mode.
        x: (1, C, H, W), an image as the model takes it.
        attention: attention of its layers by name, for this image.
    """
    seen: dict[str, Tensor] = {}
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (GroupRational, KANLinear))}
    hooks = [module.register_forward_pre_hook(lambda _, a, name=name: seen.__setitem__(name, a[0])) for name, module in layers.items()]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for name, module in model.named_modules():
        if isinstance(module, GroupRational):
            found.append(_panel(name, seen[name], _rationals(module, seen[name]), f"{module.num_groups} groups"))
        elif isinstance(module, KANLinear):
            found.append(_panel(name, seen[name], _splines(module, seen[name]), _of(module.mask.numel(), "splines")))
        elif isinstance(module, FourierHeads):
            layer, _, number = name.partition(".operators.")
            logits, text = _logits(model.get_submodule(layer), attention[layer], int(number)), _of(module.a[..., 0].numel(), "functions")
            if logits.abs().max() > math.pi:  # the functions repeat every 2 pi; logits of a trained model may be hundreds
                logits, text = (logits + math.pi).remainder(2 * math.pi) - math.pi, f"{text}; logits modulo 2π"
            found.append(_panel(layer, logits, _waves(module, logits), text))
    return found


def _of(number: int, what: str) -> str:
    return f"the {min(STRONGEST, number)} strongest of {number:,} {what}"


def _grid(inputs: Tensor) -> Tensor:
    """Points over the range of the inputs; a thousandth at either end is left out."""
    low, high = (float(v) for v in np.quantile(inputs.flatten().float().numpy(), (0.001, 0.999)))
    return torch.linspace(low, high, POINTS)


def _rationals(module: GroupRational, inputs: Tensor) -> Tensor:
    """(groups, POINTS)."""
    curves: Tensor = module(_grid(inputs)[:, None].repeat(1, module.num_groups))
    return curves.T


def _splines(module: KANLinear, inputs: Tensor) -> Tensor:
    """(STRONGEST, POINTS): the edges whose values vary most over the tokens of the image."""
    tokens = inputs.reshape(-1, module.in_features)
    chosen = module.edges(tokens).std(0, correction=0).flatten().topk(min(STRONGEST, module.mask.numel())).indices
    return module.edges(_grid(inputs)[:, None].repeat(1, module.in_features)).flatten(1)[:, chosen].T


def _waves(module: FourierHeads, logits: Tensor) -> Tensor:
    """(STRONGEST, POINTS): the functions of a logit with the largest coefficients."""
    a: Tensor = module.a
    b: Tensor = module.b
    if module.cos_scale is not None and module.sin_scale is not None:
        a, b = a * module.cos_scale[..., None], b * module.sin_scale[..., None]
    a, b = a.flatten(0, 2), b.flatten(0, 2)
    chosen = (a**2 + b**2).sum(-1).topk(min(STRONGEST, len(a))).indices
    angles = torch.arange(1, a.shape[1] + 1)[:, None] * _grid(logits)
    return a[chosen] @ angles.cos() + b[chosen] @ angles.sin()


def _logits(layer: Any, attention: AttentionLayer, number: int) -> Tensor:
    """Logits of the heads that an operator of the layer has."""
    parts: Sequence[Tensor] = attention.logits.split(layer.operators.head_counts, 1)
    return parts[number]


def _panel(name: str, inputs: Tensor, curves: Tensor, text: str) -> dict[str, Any]:
    grid = _grid(inputs)
    low, high = float(grid[0]), float(grid[-1])
    return {
        "name": name.replace("blocks.", "block ").replace(".mlp", "").replace(".attn", ", attention").replace(".", ", "),
        "text": text,
        "range": [low, high],
        "curves": [[round(float(v), 4) for v in curve] for curve in curves],
        "bars": np.histogram(inputs.flatten().float().numpy(), BINS, (low, high))[0].tolist(),
    }
