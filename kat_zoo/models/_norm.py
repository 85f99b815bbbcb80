"""Norms of timm, named by a string and a number so that a model's arguments can be saved."""

from collections.abc import Callable
from functools import partial

from timm.layers import get_norm_layer
from torch import nn

__all__ = ["NORMS", "norm_with_eps"]

NORMS = ("layernorm", "layernormfp32", "rmsnorm", "rmsnormfp32", "simplenorm", "simplenormfp32")


def norm_with_eps(norm_layer: str | None, norm_eps: float | None) -> Callable[..., nn.Module] | str | None:
    """Return what timm's VisionTransformer takes as `norm_layer`.

    Args:
        norm_layer: a name of timm's; None for the model's default, LayerNorm.
        norm_eps: epsilon added to the variance, > 0; None for the norm's default.

    Raises:
        ValueError: a name timm does not know, or norm_eps <= 0.
    """
    if isinstance(norm_layer, str) and norm_layer.replace("_", "").lower() not in NORMS:
        raise ValueError(f"norm_layer={norm_layer!r}: expected one of {', '.join(NORMS)}")
    if norm_eps is None:
        return norm_layer
    if norm_eps <= 0:
        raise ValueError(f"norm_eps={norm_eps}: expected a number above 0")
    return partial(get_norm_layer(norm_layer or "layernorm"), eps=norm_eps)
