"""Images with a class for every pixel for training and evaluation: the transforms of UperNet's recipe, datasets, loaders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..core.images import UnreadableImages, to_mode
from ..core.sampling import EpochSampler, make_loader, seeded
from ..dense.transforms import PhotometricDistort
from .ade20k import IGNORE, open_picture, read_annotation
from .recipe import SegmentationAugmentConfig, SegmentationDataConfig

CROP_TRIES = 10


class RandomScale(v2.Transform):
    """Resize image and mask by a random factor, the aspect ratio kept.

    Args:
        short_side: shorter side that images are resized to, in pixels.
        long_side: largest longer side, in pixels.
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
        cat_max_ratio: largest part of a crop that one class may take.
        fill: color of the padding, one number from 0 to 255 per channel.
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


def train_transform(data: SegmentationDataConfig, augment: SegmentationAugmentConfig, mean: Sequence[float]) -> v2.Compose:
    """The training transform of (uint8 image, mask): scale, crop, flip, photometric distortion.

    Args:
        data: sizes.
        augment: settings of the augmentation.
        mean: mean of each channel, in [0, 1]; images are padded with it.
    """
    steps = [
        RandomScale(data.short_side, data.long_side, augment.scale),
        CategoryCrop(data.crop, augment.cat_max_ratio, [round(255 * value) for value in mean]),
        v2.RandomHorizontalFlip(augment.hflip),
        *([PhotometricDistort()] if augment.photometric else []),
    ]
    return v2.Compose(steps)


def _read(pair: tuple[Path, Path], reduce_zero_label: bool, channels: int) -> tuple[Tensor, Tensor]:
    image = v2.functional.pil_to_tensor(to_mode(open_picture(pair[0]), "L" if channels == 1 else "RGB", str(pair[0])))
    mask = torch.from_numpy(read_annotation(pair[1], reduce_zero_label))
    if image.shape[1:] != mask.shape:  # changed since the data were checked
        raise ValueError(f"{pair[1]} of shape {tuple(mask.shape)}: expected that of {pair[0]}, {tuple(image.shape[1:])}")
    return image, mask


class TrainPixels(Dataset):
    """Augmented images and masks, addressed by the (index, seed) of `EpochSampler`.

    Args:
        pairs: (image, annotation) files.
        transform: function of (tv_tensors.Image, tv_tensors.Mask).
        reduce_zero_label: whether label 0 is "other" and ignored, and label k is class k - 1.
        channels: number of channels, 1 or 3.
        unreadable: counts pairs that cannot be read, whose places the next that can be takes; by default none may be.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        transform: v2.Compose,
        reduce_zero_label: bool,
        channels: int,
        unreadable: UnreadableImages | None = None,
    ) -> None:
        self.pairs, self.transform, self.reduce_zero_label, self.channels = pairs, transform, reduce_zero_label, channels
        self.unreadable = unreadable or UnreadableImages(0)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Image (C, crop, crop) in [0, 1] and classes (crop, crop) int64."""
        index, seed = key
        image, mask = self.unreadable.read(
            index,
            len(self),
            lambda i: _read(self.pairs[i], self.reduce_zero_label, self.channels),
            lambda i: str(self.pairs[i][0]),
        )
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
        dataset: dataset of the training split.
        data: batch size, workers and length of an epoch.
        seed: seed of order and augmentation.
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
