"""torchvision's detectors on plain ViTs of the zoo or timm, with the pyramid and heads of ViTDet (arXiv 2203.16527).

The four functions that build them take the same arguments, which `faster_rcnn` describes.
"""

import math
from functools import partial
from typing import Any

import torch
from timm.layers.norm import LayerNorm2d
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from .._checks import count
from ._arguments import check_arguments
from .backbone import LayerDecay, create_backbone, image_statistics
from .pyramid import SimpleFeaturePyramid

RATIOS = (0.5, 1.0, 2.0)
BOX_FEATURES = 1024  # width of the fully connected layer
HEADS = ("rpn.head", "roi_heads.box_predictor", "roi_heads.mask_predictor", "head")  # those that a detector has


def _full_precision(value: Any) -> Any:
    """Return the result of a head, its tensors in float32 where autocast made them shorter."""
    if isinstance(value, Tensor):
        # A model that was cast as a whole keeps its dtype.
        return value.float() if torch.is_autocast_enabled(value.device.type) else value
    if isinstance(value, dict):
        return {name: _full_precision(part) for name, part in value.items()}
    return type(value)(_full_precision(part) for part in value)


def _after_head(head: nn.Module, args: Any, output: Any) -> Any:
    return _full_precision(output)


def _before_anchors(generator: nn.Module, args: tuple[ImageList, list[Tensor]]) -> tuple[ImageList, list[Tensor]]:
    """Make anchors float32: they take the dtype of the features, of which they need only the shapes."""
    images, features = args
    return images, [_full_precision(level.new_empty(level.shape[-2:])) for level in features]


class Float32Boxes(nn.Module):
    """Mixin: under autocast, everything after the heads is float32, as in detectron2.

    torchvision computes boxes, and in training the targets too, in the dtype of the heads: bfloat16 has eight bits, which leave
    coordinates above 512 pixels in steps of 4. Hooks rather than classes of our own, so that heads given by the user are covered and
    the names of the weights stay.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, module in self.named_modules():
            if name in HEADS:
                module.register_forward_hook(_after_head)
            if isinstance(module, AnchorGenerator):
                module.register_forward_pre_hook(_before_anchors)


class FasterRCNN(Float32Boxes, LayerDecay, tv.FasterRCNN):
    """torchvision's FasterRCNN with layer decay and float32 boxes."""

    backbone_path = "backbone.backbone"


class MaskRCNN(Float32Boxes, LayerDecay, tv.MaskRCNN):
    """torchvision's MaskRCNN with layer decay and float32 boxes."""

    backbone_path = "backbone.backbone"


class RetinaNet(Float32Boxes, LayerDecay, tv.RetinaNet):
    """torchvision's RetinaNet with layer decay and float32 boxes."""

    backbone_path = "backbone.backbone"


class FCOS(Float32Boxes, LayerDecay, tv.FCOS):
    """torchvision's FCOS with layer decay and float32 boxes."""

    backbone_path = "backbone.backbone"


def _pyramid(
    vit: VisionTransformer, pyramid_args: dict[str, Any] | None, extra: type[ExtraFPNBlock], scales: tuple[float, ...]
) -> tuple[SimpleFeaturePyramid, list[int]]:
    """Build the pyramid with the levels on top that a detector wants; return it and the strides of all levels."""
    check_arguments(pyramid_args or {}, SimpleFeaturePyramid)
    args: dict[str, Any] = {"out_channels": 256, "scales": scales, **(pyramid_args or {})}
    if "extra_blocks" not in args:
        width = args["out_channels"]
        args["extra_blocks"] = extra(width, width) if extra is LastLevelP6P7 else extra()
    pyramid = SimpleFeaturePyramid(vit, **args)
    if any(stride < 1 or not math.log2(stride).is_integer() for stride in pyramid.strides):
        raise ValueError(
            f"scales={pyramid.scales} on patches of {pyramid.patch_size}, strides {pyramid.strides}: expected powers of two, for "
            "torchvision's anchors and RoIAlign; a ViT with other patches can be created with backbone_args={'patch_size': 16}"
        )
    strides = [int(stride) for stride in pyramid.strides]
    count = {LastLevelMaxPool: 1, LastLevelP6P7: 2}.get(type(pyramid.extra_blocks), 0)
    return pyramid, strides + [strides[-1] * 2 ** (i + 1) for i in range(count)]


def _transform_args(vit: VisionTransformer, strides: list[int], levels: int, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Image statistics of the backbone, and batches padded so that every pyramid level has its nominal stride."""
    mean, std = image_statistics(vit, kwargs.pop("image_mean", None), kwargs.pop("image_std", None))
    return {"size_divisible": strides[levels - 1], "image_mean": mean, "image_std": std}


def _rcnn_args(
    backbone: str | VisionTransformer,
    num_classes: int,
    pretrained: bool,
    backbone_args: dict[str, Any] | None,
    pyramid_args: dict[str, Any] | None,
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """Build the parts of Faster and Mask R-CNN: ViTDet's region proposal network of two convolutions and box head of four."""
    num_classes = count("num_classes", num_classes, 2)
    vit = create_backbone(backbone, pretrained, backbone_args)
    pyramid, strides = _pyramid(vit, pyramid_args, LastLevelMaxPool, (4, 2, 1, 0.5))
    width, levels = pyramid.out_channels, len(pyramid.scales)
    return {
        "backbone": pyramid,
        "num_classes": None,
        "rpn_anchor_generator": AnchorGenerator(tuple((8 * s,) for s in strides), (RATIOS,) * len(strides)),
        "rpn_head": RPNHead(width, len(RATIOS), conv_depth=2),
        "box_roi_pool": MultiScaleRoIAlign([str(i) for i in range(levels)], output_size=7, sampling_ratio=2),
        "box_head": FastRCNNConvFCHead((width, 7, 7), [width] * 4, [BOX_FEATURES], norm_layer=LayerNorm2d),
        "box_predictor": FastRCNNPredictor(BOX_FEATURES, num_classes),
        **_transform_args(vit, strides, levels, kwargs),
    }


def faster_rcnn(
    backbone: str | VisionTransformer,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_args: dict[str, Any] | None = None,
    pyramid_args: dict[str, Any] | None = None,
    **kwargs: Any,
) -> FasterRCNN:
    """Faster R-CNN on a plain ViT with ViTDet's pyramid and heads.

    Args:
        backbone: name of a model of the zoo or timm, or a model, which the pyramid takes over and changes.
        num_classes: number of classes with the background, which is class 0: 91 for COCO.
        pretrained_backbone: whether to load the published weights of that name.
        backbone_args: arguments of timm.create_model, as {"drop_path_rate": 0.1}.
        pyramid_args: arguments of `SimpleFeaturePyramid`, as {"window_size": 14, "frozen_stages": 0}.
        **kwargs: arguments of torchvision's class, as min_size, max_size, box_score_thresh; they replace ours.

    Returns:
        The model, called as torchvision's: images in [0, 1], list of (C, H, W); mean and standard deviation are the backbone's.

    Raises:
        ValueError: an unknown backbone or one that is not a plain ViT, fewer than 2 classes, strides that are not powers of two,
            unknown image statistics, out_channels that the heads' norm cannot divide, an argument that torchvision's class does not
            have, or pyramid_args that `SimpleFeaturePyramid` refuses.
    """
    check_arguments(kwargs, tv.FasterRCNN, GeneralizedRCNNTransform)
    ours = _rcnn_args(backbone, num_classes, pretrained_backbone, backbone_args, pyramid_args, kwargs)
    return FasterRCNN(**{**ours, **kwargs})


def mask_rcnn(
    backbone: str | VisionTransformer,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_args: dict[str, Any] | None = None,
    pyramid_args: dict[str, Any] | None = None,
    **kwargs: Any,
) -> MaskRCNN:
    """Mask R-CNN on a plain ViT with ViTDet's pyramid and heads.

    Arguments, result and errors are those of `faster_rcnn`.

    Example:
        >>> model = mask_rcnn("kat_small_patch16_224", num_classes=91, pretrained_backbone=True)
        >>> losses = model(images, [{"boxes": boxes, "labels": labels, "masks": masks}])
    """
    check_arguments(kwargs, tv.MaskRCNN, GeneralizedRCNNTransform)
    ours = _rcnn_args(backbone, num_classes, pretrained_backbone, backbone_args, pyramid_args, kwargs)
    pyramid = ours["backbone"]
    width = pyramid.out_channels
    ours |= {
        "mask_roi_pool": MultiScaleRoIAlign([str(i) for i in range(len(pyramid.scales))], output_size=14, sampling_ratio=2),
        "mask_head": MaskRCNNHeads(width, [width] * 4, 1, norm_layer=LayerNorm2d),
        "mask_predictor": MaskRCNNPredictor(width, width, num_classes),
    }
    return MaskRCNN(**{**ours, **kwargs})


def _one_stage_parts(
    backbone: str | VisionTransformer,
    num_classes: int,
    pretrained: bool,
    backbone_args: dict[str, Any] | None,
    pyramid_args: dict[str, Any] | None,
    kwargs: dict[str, Any],
) -> tuple[SimpleFeaturePyramid, list[int], dict[str, Any]]:
    """Return the parts of RetinaNet and FCOS: levels P3 to P7, their strides, and the arguments of the image transform."""
    count("num_classes", num_classes, 2)
    vit = create_backbone(backbone, pretrained, backbone_args)
    pyramid, strides = _pyramid(vit, pyramid_args, LastLevelP6P7, (2, 1, 0.5))
    if pyramid.out_channels % 32:
        raise ValueError(f"out_channels={pyramid.out_channels}: expected a multiple of 32, the groups of the head's group norm")
    return pyramid, strides, _transform_args(vit, strides, len(pyramid.scales), kwargs)


def _in_pairs(head: nn.Module) -> nn.Module:
    """Give group norms two channels a group or more: one alone cannot be normalized at the only pixel of the last map."""
    for module in head.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = min(module.num_groups, module.num_channels // 2)
    return head


def retinanet(
    backbone: str | VisionTransformer,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_args: dict[str, Any] | None = None,
    pyramid_args: dict[str, Any] | None = None,
    **kwargs: Any,
) -> RetinaNet:
    """RetinaNet (arXiv 1708.02002) on a plain ViT: levels P3 to P5 from the pyramid, P6 and P7 on top, group norm in the heads.

    Arguments, result and errors are those of `faster_rcnn`.
    """
    check_arguments(kwargs, tv.RetinaNet, GeneralizedRCNNTransform)
    pyramid, strides, images = _one_stage_parts(backbone, num_classes, pretrained_backbone, backbone_args, pyramid_args, kwargs)
    sizes = tuple((4 * s, int(4 * s * 2 ** (1 / 3)), int(4 * s * 2 ** (2 / 3))) for s in strides)
    anchors = AnchorGenerator(sizes, (RATIOS,) * len(strides))
    norm = partial(nn.GroupNorm, 32)
    ours = {
        "anchor_generator": anchors,
        "head": _in_pairs(RetinaNetHead(pyramid.out_channels, anchors.num_anchors_per_location()[0], num_classes, norm_layer=norm)),
        **images,
    }
    return RetinaNet(pyramid, num_classes, **{**ours, **kwargs})


def fcos(
    backbone: str | VisionTransformer,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_args: dict[str, Any] | None = None,
    pyramid_args: dict[str, Any] | None = None,
    **kwargs: Any,
) -> FCOS:
    """FCOS (arXiv 1904.01355) on a plain ViT: levels P3 to P5 from the pyramid, P6 and P7 on top.

    Arguments, result and errors are those of `faster_rcnn`.
    """
    check_arguments(kwargs, tv.FCOS, GeneralizedRCNNTransform)
    pyramid, strides, images = _one_stage_parts(backbone, num_classes, pretrained_backbone, backbone_args, pyramid_args, kwargs)
    ours = {
        "anchor_generator": AnchorGenerator(tuple((s,) for s in strides), ((1.0,),) * len(strides)),
        "head": _in_pairs(FCOSHead(pyramid.out_channels, 1, num_classes)),
        **images,
    }
    return FCOS(pyramid, num_classes, **{**ours, **kwargs})
