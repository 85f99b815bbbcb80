"""The recipe of a detector."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..core.config import RANGES, RunRecipe, require, require_batch
from ..dense.recipe import DenseModelConfig


@dataclass(frozen=True)
class DetectorConfig(DenseModelConfig):
    """The model to train: a detector of `kat_zoo.dense` on a plain ViT.

    Attributes:
        head: `mask_rcnn`, `faster_rcnn`, `retinanet` or `fcos`.
        pyramid_args: arguments of `SimpleFeaturePyramid`, as out_channels, window_size, frozen_stages.
        kwargs: arguments of torchvision's class, as box_score_thresh.
    """

    head: Literal["mask_rcnn", "faster_rcnn", "retinanet", "fcos"] = "mask_rcnn"
    pyramid_args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectionDataConfig:
    """Images and instances in the format of COCO, Pascal VOC or YOLO; defaults are the names of COCO 2017.

    Annotations are a JSON file (COCO), a folder of XML files or a list of names as ImageSets/Main/train.txt (VOC), or data.yaml (YOLO).

    Attributes:
        root: folder that the other paths are relative to.
        train_images: folder of the training images.
        train_annotations: file or folder of their instances.
        val_images: folder of the evaluation images.
        val_annotations: file or folder of their instances.
        skip_empty: leave training images without objects out.
        strict: refuse objects that cannot be seen (empty boxes, boxes outside the image, degenerate polygons), instead of leaving them out
            with a warning.
        batch_size: images per update over all processes and accumulation steps.
        workers: loader processes per training process.
        max_unreadable: different training images that one process may find damaged; another image takes the place of each. Evaluation
            leaves no image out.
        min_size: shorter side that images are resized to, in pixels; of several, training draws one for each image (multi-scale) and
            evaluation takes the last.
        max_size: largest longer side, in pixels; an image that would exceed it is resized less.
    """

    root: str = "data/coco"
    train_images: str = "train2017"
    train_annotations: str = "annotations/instances_train2017.json"
    val_images: str = "val2017"
    val_annotations: str = "annotations/instances_val2017.json"
    skip_empty: bool = True
    strict: bool = False
    batch_size: int = 16
    workers: int = 2
    max_unreadable: int = 0
    min_size: tuple[int, ...] = (800,)
    max_size: int = 1333


@dataclass(frozen=True)
class DetectionAugmentConfig:
    """Training augmentation.

    Attributes:
        resize: `shortest` by `data.min_size` and `data.max_size`, or `jitter`: large-scale jitter (arXiv 2012.07177), the image
            scaled to fit `crop` times a random factor and cropped, or padded with the backbone's mean color, to `crop`.
        scale: range of that factor.
        crop: (height, width) in pixels.
        hflip: probability of a horizontal flip.
        photometric: random brightness, contrast, saturation and hue, each with probability 1/2.
    """

    resize: Literal["shortest", "jitter"] = "shortest"
    scale: tuple[float, float] = (0.1, 2.0)
    crop: tuple[int, int] = (1024, 1024)
    hflip: float = 0.5
    photometric: bool = False


@dataclass(frozen=True)
class DetectionRecipe(RunRecipe):
    """A whole training run of a detector.

    Attributes:
        task: name of the task, which `kat-zoo` commands tell recipes apart by.
        model: model to train.
        data: source of the images and instances.
        augment: training augmentation.
    """

    ranges: ClassVar[Mapping[str, str]] = RANGES | {
        "data.max_unreadable": "[0, 1e6]",
        "data.min_size": "[1, 65536]",
        "data.max_size": "[1, 65536]",
        "augment.scale": "(0, 100]",
        "augment.crop": "[1, 65536]",
        "augment.hflip": "[0, 1]",
    }

    task: Literal["detection"] = "detection"
    model: DetectorConfig = field(default_factory=DetectorConfig)
    data: DetectionDataConfig = field(default_factory=DetectionDataConfig)
    augment: DetectionAugmentConfig = field(default_factory=DetectionAugmentConfig)

    def __post_init__(self) -> None:
        """Refuse values that no later stage would name as clearly.

        Raises:
            ValueError: naming the key, its value and what is right.
        """
        super().__post_init__()
        data, augment = self.data, self.augment
        require_batch(data.batch_size, self.optimizer.grad_accum)
        require(
            ("data.min_size", data.min_size, bool(data.min_size), "one number or more"),
            ("data.max_size", data.max_size, data.max_size >= max(data.min_size, default=0), "at least the largest data.min_size"),
            ("augment.scale", augment.scale, augment.scale[0] <= augment.scale[1], "two numbers in rising order"),
        )
        self.model.check()
