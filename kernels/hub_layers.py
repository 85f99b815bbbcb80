"""Layers for the Kernel Hub: forward passes that replace those of modules with the same parameters, and hold no state."""

import torch
from torch import Tensor, nn

from .fourier_attention_op import fourier_attention
from .rational_op import rational


class GroupRational(nn.Module):
    """Forward pass of `kat_zoo.layers.GroupRational`: the group-rational activation of KAT (arXiv 2409.10594)."""

    has_backward = True
    can_torch_compile = True
    weight_numerator: Tensor
    weight_denominator: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation; x (..., C) float32, float64, bfloat16 or float16."""
        a, b = self.weight_numerator, self.weight_denominator
        scale: Tensor | None = getattr(self, "scale", None)
        if scale is not None:
            factors = (1 / scale.to(torch.promote_types(scale.dtype, torch.float32)))[:, None] ** torch.arange(9, device=scale.device)
            a, b = a * factors[:, : a.shape[1]], b * factors[:, 1 : b.shape[1] + 1]
        return rational(x, a, b, getattr(self, "channel_dim", -1))


class FourierHeads(nn.Module):
    """Forward pass of `kat_zoo.layers.learned_attention.fourier.FourierHeads`: learned attention of Fourier-KArAt (arXiv 2503.10632)."""

    has_backward = True
    can_torch_compile = True
    a: Tensor
    b: Tensor
    w: Tensor
    cos_scale: Tensor | None
    sin_scale: Tensor
    bias: Tensor | None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend; q, k (B, h, N, d), v (B, h, N, d_v) -> (B, h, N, d_v)."""
        a, b = self.a, self.b
        cos_scale: Tensor | None = getattr(self, "cos_scale", None)
        if cos_scale is not None:
            a, b = a * cos_scale.unsqueeze(-1), b * self.sin_scale.unsqueeze(-1)
        out = fourier_attention(q, k, v, a, b, self.w)
        bias: Tensor | None = getattr(self, "bias", None)
        if bias is not None:
            out = out + bias.unsqueeze(-2) @ v
        return out
