"""The simple feature pyramid of ViTDet (arXiv 2203.16527, section 3): maps of several strides from a plain ViT."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from timm.layers.norm import LayerNorm2d
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from .._checks import count, is_real
from .features import ViTFeatures


def scale_branch(dim: int, out_channels: int, scale: float) -> nn.Sequential:
    """Build one level: transposed convolutions that double the map (halving its channels) or a max pool, then two convolutions.

    Args:
        dim: number of channels of the map.
        out_channels: number of channels of the level.
        scale: factor of height and width, a power of two; 0.5 halves them, rounding up.
    """
    doublings = round(math.log2(scale))
    layers: list[nn.Module] = []
    for step in range(doublings):
        layers += [LayerNorm2d(dim), nn.GELU()] if step else []
        layers.append(nn.ConvTranspose2d(dim, dim // 2, 2, stride=2))
        dim //= 2
    if doublings < 0:
        layers.append(nn.MaxPool2d(2**-doublings, ceil_mode=True))
    layers += [nn.Conv2d(dim, out_channels, 1, bias=False), LayerNorm2d(out_channels)]
    layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)]
    return nn.Sequential(*layers)


class SimpleFeaturePyramid(ViTFeatures):
    """A pyramid of maps over a plain ViT of the zoo or timm; as it is, a backbone of torchvision's detectors.

    Args:
        backbone: plain ViT, which is taken over and changed as by `ViTFeatures`.
        out_channels: number of channels of every level.
        scales: sizes of the levels, relative to the map of patches, largest first; powers of two.
        indices: numbers of the blocks whose outputs feed the levels; one number feeds them all (ViTDet: the last).
        extra_blocks: torchvision's module for levels on top (LastLevelMaxPool, LastLevelP6P7).
        window_size: side of attention windows in patches; 0 is global attention.
        global_blocks: numbers of the blocks that keep global attention; None takes the last of each quarter of the depth.
        frozen_stages: number of frozen blocks; -1 trains everything, 0 freezes the embeddings.
        grad_checkpointing: whether each block is recomputed in the backward.

    Attributes:
        strides: strides of the levels from `scales`, in pixels.

    Raises:
        ValueError: scales that are not powers of two or not in falling order, another number of indices, too few channels to halve,
            or arguments that `ViTFeatures` refuses.

    Example:
        >>> pyramid = SimpleFeaturePyramid(timm.create_model("kat_small_patch16_224"), window_size=14)
        >>> {name: level.shape[-2:] for name, level in pyramid(torch.rand(1, 3, 512, 640)).items()}
        {'0': (128, 160), '1': (64, 80), '2': (32, 40), '3': (16, 20)}
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        *,
        indices: Sequence[int] = (-1,),
        extra_blocks: ExtraFPNBlock | None = None,
        window_size: int = 0,
        global_blocks: Sequence[int] | None = None,
        frozen_stages: int = -1,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            indices,
            window_size=window_size,
            global_blocks=global_blocks,
            frozen_stages=frozen_stages,
            grad_checkpointing=grad_checkpointing,
        )
        out_channels = count("out_channels", out_channels)
        powers = scales and all(is_real(s) and s > 0 and math.log2(s).is_integer() for s in scales)
        if not powers or sorted(scales, reverse=True) != [*scales]:
            raise ValueError(f"scales={list(scales)}: expected powers of two, largest first, as (4, 2, 1, 0.5)")
        if len(self.indices) not in (1, len(scales)):
            raise ValueError(f"indices={list(indices)}: expected one block, or one for each of {len(scales)} scales")
        if self.embed_dim < scales[0]:
            halvings = math.log2(scales[0])
            raise ValueError(
                f"scales={list(scales)}: expected smaller ones, as {self.embed_dim} channels cannot be halved {halvings:.0f} times"
            )
        self.out_channels = out_channels
        self.scales = list(scales)
        self.strides = [self.patch_size / scale for scale in scales]
        self.branches = nn.ModuleList(scale_branch(self.embed_dim, out_channels, scale) for scale in scales)
        self.extra_blocks = extra_blocks

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":  # type: ignore[override]
        """Return the levels by name, "0" the largest, then those of `extra_blocks`.

        Args:
            images: (B, channels, H, W), normalized, any size.

        Returns:
            Maps (B, out_channels, H_i, W_i); H_i = ceil(scale ceil(H / patch)).
        """
        maps = super().forward(images)
        maps = maps * len(self.branches) if len(maps) == 1 else maps
        levels = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        names = [str(i) for i in range(len(levels))]
        if self.extra_blocks is not None:
            levels, names = self.extra_blocks(levels, maps, names)
        return OrderedDict(zip(names, levels, strict=True))
