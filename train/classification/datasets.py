"""Datasets of (PIL image, label): opened by name, checked before training starts."""

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torchvision.datasets import CIFAR10, CIFAR100

from kat_zoo.images import read_image

from ..core.images import UNREADABLE, ArrayImages, Images, Part, decode, name_of, to_mode
from .fashion_mnist import fashion_mnist
from .hub_data import Splits, Stream, hub, webdataset

if TYPE_CHECKING:
    from .recipe import DataConfig

__all__ = [
    "DATASETS", "ArrayImages", "Images", "Part", "Splits", "Stream",
    "fashion_mnist", "hub", "image_folder", "open_dataset", "open_splits", "webdataset",
]  # fmt: skip


class FolderImages(torchvision.datasets.ImageFolder):
    """torchvision's ImageFolder, whose images can be named and keep their mode: its own loader clips 16 bits at 255."""

    def __init__(self, root: str) -> None:
        super().__init__(root, loader=read_image)

    def name(self, index: int) -> str:
        """The image's file."""
        return self.samples[index][0]


def _cifar(name: str, cls: type[CIFAR10], hub_name: str, root: str | None) -> Splits:
    """CIFAR-10 or -100 from torchvision's layout, or without a root and a `data` folder, from the Hub."""
    folder = Path(root or "data")
    if (folder / cls.base_folder).is_dir():
        try:
            train, test = cls(str(folder), train=True), cls(str(folder), train=False)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{folder / cls.base_folder} is damaged: {error}") from error
        return Splits(train, test, tuple(train.classes))
    if root is None:
        return hub(hub_name)
    raise FileNotFoundError(f"{folder} has no folder {cls.base_folder}: expected {name} in torchvision's layout in data.root")


def image_folder(root: str | None) -> Splits:
    """Images in folders of their class: `root/train/CLASS/*` and `root/val/CLASS/*` (or test, validation).

    Args:
        root: the folder.

    Returns:
        Its two splits; images stay on the disk.

    Raises:
        ValueError: no root, or the splits have different classes.
        FileNotFoundError: a folder is missing or empty.
    """
    if root is None:
        raise ValueError("data.root is needed: a folder with train/CLASS/* and val/CLASS/*")
    test = next((Path(root) / name for name in ("val", "validation", "test") if (Path(root) / name).is_dir()), None)
    if test is None or not (Path(root) / "train").is_dir():
        raise FileNotFoundError(f"{root} must have the folders train and val (or validation, test)")
    splits = [FolderImages(str(folder)) for folder in (Path(root) / "train", test)]
    if splits[0].classes != splits[1].classes:
        odd = sorted(set(splits[0].classes) ^ set(splits[1].classes))
        raise ValueError(f"{root}: train and {test.name} have different classes ({', '.join(odd[:5])})")
    return Splits(splits[0], splits[1], tuple(splits[0].classes))


def imagenet(root: str | None, **options: Any) -> Splits:
    """ImageNet-1K from folders of synsets, or without a root from the Hub (gated: needs a token)."""
    return image_folder(root) if root else hub("ILSVRC/imagenet-1k", **options)


def _named_hub(root: str | None, **options: Any) -> Splits:
    if root is None:
        raise ValueError("data.root is needed: the Hub's org/name, or a folder of parquet files")
    return hub(root, **options)


DATASETS: dict[str, Callable[..., Splits]] = {
    "fashion_mnist": fashion_mnist,
    "cifar10": partial(_cifar, "CIFAR-10", CIFAR10, "uoft-cs/cifar10"),
    "cifar100": partial(_cifar, "CIFAR-100", CIFAR100, "uoft-cs/cifar100"),
    "imagenet": imagenet,
    "folder": image_folder,
    "hub": _named_hub,
    "webdataset": webdataset,
}
STREAMABLE = ("imagenet", "hub", "webdataset")


def open_dataset(
    name: str, root: str | None = None, holdout: float = 0.0, seed: int = 0, train_images: int | None = None, **options: Any
) -> Splits:
    """Open a dataset by name, and make sure that images of each split can be read.

    Args:
        name: a key of `DATASETS`.
        root: its folder; None looks in the usual places.
        holdout: fraction of the training split that takes the place of the test split, in [0, 1).
        seed: seed of the choice of that fraction, and of the training images.
        train_images: how many images of the training split are kept for training; None keeps all.
        **options: options of `hub`, for the datasets that it reads: streaming, samples, num_classes, label, buffer.

    Returns:
        The training and evaluation splits.

    Raises:
        ValueError: unknown name, damaged data, fewer images than asked for, or a stream of a dataset that has none.
        FileNotFoundError: the data is not there.
    """
    if name not in DATASETS:
        raise ValueError(f"data.dataset={name!r}: expected one of {', '.join(DATASETS)}")
    from_folder = name == "imagenet" and root is not None
    if options.get("streaming") and (name not in STREAMABLE or from_folder):
        raise ValueError(f"data.streaming is on, but {name!r} is read by index; streams are: {', '.join(STREAMABLE)} (from the Hub)")
    splits = DATASETS[name](root, **options) if name in STREAMABLE and not from_folder else DATASETS[name](root)
    _look(splits)
    if not holdout and train_images is None:
        return splits
    if isinstance(splits.train, Stream):
        raise ValueError("data.holdout and data.train_images choose images by index, which a stream has not; see data.samples")
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed)).tolist()
    kept_out = round(holdout * len(order))
    available = len(order) - kept_out
    if holdout and not (kept_out and available):
        raise ValueError(
            f"data.holdout={holdout:g}, which of {len(order)} training images keeps {kept_out} out and leaves {available} to train on: "
            f"expected a number from {1 / len(order):.2g} to {1 - 1 / len(order):.4g}, or 0"
        )
    if train_images is not None and train_images > available:
        raise ValueError(f"data.train_images={train_images}: expected at most {available}, the images of {name} to train on")
    train = order[kept_out:][:train_images]
    test = Part(splits.train, order[:kept_out]) if holdout else splits.test
    return Splits(Part(splits.train, train), test, splits.classes)


def open_splits(config: "DataConfig", seed: int = 0) -> Splits:
    """`open_dataset` of what the recipe says."""
    return open_dataset(
        config.dataset, config.root, config.holdout, seed, config.train_images, streaming=config.streaming, samples=config.samples,
        num_classes=config.num_classes, label=config.label, buffer=config.shuffle_buffer,
    )  # fmt: skip


def _look(splits: Splits, tries: int = 10) -> None:
    """Read images of each split until one is whole, so that a dataset that cannot be read fails before training.

    Raises:
        ValueError: none of the first few can be read, or has 8 or 16 bits; they are named.
    """
    for split in (splits.train, splits.test):
        errors = {}
        for name, read in islice(_readers(split), tries):
            try:
                found = read()
            except UNREADABLE as error:
                errors[name] = f"{type(error).__name__}: {error}"
            else:
                to_mode(found[0] if isinstance(found, tuple) else found, "L", name)
                break
        else:
            raise ValueError(f"the first {len(errors)} images cannot be read: " + "; ".join(f"{k} ({v})" for k, v in errors.items()))


def _readers(split: Images | Stream) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, function that decodes it) of each image of a split."""
    if isinstance(split, Stream):
        yield from ((split.name_of(row), partial(decode, row[split.image])) for row in split.rows)
    else:
        yield from ((name_of(split, index), partial(split.__getitem__, index)) for index in range(len(split)))
