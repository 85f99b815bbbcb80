"""Norms of timm, named by a string and a number so that a model's arguments can be saved."""

from collections.abc import Callable
from functools import partial

from timm.layers.create_norm import get_norm_layer
from torch import nn

from .._checks import real

__all__ = ["NORMS", "norm_with_eps"]

NORMS = ("layernorm", "layernormfp32", "rmsnorm", "rmsnormfp32", "simplenorm", "simplenormfp32")


def norm_with_eps(norm_layer: str | None, norm_eps: float | None) -> Callable[..., nn.Module] | str | None:
    """Return the `norm_layer` of timm's VisionTransformer for a name and an epsilon.

    Args:
        norm_layer: name in `NORMS`; None for the model's default, LayerNorm.
        norm_eps: epsilon added to the variance, above 0; None for the norm's default.

    Raises:
        ValueError: an unknown name, or a norm_eps that is not a number above 0.
    """
    if norm_layer is not None and (not isinstance(norm_layer, str) or norm_layer.replace("_", "").lower() not in NORMS):
        raise ValueError(f"norm_layer={norm_layer!r}: expected one of {', '.join(NORMS)}")
    if norm_eps is None:
        return norm_layer
    return partial(get_norm_layer(norm_layer or "layernorm"), eps=real("norm_eps", norm_eps, above=0))
