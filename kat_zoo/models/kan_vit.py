"""Baselines: vision transformers that differ from KAT in the channel mixer alone.

`vit_mlp_*` is timm's VisionTransformer as it is: the twin of `kat_*` with two-layer perceptrons (GELU).
`vit_kan_*` is the ViT + KAN of the ImageNet table of KAT's paper (arXiv 2409.10594; the models of the Vision-KAN project): both layers of
the perceptron are B-spline KAN layers of the tokens' width, with 8 cubic bases an edge (the pico model: 7), a LayerNorm in front
and no base branch. The table says 12.8, 50.4 and 199.8M parameters, which count a perceptron that the project builds and never uses; the
models have 9.25, 36.2 and 143.2M. Others: `vit_fourier_*` (Fourier series on the edges), `vit_lan_*` (an activation
learned at every node, arXiv 2404.19756, appendix B), `vit_swiglu_*` (arXiv 2002.05202).
"""

from collections.abc import Mapping
from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from ..layers.gr_kan import LoadsGoogle
from ..layers.mixers import mixer_layer
from ._builder import BASE, PICO, SMALL, TINY, WEIGHTS, build_with_features, default_cfg, fmnist_cfg, require_plain

__all__ = ["MixerViT"]


class MixerViT(LoadsGoogle, VisionTransformer):
    """VisionTransformer with a channel mixer by name; every argument is a string, a number or a collection of them.

    Args:
        mixer: name of the channel mixer: mlp, swiglu, gr_kan, kan, fourier or lan, of `kat_zoo.layers.mixers`.
        mixer_kwargs: arguments of the mixer that timm's blocks do not pass, as {"num_bases": 6}; `OPTIONS` there lists them.
        **kwargs: arguments of timm's VisionTransformer; the hidden width of the mixer is mlp_ratio * embed_dim.

    Raises:
        ValueError: an unknown mixer, mixer_kwargs that it does not have, values that it refuses, an mlp_layer, or an argument that is a
            class or another callable.
    """

    def __init__(self, mixer: str = "mlp", mixer_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        require_plain(kwargs, {"mlp_layer": "mixer names the channel mixer"})
        kwargs.pop("mlp_layer", None)
        if mixer_kwargs is not None and not isinstance(mixer_kwargs, Mapping):
            raise ValueError(f"mixer_kwargs={mixer_kwargs!r}: expected a dict, as {{'num_bases': 6}}")
        super().__init__(mlp_layer=mixer_layer(mixer, **(mixer_kwargs or {})), **kwargs)


def _with_bases(num_bases: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a ViT + KAN with a number of bases that mixer_kwargs may override; another mixer has none."""
    if kwargs.get("mixer", "kan") != "kan":
        return kwargs
    return {**kwargs, "mixer_kwargs": {"num_bases": num_bases, **(kwargs.get("mixer_kwargs") or {})}}


def _create_vit(variant: str, pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    model = MixerViT if "mixer" in kwargs else VisionTransformer
    return build_with_features(model, variant, pretrained, checkpoint_filter_fn, **kwargs)


default_cfgs = generate_default_cfgs(
    {
        "vit_mlp_tiny_patch16_224.untrained": default_cfg(),
        "vit_mlp_small_patch16_224.untrained": default_cfg(),
        "vit_mlp_base_patch16_224.untrained": default_cfg(),
        "vit_mlp_pico_patch4_28.fmnist": fmnist_cfg(file=str(WEIGHTS / "vit_mlp_pico_patch4_28.fmnist.safetensors")),
        "vit_kan_tiny_patch16_224.untrained": default_cfg(),
        "vit_kan_small_patch16_224.untrained": default_cfg(),
        "vit_kan_base_patch16_224.untrained": default_cfg(),
        "vit_kan_pico_patch4_28.fmnist": fmnist_cfg(file=str(WEIGHTS / "vit_kan_pico_patch4_28.fmnist.safetensors")),
        "vit_fourier_tiny_patch16_224.untrained": default_cfg(),
        "vit_fourier_pico_patch4_28.untrained": fmnist_cfg(),
        "vit_lan_tiny_patch16_224.untrained": default_cfg(),
        "vit_lan_pico_patch4_28.untrained": fmnist_cfg(),
        "vit_swiglu_tiny_patch16_224.untrained": default_cfg(),
        "vit_swiglu_pico_patch4_28.untrained": fmnist_cfg(),
    }
)

KAN = {"mixer": "kan", "mlp_ratio": 1.0}
FOURIER = {"mixer": "fourier", "mlp_ratio": 1.0}
LAN = {"mixer": "lan"}
SWIGLU = {"mixer": "swiglu", "mlp_ratio": 8 / 3, "act_layer": "silu"}  # three matrices of the parameters of two


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
    """ViT for 28x28 gray images (49 tokens, averaged), the twin of kat_pico_patch4_28."""
    return _create_vit("vit_mlp_pico_patch4_28", pretrained, **dict(PICO, **kwargs))


@register_model
def vit_kan_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-Ti/16 + KAN, 9.25M parameters."""
    return _create_vit("vit_kan_tiny_patch16_224", pretrained, **dict(TINY | KAN, **kwargs))


@register_model
def vit_kan_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-S/16 + KAN, 36.2M parameters."""
    return _create_vit("vit_kan_small_patch16_224", pretrained, **dict(SMALL | KAN, **kwargs))


@register_model
def vit_kan_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-B/16 + KAN, 143.2M parameters."""
    return _create_vit("vit_kan_base_patch16_224", pretrained, **dict(BASE | KAN, **kwargs))


@register_model
def vit_kan_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT + KAN for 28x28 gray images: 7 bases an edge, 0.68M parameters."""
    return _create_vit("vit_kan_pico_patch4_28", pretrained, **dict(PICO | KAN, **_with_bases(7, kwargs)))


@register_model
def vit_fourier_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-Ti/16 with Fourier-KAN layers: series of 4 harmonics on every edge, 9.25M parameters."""
    return _create_vit("vit_fourier_tiny_patch16_224", pretrained, **dict(TINY | FOURIER, **kwargs))


@register_model
def vit_fourier_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT with Fourier-KAN layers for 28x28 gray images, 0.75M parameters."""
    return _create_vit("vit_fourier_pico_patch4_28", pretrained, **dict(PICO | FOURIER, **kwargs))


@register_model
def vit_lan_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-Ti/16 with a rational activation at every hidden node; mixer_kwargs={"activation": "prelu"} for slopes."""
    return _create_vit("vit_lan_tiny_patch16_224", pretrained, **dict(TINY | LAN, **kwargs))


@register_model
def vit_lan_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT for 28x28 gray images with a rational activation at every hidden node."""
    return _create_vit("vit_lan_pico_patch4_28", pretrained, **dict(PICO | LAN, **kwargs))


@register_model
def vit_swiglu_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT-Ti/16 with SwiGLU of hidden width 512."""
    return _create_vit("vit_swiglu_tiny_patch16_224", pretrained, **dict(TINY | SWIGLU, **kwargs))


@register_model
def vit_swiglu_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT for 28x28 gray images with SwiGLU of hidden width 256."""
    return _create_vit("vit_swiglu_pico_patch4_28", pretrained, **dict(PICO | SWIGLU, **kwargs))
