"""Fourier-KArAt: timm's VisionTransformer whose attention learns its activation on every edge.

Paper: `Kolmogorov-Arnold Attention: Is Learnable Attention Better For Vision Transformers?`, Maity, Hitsman, Li, Dutta -
https://arxiv.org/abs/2503.10632. Implemented from the paper's formulas; there are no published weights.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.config import use_reentrant_ckpt
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, VisionTransformer
from timm.models.vision_transformer import checkpoint_filter_fn as vit_checkpoint_filter_fn
from torch import Tensor, nn

from .._checks import choice, count
from ..layers.gr_kan import LoadsGoogle
from ..layers.learned_attention.attention import KArAtAttention, Operators, PatchGrid
from ..layers.learned_attention.edges import INITS
from ..layers.learned_attention.fourier import FourierHeads, OperatorHeads, SoftmaxHeads
from ..layers.learned_attention.general_heads import GeneralHeads
from ..layers.mixers import mixer_layer
from ._builder import BASE, PICO, SMALL, TINY, WEIGHTS, build_with_features, default_cfg, fmnist_cfg, require_plain, unwrap_state_dict
from ._norm import norm_with_eps
from ._placement import MODES, head_sizes, learnable_layers

__all__ = ["KArAt"]

logger = logging.getLogger("kat_zoo")

OPERATOR = ".attn.operators."
# The operator with a kernel.
STANDARD = {"basis": "fourier", "base_function": "zero", "operator_order": "w_phi", "projection": "none"}


def _block(learnable: frozenset[int], depth: int, attn_layer: Any, **kwargs: Any) -> Block:
    return Block(attn_layer=KArAtAttention if depth in learnable else Attention, depth=depth, **kwargs)


REPLACED = {
    "block_fn": "KArAt has its own",
    "mlp_layer": "mixer names the channel mixer",
    "attn_layer": "KArAt has its own; layers and hybrid_heads place it",
}


class KArAt(LoadsGoogle, VisionTransformer):
    """VisionTransformer with Fourier-KArAt attention; every argument is a string, a number or a list of numbers.

    The state dict is timm's ViT plus `blocks.{i}.attn.operators.{j}.*`, so a ViT checkpoint lacks only the operators.
    In "universal" mode the operators are those of the first learnable block; they are saved once.

    Args:
        grid_size: number G of harmonics, which the paper calls grid size: one number, a list with one per layer, or a list per
            layer of lists per head. In "universal" mode one number or a list with one per head.
        rank: number r of components, given in the same forms.
        mode: "blockwise", operators of its own for each block (the paper's GnB), or "universal", one set for all (GnU).
        basis: functions on the edges: fourier, rational, mexican_hat, morlet, dog, meyer or shannon (Table 8). Only the
            Fourier operator in its standard form has a kernel; every other variant runs in tiles of plain PyTorch.
        base_function: function b(x) that is added on every edge: zero, identity, silu or gelu.
        operator_order: order of the map and the edges: w_phi, W Phi(A); phi_w, Phi(W A); phi_phi, Phi2(Phi1(A)).
        projection: "none", or "simplex": attention rows are projected onto the probability simplex.
        operator_init: "scaled" or "normal" coefficients at the start, as in `FourierHeads`.
        edge_scale: whether every edge has two scales, which gives the number of parameters of the paper's tables.
        w_bias: whether the map W has a bias.
        layers: indices of the layers with learnable attention, or all, early, middle, late.
        hybrid_heads: number of the first heads of every learnable layer that keep softmax.
        mixer: name of the channel mixer: mlp, gr_kan (KAT's) or another of `kat_zoo.layers.mixers`.
        norm_layer: name of timm's norm, "layernorm" by default.
        norm_eps: epsilon of the norm; None takes its default.
        **kwargs: arguments of timm's VisionTransformer. With dynamic_img_size the operators are interpolated in every forward.

    Raises:
        ValueError: unknown names, sizes that do not fit, an attn_layer (`layers` says where attention is learned), or options
            without a meaning for a sum over a fixed set of keys: attention dropout and patch_drop_rate; an argument that is a class or
            another callable.
    """

    def __init__(
        self,
        grid_size: int | Sequence[Any] = 3,
        rank: int | Sequence[Any] = 12,
        mode: str = "blockwise",
        basis: str = "fourier",
        base_function: str = "zero",
        operator_order: str = "w_phi",
        projection: str = "none",
        operator_init: str = "scaled",
        edge_scale: bool = False,
        w_bias: bool = False,
        layers: str | Sequence[int] = "all",
        hybrid_heads: int = 0,
        mixer: str = "mlp",
        norm_layer: str | None = None,
        norm_eps: float | None = None,
        **kwargs: Any,
    ) -> None:
        require_plain({**kwargs, "norm_layer": norm_layer}, REPLACED)
        kwargs = {name: value for name, value in kwargs.items() if name not in REPLACED}  # which are None
        depth, heads = count("depth", kwargs.get("depth", 12)), count("num_heads", kwargs.get("num_heads", 12))
        hybrid_heads = count("hybrid_heads", hybrid_heads, 0, heads - 1)
        choice("mode", mode, MODES)
        learnable = learnable_layers(layers, depth)
        if learnable and kwargs.get("patch_drop_rate"):
            raise ValueError(f"patch_drop_rate={kwargs['patch_drop_rate']}: expected 0, as the operator sums over all tokens")
        norm: Any = norm_with_eps(norm_layer, norm_eps)
        block: Any = partial(_block, learnable)
        super().__init__(block_fn=block, mlp_layer=mixer_layer(mixer), norm_layer=norm, **kwargs)
        self.mode = mode
        self.learnable = sorted(learnable)
        variant = {"basis": basis, "base_function": base_function, "operator_order": operator_order, "projection": projection}
        make = self._operator_factory(
            variant,
            {"edge_scale": edge_scale, "w_bias": w_bias},
            init=choice("operator_init", operator_init, INITS),
            device=kwargs.get("device"),
            dtype=kwargs.get("dtype"),
        )
        for i in self.learnable:
            layer: Any = self.blocks[i].attn
            if mode == "universal" and i != self.learnable[0]:
                first: Any = self.blocks[self.learnable[0]].attn
                layer.set_operators(first.operators)
                continue
            groups = [(size, len(list(same))) for size, same in groupby(head_sizes(grid_size, rank, i, depth, heads, hybrid_heads, mode))]
            operators = [SoftmaxHeads() if size is None else make(n, num_harmonics=size[0], rank=size[1]) for size, n in groups]
            layer.set_operators(Operators(operators, [n for _, n in groups]))
        self.patch_grid = self._follow_image_size() if self.dynamic_img_size and learnable else None
        self.register_state_dict_post_hook(_drop_aliases)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_aliases)  # type: ignore[no-untyped-call]

    def _operator_factory(self, variant: dict[str, Any], extras: dict[str, Any], **options: Any) -> Callable[..., nn.Module]:
        """Return the class of the heads with the arguments that all of them share: the one with a kernel where it can be."""
        options["num_tokens"] = self.patch_embed.num_patches + self.num_prefix_tokens
        if variant == STANDARD:
            return partial(FourierHeads, **extras, **options)
        if any(extras.values()):
            names = ", ".join(f"{name}={value!r}" for name, value in extras.items())
            raise ValueError(f"{names}: expected False, as they exist for the standard Fourier operator only")
        return partial(GeneralHeads, **variant, **options)

    def _follow_image_size(self) -> PatchGrid:
        """Interpolate the operators in every forward to the grid of the images."""
        grid = PatchGrid(self.patch_embed.grid_size, self.num_prefix_tokens)
        self.patch_embed.register_forward_hook(grid.note)
        for i in self.learnable:
            layer: Any = self.blocks[i].attn
            layer.set_dynamic(grid)
        for block in self.blocks:
            block.register_forward_pre_hook(grid.recall)
        return grid

    @torch.jit.ignore
    def aliases(self) -> dict[str, str]:
        """Return the prefix of the universal operator in each later block -> its prefix in the first."""
        later = [i for i in self.learnable[1:] if i < len(self.blocks)] if self.mode == "universal" else []
        return {f"blocks.{i}{OPERATOR}": f"blocks.{self.learnable[0]}{OPERATOR}" for i in later}

    @torch.jit.ignore
    def operators(self) -> dict[str, OperatorHeads]:
        """Return all learnable operators by name, a shared one once."""
        return {name: m for name, m in self.named_modules() if isinstance(m, OperatorHeads)}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass.

        Raises:
            ValueError: the image size is dynamic and timm is set to reentrant checkpointing, which does not keep the size of the images.
        """
        if enable and self.patch_grid is not None and use_reentrant_ckpt():
            raise ValueError(
                "set_grad_checkpointing with dynamic_img_size=True: expected timm's default, TIMM_REENTRANT_CKPT=0, as reentrant "
                "checkpointing does not keep the size of the images"
            )
        super().set_grad_checkpointing(enable)

    def set_input_size(self, img_size: tuple[int, int] | None = None, patch_size: tuple[int, int] | None = None) -> None:
        """Change the image or patch size: position embedding and operators are interpolated on the patch grid.

        The learned functions belong to positions, so this is not free (docs/attention.md has a figure), and training should go on at
        the new size.

        Args:
            img_size: new (height, width) of images, or one number; None keeps it.
            patch_size: new patch size; None keeps it.
        """
        old_grid = self.patch_embed.grid_size
        super().set_input_size(img_size, patch_size)
        for operator in self.operators().values():
            operator.resample(self.patch_embed.grid_size, old_grid, self.num_prefix_tokens)
        if self.patch_grid is not None:
            self.patch_grid.native = self.patch_embed.grid_size


def _drop_aliases(model: KArAt, state_dict: dict[str, Any], prefix: str, _: Any) -> None:
    aliases = tuple(prefix + alias for alias in model.aliases())
    for key in [k for k in state_dict if aliases and k.startswith(aliases)]:
        del state_dict[key]


def _add_aliases(model: KArAt, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for alias, source in model.aliases().items():
        for key in [k for k in state_dict if k.startswith(prefix + source)]:
            value = state_dict[key]
            own = state_dict.setdefault(prefix + alias + key[len(prefix + source) :], value)
            if own is not value and (own.shape != value.shape or not torch.equal(own, value)):
                raise ValueError(
                    f"mode='universal': expected a universal checkpoint, or mode='blockwise'; {prefix}{alias[:-1]} of the checkpoint "
                    f"differ from {prefix}{source[:-1]}, and the model has one set for all blocks"
                )


def _square_grid(tokens: int, num_prefix: int) -> tuple[int, int]:
    side = int((tokens - num_prefix) ** 0.5)
    if side * side != tokens - num_prefix:
        raise ValueError(f"checkpoint of {tokens} tokens: expected a square grid of patches; set_input_size resamples any other")
    return side, side


def _check_tokens(state_dict: dict[str, Any], model: KArAt) -> None:
    """Refuse a checkpoint with operators whose tokens the model cannot take, before timm resamples its position embedding."""
    tokens = state_dict.get("reg_token")
    prefix = ("cls_token" in state_dict) + (0 if tokens is None else tokens.shape[1])
    if prefix != model.num_prefix_tokens:
        raise ValueError(
            f"class_token, reg_tokens: expected {prefix} prefix tokens, as in the checkpoint, not {model.num_prefix_tokens}, because the "
            "operators have functions of every token"
        )
    embedding = state_dict.get("pos_embed")
    if model.pos_embed is not None and embedding is not None and embedding.shape != model.pos_embed.shape:
        _square_grid(embedding.shape[1], 0 if model.no_embed_class else model.num_prefix_tokens)


def _resample_operators(state_dict: dict[str, Any], model: KArAt) -> dict[str, Tensor]:
    """Return the operators of a checkpoint that have another number of tokens than the model, on the model's patch grid."""
    resampled: dict[str, Tensor] = {}
    for name, operator in model.operators().items():
        own = dict(operator.named_parameters())
        present = {key: state_dict[f"{name}.{key}"] for key in own if f"{name}.{key}" in state_dict}
        if not present:
            continue
        key = next(iter(present))
        axis = operator.token_axes[key][0]
        tokens = present[key].shape[axis]
        if tokens != own[key].shape[axis]:
            grid = _square_grid(tokens, model.num_prefix_tokens)
            values = operator.resampled(present, model.patch_embed.grid_size, grid, model.num_prefix_tokens)
            resampled |= {f"{name}.{k}": value for k, value in values.items()}
    return resampled


def checkpoint_filter_fn(state_dict: dict[str, Any], model: KArAt) -> dict[str, Tensor]:
    """Convert a checkpoint, bare or wrapped as by a training (see `unwrap_state_dict`), to the model's shapes.

    A plain ViT, which has no operators at all, gets the model's own (fresh) ones. Where a checkpoint has those of the first
    learnable block alone they are universal, and a blockwise model gets a copy in every block. All else that is missing is
    left to strict loading. Position embeddings and operators are resampled to the model's patch grid, from a square one.

    Args:
        state_dict: checkpoint.
        model: model that is going to load it.

    Raises:
        ValueError: operators for other prefix tokens, or for a grid of patches that is not square and not the model's.
    """
    state_dict = unwrap_state_dict(state_dict)  # before the operators are looked for
    blocks = {key.partition(OPERATOR)[0] for key in state_dict if OPERATOR in key}
    if blocks:
        _check_tokens(state_dict, model)
    out: dict[str, Tensor] = vit_checkpoint_filter_fn(state_dict, model, adapt_layer_scale=True)
    if model.learnable and not blocks:
        logger.info("kat_zoo: the checkpoint has no operators; they start fresh.")
        return out | {key: value for key, value in model.state_dict().items() if OPERATOR in key}
    learnable = [f"blocks.{i}" for i in model.learnable]
    if model.mode == "blockwise" and blocks == set(learnable[:1]):
        shared = {key.partition(OPERATOR)[2]: value for key, value in out.items() if OPERATOR in key}
        out |= {block + OPERATOR + key: value for block in learnable[1:] for key, value in shared.items()}
    return out | _resample_operators(out, model)


def _create_karat(variant: str, pretrained: bool = False, **kwargs: Any) -> KArAt:
    return build_with_features(KArAt, variant, pretrained, checkpoint_filter_fn, **kwargs)


_PAPER = {
    "paper_name": "Kolmogorov-Arnold Attention: Is Learnable Attention Better For Vision Transformers?",
    "paper_ids": "arXiv:2503.10632",
}
_cfg = partial(default_cfg, crop_pct=0.9, **_PAPER)

default_cfgs = generate_default_cfgs(
    {
        "karat_tiny_g3b_patch16_224.untrained": _cfg(),
        "karat_tiny_g3u_patch16_224.untrained": _cfg(),
        "karat_small_g3b_patch16_224.untrained": _cfg(),
        "karat_small_g3u_patch16_224.untrained": _cfg(),
        "karat_base_g1b_patch16_224.untrained": _cfg(),
        "karat_base_g1u_patch16_224.untrained": _cfg(),
        "karat_pico_patch4_28.fmnist": fmnist_cfg(file=str(WEIGHTS / "karat_pico_patch4_28.fmnist.safetensors"), **_PAPER),
        "karat_kat_pico_patch4_28.untrained": fmnist_cfg(**_PAPER),
        "test_karat.untrained": _cfg(input_size=(3, 96, 96), crop_pct=0.95),
    }
)


@register_model
def karat_tiny_g3b_patch16_224(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """ViT-Ti/16 + G3B: three harmonics, operators of its own in every block."""
    model_args = dict(TINY, grid_size=3, mode="blockwise")
    return _create_karat("karat_tiny_g3b_patch16_224", pretrained, **dict(model_args, **kwargs))


@register_model
def karat_tiny_g3u_patch16_224(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """ViT-Ti/16 + G3U: three harmonics, one operator per head for all blocks."""
    model_args = dict(TINY, grid_size=3, mode="universal")
    return _create_karat("karat_tiny_g3u_patch16_224", pretrained, **dict(model_args, **kwargs))


@register_model
def karat_small_g3b_patch16_224(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """ViT-S/16 + G3B."""
    model_args = dict(SMALL, grid_size=3, mode="blockwise")
    return _create_karat("karat_small_g3b_patch16_224", pretrained, **dict(model_args, **kwargs))


@register_model
def karat_small_g3u_patch16_224(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """ViT-S/16 + G3U."""
    model_args = dict(SMALL, grid_size=3, mode="universal")
    return _create_karat("karat_small_g3u_patch16_224", pretrained, **dict(model_args, **kwargs))


@register_model
def karat_base_g1b_patch16_224(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """ViT-B/16 + G1B."""
    model_args = dict(BASE, grid_size=1, mode="blockwise")
    return _create_karat("karat_base_g1b_patch16_224", pretrained, **dict(model_args, **kwargs))


@register_model
def karat_base_g1u_patch16_224(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """ViT-B/16 + G1U."""
    model_args = dict(BASE, grid_size=1, mode="universal")
    return _create_karat("karat_base_g1u_patch16_224", pretrained, **dict(model_args, **kwargs))


@register_model
def karat_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """KArAt (G3B, rank 8) for 28x28 gray images: 49 tokens, averaged; 0.73M parameters."""
    model_args = dict(PICO, depth=6, grid_size=3, rank=8)
    return _create_karat("karat_pico_patch4_28", pretrained, **dict(model_args, **kwargs))


@register_model
def karat_kat_pico_patch4_28(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """KArAt and KAT in one: kat_pico_patch4_28 with Fourier attention (G3B, rank 8), 0.49M parameters."""
    model_args = dict(PICO, grid_size=3, rank=8, mixer="gr_kan")
    return _create_karat("karat_kat_pico_patch4_28", pretrained, **dict(model_args, **kwargs))


@register_model
def test_karat(pretrained: bool = False, **kwargs: Any) -> KArAt:
    """KArAt for tests."""
    model_args = dict(img_size=96, patch_size=16, embed_dim=64, depth=6, num_heads=2, mlp_ratio=3, grid_size=2, rank=4)
    return _create_karat("test_karat", pretrained, **dict(model_args, **kwargs))
