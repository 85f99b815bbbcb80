"""Loaders whose order and augmentation depend on seed and epoch only: not on workers, processes or restarts."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

from PIL import Image
from timm.data import Mixup, create_transform, resolve_data_config
from timm.data.transforms import ResizeKeepRatio
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from torchvision import transforms

from ..core.images import UNREADABLE, DamagedImage, Images, UnreadableImages, name_of, to_mode
from ..core.sampling import EpochSampler, make_loader, seeded
from .hub_data import Stream
from .recipe import AugmentConfig, DataConfig
from .stream import StreamLoader, StreamTestLoader

Transform = Callable[[Image.Image], Tensor]


class ImageSampler(EpochSampler):
    """(index, augmentation seed, epoch): the transform may depend on the epoch."""

    def __iter__(self) -> Iterator[tuple[int, int, int]]:  # type: ignore[override]
        yield from ((index, seed, self.epoch) for index, seed in super().__iter__())


class TrainTransform:
    """The random transform of an epoch, under a seed of its own for each image.

    Args:
        augment: augmentation.
        resolved: preprocessing, as `data_config` resolves it.
        sizes: first epoch -> side of the images from then on, in pixels; empty: the input size throughout.
    """

    def __init__(self, augment: AugmentConfig, resolved: dict[str, Any], sizes: Mapping[int, int]) -> None:
        channels = resolved["input_size"][0]
        shapes = {epoch: (channels, side, side) for epoch, side in sizes.items()} or {0: resolved["input_size"]}
        self.transforms = {epoch: train_transform(augment, {**resolved, "input_size": shape}) for epoch, shape in shapes.items()}

    def __call__(self, image: Image.Image, seed: int, epoch: int) -> Tensor:
        """Transform an image as epoch `epoch` does."""
        with seeded(seed):
            return self.transforms[max(first for first in self.transforms if first <= epoch)](image)


class TrainImages(Dataset):
    """Augmented images; an item is addressed by the (index, seed, epoch) of `ImageSampler`.

    Args:
        images: images to augment.
        transform: random transform of a PIL image to a tensor.
        mode: PIL mode that images are converted to, as L or RGB.
        unreadable: counts images that cannot be read; the next that can be takes their place.
    """

    def __init__(self, images: Images, transform: TrainTransform, mode: str, unreadable: UnreadableImages) -> None:
        self.images, self.transform, self.mode, self.unreadable = images, transform, mode, unreadable

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, int]:
        index, seed, epoch = key

        def read(candidate: int) -> tuple[Tensor, int]:
            name = name_of(self.images, candidate)
            try:
                image, label = self.images[candidate]
                image.load()
            except UNREADABLE as error:
                raise DamagedImage(name) from error
            return self.transform(to_mode(image, self.mode, name), seed, epoch), label

        return self.unreadable.read(index, len(self), read, partial(name_of, self.images))


class EvalImages(Dataset):
    """Images without augmentation, addressed by index.

    Args:
        images: the images.
        transform: function from a PIL image to a tensor.
        mode: PIL mode that images are converted to, as L or RGB.
        unreadable: counts images that cannot be read, which get the label -1; None: they are errors.
    """

    def __init__(self, images: Images, transform: Transform, mode: str, unreadable: UnreadableImages | None = None) -> None:
        self.images, self.transform, self.mode, self.unreadable = images, transform, mode, unreadable

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            image, label = self.images[index]
            image.load()
        except UNREADABLE as error:
            if self.unreadable is None:
                name = name_of(self.images, index)
                raise ValueError(f"{name} cannot be read, and evaluation leaves no image out: {error}") from error
            self.unreadable.note(name_of(self.images, index), error)
            return self.transform(Image.new(self.mode, (8, 8))), -1
        return self.transform(to_mode(image, self.mode, name_of(self.images, index))), label


def data_config(config: DataConfig, model: nn.Module) -> dict[str, Any]:
    """Input size, mean, std, interpolation and crop: the model's own, overridden by the recipe's.

    Raises:
        ValueError: mean or std of another number of channels.
    """
    keys = ("input_size", "mean", "std", "interpolation", "crop_pct")
    given = {key: getattr(config, key) for key in keys if getattr(config, key) is not None}
    try:
        resolved = resolve_data_config(given, model=model)
    except AssertionError as error:  # of the count
        channels = (config.input_size or getattr(model, "pretrained_cfg", {}).get("input_size", (3,)))[0]
        both = " and ".join(f"data.{key}={list(given[key])}" for key in ("mean", "std") if key in given)
        raise ValueError(f"{both}: expected {channels} number(s) for each, as the model takes {channels} channel(s)") from error
    # timm repeats a single number three times, which one channel does not take; image_mode looks at the count.
    return resolved | {key: tuple(given[key]) for key in ("mean", "std") if key in given and resolved["input_size"][0] == 1}


def train_transform(augment: AugmentConfig, resolved: dict[str, Any]) -> Transform:
    """The training transform of timm; `crop: pad` replaces its random resized crop by a padded crop, as DeiT did."""
    size = resolved["input_size"]
    transform = _timm_transform(augment, resolved)
    _keep_a_bit(transform)
    # As evaluation does: the aspect ratio is kept, and what does not fit is cropped.
    fit = [ResizeKeepRatio(size[-2:], interpolation=resolved["interpolation"]), transforms.CenterCrop(size[-2:])]
    if augment.crop == "pad":
        transform.transforms[0:1] = [*fit, transforms.RandomCrop(size[-2:], padding=augment.pad)]
    elif augment.crop == "none":
        transform.transforms[0:1] = fit
    return transform


def _timm_transform(augment: AugmentConfig, resolved: dict[str, Any]) -> transforms.Compose:
    jitter: Any = augment.color_jitter or None  # None is off, though timm's annotation leaves it out
    return create_transform(
        resolved["input_size"],
        is_training=True,
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        vflip=augment.vflip,
        color_jitter=jitter,
        auto_augment=augment.auto_augment,
        interpolation=resolved["interpolation"],
        mean=resolved["mean"],
        std=resolved["std"],
        re_prob=augment.random_erasing,
        re_mode="pixel",
    )


def _keep_a_bit(transform: transforms.Compose) -> None:
    """Let posterizing keep one bit at least: at its greatest magnitude timm asks for none, which Pillow 12 refuses."""
    for stage in transform.transforms:
        policies = getattr(stage, "policy", [getattr(stage, "ops", [])])  # of AutoAugment; of RandAugment and AugMix
        for op in itertools.chain.from_iterable(policies):
            if getattr(op, "name", "").startswith("Posterize"):
                op.level_fn = partial(_at_least_one, op.level_fn)


def _at_least_one(level_fn: Callable[..., tuple[int]], *args: Any) -> tuple[int]:
    return (max(1, level_fn(*args)[0]),)


def eval_transform(resolved: dict[str, Any]) -> Transform:
    """The evaluation transform of timm."""
    keys = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")
    return create_transform(**{key: resolved[key] for key in keys}, is_training=False)


def image_mode(resolved: dict[str, Any]) -> str:
    """PIL mode for the number of input channels; every loader begins with it.

    Raises:
        ValueError: neither 1 nor 3 channels, or mean and std are for another number of them.
    """
    channels = resolved["input_size"][0]
    if channels not in (1, 3):
        raise ValueError(f"the model takes {channels} input channels; images have 1 or 3")
    mean, std = resolved["mean"], resolved["std"]
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"data.mean is {list(mean)} and data.std {list(std)}, given or the model's own; the model takes {channels} channel(s), so give "
            f"{channels} number(s) for each"
        )
    return "L" if channels == 1 else "RGB"


def count_updates(images: int, batch_size: int) -> int:
    """Updates in an epoch; the last, incomplete one is dropped.

    Args:
        images: number of training images.
        batch_size: number of images in an update.

    Raises:
        ValueError: the batch is larger than the data.
    """
    if batch_size > images:
        raise ValueError(f"data.batch_size {batch_size} is larger than the training split of {images} images")
    return images // batch_size


def train_loader(
    images: Images | Stream,
    config: DataConfig,
    augment: AugmentConfig,
    resolved: dict[str, Any],
    seed: int,
    accum: int,
    unreadable: UnreadableImages | None = None,
) -> tuple[DataLoader | StreamLoader, EpochSampler | StreamLoader, int]:
    """Loader of augmented micro-batches over all processes; that of a stream gives each process its part.

    Args:
        images: the training split.
        config: batch size, workers and sizes.
        augment: augmentation.
        resolved: preprocessing, as `data_config` resolves it.
        seed: seed of order and augmentation.
        accum: micro-batches per update.
        unreadable: counts images that cannot be read; None: a count of its own, up to `config.max_unreadable`.

    Returns:
        (loader, what `seek`s its epoch, updates per epoch). The last, incomplete update of an epoch is dropped.

    Raises:
        ValueError: the dataset is smaller than one batch, or of unknown size, or repeated augmentation of a stream.
    """
    size = len(images)
    if not size:
        raise ValueError(f"data.root {config.root} does not state how many images it has: give data.samples, the images of an epoch")
    updates = count_updates(size, config.batch_size)
    transform, mode = TrainTransform(augment, resolved, config.sizes), image_mode(resolved)
    unreadable = unreadable or UnreadableImages(config.max_unreadable)
    if isinstance(images, Stream):
        if augment.repeats > 1:
            raise ValueError(f"augment.repeats is {augment.repeats}, but a stream gives each image once")
        stream = StreamLoader(images, transform, mode, seed, config.batch_size // accum, updates * accum, config.workers, unreadable)
        return stream, stream, updates
    sampler = ImageSampler(size, updates * config.batch_size, seed, augment.repeats)
    dataset = TrainImages(images, transform, mode, unreadable)
    batches = BatchSampler(cast(Sampler[int], sampler), config.batch_size // accum, drop_last=True)
    return make_loader(dataset, config.workers, batch_sampler=batches), sampler, updates


def eval_loader(
    images: Images | Stream,
    config: DataConfig,
    resolved: dict[str, Any],
    processes: int = 1,
    unreadable: UnreadableImages | None = None,
) -> DataLoader | StreamTestLoader:
    """Loader of a whole split without augmentation; samples labeled -1 are padding, or unreadable, and do not count.

    Args:
        images: the split; by index, it comes in order.
        config: batch size and workers.
        resolved: preprocessing, as `data_config` resolves it.
        processes: number of processes that share a batch.
        unreadable: counts images that cannot be read; None: they are errors.
    """
    transform, mode = eval_transform(resolved), image_mode(resolved)
    batch = -(-min(config.batch_size, 512) // processes)
    if isinstance(images, Stream):
        return StreamTestLoader(images, transform, mode, batch, config.workers, unreadable)
    return make_loader(EvalImages(images, transform, mode, unreadable), config.workers, batch_size=batch * processes)


def mixup(augment: AugmentConfig, num_classes: int) -> Mixup | None:
    """The mixup and cutmix of timm, or None where both are off."""
    if not (augment.mixup or augment.cutmix):
        return None
    return Mixup(
        mixup_alpha=augment.mixup,
        cutmix_alpha=augment.cutmix,
        prob=augment.mixup_prob,
        switch_prob=augment.mixup_switch_prob,
        mode=augment.mixup_mode,
        label_smoothing=augment.smoothing,
        num_classes=num_classes,
    )
