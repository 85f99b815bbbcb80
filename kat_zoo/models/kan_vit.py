"""Baselines: vision transformers that differ from KAT in the channel mixer alone.

`vit_mlp_*` is timm's VisionTransformer as it is: the twin of `kat_*` with two-layer perceptrons (GELU).
"""

from pathlib import Path
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

__all__: list[str] = []

WEIGHTS = Path(__file__).parent.parent / "weights"


def _create_vit(variant: str, pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    out_indices = kwargs.pop("out_indices", 3)
    return build_model_with_cfg(
        VisionTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=out_indices, feature_cls="getter"),
        **kwargs,
    )


def _cfg(url: str = "", **kwargs: Any) -> dict[str, Any]:
    return {
        "url": url,
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


def _pico_cfg(**kwargs: Any) -> dict[str, Any]:
    return _cfg(num_classes=10, input_size=(1, 28, 28), crop_pct=1.0, mean=(0.2860,), std=(0.3530,), **kwargs)


default_cfgs = generate_default_cfgs(
    {
        "vit_mlp_tiny_patch16_224.untrained": _cfg(),
        "vit_mlp_small_patch16_224.untrained": _cfg(),
        "vit_mlp_base_patch16_224.untrained": _cfg(),
        "vit_mlp_pico_patch4_28.untrained": _pico_cfg(),
    }
)

TINY = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
SMALL = {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6}
BASE = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}
# As kat_pico_patch4_28.
PICO = {
    "img_size": 28,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 3,
    "class_token": False,
    "global_pool": "avg",
}


@register_model
def vit_mlp_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-Ti/16, the twin of kat_tiny_patch16_224."""
    return _create_vit("vit_mlp_tiny_patch16_224", pretrained, **dict(TINY, **kwargs))


@register_model
def vit_mlp_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-S/16, the twin of kat_small_patch16_224."""
    return _create_vit("vit_mlp_small_patch16_224", pretrained, **dict(SMALL, **kwargs))


@register_model
def vit_mlp_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-B/16, the twin of kat_base_patch16_224."""
    return _create_vit("vit_mlp_base_patch16_224", pretrained, **dict(BASE, **kwargs))


@register_model
def vit_mlp_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT for 28x28 grey images (49 tokens, averaged), the twin of kat_pico_patch4_28."""
    return _create_vit("vit_mlp_pico_patch4_28", pretrained, **dict(PICO, **kwargs))
