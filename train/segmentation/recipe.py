"""The recipe of a segmentation model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..core.config import RANGES, RunRecipe, require, require_batch
from ..dense.recipe import DenseModelConfig


@dataclass(frozen=True)
class SegmenterConfig(DenseModelConfig):
    """The model to train: a head of `kat_zoo.dense` on a plain ViT.

    Attributes:
        head: `upernet` or `dpt`.
        neck_args: arguments of `SimpleFeaturePyramid` (upernet) or `ViTFeatures` (dpt), as out_channels, window_size, frozen_stages.
        kwargs: arguments of the head, as hidden_size or auxiliary_weight.
    """

    head: Literal["upernet", "dpt"] = "upernet"
    neck_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentationDataConfig:
    """A folder in ADE20K's format: `images/{training,validation}/*` and `annotations/{training,validation}/*.png`.

    Attributes:
        root: the folder.
        num_classes: None takes them from the folder's `objectInfo*.txt`.
        reduce_zero_label: label 0 is "other" and ignored, label k is class k - 1, as in ADE20K; otherwise label k is class k, and with
            `objectInfo*.txt` class 0 is the background. Label 255 is always ignored.
        batch_size: images per update over all processes and accumulation steps.
        workers: loader processes per training process.
        max_unreadable: different training images that one process may find damaged; another image takes the place of each. Evaluation
            leaves no image out.
        short_side: shorter side that images are resized to, in pixels.
        long_side: largest longer side, in pixels; an image that would exceed it is resized less.
        crop: side of the square that is trained on and of the evaluation's sliding window, in pixels.
        stride: stride of the sliding window, in pixels.
        evaluate: `slide`, or `whole` for whole images at once.
        updates_per_epoch: length of an epoch, each a random part of the images; None is a pass over all of them.
        check: decode all annotations before training and refuse labels out of range.
    """

    root: str | None = None
    num_classes: int | None = None
    reduce_zero_label: bool = True
    batch_size: int = 16
    workers: int = 2
    max_unreadable: int = 0
    short_side: int = 512
    long_side: int = 2048
    crop: int = 512
    stride: int = 341
    evaluate: Literal["slide", "whole"] = "slide"
    updates_per_epoch: int | None = None
    check: bool = True


@dataclass(frozen=True)
class SegmentationAugmentConfig:
    """Training augmentation; defaults are UperNet's on ADE20K (arXiv 1807.10221, as mmsegmentation runs it).

    Attributes:
        scale: range of a factor on `short_side` and `long_side`.
        cat_max_ratio: largest part of a crop, in (0, 1], that one class may fill, ignored pixels not counted; 10 crops are tried.
        hflip: probability of a horizontal flip.
        photometric: random brightness, contrast, saturation and hue, each with probability 1/2.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    cat_max_ratio: float = 0.75
    hflip: float = 0.5
    photometric: bool = True


@dataclass(frozen=True)
class SegmentationRecipe(RunRecipe):
    """A whole training run of a segmentation model.

    Attributes:
        task: name of the task, which `kat-zoo` commands tell recipes apart by.
        model: model to train.
        data: source of the images.
        augment: training augmentation.
    """

    ranges: ClassVar[Mapping[str, str]] = RANGES | {
        "data.max_unreadable": "[0, 1e6]",
        "data.num_classes": "[2, 255]",
        "data.crop": "[1, 65536]",
        "data.stride": "[1, 65536]",
        "data.short_side": "[1, 65536]",
        "data.long_side": "[1, 65536]",
        "data.updates_per_epoch": "[1, 1e9]",
        "augment.scale": "(0, 100]",
        "augment.cat_max_ratio": "(0, 1]",
        "augment.hflip": "[0, 1]",
    }

    task: Literal["segmentation"] = "segmentation"
    model: SegmenterConfig = field(default_factory=SegmenterConfig)
    data: SegmentationDataConfig = field(default_factory=SegmentationDataConfig)
    augment: SegmentationAugmentConfig = field(default_factory=SegmentationAugmentConfig)

    def __post_init__(self) -> None:
        """Refuse values that no later stage would name as clearly.

        Raises:
            ValueError: naming the key, its value and what is right.
        """
        super().__post_init__()
        data, augment = self.data, self.augment
        require_batch(data.batch_size, self.optimizer.grad_accum)
        require(
            ("data.stride", data.stride, data.stride <= data.crop, f"at most data.crop = {data.crop}, or pixels are left out"),
            ("data.long_side", data.long_side, data.long_side >= data.short_side, f"at least data.short_side = {data.short_side}"),
            ("augment.scale", augment.scale, augment.scale[0] <= augment.scale[1], "two numbers in rising order"),
        )
        self.model.check()
