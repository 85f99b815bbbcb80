"""Models with the architecture of a plain ViT."""

import math
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers.attention import Attention
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.create_norm import get_norm_layer
from timm.layers.mlp import Mlp
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import gelu

from ..models._norm import NORMS
from .fitting import check_materialized
from .mlps import find_mlps

GROUPS = 8  # of a KAT


def check_plain_vit(vit: Any) -> None:
    """Refuse a model whose parts a KAT or a KArAt does not have.

    Args:
        vit: model to copy.

    Raises:
        ValueError: not a plain ViT of timm with weights; the message names the part, and `to_kat` if that takes the model.
    """
    if not isinstance(vit, nn.Module):
        raise ValueError(f"vit={vit!r}: expected timm's plain VisionTransformer, or the name of one")
    other = advice(vit)
    if type(vit) is not VisionTransformer:
        raise ValueError(f"vit of class {type(vit).__name__}: expected timm's plain VisionTransformer{other}")
    check_materialized("vit", vit)
    if type(vit.patch_embed) is not PatchEmbed or not isinstance(vit.patch_embed.norm, nn.Identity):
        raise ValueError(f"patch_embed of class {type(vit.patch_embed).__name__}: expected timm's PatchEmbed without a norm{other}")
    _check_pool(vit, other)
    block: Any
    for i, block in enumerate(vit.blocks):
        parts = (block, Block), (getattr(block, "mlp", None), Mlp), (getattr(block, "attn", None), Attention)
        for part, kind in parts:
            if type(part) is not kind:
                raise ValueError(f"blocks.{i} with {type(part).__name__}: expected timm's {kind.__name__}{other}")
        if getattr(block.attn, "gate", None) is not None:
            raise ValueError(f"blocks.{i} with gated attention: expected timm's Attention without a gate{other}")
        activation: Any = block.mlp.act
        if any(True for _ in activation.parameters()):
            raise ValueError(f"blocks.{i} with activation {type(activation).__name__}: expected one without parameters{other}")


def advice(vit: nn.Module) -> str:
    """The end of a message that refuses a model: `to_kat`, if it takes the model."""
    try:
        find_mlps(vit)
    except ValueError:
        return ""
    return "; kat_zoo.to_kat keeps the model's own parts"


def check_hidden(vit: Any) -> None:
    """Refuse a width of an MLP that the groups of a KAT do not divide.

    Args:
        vit: ViT that `check_plain_vit` accepts.

    Raises:
        ValueError: such a width.
    """
    for name, width in {"embed_dim": vit.embed_dim, "hidden width of blocks.0.mlp": vit.blocks[0].mlp.fc1.out_features}.items():
        if width % GROUPS:
            raise ValueError(f"vit with {name} {width}: expected a multiple of {GROUPS}, the groups of a KAT{advice(vit)}")


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load a ViT's weights into a model made by `create_like`.

    Args:
        model: model that gets them.
        state_dict: weights of the ViT, and those that the model alone has.

    Raises:
        ValueError: weights of other names or shapes, as a head that was replaced; the message names some of them.
    """
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state_dict.items()}
    wrong = [name for name in sorted({*own, *given}) if own.get(name) != given.get(name)]
    if wrong:
        told = [f"{name} {given.get(name, 'missing')} in place of {own.get(name, 'none')}" for name in wrong[:4]]
        raise ValueError(f"vit whose weights are not those of its arguments: {', '.join(told)}; kat_zoo.to_kat keeps the model's own parts")
    model.load_state_dict(state_dict)


def _check_pool(vit: Any, other: str) -> None:
    """Refuse attention pooling whose MLP has another activation than the GELU that timm gives a model without act_layer."""
    if vit.attn_pool is None:
        return
    mlp = getattr(vit.attn_pool, "mlp", None)
    x = torch.linspace(-8, 8, 1001)
    if type(vit.attn_pool) is not AttentionPoolLatent or type(mlp) is not Mlp or not torch.equal(mlp.act(x.clone()), gelu(x)):
        raise ValueError(f"global_pool={vit.global_pool!r}: expected timm's attention pooling with GELU{other}")


def _num_classes(vit: Any) -> int:
    """Number of classes of the head, which may have been replaced."""
    head = vit.head
    return int(head.out_features) if type(head) is nn.Linear else 0 if type(head) is nn.Identity else int(vit.num_classes)


def _mlp_ratio(hidden: int, width: int) -> float:
    """The ratio of which timm's int(width * ratio) makes the hidden width."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def architecture(vit: Any) -> dict[str, Any]:
    """Return the arguments of timm's VisionTransformer that build a model with the architecture of `vit`."""
    block = vit.blocks[0]
    norm: nn.Module = block.norm1
    arguments: dict[str, Any] = dict(
        img_size=tuple(vit.patch_embed.img_size or (224, 224)),
        patch_size=tuple(vit.patch_embed.patch_size),
        in_chans=vit.patch_embed.proj.in_channels,
        num_classes=_num_classes(vit),
        global_pool=vit.global_pool,
        embed_dim=vit.embed_dim,
        depth=len(vit.blocks),
        num_heads=block.attn.num_heads,
        mlp_ratio=_mlp_ratio(block.mlp.fc1.out_features, vit.embed_dim),
        qkv_bias=block.attn.qkv.bias is not None,
        qk_norm=not isinstance(block.attn.q_norm, nn.Identity),
        scale_attn_norm=not isinstance(block.attn.norm, nn.Identity),
        scale_mlp_norm=not isinstance(block.mlp.norm, nn.Identity),
        proj_bias=block.attn.proj.bias is not None,
        init_values=None if isinstance(block.ls1, nn.Identity) else 1e-5,
        class_token=vit.has_class_token,
        pos_embed="none" if vit.pos_embed is None else "learn",
        no_embed_class=vit.no_embed_class,
        reg_tokens=vit.num_reg_tokens,
        pre_norm=not isinstance(vit.norm_pre, nn.Identity),
        final_norm=not (isinstance(vit.norm, nn.Identity) and isinstance(vit.fc_norm, nn.Identity)),
        fc_norm=not isinstance(vit.fc_norm, nn.Identity),
        pool_include_prefix=vit.pool_include_prefix,
        dynamic_img_size=vit.dynamic_img_size,
        dynamic_img_pad=vit.patch_embed.dynamic_img_pad,
        drop_rate=vit.head_drop.p,
        pos_drop_rate=vit.pos_drop.p,
        patch_drop_rate=getattr(vit.patch_drop, "prob", 0.0),
        proj_drop_rate=block.attn.proj_drop.p,
        attn_drop_rate=block.attn.attn_drop.p,
        drop_path_rate=getattr(vit.blocks[-1].drop_path1, "drop_prob", 0.0),
    )
    if type(norm) is not LayerNorm or getattr(norm, "eps", None) != 1e-6:
        arguments.update(norm_layer=_norm_name(norm), norm_eps=block.norm1.eps)
    return arguments


def _norm_name(norm: nn.Module) -> str:
    """Return timm's name of a norm's class."""
    kind = LayerNorm if type(norm) is nn.LayerNorm else type(norm)
    for name in NORMS:
        if get_norm_layer(name) is kind:
            return name
    raise ValueError(f"norm of class {type(norm).__name__}: expected one of {', '.join(NORMS)}")


def create_like(vit: Any, name: str, **kwargs: Any) -> Any:
    """Create a model with the ViT's architecture, under a registered name so that it can be saved and pushed.

    Args:
        vit: ViT that `check_plain_vit` accepts.
        name: name of the model, registered with timm.
        **kwargs: arguments of the model; they win over those of the ViT's architecture.

    Returns:
        The model in eval mode, on the ViT's device and in its dtype, with the ViT's preprocessing and license.
    """
    # The address of weights published under the name is not this model's.
    keep = ("license", "input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "num_classes")
    overlay = {key: value for key, value in getattr(vit, "pretrained_cfg", {}).items() if key in keep}
    overlay.update(num_classes=_num_classes(vit), hf_hub_id=None, tag=None)
    parameter = next(vit.parameters())
    model = timm.create_model(name, pretrained_cfg_overlay=overlay, **{**architecture(vit), **kwargs})
    return model.to(parameter.device, parameter.dtype).eval()
