"""Images with their objects for torchvision's detectors: augmented for training, as they are for evaluation."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from kat_zoo.images import UNREADABLE, picture_size
from kat_zoo.images import read_image as read_file

from ..core.images import DamagedImage, UnreadableImages, to_mode
from ..core.sampling import EpochSampler, make_loader, seeded
from ..dense.transforms import PhotometricDistort
from .coco import CocoSplit, decode_masks
from .formats import classes_of, read_split
from .recipe import DetectionAugmentConfig, DetectionDataConfig

logger = logging.getLogger("kat_zoo")
Target = dict[str, Tensor]


def open_splits(data: DetectionDataConfig, masks: bool) -> tuple[CocoSplit, CocoSplit]:
    """Read and check the training and the evaluation split.

    Args:
        data: places of the images and instances.
        masks: whether every object needs a mask.

    Returns:
        (training split, evaluation split).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: see `read_split`; or the splits have different categories, or there is nothing to evaluate.
    """
    root = Path(data.root)
    places = [root / data.train_annotations, root / data.val_annotations]
    folders = [root / data.train_images, root / data.val_images]
    names = classes_of(places)
    train, test = (read_split(place, folder, masks, data.strict, names) for place, folder in zip(places, folders, strict=True))
    if (train.category_ids, train.classes) != (test.category_ids, test.classes):
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"{data.train_annotations} and {data.val_annotations} have different categories ({', '.join(odd[:5])})")
    if not any(test.objects(record["id"]) for record in test.images):
        raise ValueError(f"{data.val_annotations} has no objects to evaluate")
    shown = [{annotation["category_id"] for annotation in split.api.dataset["annotations"]} for split in (train, test)]
    if untrained := [name for i, name in zip(train.category_ids, train.classes, strict=True) if i in shown[1] - shown[0]]:
        logger.warning("%s has no object of %s: evaluated, but not trained on", data.train_annotations, ", ".join(untrained[:10]))
    return train, test


def check_sizes(split: CocoSplit) -> None:
    """Compare the size of each image, by its header, with that of its record; those that cannot be read are left to the loader.

    Raises:
        ValueError: another size.
    """
    with ThreadPoolExecutor(4) as pool:
        paths = [split.folder / record["file_name"] for record in split.images]
        for record, size in zip(split.images, pool.map(_size_of, paths), strict=True):
            if size is not None:
                _compare_size(split, record, size)


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        return picture_size(path)
    except UNREADABLE:
        return None


def _compare_size(split: CocoSplit, record: dict[str, Any], size: tuple[int, int]) -> None:
    said = (record["width"], record["height"])
    if size != said:
        turned = " once turned upright by its EXIF orientation" if size == said[::-1] else ""
        raise ValueError(
            f"image {record['id']}, {split.folder / record['file_name']}, has the size (width, height) {size}{turned}; its annotations are "
            f"for {said}"
        )


def read_image(split: CocoSplit, record: dict[str, Any], channels: int) -> Image.Image:
    """The image of a record, upright as its EXIF orientation says; COCO's boxes and masks are of the upright picture, as in detectron2.

    Args:
        split: split that the image belongs to.
        record: COCO's.
        channels: 1 converts to gray, 3 to RGB.

    Raises:
        ValueError: it cannot be read, its pixels are 32-bit numbers, or it has another size than the record says.
    """
    path = split.folder / record["file_name"]
    try:
        image = read_file(path)
    except UNREADABLE as error:
        raise DamagedImage(f"image {record['id']}, {path}, cannot be read: {error}") from error
    _compare_size(split, record, image.size)
    return to_mode(image, "L" if channels == 1 else "RGB", f"image {record['id']}, {path}")


class _APixelOrMore:
    """A transform of torchvision that resizes, but never to nothing, as its own may do with a long and narrow image."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The size that is drawn."""
        drawn = super().make_params(flat_inputs)  # type: ignore[misc]
        return {**drawn, "size": tuple(max(1, side) for side in drawn["size"])}


class ScaleJitter(_APixelOrMore, v2.ScaleJitter):
    """torchvision's, of a pixel or more on each side."""


class RandomShortestSize(_APixelOrMore, v2.RandomShortestSize):
    """torchvision's, of a pixel or more on each side."""


def train_transform(data: DetectionDataConfig, augment: DetectionAugmentConfig, mean: list[float]) -> v2.Compose:
    """Random transform of an image with its boxes and masks, at the size that is trained on.

    Args:
        data: sizes.
        augment: settings of the augmentation.
        mean: mean of the backbone's images, in [0, 1]; padding has this color.
    """
    steps: list[v2.Transform] = [PhotometricDistort()] if augment.photometric else []
    if augment.resize == "jitter":
        padding: Any = {tv_tensors.Image: [255 * value for value in mean], "others": 0}
        steps += [ScaleJitter(augment.crop, augment.scale), v2.RandomCrop(augment.crop, pad_if_needed=True, fill=padding)]
    else:
        steps.append(RandomShortestSize(list(data.min_size), data.max_size))
    return v2.Compose([*steps, v2.RandomHorizontalFlip(augment.hflip)])


class TrainScenes(Dataset):
    """Augmented images with their targets; an item is addressed by the (index, seed) of `EpochSampler`.

    Args:
        split: split of `open_splits`.
        transform: transform of `train_transform`.
        channels: number of channels of the images, 1 or 3.
        masks: whether targets have masks.
        skip_empty: leave images without objects out.
        unreadable: counts images that cannot be read, whose places the next that can be takes; by default none may be.

    Raises:
        ValueError: no images are left.
    """

    def __init__(
        self,
        split: CocoSplit,
        transform: v2.Compose,
        channels: int,
        masks: bool,
        skip_empty: bool = True,
        unreadable: UnreadableImages | None = None,
    ) -> None:
        self.split, self.transform, self.channels, self.masks = split, transform, channels, masks
        self.unreadable = unreadable or UnreadableImages(0)
        self.images = [record for record in split.images if not skip_empty or split.objects(record["id"])]
        if not self.images:
            raise ValueError(f"none of the {len(split.images)} training images in {split.folder} has objects")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        """Image (C, h, w) in [0, 1], and its boxes (N, 4) as x0, y0, x1, y1, labels (N,) and masks (N, h, w) uint8."""
        index, seed = key
        read = partial(self._read, seed=seed)
        return self.unreadable.read(index, len(self), read, lambda i: str(self.split.folder / self.images[i]["file_name"]))

    def _read(self, index: int, seed: int) -> tuple[Tensor, Target]:
        record = self.images[index]
        objects = self.split.objects(record["id"])
        size = (record["height"], record["width"])
        boxes = torch.tensor([a["bbox"] for a in objects], dtype=torch.float32).reshape(-1, 4)
        sample: dict[str, Any] = {
            "image": tv_tensors.Image(read_image(self.split, record, self.channels)),
            "boxes": tv_tensors.BoundingBoxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1), format="XYXY", canvas_size=size),
        }
        if self.masks:
            sample["masks"] = tv_tensors.Mask(decode_masks(objects, *size))
        with seeded(seed):
            sample = self.transform(sample)
        target = {"boxes": sample["boxes"].as_subclass(Tensor), "labels": self.split.labels(objects)}
        if self.masks:
            target["masks"] = sample["masks"].as_subclass(Tensor)
        image = sample["image"].as_subclass(Tensor).float() / 255
        return image, visible(target, image.shape[-2:])


def visible(target: Target, size: torch.Size) -> Target:
    """The objects that are left in an augmented image: boxes cut at its edges, tight around the masks that were cropped.

    Args:
        target: boxes, labels and perhaps masks.
        size: (height, width) of the image.

    Returns:
        The same keys; boxes are at least one pixel wide and high, and masks are not empty.
    """
    target = dict(target)
    limit = torch.tensor([size[1], size[0], size[1], size[0]])
    clipped = target["boxes"].clamp(min=torch.zeros(4), max=limit)
    keep = torch.ones(len(clipped), dtype=torch.bool)
    if "masks" in target:
        keep = target["masks"].flatten(1).any(1).bool() if len(clipped) else keep
        cut = keep & ((clipped[:, :2] <= 0).any(1) | (clipped[:, 2:] >= limit[2:]).any(1))  # or at the edge of the picture itself
        if cut.any():
            tight = masks_to_boxes(target["masks"][cut])
            clipped[cut] = tight + torch.tensor([0, 0, 1, 1])  # from pixel numbers to edges
    width, height = (clipped[:, 2:] - clipped[:, :2]).unbind(1)
    keep &= (width >= 1) & (height >= 1)
    return {name: value[keep] for name, value in (target | {"boxes": clipped}).items()}


class EvalScenes(Dataset):
    """Images as they are with their COCO ids, addressed by index; the detectors resize them, and their answers back.

    Args:
        split: split of `open_splits`.
        channels: number of channels of the images, 1 or 3.
    """

    def __init__(self, split: CocoSplit, channels: int) -> None:
        self.split, self.channels = split, channels

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image (C, H, W) in [0, 1], and its id."""
        record = self.split.images[index]
        return v2.functional.pil_to_tensor(read_image(self.split, record, self.channels)).float() / 255, record["id"]


def _collate(batch: list[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


def train_loader(dataset: TrainScenes, data: DetectionDataConfig, seed: int, accum: int) -> tuple[DataLoader, EpochSampler, int]:
    """Loader of augmented global micro-batches: (list of images, list of targets).

    Args:
        dataset: dataset of the training split.
        data: batch size and workers.
        seed: seed of order and augmentation.
        accum: micro-batches per update.

    Returns:
        (loader, its sampler, updates per epoch). The last, incomplete update of an epoch is dropped.

    Raises:
        ValueError: the dataset is smaller than one batch.
    """
    updates = len(dataset) // data.batch_size
    if not updates:
        raise ValueError(f"data.batch_size {data.batch_size} is larger than the training split of {len(dataset)} images")
    sampler = EpochSampler(len(dataset), updates * data.batch_size, seed)
    batches = BatchSampler(cast(Sampler[int], sampler), data.batch_size // accum, drop_last=True)
    return make_loader(dataset, data.workers, batch_sampler=batches, collate_fn=_collate), sampler, updates


def eval_loader(dataset: EvalScenes, data: DetectionDataConfig, processes: int = 1) -> DataLoader:
    """Loader of the whole evaluation split, in order: (list of images, list of ids)."""
    batch = -(-min(data.batch_size, 16) // processes) * processes
    return make_loader(dataset, data.workers, batch_size=batch, collate_fn=_collate)
