"""Shared parts of the model files: sizes, default configurations, checks of arguments, and timm's call that builds a model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg
from torch import nn

from .._checks import is_count
from .._weights import check_weights
from ._download import fetch_weights
from ._pretrained import gray_to_color, unwrap_state_dict

__all__ = [
    "BASE",
    "PICO",
    "SMALL",
    "TINY",
    "WEIGHTS",
    "activation_names",
    "build_with_features",
    "check_size",
    "default_cfg",
    "fmnist_cfg",
    "fmnist_rgb_cfg",
    "require_plain",
    "unwrap_state_dict",
]

Model = TypeVar("Model", bound=nn.Module)

WEIGHTS = Path(__file__).parent.parent / "weights"

TINY: dict[str, Any] = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
SMALL: dict[str, Any] = {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}
BASE: dict[str, Any] = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}
# For 28x28 images: 49 tokens, averaged. Their number of channels is that of the weights' configuration, as timm takes it.
PICO: dict[str, Any] = {
    "img_size": 28,
    "patch_size": 4,
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 3,
    "class_token": False,
    "global_pool": "avg",
}


def default_cfg(**kwargs: Any) -> dict[str, Any]:
    """timm's configuration of a model for ImageNet's images at 224x224, changed by `kwargs`."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "mit",
        **kwargs,
    }


def fmnist_cfg(**kwargs: Any) -> dict[str, Any]:
    """timm's configuration of a model for Fashion-MNIST's images, changed by `kwargs`."""
    return default_cfg(**{"num_classes": 10, "input_size": (1, 28, 28), "crop_pct": 1.0, "mean": (0.2860,), "std": (0.3530,), **kwargs})


def fmnist_rgb_cfg(**kwargs: Any) -> dict[str, Any]:
    """`fmnist_cfg` for the same images with three channels, which are alike."""
    return fmnist_cfg(**{"input_size": (3, 28, 28), "mean": (0.2860,) * 3, "std": (0.3530,) * 3, **kwargs})


def activation_names(act_init: str) -> tuple[str, str]:
    """Split the argument act_init of a model.

    Args:
        act_init: names of the functions that the activations start from, "<act1>-<act2>"; a single name is act2's.

    Returns:
        The names of act1's function, the identity by default, and of act2's.

    Raises:
        ValueError: not a string.
    """
    if not isinstance(act_init, str):
        raise ValueError(f"act_init={act_init!r}: expected names of functions, as 'identity-swish'")
    act1, _, act2 = act_init.rpartition("-")
    return act1 or "identity", act2


def require_plain(arguments: dict[str, Any], replaced: dict[str, str]) -> None:
    """Check that a model's arguments can be saved with it, and that the model does not set one of them itself.

    Args:
        arguments: values by name; None is not checked.
        replaced: reasons by the name of an argument of timm's class that the model sets itself.

    Raises:
        ValueError: one of `replaced`, or a class or another callable.
    """
    for name, value in arguments.items():
        if value is not None and name in replaced:
            raise ValueError(f"{name}={value!r}: expected None, as {replaced[name]}")
        if callable(value):
            raise ValueError(f"{name}={value!r}: expected a string or a number, so that it can be saved with the model")


def check_size(name: str, value: Any) -> None:
    """Refuse what timm would fail on in words of its own, as a size that is text."""
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    if value is not None and (len(sides) != 2 or not all(map(is_count, sides))):
        raise ValueError(f"{name}={value!r}: expected an integer of at least 1, or (height, width)")


def build_with_features(model: Callable[..., Model], variant: str, pretrained: bool, filter_fn: Callable[..., Any], **kwargs: Any) -> Model:
    """Build a model through timm; with `features_only` it gives the maps of its own `forward_intermediates`.

    Args:
        model: class of the model.
        variant: name of the architecture.
        pretrained: whether to load the published weights.
        filter_fn: function that turns a checkpoint into the model's state dict.
        **kwargs: arguments of the model and of timm's `build_model_with_cfg`.

    Raises:
        WeightsError: pretrained weights that `fetch_weights` cannot get.
        ValueError: a size of images or patches that is not one or two integers, or pretrained weights with NaN, infinity or numbers of
            another kind than the model's.
    """

    def converted(state_dict: Any, built: nn.Module, *arguments: Any) -> Any:
        weights = gray_to_color(filter_fn(unwrap_state_dict(state_dict), built, *arguments), built)
        check_weights(weights, built.state_dict(), f"weights of {variant}")
        return weights

    for name in ("img_size", "patch_size"):
        check_size(name, kwargs.get(name))
    if pretrained:
        fetch_weights(variant, **kwargs)
    features = {"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"}
    return build_model_with_cfg(model, variant, pretrained, pretrained_filter_fn=converted, feature_cfg=features, **kwargs)
