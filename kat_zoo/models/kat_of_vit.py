"""KATs that compute almost the function of a published ViT, converted while its weights are loaded from timm's own repository.

act1 is the identity, act2 is fitted to the ViT's activation (arXiv 2409.10594, section 4.4) on the arguments that the weights let one
expect: no image is seen. `kat_zoo.vit_to_kat` with a few images of one's own is closer.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.layers.create_act import create_act_layer
from timm.models import generate_default_cfgs, get_pretrained_cfg, register_model
from timm.models.vision_transformer import checkpoint_filter_fn as vit_checkpoint_filter_fn
from torch import Tensor, nn

from ..layers.gr_kan import GRKAN, has_activations
from ._builder import BASE, SMALL, TINY, build_with_features, unwrap_state_dict
from ._group_fits import PreActivations, fit_groups, identity_fit
from .kat import KAT
from .kat import checkpoint_filter_fn as kat_checkpoint_filter_fn

__all__ = ["SOURCES", "classifies"]

QUANTILES = 64  # arguments per channel that stand for its distribution
REACH = 6.0  # standard deviations: the range of a channel over many images

# Architectures and tags of timm by ours.
SOURCES = {
    "kat_small_patch14_dinov2.lvd142m": "vit_small_patch14_dinov2.lvd142m",
    "kat_base_patch14_dinov2.lvd142m": "vit_base_patch14_dinov2.lvd142m",
    "kat_large_patch14_dinov2.lvd142m": "vit_large_patch14_dinov2.lvd142m",
    "kat_small_patch14_reg4_dinov2.lvd142m": "vit_small_patch14_reg4_dinov2.lvd142m",
    "kat_base_patch14_reg4_dinov2.lvd142m": "vit_base_patch14_reg4_dinov2.lvd142m",
    "kat_large_patch14_reg4_dinov2.lvd142m": "vit_large_patch14_reg4_dinov2.lvd142m",
    "kat_tiny_patch16_vit_224.augreg_in21k_ft_in1k": "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "kat_small_patch16_vit_224.augreg_in21k_ft_in1k": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "kat_base_patch16_vit_224.augreg_in21k_ft_in1k": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "kat_base_patch16_vit_224.mae": "vit_base_patch16_224.mae",
    "kat_small_patch16_deit3_224.fb_in1k": "deit3_small_patch16_224.fb_in1k",
    "kat_base_patch16_deit3_224.fb_in1k": "deit3_base_patch16_224.fb_in1k",
    "kat_base_patch16_clip_224.laion2b": "vit_base_patch16_clip_224.laion2b",
    "kat_base_patch16_clip_quickgelu_224.openai": "vit_base_patch16_clip_quickgelu_224.openai",
    "kat_base_patch16_siglip_gap_224.v2_webli": "vit_base_patch16_siglip_gap_224.v2_webli",
}


def classifies(name: str, num_classes: int) -> bool:
    """Whether the outputs of a registered model are classes: those of a ViT that was trained on more than ImageNet's are features.

    Args:
        name: architecture and tag.
        num_classes: number of outputs of its head; 0 without one.
    """
    return num_classes > 0 and (name not in SOURCES or num_classes == 1000)


LARGE = {**BASE, "embed_dim": 1024, "depth": 24, "num_heads": 16}
# The order of vit_to_kat, which benchmarks/transfer.py holds against (5, 4). An init of that order would need scipy; the fits replace it.
ORDER: dict[str, Any] = {"order": [8, 7], "act_init": "identity-identity", "act_scaled": True}
DINOV2: dict[str, Any] = {**ORDER, "patch_size": 14, "init_values": 1e-5}
REGISTERS: dict[str, Any] = {**DINOV2, "reg_tokens": 4, "no_embed_class": True}
DEIT3: dict[str, Any] = {**ORDER, "no_embed_class": True, "init_values": 1e-6}
CLIP: dict[str, Any] = {**ORDER, "pre_norm": True, "norm_eps": 1e-5}
SIGLIP: dict[str, Any] = {**ORDER, "class_token": False, "global_pool": "avg", "fc_norm": False}


@torch.no_grad()
def expected_arguments(weights: Mapping[str, Any], block: str, eps: float = 1e-6) -> PreActivations:
    """Arguments of a block's activation as its weights let one expect them.

    The norm in front of fc1 gives every channel a mean of 0 and a variance of 1 over a token's channels. Taken for independent normal
    numbers, they reach fc1 scaled by the norm's weights; each hidden channel is then normal, too.

    Args:
        weights: state dict of a ViT.
        block: prefix of the block, as "blocks.0.".
        eps: value that stands for a standard deviation of 0.
    """
    scale, shift = weights[f"{block}norm2.weight"].float().cpu(), weights[f"{block}norm2.bias"].float().cpu()
    fc1 = weights[f"{block}mlp.fc1.weight"].float().cpu()
    mean = fc1 @ shift + weights[f"{block}mlp.fc1.bias"].float().cpu()
    std = (fc1 * scale).norm(dim=1).clamp(min=eps)
    levels = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(QUANTILES) + 0.5) / QUANTILES)
    return PreActivations(mean + std * levels[:, None], mean - REACH * std, mean + REACH * std)


@torch.no_grad()
def convert_mlps(weights: dict[str, Any], model: KAT, act_layer: str) -> None:
    """Turn the MLPs of a ViT's state dict into GR-KANs that compute almost the same, in place.

    Hidden channels change places, which changes nothing they compute, so that those that reach equally far share a rational.

    Args:
        weights: state dict of a ViT, in the model's names.
        model: KAT that gets it.
        act_layer: name of the ViT's activation, as timm calls it.

    Raises:
        ModuleNotFoundError: scipy is not installed (`pip install 'kat_zoo[kan]'`).
    """
    activation: nn.Module = create_act_layer(act_layer)
    for name, module in model.named_modules():
        mlp = f"{name}."
        if not isinstance(module, GRKAN) or f"{mlp}fc1.weight" not in weights:
            continue
        block = mlp.removesuffix("mlp.")
        arguments = expected_arguments(weights, block)
        importance = weights[f"{mlp}fc2.weight"].float().cpu().square().sum(0)
        fit = fit_groups(activation, arguments, importance, module.act2.order, module.act2.num_groups, permute=True)
        for key, dim in (("fc1.weight", 0), ("fc1.bias", 0), ("fc2.weight", 1)):
            weight = weights[mlp + key]
            weights[mlp + key] = weight.index_select(dim, fit.channels.to(weight.device))
        reach = weights[f"{block}norm2.bias"].abs() + REACH * weights[f"{block}norm2.weight"].abs()
        first = identity_fit(reach.max(), module.act1)
        for act, values in (("act1", first.state()), ("act2", fit.state())):
            for key, value in values.items():
                weights[f"{mlp}{act}.{key}"] = value.float()


def checkpoint_filter_fn(state_dict: dict[str, Any], model: KAT, act_layer: str = "gelu") -> dict[str, Tensor]:
    """Convert a checkpoint to the model's keys and shapes: that of a KAT as `KAT` takes it, that of a ViT by `convert_mlps`.

    Args:
        state_dict: checkpoint.
        model: KAT that gets it.
        act_layer: name of the ViT's activation, as timm calls it.
    """
    out = vit_checkpoint_filter_fn(unwrap_state_dict(state_dict), model, adapt_layer_scale=True)
    if not has_activations(out):
        convert_mlps(out, model, act_layer)
        # SigLIP's averaging variants are published with the attention pooling that they do not use.
        out = {name: value for name, value in out.items() if not name.startswith("attn_pool.")}
    return kat_checkpoint_filter_fn(out, model)


def _create(variant: str, pretrained: bool, model_args: dict[str, Any], kwargs: dict[str, Any], act_layer: str = "gelu") -> KAT:
    filter_fn = partial(checkpoint_filter_fn, act_layer=act_layer)
    model: KAT = build_with_features(KAT, variant, pretrained, filter_fn, **{**model_args, **kwargs})
    for module in model.modules():
        if isinstance(module, GRKAN):
            module.mlp_activation = act_layer  # load_state_dict and timm's checkpoint_path call no filter
    return model


def _cfg(source: str) -> dict[str, Any]:
    """timm's configuration of a ViT, whose weights come from the Hub alone."""
    config = get_pretrained_cfg(source).to_dict()  # type: ignore[union-attr]
    left = ("url", "architecture", "tag", "custom_load", "notes")
    return {key: value for key, value in config.items() if key not in left and value is not None} | {"url": ""}


default_cfgs = generate_default_cfgs({name: _cfg(source) for name, source in SOURCES.items()})


@register_model
def kat_small_patch14_dinov2(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-S/14 of DINOv2's ViT."""
    return _create("kat_small_patch14_dinov2", pretrained, {**SMALL, **DINOV2}, kwargs)


@register_model
def kat_base_patch14_dinov2(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-B/14 of DINOv2's ViT."""
    return _create("kat_base_patch14_dinov2", pretrained, {**BASE, **DINOV2}, kwargs)


@register_model
def kat_large_patch14_dinov2(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-L/14 of DINOv2's ViT."""
    return _create("kat_large_patch14_dinov2", pretrained, {**LARGE, **DINOV2}, kwargs)


@register_model
def kat_small_patch14_reg4_dinov2(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-S/14 of DINOv2's ViT with four registers."""
    return _create("kat_small_patch14_reg4_dinov2", pretrained, {**SMALL, **REGISTERS}, kwargs)


@register_model
def kat_base_patch14_reg4_dinov2(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-B/14 of DINOv2's ViT with four registers."""
    return _create("kat_base_patch14_reg4_dinov2", pretrained, {**BASE, **REGISTERS}, kwargs)


@register_model
def kat_large_patch14_reg4_dinov2(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-L/14 of DINOv2's ViT with four registers."""
    return _create("kat_large_patch14_reg4_dinov2", pretrained, {**LARGE, **REGISTERS}, kwargs)


@register_model
def kat_tiny_patch16_vit_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-T/16 of a plain ViT."""
    return _create("kat_tiny_patch16_vit_224", pretrained, {**TINY, **ORDER}, kwargs)


@register_model
def kat_small_patch16_vit_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-S/16 of a plain ViT."""
    return _create("kat_small_patch16_vit_224", pretrained, {**SMALL, **ORDER}, kwargs)


@register_model
def kat_base_patch16_vit_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-B/16 of a plain ViT."""
    return _create("kat_base_patch16_vit_224", pretrained, {**BASE, **ORDER}, kwargs)


@register_model
def kat_small_patch16_deit3_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-S/16 of DeiT III's ViT."""
    return _create("kat_small_patch16_deit3_224", pretrained, {**SMALL, **DEIT3}, kwargs)


@register_model
def kat_base_patch16_deit3_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-B/16 of DeiT III's ViT."""
    return _create("kat_base_patch16_deit3_224", pretrained, {**BASE, **DEIT3}, kwargs)


@register_model
def kat_base_patch16_clip_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-B/16 of CLIP's image encoder."""
    return _create("kat_base_patch16_clip_224", pretrained, {**BASE, **CLIP}, kwargs)


@register_model
def kat_base_patch16_clip_quickgelu_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-B/16 of CLIP's image encoder with QuickGELU."""
    return _create("kat_base_patch16_clip_quickgelu_224", pretrained, {**BASE, **CLIP}, kwargs, "quick_gelu")


@register_model
def kat_base_patch16_siglip_gap_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-B/16 of SigLIP's image encoder, tokens averaged."""
    return _create("kat_base_patch16_siglip_gap_224", pretrained, {**BASE, **SIGLIP}, kwargs)
