"""Code of a model's repository, for `AutoModelForImageClassification.from_pretrained(..., trust_remote_code=True)`.

With the package kat_zoo the models and their kernels are the package's. Without it a Kolmogorov-Arnold Transformer (arXiv 2409.10594) is
timm's vision transformer with the layers below, in plain PyTorch: the same parameters and the same function. This file is copied as it
is, and imports nothing of the package but the package.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.models import build_model_with_cfg, is_model, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperForImageClassification

SIZES: dict[str, dict[str, Any]] = {
    "kat_tiny_patch16_224": {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3},
    "kat_small_patch16_224": {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6},
    "kat_base_patch16_224": {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12},
    "kat_pico_patch4_28": {
        "img_size": 28,
        "patch_size": 4,
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 3,
        "class_token": False,
        "global_pool": "avg",
    },
}


class GroupRational(nn.Module):
    """y = P(x) / Q(x) for each group of channels, Q = 1 + |b_1||x| + ... + |b_n||x|^n; (..., C) -> (..., C)."""

    def __init__(self, num_groups: int, order: Sequence[int]) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.weight_numerator = nn.Parameter(torch.zeros(1, order[0] + 1))
        self.weight_denominator = nn.Parameter(torch.zeros(num_groups, order[1]))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation in float32, or in float64 where x is."""
        v = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (self.num_groups, -1))
        magnitude = v.abs()
        numerator, denominator = torch.zeros_like(v), torch.zeros_like(v)
        for a in self.weight_numerator.to(v.dtype).unbind(1)[::-1]:
            numerator = numerator * v + a[:, None]
        for b in self.weight_denominator.to(v.dtype).abs().unbind(1)[::-1]:
            denominator = (denominator + b[:, None]) * magnitude
        return (numerator / (1 + denominator)).flatten(-2).to(x.dtype)


class GRKAN(nn.Module):
    """act1 -> drop -> fc1 -> act2 -> drop -> fc2, in place of the MLP of timm's block."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        norm_layer: Any = None,
        bias: bool = True,
        drop: float = 0.0,
        num_groups: int = 8,
        order: Sequence[int] = (5, 4),
        **unused: Any,  # the activation, which a KAT learns
    ) -> None:
        super().__init__()
        self.act1 = GroupRational(num_groups, order)
        self.drop = nn.Dropout(drop)
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias)
        self.act2 = GroupRational(num_groups, order)
        self.norm = norm_layer(hidden_features) if norm_layer is not None else nn.Identity()
        self.fc2 = nn.Linear(hidden_features, in_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; x (..., in_features)."""
        return self.fc2(self.norm(self.drop(self.act2(self.fc1(self.drop(self.act1(x)))))))


def _register(name: str, size: dict[str, Any]) -> None:
    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        arguments = {**size, **kwargs}
        for initial in ("act_init", "weight_init"):  # the weights follow
            arguments.pop(initial, None)
        layer = partial(GRKAN, **{key: arguments.pop(key) for key in ("num_groups", "order") if key in arguments})
        return build_model_with_cfg(VisionTransformer, name, pretrained, mlp_layer=layer, **arguments)

    entry.__name__, entry.__module__ = name, __name__
    register_model(entry)


try:
    import kat_zoo.models  # noqa: F401
except ModuleNotFoundError:
    for _name, _size in SIZES.items():
        if not is_model(_name):
            _register(_name, _size)


class KatForImageClassification(TimmWrapperForImageClassification):
    """transformers' wrapper of a model of timm's, which finds the models above."""
