"""Kolmogorov-Arnold Transformer (KAT): timm's VisionTransformer with group-rational KAN layers in place of the MLP.

Paper: `Kolmogorov-Arnold Transformer`, Yang and Wang, ICLR 2025 - https://arxiv.org/abs/2409.10594
Published weights: https://huggingface.co/adamdad (MIT)
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.layers.attention import Attention
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as vit_checkpoint_filter_fn
from torch import Tensor

from .. import _checks
from ..layers.gr_kan import GRKAN, LoadsGoogle, has_activations
from ..layers.init import init_attention_mimetic
from ._builder import (
    BASE,
    PICO,
    SMALL,
    TINY,
    WEIGHTS,
    activation_names,
    build_with_features,
    default_cfg,
    fmnist_cfg,
    fmnist_rgb_cfg,
    require_plain,
    unwrap_state_dict,
)
from ._norm import norm_with_eps

__all__ = ["KAT"]

WEIGHT_INITS = ("upstream", "upstream_mimetic", "kan", "kan_mimetic")


REPLACED = {
    "act_layer": "a KAT learns its activations, from act_init",
    "mlp_layer": "the channel mixer of a KAT is GRKAN",
    "block_fn": "the blocks of a KAT are timm's plain ones",
}


class KAT(LoadsGoogle, VisionTransformer):
    """VisionTransformer whose channel mixers are `GRKAN`; every argument is a string, a number or a list of numbers.

    State-dict keys and shapes are those of the published weights: timm's ViT plus
    `blocks.{i}.mlp.act{1,2}.weight_{numerator,denominator}`.

    Args:
        act_init: functions the activations start from, "<act1>-<act2>"; a single name is act2's, and act1 the identity.
            The paper's ablation (KAT-T, ImageNet top-1): identity-swish 74.6, identity-gelu 74.5, swish-swish 74.4,
            identity-identity 69.7.
        num_groups: number of groups of channels with their own denominator; it divides embed_dim and the hidden width.
        order: degrees (m, n) of numerator and denominator.
        act_scaled: whether each group has a numerator of its own, and the coefficients are those of x / scale, as in `GroupRational`; so
            are the KATs that are made of ViTs, whose arguments reach far.
        weight_init: "upstream", the effect of the released code (timm's truncated normal), or "kan", the
            variance-preserving one of the paper (section 4.4); either with "_mimetic" for mimetic attention
            (arXiv 2305.09828). timm's "skip" and "reset" work too.
        norm_layer: name of timm's norm, "layernorm" by default.
        norm_eps: epsilon of the norm, 1e-6 by default (CLIP's is 1e-5).
        **kwargs: arguments of timm's VisionTransformer.

    Raises:
        ValueError: an unknown init, or one that the attention cannot have; a width that num_groups does not divide; an argument
            that is a class or another callable, or one that a KAT sets itself: act_layer, mlp_layer, block_fn.
    """

    def __init__(
        self,
        act_init: str = "identity-swish",
        num_groups: int = 8,
        order: Sequence[int] = (5, 4),
        act_scaled: bool = False,
        weight_init: str = "upstream",
        norm_layer: str | None = None,
        norm_eps: float | None = None,
        **kwargs: Any,
    ) -> None:
        _checks.choice("weight_init", weight_init, (*WEIGHT_INITS, "skip", "reset"))
        require_plain({**kwargs, "norm_layer": norm_layer}, REPLACED)
        kwargs = {name: value for name, value in kwargs.items() if name not in REPLACED}  # which are None
        act1_init, act2_init = activation_names(act_init)
        degrees = _checks.order("order", order)
        mlp_layer = partial(GRKAN, num_groups=num_groups, act1_init=act1_init, act2_init=act2_init, order=degrees, scaled=act_scaled)
        norm: Any = norm_with_eps(norm_layer, norm_eps)
        super().__init__(mlp_layer=mlp_layer, norm_layer=norm, weight_init="skip", **kwargs)  # type: ignore[arg-type]
        self.weight_init = "reset" if weight_init == "skip" else weight_init
        self.weight_init_mode = "reset" if self.weight_init == "reset" else ""
        if weight_init != "skip":
            self.init_weights(needs_reset=False)

    def init_weights(self, mode: str = "", needs_reset: bool = True) -> None:
        """Initialize all weights.

        Args:
            mode: name as the constructor's weight_init, which is the default; not "skip".
            needs_reset: whether to call reset_parameters of every other module, as after device='meta'.

        Raises:
            ValueError: an unknown mode, or a mimetic one for attention that is not timm's.
        """
        mode = mode or self.weight_init
        _checks.choice("mode", mode, (*WEIGHT_INITS, "reset"))
        other: Any = next((block.attn for block in self.blocks if not isinstance(block.attn, Attention)), None)
        if mode.endswith("mimetic") and other is not None:
            raise ValueError(f"weight_init={mode!r} with {type(other).__name__}: expected no attn_layer, as it is for timm's Attention")
        fix_init, self.fix_init = self.fix_init, False  # it scales the weights that are drawn, so it comes last
        super().init_weights("reset" if mode == "reset" else "", needs_reset)
        self.fix_init = fix_init
        for module in self.modules():
            if mode.startswith("kan") and isinstance(module, GRKAN):
                module.init_variance_preserving()
            if mode.endswith("mimetic") and isinstance(module, Attention):
                init_attention_mimetic(module.qkv, module.proj, module.num_heads)
        if fix_init:
            self.fix_init_weight()


def checkpoint_filter_fn(state_dict: dict[str, Any], model: KAT) -> dict[str, Tensor]:
    """Convert a checkpoint to the model's keys and shapes.

    It takes our own; upstream's .pth, bare or under state_dict, model or (preferred) their EMA entries, in any nesting, with
    or without the prefixes of DDP, torch.compile and torch's AveragedModel; FlashKAT's names and rows; timm's and DeiT's
    ViT, whose MLPs become GR-KANs (see `GRKAN.adapt_state_dict`). Patch and position embeddings are resampled to the
    model's size as timm does. Google's .npz goes through `KAT.load_pretrained`.
    """
    out = vit_checkpoint_filter_fn(unwrap_state_dict(state_dict), model, adapt_layer_scale=True)
    mlps = not has_activations(out)
    for name, module in model.named_modules():
        if isinstance(module, GRKAN):
            module.adapt_state_dict(out, name + ".", complete_mlp=mlps)
    return out


def _create_kat(variant: str, pretrained: bool = False, **kwargs: Any) -> KAT:
    return build_with_features(KAT, variant, pretrained, checkpoint_filter_fn, **kwargs)


_PAPER = {"paper_name": "Kolmogorov-Arnold Transformer", "paper_ids": "arXiv:2409.10594"}
_cfg = partial(default_cfg, **_PAPER)


# The same weights as .pth files of the repository adamdad/kat_pretained (sic), for
# pretrained_cfg_overlay=dict(hf_hub_id="adamdad/kat_pretained", hf_hub_filename=UPSTREAM_FILES[tag]).
UPSTREAM_FILES = {
    "kat_tiny_patch16_224.adamdad_in1k": ("kat_tiny_patch16_224_1f3ad3b2e69821f3d412f2924cf159a0e266f142d739cb68f68f796f5a0fe289.pth"),
    "kat_tiny_patch16_224.adamdad_vitft_in1k": (
        "kat_tiny_patch16_224-finetune_64f124d003803e4a7e1aba1ba23500ace359b544e8a5f0110993f25052e402fb.pth"
    ),
    "kat_small_patch16_224.adamdad_in1k": ("kat_small_patch16_224_32487885cf13d2c14e461c9016fac8ad43f7c769171f132530941e930aeb5fe2.pth"),
    "kat_small_patch16_224.adamdad_vitft_in1k": (
        "kat_small_patch_224-finetune_3ae087a4c28e2993468eb377d5151350c52c80b2a70cc48ceec63d1328ba58e0.pth"
    ),
    "kat_base_patch16_224.adamdad_in1k": ("kat_base_patch16_224_abff874d925d756d15cde97303f772a3460ddbd44b9c53fb9ce5cf15be230fb6.pth"),
    "kat_base_patch16_224.adamdad_vitft_in1k": (
        "kat_base_patch16_224-finetune_440bf1ead9dd8ecab642078cfb60ae542f1fa33ca65517260501e02c011e38f2.pth"
    ),
}

default_cfgs = generate_default_cfgs(
    {
        "kat_tiny_patch16_224.adamdad_in1k": _cfg(hf_hub_id="adamdad/kat_tiny_patch16_224"),
        "kat_tiny_patch16_224.adamdad_vitft_in1k": _cfg(hf_hub_id="adamdad/kat_tiny_patch16_224.vitft"),
        "kat_small_patch16_224.adamdad_in1k": _cfg(hf_hub_id="adamdad/kat_small_patch16_224"),
        "kat_small_patch16_224.adamdad_vitft_in1k": _cfg(hf_hub_id="adamdad/kat_small_patch16_224.vitft"),
        "kat_base_patch16_224.adamdad_in1k": _cfg(hf_hub_id="adamdad/kat_base_patch16_224"),
        "kat_base_patch16_224.adamdad_vitft_in1k": _cfg(hf_hub_id="adamdad/kat_base_patch16_224.vitft"),
        "kat_pico_patch4_28.fmnist": fmnist_cfg(file=str(WEIGHTS / "kat_pico_patch4_28.fmnist.safetensors"), **_PAPER),
        # The same file: see _pretrained.gray_to_color.
        "kat_pico_patch4_28.fmnist_rgb": fmnist_rgb_cfg(file=str(WEIGHTS / "kat_pico_patch4_28.fmnist.safetensors"), **_PAPER),
        "test_kat.untrained": _cfg(input_size=(3, 160, 160), crop_pct=0.95),
    }
)


@register_model
def kat_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-T/16, 5.7M parameters."""
    return _create_kat("kat_tiny_patch16_224", pretrained, **dict(TINY, **kwargs))


@register_model
def kat_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-S/16, 22.1M parameters."""
    return _create_kat("kat_small_patch16_224", pretrained, **dict(SMALL, **kwargs))


@register_model
def kat_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT-B/16, 86.6M parameters."""
    return _create_kat("kat_base_patch16_224", pretrained, **dict(BASE, **kwargs))


@register_model
def kat_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT for 28x28 images (49 tokens, averaged), gray by default, 0.46M parameters."""
    return _create_kat("kat_pico_patch4_28", pretrained, **dict(PICO, **kwargs))


@register_model
def test_kat(pretrained: bool = False, **kwargs: Any) -> KAT:
    """KAT for tests."""
    model_args = dict(patch_size=16, embed_dim=64, depth=6, num_heads=2, mlp_ratio=3, dynamic_img_size=True)
    return _create_kat("test_kat", pretrained, **dict(model_args, **kwargs))
