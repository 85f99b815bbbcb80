"""Images with a class for every pixel: ADE20K's folders, checked before training, and the transforms of UperNet's recipe."""

import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import tqdm
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from .loader import EpochSampler, make_loader, seeded
from .segmentation_config import SegmentationAugmentConfig, SegmentationDataConfig

logger = logging.getLogger("kat_zoo")

IGNORE = 255
SUFFIXES = (".jpg", ".jpeg", ".png")
CROP_TRIES = 10


@dataclass(frozen=True)
class SegmentationSplits:
    """A folder ready for training.

    Attributes:
        train: (image, annotation) files to train on.
        test: (image, annotation) files to evaluate.
        classes: class names, by index.
    """

    train: list[tuple[Path, Path]]
    test: list[tuple[Path, Path]]
    classes: tuple[str, ...]


def open_folders(config: SegmentationDataConfig) -> SegmentationSplits:
    """List a folder in ADE20K's format and read its class names.

    Args:
        config: the folder and how its labels count.

    Returns:
        Its two splits, every image with its annotation.

    Raises:
        FileNotFoundError: a folder is missing or empty, or images without annotation or annotations without image.
        ValueError: no root, or the number of classes is unknown or contradicts `objectInfo*.txt`.
    """
    if config.root is None:
        raise ValueError("data.root is needed: a folder with images/{training,validation} and annotations/{training,validation}")
    root = Path(config.root)
    pairs = [_pairs(root, split) for split in ("training", "validation")]
    return SegmentationSplits(pairs[0], pairs[1], _classes(root, config))


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    folders = [root / kind / split for kind in ("images", "annotations")]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; data.root must have images/{split} and annotations/{split}")
    images = {path.stem: path for path in folders[0].iterdir() if path.suffix.lower() in SUFFIXES}
    annotations = {path.stem: path for path in folders[1].glob("*.png")}
    if not images:
        raise FileNotFoundError(f"{folders[0]} has no images ({', '.join(SUFFIXES)})")
    for have, lack, folder, what in ((images, annotations, folders[1], "annotation"), (annotations, images, folders[0], "image")):
        if missing := sorted(have.keys() - lack.keys()):
            raise FileNotFoundError(f"{have[missing[0]]} has no {what} in {folder} ({len(missing)} of {len(have)} have none)")
    return [(images[stem], annotations[stem]) for stem in sorted(images)]


def _classes(root: Path, config: SegmentationDataConfig) -> tuple[str, ...]:
    tables = sorted(root.glob("objectInfo*.txt"))
    if not tables:
        if config.num_classes is None:
            raise ValueError(f"{root} has no objectInfo*.txt; data.num_classes is needed")
        return tuple(str(i) for i in range(config.num_classes))
    rows = [re.split(r"\t+| {2,}", line.strip()) for line in tables[0].read_text().splitlines()]
    names = [re.split(r"[,;]", row[-1])[0].strip() for row in rows if row[0].isdigit()]
    classes = tuple(names) if config.reduce_zero_label else ("background", *names)
    if config.num_classes not in (None, len(classes)):
        raise ValueError(
            f"data.num_classes is {config.num_classes}, but {tables[0]} names {len(names)} classes, which with "
            f"data.reduce_zero_label {config.reduce_zero_label} makes {len(classes)}"
        )
    return classes


def read_annotation(path: Path, reduce_zero_label: bool) -> np.ndarray:
    """Read a mask of labels as classes.

    Args:
        path: a grey or palette PNG.
        reduce_zero_label: see `SegmentationDataConfig`.

    Returns:
        (H, W) uint8; 255 is ignored.

    Raises:
        ValueError: not a picture with one 8-bit label a pixel.
    """
    picture = _open(path)
    if picture.mode not in ("L", "P"):
        raise ValueError(f"{path}: mode {picture.mode}; an annotation has one label of 8 bits a pixel (mode L or P)")
    labels = np.array(picture)
    if reduce_zero_label:
        labels = np.where((labels == 0) | (labels == IGNORE), IGNORE, labels - 1).astype(np.uint8)
    return labels


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a picture that can be read ({error})") from error


def check(pairs: Sequence[tuple[Path, Path]], num_classes: int, reduce_zero_label: bool, workers: int = 4) -> None:
    """Look at every annotation before work is lost.

    Args:
        pairs: (image, annotation) files.
        num_classes: labels run to num_classes - 1.
        reduce_zero_label: see `SegmentationDataConfig`.
        workers: threads.

    Raises:
        ValueError: a file that cannot be read, an image of another size than its annotation, or a label out of range.
    """

    def look(pair: tuple[Path, Path]) -> None:
        labels = read_annotation(pair[1], reduce_zero_label)
        try:
            with Image.open(pair[0]) as image:
                size = image.size[::-1]
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{pair[0]}: not a picture that can be read ({error})") from error
        if labels.shape != size:
            raise ValueError(f"{pair[1]} is {labels.shape[0]} x {labels.shape[1]} and {pair[0]} is {size[0]} x {size[1]} pixels")
        beyond = labels[(labels >= num_classes) & (labels != IGNORE)]
        if len(beyond):
            label = int(beyond.max()) + reduce_zero_label
            raise ValueError(
                f"{pair[1]} has the label {label}; with {num_classes} classes and data.reduce_zero_label {reduce_zero_label} the "
                f"largest is {num_classes - 1 + reduce_zero_label}, and {IGNORE} is ignored"
            )

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(look, pair) for pair in pairs]
        try:
            for future in tqdm(futures, desc="check annotations", unit="file"):
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


class RandomScale(v2.Transform):
    """Resize image and mask by a random factor, the aspect ratio kept.

    Args:
        short_side: see `SegmentationDataConfig`.
        long_side: see `SegmentationDataConfig`.
        scale: range of a factor on both.
    """

    def __init__(self, short_side: int, long_side: int, scale: tuple[float, float]) -> None:
        super().__init__()
        self.short_side, self.long_side, self.scale = short_side, long_side, scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size."""
        factor = float(torch.empty(1).uniform_(*self.scale))
        return {"size": fitted_size(flat_inputs[0].shape[-2:], self.short_side * factor, self.long_side * factor)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize: the image bilinear, the mask to its nearest label."""
        return self._call_kernel(v2.functional.resize, inpt, size=params["size"], antialias=True)


def fitted_size(size: Sequence[int], short_side: float, long_side: float) -> list[int]:
    """(height, width) of an image resized until its shorter side is `short_side` or its longer side is `long_side`."""
    factor = min(short_side / min(size), long_side / max(size))
    return [max(1, round(side * factor)) for side in size]


class CategoryCrop(v2.Transform):
    """Crop a random square in which no class fills too much; what is smaller is padded: the image with its mean, the mask ignored.

    Args:
        crop: side, in pixels.
        cat_max_ratio: see `SegmentationAugmentConfig`.
        fill: of the image, per channel, 0 to 255.
    """

    def __init__(self, crop: int, cat_max_ratio: float, fill: Sequence[int]) -> None:
        super().__init__()
        self.crop, self.cat_max_ratio, self.fill = crop, cat_max_ratio, list(fill)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the place; the last of `CROP_TRIES` is taken as it is."""
        mask = next(x for x in flat_inputs if isinstance(x, tv_tensors.Mask))
        height, width = mask.shape[-2:]
        for _ in range(CROP_TRIES):
            top = int(torch.randint(max(height - self.crop, 0) + 1, ()))
            left = int(torch.randint(max(width - self.crop, 0) + 1, ()))
            part = mask[..., top : top + self.crop, left : left + self.crop]
            counts = torch.bincount(part.flatten().int(), minlength=IGNORE + 1)[:IGNORE]
            if self.cat_max_ratio == 1 or ((counts > 0).sum() > 1 and counts.max() < self.cat_max_ratio * counts.sum()):
                break
        box = {"top": top, "left": left, "height": min(self.crop, height), "width": min(self.crop, width)}
        return {"box": box, "padding": [0, 0, self.crop - box["width"], self.crop - box["height"]]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop and pad."""
        fill = IGNORE if isinstance(inpt, tv_tensors.Mask) else self.fill
        return self._call_kernel(
            v2.functional.pad, self._call_kernel(v2.functional.crop, inpt, **params["box"]), padding=params["padding"], fill=fill
        )


class PhotometricDistort(v2.RandomPhotometricDistort):
    """torchvision's photometric distortion without its permutation of the channels, which UperNet's recipe does not have."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the strengths."""
        return {**super().make_params(flat_inputs), "channel_permutation": None}


def train_transform(data: SegmentationDataConfig, augment: SegmentationAugmentConfig, mean: Sequence[float]) -> v2.Compose:
    """The training transform of (uint8 image, mask): scale, crop, flip, photometric distortion.

    Args:
        data: sizes.
        augment: what is random.
        mean: per channel, in [0, 1]; images are padded with it.
    """
    steps = [
        RandomScale(data.short_side, data.long_side, augment.scale),
        CategoryCrop(data.crop, augment.cat_max_ratio, [round(255 * value) for value in mean]),
        v2.RandomHorizontalFlip(augment.hflip),
        *([PhotometricDistort()] if augment.photometric else []),
    ]
    return v2.Compose(steps)


def _read(pair: tuple[Path, Path], reduce_zero_label: bool, channels: int) -> tuple[Tensor, Tensor]:
    image = v2.functional.pil_to_tensor(_open(pair[0]).convert("L" if channels == 1 else "RGB"))
    return image, torch.from_numpy(read_annotation(pair[1], reduce_zero_label))


class TrainPixels(Dataset):
    """Augmented images and masks, addressed by the (index, seed) of `EpochSampler`.

    Args:
        pairs: (image, annotation) files.
        transform: of (tv_tensors.Image, tv_tensors.Mask).
        reduce_zero_label: see `SegmentationDataConfig`.
        channels: 1 or 3.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], transform: v2.Compose, reduce_zero_label: bool, channels: int) -> None:
        self.pairs, self.transform, self.reduce_zero_label, self.channels = pairs, transform, reduce_zero_label, channels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Image (C, crop, crop) in [0, 1] and classes (crop, crop) int64."""
        index, seed = key
        image, mask = _read(self.pairs[index], self.reduce_zero_label, self.channels)
        with seeded(seed):
            image, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(Tensor).float() / 255, mask.as_subclass(Tensor).long()


class EvalPixels(Dataset):
    """Images resized for evaluation with their masks as they are, addressed by index; arguments as `TrainPixels`."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], data: SegmentationDataConfig, channels: int) -> None:
        self.pairs, self.data, self.channels = pairs, data, channels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (C, h, w) in [0, 1] and classes (H, W) int64 at the size of the file."""
        image, mask = _read(self.pairs[index], self.data.reduce_zero_label, self.channels)
        return resize_for_evaluation(image, self.data), mask.long()


def resize_for_evaluation(image: Tensor, data: SegmentationDataConfig) -> Tensor:
    """Resize a uint8 image (C, H, W) as evaluation does; floats in [0, 1]."""
    size = fitted_size(image.shape[-2:], data.short_side, data.long_side)
    return v2.functional.resize(image, size, antialias=True).float() / 255


def train_loader(dataset: TrainPixels, data: SegmentationDataConfig, seed: int, accum: int) -> tuple[DataLoader, EpochSampler, int]:
    """Loader of augmented global micro-batches.

    Args:
        dataset: of the training split.
        data: batch size, workers and length of an epoch.
        seed: of order and augmentation.
        accum: micro-batches per update.

    Returns:
        (loader, its sampler, updates per epoch).

    Raises:
        ValueError: an epoch that is longer than the dataset, or a dataset smaller than one batch.
    """
    most = len(dataset) // data.batch_size
    updates = data.updates_per_epoch or most
    if not 1 <= updates <= most:
        raise ValueError(
            f"data.updates_per_epoch {data.updates_per_epoch} and data.batch_size {data.batch_size}: the training split of "
            f"{len(dataset)} images has {most} such batches"
        )
    sampler = EpochSampler(len(dataset), updates * data.batch_size, seed)
    batches = BatchSampler(cast(Sampler[int], sampler), data.batch_size // accum, drop_last=True)
    return make_loader(dataset, data.workers, batch_sampler=batches), sampler, updates


def eval_loader(dataset: EvalPixels, data: SegmentationDataConfig, processes: int = 1) -> DataLoader:
    """Loader of the whole evaluation split, in order; a batch is a list of (image, mask), whose sizes may differ."""
    return make_loader(dataset, data.workers, batch_size=4 * processes, collate_fn=list)


def to_size(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits (B, C, h, w) resized to (H, W)."""
    return F.interpolate(logits, size=list(size), mode="bilinear", align_corners=False) if logits.shape[-2:] != tuple(size) else logits
