"""Code of a model's repository, for `AutoModelForImageClassification.from_pretrained(..., trust_remote_code=True)`.

With the package kat_zoo the models and their kernels are the package's. Without it a Kolmogorov-Arnold Transformer (arXiv 2409.10594) or a
Fourier-KArAt (arXiv 2503.10632) is timm's vision transformer with the layers below, in plain PyTorch: the same parameters and the same
function. This file is copied as it is, and imports nothing of the package but the package.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import Attention, get_norm_layer
from timm.models import build_model_with_cfg, is_model, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperForImageClassification

_TINY: dict[str, Any] = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
_SMALL: dict[str, Any] = {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}
_BASE: dict[str, Any] = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}
_PICO: dict[str, Any] = {
    "img_size": 28,
    "patch_size": 4,
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 3,
    "class_token": False,
    "global_pool": "avg",
}
SIZES: dict[str, dict[str, Any]] = {
    "kat_tiny_patch16_224": _TINY,
    "kat_small_patch16_224": _SMALL,
    "kat_base_patch16_224": _BASE,
    "kat_pico_patch4_28": _PICO,
    "karat_tiny_g3b_patch16_224": {**_TINY, "grid_size": 3},
    "karat_tiny_g3u_patch16_224": {**_TINY, "grid_size": 3, "mode": "universal"},
    "karat_small_g3b_patch16_224": {**_SMALL, "grid_size": 3},
    "karat_small_g3u_patch16_224": {**_SMALL, "grid_size": 3, "mode": "universal"},
    "karat_base_g1b_patch16_224": {**_BASE, "grid_size": 1},
    "karat_base_g1u_patch16_224": {**_BASE, "grid_size": 1, "mode": "universal"},
    "karat_pico_patch4_28": {**_PICO, "depth": 6, "grid_size": 3, "rank": 8},
    "karat_kat_pico_patch4_28": {**_PICO, "grid_size": 3, "rank": 8, "mixer": "gr_kan"},
}
# Arguments of a KArAt that this file knows by one value alone.
STANDARD: dict[str, Any] = {
    "basis": "fourier",
    "base_function": "zero",
    "operator_order": "w_phi",
    "projection": "none",
    "edge_scale": False,
    "w_bias": False,
    "layers": "all",
    "hybrid_heads": 0,
    "norm_layer": None,
    "norm_eps": None,
    "dynamic_img_size": False,
}
INITIAL = ("act_init", "weight_init", "operator_init")  # the weights follow


def _positive_abs(x: Tensor) -> Tensor:
    """Absolute value with derivative +1 at 0, with which the published weights were trained; denominators of 0 would never move."""
    return torch.where(x >= 0, x, -x)


class GroupRational(nn.Module):
    """y = P(x) / Q(x) for each group of channels, Q = 1 + |b_1||x| + ... + |b_n||x|^n; (..., C) -> (..., C)."""

    scale: Tensor | None  # (num_groups,): the coefficients are those of x / scale

    def __init__(self, num_groups: int, order: Sequence[int], scaled: bool = False) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.weight_numerator = nn.Parameter(torch.zeros(num_groups if scaled else 1, order[0] + 1))
        self.weight_denominator = nn.Parameter(torch.zeros(num_groups, order[1]))
        self.register_buffer("scale", torch.ones(num_groups) if scaled else None)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation in float32, or in float64 where x is."""
        v = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (self.num_groups, -1))
        v = v if self.scale is None else v / self.scale[:, None]
        magnitude = _positive_abs(v)
        numerator, denominator = torch.zeros_like(v), torch.zeros_like(v)
        for a in self.weight_numerator.to(v.dtype).unbind(1)[::-1]:
            numerator = numerator * v + a[:, None]
        for b in _positive_abs(self.weight_denominator.to(v.dtype)).unbind(1)[::-1]:
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
        scaled: bool = False,
        **unused: Any,  # the activation, which a KAT learns
    ) -> None:
        super().__init__()
        self.act1 = GroupRational(num_groups, order, scaled)
        self.drop = nn.Dropout(drop)
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias)
        self.act2 = GroupRational(num_groups, order, scaled)
        self.norm = norm_layer(hidden_features) if norm_layer is not None else nn.Identity()
        self.fc2 = nn.Linear(hidden_features, in_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer; x (..., in_features)."""
        return self.fc2(self.norm(self.drop(self.act2(self.fc1(self.drop(self.act1(x)))))))


class FourierHeads(nn.Module):
    """z (w^T v) with z_kp = sum_q sum_m a_pqm cos(m A_kq) + b_pqm sin(m A_kq), A = q k^T / sqrt(d); on (B, heads, N, d)."""

    def __init__(self, heads: int, tokens: int, grid_size: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(heads, rank, tokens, grid_size))
        self.b = nn.Parameter(torch.zeros(heads, rank, tokens, grid_size))
        self.w = nn.Parameter(torch.zeros(heads, tokens, rank))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend in float32, or in float64 where q is."""
        dtype = torch.promote_types(q.dtype, torch.float32)
        logits = q.to(dtype) @ k.to(dtype).transpose(-1, -2) * q.shape[-1] ** -0.5
        a, b, w = self.a.to(dtype), self.b.to(dtype), self.w.to(dtype)
        z = torch.zeros((), dtype=dtype, device=q.device)
        for m in range(a.shape[-1]):
            angle = (m + 1) * logits
            z = z + angle.cos() @ a[..., m].transpose(-1, -2) + angle.sin() @ b[..., m].transpose(-1, -2)
        return (z @ (w.transpose(-1, -2) @ v.to(dtype))).to(v.dtype)


class KArAtAttention(Attention):
    """timm's attention with the operator in place of the softmax."""

    operators: nn.Sequential

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend: (B, N, C) -> (B, N, C).

        Raises:
            ValueError: a mask, which sums over all tokens have no place for.
        """
        if attn_mask is not None or is_causal:
            raise ValueError("attn_mask, is_causal: expected None and False")
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = self.operators[0](self.q_norm(q).type_as(v), self.k_norm(k).type_as(v), v)
        return self.proj_drop(self.proj(self.norm(out.transpose(1, 2).flatten(2))))


class KArAt(VisionTransformer):
    """timm's vision transformer with such attention; the arguments are those of the package's."""

    def __init__(self, grid_size: int, rank: int = 12, mode: str = "blockwise", **kwargs: Any) -> None:
        for name, value in STANDARD.items():
            if kwargs.pop(name, value) != value:
                raise ValueError(f"{name}: expected {value!r}; other values need the package kat_zoo")
        if not isinstance(grid_size, int) or not isinstance(rank, int):
            raise ValueError(f"grid_size={grid_size}, rank={rank}: expected integers; one for each layer needs the package kat_zoo")
        super().__init__(attn_layer=KArAtAttention, **kwargs)
        tokens = self.patch_embed.num_patches + self.num_prefix_tokens
        layers: list[Any] = [block.attn for block in self.blocks]
        for layer in layers:
            if layer is layers[0] or mode == "blockwise":
                layer.operators = nn.Sequential(FourierHeads(layer.num_heads, tokens, grid_size, rank))
            else:
                object.__setattr__(layer, "operators", layers[0].operators)  # not a module of this layer: its weights are saved once


def build(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A model by its name.

    Args:
        name: a key of `SIZES`.
        pretrained: whether timm loads weights.
        **kwargs: arguments of the model that differ from `SIZES`.
    """
    arguments = {key: value for key, value in {**SIZES[name], **kwargs}.items() if key not in INITIAL}
    karat = name.startswith("karat")
    mixer = arguments.pop("mixer", "mlp") if karat else "gr_kan"
    if mixer == "gr_kan":
        if not karat and (eps := arguments.pop("norm_eps", None)) is not None:
            arguments["norm_layer"] = partial(get_norm_layer(arguments.get("norm_layer") or "layernorm"), eps=eps)
        known = {"num_groups": "num_groups", "order": "order", "act_scaled": "scaled"}
        arguments["mlp_layer"] = partial(GRKAN, **{known[key]: arguments.pop(key) for key in known if key in arguments})
    elif mixer != "mlp":
        raise ValueError(f"mixer={mixer!r}: expected 'mlp' or 'gr_kan'; others need the package kat_zoo")
    return build_model_with_cfg(KArAt if karat else VisionTransformer, name, pretrained, **arguments)


def _register(name: str) -> None:
    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build(name, pretrained, **kwargs)

    entry.__name__, entry.__module__ = name, __name__
    register_model(entry)


try:
    import kat_zoo.models  # noqa: F401
except ModuleNotFoundError:
    for _name in SIZES:
        if not is_model(_name):
            _register(_name)


class KatForImageClassification(TimmWrapperForImageClassification):
    """transformers' wrapper of a model of timm's, which finds the models above."""
