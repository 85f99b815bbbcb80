"""Semantic segmentation on plain ViTs: the UperNet heads of transformers and the DPT head of segmentation_models_pytorch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

from .._checks import count
from ._arguments import check_arguments
from .backbone import LayerDecay, create_backbone, image_statistics
from .features import ViTFeatures, quarter_blocks
from .pyramid import SimpleFeaturePyramid

AUXILIARY_LEVEL = 2  # the map of patches itself, as UperNetFCNHead expects


class SegmentationModel(LayerDecay, nn.Module, ABC):
    """A model of images in [0, 1] that gives logits of classes for every pixel, or losses; subclasses define `heads`.

    Args:
        encoder: module that gives the maps of the ViT.
        multiple: number of pixels whose multiples height and width are padded to, with the mean, at the right and the bottom.
        image_mean: mean of the images per channel; None takes the backbone's.
        image_std: standard deviation of the images per channel; None takes the backbone's.
        ignore_index: label of pixels that do not count in a loss.
        auxiliary_weight: weight of the loss of the auxiliary head.

    Raises:
        ValueError: unknown image statistics.
    """

    backbone_path = "encoder.backbone"

    def __init__(
        self,
        encoder: ViTFeatures,
        multiple: int,
        image_mean: Sequence[float] | None,
        image_std: Sequence[float] | None,
        ignore_index: int,
        auxiliary_weight: float = 0.0,
    ) -> None:
        super().__init__()
        mean, std = image_statistics(encoder.backbone, image_mean, image_std)
        self.encoder = encoder
        self.multiple = multiple
        self.ignore_index = ignore_index
        self.auxiliary_weight = auxiliary_weight
        self.register_buffer("image_mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("image_std", torch.tensor(std)[:, None, None], persistent=False)

    image_mean: Tensor
    image_std: Tensor

    @abstractmethod
    def heads(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the logits and those of the auxiliary head, at any resolution, for normalized and padded images."""

    def _normalized(self, images: Tensor) -> Tensor:
        channels = self.image_mean.shape[0]
        if images.ndim != 4 or images.shape[1] != channels or not images.is_floating_point():
            raise ValueError(
                f"images of dtype {images.dtype} and shape {tuple(images.shape)}: expected floats in [0, 1], (B, {channels}, H, W)"
            )
        height, width = images.shape[-2:]
        images = (images - self.image_mean.to(images)) / self.image_std.to(images)
        return F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the pixels that count; 0 if there are none, where PyTorch's mean is NaN."""
        total = F.cross_entropy(logits, labels, ignore_index=self.ignore_index, reduction="sum")
        return total / (labels != self.ignore_index).sum().clamp(min=1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Return logits, or with labels the losses, to be summed.

        Args:
            images: (B, channels, H, W) in [0, 1], any size.
            labels: (B, H, W) classes as integers.

        Returns:
            Logits (B, num_classes, H, W); or {"loss_decode", and with an auxiliary head "loss_auxiliary"}.

        Raises:
            ValueError: shapes or dtypes that do not fit.
        """
        padded = self._normalized(images)
        height, width = images.shape[-2:]
        if labels is not None and (labels.shape != (images.shape[0], height, width) or labels.is_floating_point()):
            raise ValueError(
                f"labels of dtype {labels.dtype} and shape {tuple(labels.shape)}: expected integers, {(images.shape[0], height, width)}"
            )

        def at_pixels(logits: Tensor) -> Tensor:
            full = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
            return full[..., :height, :width]

        logits, auxiliary = self.heads(padded)
        if labels is None:
            return at_pixels(logits)
        losses = {"loss_decode": self._cross_entropy(at_pixels(logits), labels.long())}
        if auxiliary is not None:
            losses["loss_auxiliary"] = self.auxiliary_weight * self._cross_entropy(at_pixels(auxiliary), labels.long())
        return losses


class UperNet(SegmentationModel):
    """UperNet (arXiv 1807.10221): transformers' UperNetHead and UperNetFCNHead on the pyramid.

    The heads have batch norm, one of them on maps of one pixel: training takes two images or more per process.

    Args:
        pyramid: neck and backbone, four levels.
        num_classes: number of classes without the ignored label, at least 2.
        hidden_size: number of channels of the decode head.
        auxiliary_channels: number of channels of the auxiliary FCN head on the map of patches; 0 for no such head.
        auxiliary_weight: weight of the loss of the auxiliary head.
        pool_scales: sizes of the maps of the pyramid pooling module.
        image_mean: mean of the images per channel; None takes the backbone's.
        image_std: standard deviation of the images per channel; None takes the backbone's.
        ignore_index: label of pixels that do not count in a loss.

    Raises:
        ValueError: fewer than 2 classes, numbers of channels that are not integers, another number of levels, unknown image statistics.
    """

    def __init__(
        self,
        pyramid: SimpleFeaturePyramid,
        num_classes: int,
        *,
        hidden_size: int = 512,
        auxiliary_channels: int = 256,
        auxiliary_weight: float = 0.4,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        ignore_index: int = 255,
    ) -> None:
        num_classes, hidden_size = count("num_classes", num_classes, 2), count("hidden_size", hidden_size)
        auxiliary_channels = count("auxiliary_channels", auxiliary_channels, 0)
        if len(pyramid.scales) <= AUXILIARY_LEVEL:
            raise ValueError(f"scales={pyramid.scales}: UperNet takes {AUXILIARY_LEVEL + 1} levels or more, as (4, 2, 1, 0.5)")
        super().__init__(pyramid, pyramid.patch_size, image_mean, image_std, ignore_index, auxiliary_weight)
        for scale in pool_scales:
            count("pool_scales", scale)
        config = UperNetConfig(  # type: ignore[call-arg]  # num_labels: one of the keywords that every configuration takes
            num_labels=num_classes,
            hidden_size=hidden_size,
            pool_scales=list(pool_scales),
            auxiliary_in_channels=pyramid.out_channels,
            auxiliary_channels=auxiliary_channels,
        )
        widths = [pyramid.out_channels] * len(pyramid.scales)
        self.decode_head = UperNetHead(config, widths)
        self.auxiliary_head = UperNetFCNHead(config, widths, in_index=AUXILIARY_LEVEL) if auxiliary_channels else None

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return logits at a quarter of the resolution (patch 16), and auxiliary ones at the patches', in training only."""
        levels = list(self.encoder(images).values())
        auxiliary = self.auxiliary_head(levels) if self.auxiliary_head is not None and self.training else None
        return self.decode_head(levels), auxiliary


class DPT(SegmentationModel):
    """Dense Prediction Transformer (arXiv 2103.13413): segmentation_models_pytorch's decoder on the maps of four blocks.

    Args:
        encoder: module that gives the maps of four blocks.
        num_classes: number of classes without the ignored label, at least 2.
        fusion_channels: number of channels of the fused maps.
        intermediate_channels: numbers of channels of the four maps before fusion.
        readout: use of the class token: "cat", "add" or "ignore".
        image_mean: mean of the images per channel; None takes the backbone's.
        image_std: standard deviation of the images per channel; None takes the backbone's.
        ignore_index: label of pixels that do not count in a loss.

    Raises:
        ValueError: fewer than 2 classes, not four maps, an unknown readout, unknown image statistics.
    """

    def __init__(
        self,
        encoder: ViTFeatures,
        num_classes: int,
        *,
        fusion_channels: int = 256,
        intermediate_channels: Sequence[int] = (256, 512, 1024, 1024),
        readout: str = "cat",
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        ignore_index: int = 255,
    ) -> None:
        num_classes = count("num_classes", num_classes, 2)
        if len(encoder.indices) != 4 or len(intermediate_channels) != 4:
            raise ValueError(f"indices={encoder.indices}, intermediate_channels={list(intermediate_channels)}: expected four of each")
        fusion_channels = count("fusion_channels", fusion_channels, 2)
        intermediate_channels = [count("intermediate_channels", channels) for channels in intermediate_channels]
        # An even number of patches: the decoder halves the last map and doubles it again.
        super().__init__(encoder, 2 * encoder.patch_size, image_mean, image_std, ignore_index)
        self.decoder = DPTDecoder(
            encoder_out_channels=[encoder.embed_dim] * 4,
            encoder_output_strides=[16] * 4,  # whatever the patch: maps of 4, 2, 1 and 1/2 times the patches
            encoder_has_prefix_tokens=encoder.backbone.num_prefix_tokens > 0,
            readout=readout,
            intermediate_channels=intermediate_channels,
            fusion_channels=fusion_channels,
        )
        self.head = DPTSegmentationHead(fusion_channels, num_classes, upsampling=2)

    def heads(self, images: Tensor) -> tuple[Tensor, None]:
        """Return logits at 16 pixels per patch; there is not an auxiliary head."""
        maps, prefix = self.encoder.maps_and_prefix(images)
        tokens = [p if p.shape[1] else None for p in prefix]
        return self.head(self.decoder(maps, tokens)), None


def upernet(
    backbone: str | VisionTransformer,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_args: dict[str, Any] | None = None,
    pyramid_args: dict[str, Any] | None = None,
    **kwargs: Any,
) -> UperNet:
    """UperNet on a plain ViT, with the pyramid as neck (a quarter of the blocks feeds each level) and an auxiliary FCN head.

    Args:
        backbone: name of a model of the zoo or timm, or a model, which the pyramid takes over and changes.
        num_classes: number of classes, 150 for ADE20K; label 255 is ignored.
        pretrained_backbone: whether to load the published weights of that name.
        backbone_args: arguments of timm.create_model, as {"drop_path_rate": 0.1}.
        pyramid_args: arguments of `SimpleFeaturePyramid`, as {"out_channels": 384, "indices": (2, 5, 8, 11)}.
        **kwargs: arguments of `UperNet`.

    Returns:
        The model: logits = model(images in [0, 1]), losses = model(images, labels).

    Raises:
        ValueError: an unknown backbone or one that is not a plain ViT, or arguments that `SimpleFeaturePyramid` or `UperNet` refuses.

    Example:
        >>> model = upernet("kat_small_patch16_224", num_classes=150, pretrained_backbone=True)
        >>> losses = model(images, labels)
    """
    check_arguments(kwargs, UperNet)
    check_arguments(pyramid_args or {}, SimpleFeaturePyramid)
    vit = create_backbone(backbone, pretrained_backbone, backbone_args)
    args = {"indices": _four_blocks(vit), **(pyramid_args or {})}
    return UperNet(SimpleFeaturePyramid(vit, **args), num_classes, **kwargs)


def dpt(
    backbone: str | VisionTransformer,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_args: dict[str, Any] | None = None,
    features_args: dict[str, Any] | None = None,
    **kwargs: Any,
) -> DPT:
    """DPT on a plain ViT.

    Args:
        backbone: name of a model of the zoo or timm, or a model, which the decoder takes over and changes.
        num_classes: number of classes, 150 for ADE20K; label 255 is ignored.
        pretrained_backbone: whether to load the published weights of that name.
        backbone_args: arguments of timm.create_model, as {"drop_path_rate": 0.1}.
        features_args: arguments of `ViTFeatures`, as {"frozen_stages": 0}.
        **kwargs: arguments of `DPT`.

    Returns:
        The model: logits = model(images in [0, 1]), losses = model(images, labels).

    Raises:
        ValueError: an unknown backbone or one that is not a plain ViT, or arguments that `ViTFeatures` or `DPT` refuses.
    """
    check_arguments(kwargs, DPT)
    check_arguments(features_args or {}, ViTFeatures)
    vit = create_backbone(backbone, pretrained_backbone, backbone_args)
    args = {"indices": _four_blocks(vit), **(features_args or {})}
    return DPT(ViTFeatures(vit, **args), num_classes, **kwargs)


def _four_blocks(vit: VisionTransformer) -> list[int]:
    if len(vit.blocks) < 4:
        raise ValueError(f"backbone of {len(vit.blocks)} blocks: expected at least 4, or the indices of four maps")
    return quarter_blocks(len(vit.blocks))
