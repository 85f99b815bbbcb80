"""Maps of a plain ViT for dense prediction: any image size, windows, frozen stages, gradient checkpointing."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from .._checks import count, is_count
from ..layers.learned_attention.attention import KArAtAttention
from ..layers.learned_attention.fourier import OperatorHeads
from ..layers.learned_attention.general_heads import GeneralHeads
from .backbone import LayerDecay, check_plain, take_any_size
from .windows import windowed_attention


def quarter_blocks(depth: int) -> list[int]:
    """Return the last block of each quarter of the depth: 2, 5, 8, 11 of 12 (every block below a depth of 4)."""
    return sorted({max(depth * k // 4, 1) - 1 for k in range(1, 5)})


def _check_indices(name: str, indices: Sequence[int], depth: int) -> list[int]:
    if not all(is_count(i, -depth, depth - 1) for i in indices):
        raise ValueError(f"{name}={list(indices)}: expected block numbers from {-depth} to {depth - 1}")
    return [i % depth for i in indices]


class ViTFeatures(LayerDecay, nn.Module):
    """The maps of some blocks of a plain ViT.

    The backbone is taken over and changed: it takes any image size (padded to the patch at the right and bottom, position embedding
    interpolated; so are the operators of a KArAt), and parts that no map needs are removed: head, final norm and later blocks.

    Args:
        backbone: plain ViT of the zoo or timm.
        indices: numbers of the blocks whose outputs are returned; negative ones count from the end.
        window_size: side of attention windows in patches (14 in ViTDet); 0 is global attention.
        global_blocks: numbers of the blocks that keep global attention; None takes the last of each quarter of the depth, as ViTDet.
        frozen_stages: number k of frozen blocks: -1 trains everything; 0 freezes the patch and position embedding and the prefix
            tokens; k also the first k blocks. Frozen blocks stay in eval mode (no drop path).
        grad_checkpointing: whether each block is recomputed in the backward.

    Attributes:
        patch_size: side of a patch in pixels.
        embed_dim: number of channels of each map.

    Raises:
        ValueError: not a plain ViT, numbers out of range, or windows on blocks that cannot have them: KArAt's operators have
            parameters for each token, and only timm's `Block` is known to be windowed rightly.
    """

    backbone_path = "backbone"

    def __init__(
        self,
        backbone: VisionTransformer,
        indices: Sequence[int] = (-1,),
        *,
        window_size: int = 0,
        global_blocks: Sequence[int] | None = None,
        frozen_stages: int = -1,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_plain(backbone)
        depth = len(backbone.blocks)
        self.indices = _check_indices("indices", indices, depth)
        if not self.indices:
            raise ValueError("indices=[]: expected at least one block")
        window_size, frozen_stages = count("window_size", window_size, 0), count("frozen_stages", frozen_stages, -1, depth)
        for module in backbone.modules():
            if isinstance(module, KArAtAttention):
                module.dynamic = False  # operators are resampled here
        keep = quarter_blocks(depth) if global_blocks is None else _check_indices("global_blocks", global_blocks, depth)
        self.window_size = window_size
        self.windowed = [i for i in range(max(self.indices) + 1) if window_size and i not in keep]
        for i in self.windowed:
            block = backbone.blocks[i]
            if not isinstance(block, Block) or isinstance(block.attn, KArAtAttention):
                kind = type(getattr(block, "attn", block)).__name__
                raise ValueError(f"window_size={window_size}: expected 0, as block {i} ({kind}) has no windowed form")
        take_any_size(backbone)
        backbone.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        self.backbone = backbone
        self.patch_size: int = backbone.patch_embed.patch_size[0]
        self.embed_dim: int = backbone.embed_dim
        self.frozen_stages = frozen_stages
        self.grad_checkpointing = grad_checkpointing
        for module in self._frozen_modules():
            module.requires_grad_(False)
        for name in ("cls_token", "reg_token", "dist_token", "pos_embed"):
            parameter = getattr(backbone, name, None)
            if frozen_stages >= 0 and parameter is not None:
                parameter.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        vit = self.backbone
        return [vit.patch_embed, vit.pos_drop, vit.norm_pre, *list(vit.blocks)[: self.frozen_stages]]

    def train(self, mode: bool = True) -> "ViTFeatures":
        """Set the mode of the modules; frozen stages stay in eval mode.

        Args:
            mode: whether to train.
        """
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Set whether each block is recomputed in the backward.

        Args:
            enable: whether it is.
        """
        self.grad_checkpointing = enable

    def _resampled_operators(self, block: nn.Module, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Return the parameters of a KArAt block's operators on another patch grid, differentiable."""
        vit = self.backbone
        parameters = {}
        for name, module in block.named_modules():
            if not isinstance(module, OperatorHeads):
                continue
            if isinstance(module, GeneralHeads) and torch.is_grad_enabled():
                # Its own tiles are recomputed in the backward, when the interpolated parameters are no longer in place.
                raise ValueError(
                    f"images of {grid[0]} x {grid[1]} patches: expected {vit.patch_embed.grid_size}, the only size that this KArAt "
                    "variant trains at; call backbone.set_input_size((height, width))"
                )
            own = dict(module.named_parameters())
            for key, value in module.resampled(own, grid, vit.patch_embed.grid_size, vit.num_prefix_tokens).items():
                parameters[f"{name}.{key}"] = value
        return parameters

    def _run_block(self, i: int, x: Tensor, grid: tuple[int, int]) -> Tensor:
        block: Any = self.backbone.blocks[i]
        if i in self.windowed:
            normed = block.norm1(x)
            mixed = windowed_attention(block.attn, normed, grid, self.window_size, self.backbone.num_prefix_tokens)
            x = x + block.drop_path1(block.ls1(mixed))
            return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
        if isinstance(getattr(block, "attn", None), KArAtAttention) and grid != self.backbone.patch_embed.grid_size:
            return functional_call(block, self._resampled_operators(block, grid), (x,))
        return block(x)

    def maps_and_prefix(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps (B, C, ceil(H / patch), ceil(W / patch)) and the prefix tokens (B, P, C) after each of `indices`.

        Args:
            images: (B, channels, H, W), normalized, any size.

        Raises:
            ValueError: another number of dimensions or channels.
        """
        vit = self.backbone
        channels = vit.patch_embed.proj.in_channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"images of shape {tuple(images.shape)}: expected (B, {channels}, H, W)")
        x = vit.patch_embed(images)
        grid = (x.shape[1], x.shape[2])
        x = vit.norm_pre(vit._pos_embed(x))
        outputs = {}
        for i in range(len(vit.blocks)):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(self._run_block, i, x, grid, use_reentrant=False)
            else:
                x = self._run_block(i, x, grid)
            if i in self.indices:
                outputs[i] = x
        count = vit.num_prefix_tokens
        maps = [outputs[i][:, count:].unflatten(1, grid).permute(0, 3, 1, 2).contiguous() for i in self.indices]
        return maps, [outputs[i][:, :count] for i in self.indices]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of `maps_and_prefix`."""
        return self.maps_and_prefix(images)[0]
