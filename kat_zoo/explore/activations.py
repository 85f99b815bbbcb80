"""Learned functions of a model over the inputs that one image gives them: rationals, splines, and the attention of a KArAt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
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
            found.append(_panel(name, seen[name], partial(_rationals, module), f"{module.num_groups} groups"))
        elif isinstance(module, KANLinear):
            found.append(_panel(name, seen[name], partial(_splines, module, seen[name]), _of(module.mask.numel(), "splines")))
        elif isinstance(module, FourierHeads):
            layer, _, number = name.partition(".operators.")
            operators: Any = model.get_submodule(f"{layer}.operators")
            logits, text = attention[layer].logits.split(operators.head_counts, 1)[int(number)], _of(module.a[..., 0].numel(), "functions")
            if logits.abs().max() > math.pi:  # the functions repeat every 2 pi; logits of a trained model may be hundreds
                logits, text = (logits + math.pi).remainder(2 * math.pi) - math.pi, f"{text}; logits modulo 2π"
            found.append(_panel(layer, logits, partial(_waves, module), text))
    return found


def _of(number: int, noun: str) -> str:
    return f"the {min(STRONGEST, number)} strongest of {number:,} {noun}"


def _rationals(module: GroupRational, grid: Tensor) -> Tensor:
    """(groups, POINTS)."""
    curves: Tensor = module(grid[:, None].repeat(1, module.num_groups))
    return curves.T


def _splines(module: KANLinear, inputs: Tensor, grid: Tensor) -> Tensor:
    """(STRONGEST, POINTS): the edges whose values vary most over the tokens of the image."""
    tokens = inputs.reshape(-1, module.in_features)
    chosen = module.edges(tokens).std(0, correction=0).flatten().topk(min(STRONGEST, module.mask.numel())).indices
    return module.edges(grid[:, None].repeat(1, module.in_features)).flatten(1)[:, chosen].T


def _waves(module: FourierHeads, grid: Tensor) -> Tensor:
    """(STRONGEST, POINTS): the functions of a logit with the largest coefficients."""
    a: Tensor = module.a
    b: Tensor = module.b
    if module.cos_scale is not None and module.sin_scale is not None:
        a, b = a * module.cos_scale[..., None], b * module.sin_scale[..., None]
    a, b = a.flatten(0, 2), b.flatten(0, 2)
    chosen = (a**2 + b**2).sum(-1).topk(min(STRONGEST, len(a))).indices
    angles = torch.arange(1, a.shape[1] + 1)[:, None] * grid
    return a[chosen] @ angles.cos() + b[chosen] @ angles.sin()


def _panel(name: str, inputs: Tensor, curves: Callable[[Tensor], Tensor], text: str) -> dict[str, Any]:
    """Curves over the range of the inputs; a thousandth of them at either end is left out."""
    values = inputs.flatten().float().numpy()
    low, high = np.quantile(values, (0.001, 0.999)).tolist()
    return {
        "name": name.replace("blocks.", "block ").replace(".mlp", "").replace(".attn", ", attention").replace(".", ", "),
        "text": text,
        "range": [low, high],
        "curves": curves(torch.linspace(low, high, POINTS)).double().numpy().round(4).tolist(),
        "bars": np.histogram(values, BINS, (low, high))[0].tolist(),
    }
