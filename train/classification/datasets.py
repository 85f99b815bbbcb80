"""Datasets of (PIL image, label): opened by name, checked before training starts."""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension

from kat_zoo._text import printable
from kat_zoo.images import read_image

from ..core.images import UNREADABLE, ArrayImages, Images, Part, decode, name_of, to_mode
from .fashion_mnist import fashion_mnist
from .hub_data import Splits, Stream, hub, webdataset

if TYPE_CHECKING:
    from .recipe import DataConfig

logger = logging.getLogger("kat_zoo")

__all__ = [
    "DATASETS", "ArrayImages", "Images", "Part", "Splits", "Stream",
    "fashion_mnist", "hub", "image_folder", "open_dataset", "open_splits", "webdataset",
]  # fmt: skip

TRIES = 10  # images that are looked at before training, until one is whole
SUFFIXES = (*IMG_EXTENSIONS, ".avif", ".gif", ".jfif", ".jp2")  # in class folders


class FolderImages(torchvision.datasets.ImageFolder):
    """torchvision's ImageFolder, whose images can be named, are upright and keep their mode; hidden files and folders do not count.

    Args:
        root: folder with a folder for each class, in which images may lie in further folders.
        classes: names of the classes; None takes those of the folders. A class without images is right where they are given.

    Raises:
        FileNotFoundError: no folder of a class, or one without images.
    """

    def __init__(self, root: str, classes: Sequence[str] | None = None) -> None:
        self._given, self._root, left = classes, Path(root), list[str]()

        def counts(path: str) -> bool:
            """Whether a file is an image: not what editors, archives and notebooks leave, as .ipynb_checkpoints and ._x.jpg."""
            if any(map(_is_stray, Path(path).relative_to(self._root).parts)):
                return False
            if has_file_allowed_extension(path, SUFFIXES):
                return True
            left.append(path)
            return False

        super().__init__(root, loader=read_image, is_valid_file=counts, allow_empty=classes is not None)
        if left:
            logger.warning("%s: %d files are not pictures by their names (%s) and do not count", root, len(left), left[0])

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Names of the classes and their indices."""
        classes = list(self._given) if self._given is not None else _class_folders(Path(directory))
        if not classes:
            raise FileNotFoundError(f"{directory} has no folders of classes: expected CLASS/*.jpg or other images")
        return classes, {name: i for i, name in enumerate(classes)}

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


def _is_stray(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _class_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_stray(path.name))


def image_folder(root: str | None, split: bool = False) -> Splits:
    """Images in folders of their class: `root/train/CLASS/*` and `root/val/CLASS/*` (or test, validation).

    Args:
        root: the folder.
        split: whether a part of the training images takes the place of the second split, which may then be missing; `root/CLASS/*` is right
            then, too.

    Returns:
        Its two splits, the first twice where there is one alone; images stay on the disk.

    Raises:
        ValueError: no root, or the second split has classes that the first does not have.
        FileNotFoundError: a folder is missing or empty.
    """
    if root is None:
        raise ValueError("data.root is needed: a folder with train/CLASS/* and val/CLASS/*")
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"data.root={root}: there is no such folder")
    test = next((folder / name for name in ("val", "validation", "test") if (folder / name).is_dir()), None)
    one = split and test is None
    if not one and (test is None or not (folder / "train").is_dir()):
        raise FileNotFoundError(
            f"{root} must have the folders train and val (or validation, test); with data.holdout=0.1, train alone is enough, or "
            f"{root}/CLASS/*"
        )
    train = FolderImages(str(folder / "train" if (folder / "train").is_dir() else folder))
    if test is None:
        return Splits(train, train, tuple(train.classes))
    found = _class_folders(test)
    if odd := sorted(set(found) - set(train.classes)):
        raise ValueError(f"{root}: {test.name} has different classes ({', '.join(odd[:5])}), which train does not have")
    evaluated = FolderImages(str(test), train.classes)
    _tell_absent(evaluated.targets, train.classes, str(test), "they are trained on and not evaluated")
    return Splits(train, evaluated, tuple(train.classes))


def _tell_absent(labels: Iterable[int], classes: Sequence[str], where: str, so: str) -> None:
    """Name the classes without images."""
    seen = set(labels)
    if absent := [name for i, name in enumerate(classes) if i not in seen]:
        logger.warning("%s has no images of %s: %s", where, ", ".join(absent[:10]), so)


def imagenet(root: str | None, **options: Any) -> Splits:
    """ImageNet-1K from folders of synsets, or without a root from the Hub (gated: needs a token)."""
    return image_folder(root, options.get("split", False)) if root else hub("ILSVRC/imagenet-1k", **options)


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


def check_options(name: str, root: str | None, options: Mapping[str, Any]) -> None:
    """Refuse settings that a dataset would ignore.

    Args:
        name: a key of `DATASETS`.
        root: its folder.
        options: settings of it by name, of which those of streams are looked at.

    Raises:
        ValueError: unknown name, or a setting of streams for data that is read by index.
    """
    if name not in DATASETS:
        raise ValueError(f"data.dataset={name!r}: expected one of {', '.join(DATASETS)}")
    by_index = not _reads_hub(name, root)
    if options.get("streaming") and by_index:
        raise ValueError(f"data.streaming is on, but {name!r} is read by index; streams are: {', '.join(STREAMABLE)} (from the Hub)")
    whole = by_index or not (options.get("streaming") or name == "webdataset")
    for key, ignored in (("samples", whole), ("num_classes", by_index), ("label", by_index)):
        if ignored and options.get(key) is not None:
            advice = "; data.train_images takes fewer images" if key == "samples" else ""
            raise ValueError(f"data.{key}={options[key]!r}: expected none, for {name!r} is read by index and has its own{advice}")


def _reads_hub(name: str, root: str | None) -> bool:
    return name in STREAMABLE and (name != "imagenet" or root is None)


def open_dataset(
    name: str,
    root: str | None = None,
    holdout: float = 0.0,
    seed: int = 0,
    train_images: int | None = None,
    tries: int = TRIES,
    **options: Any,
) -> Splits:
    """Open a dataset by name, and make sure that images of each split can be read.

    Args:
        name: a key of `DATASETS`.
        root: its folder; None looks in the usual places.
        holdout: fraction of the training split that takes the place of the test split, in [0, 1).
        seed: seed of the choice of that fraction, and of the training images.
        train_images: how many images of the training split are kept for training; None keeps all.
        tries: damaged images of a split, from its first on, after which it is refused; 0 looks at none.
        **options: options of `hub`, for the datasets that it reads: streaming, samples, num_classes, label, buffer.

    Returns:
        The training and evaluation splits.

    Raises:
        ValueError: unknown name, damaged data, fewer images than asked for, or settings of streams for data that is read by index.
        FileNotFoundError: the data is not there.
    """
    check_options(name, root, options)
    options["split"] = holdout > 0
    accepted = options if _reads_hub(name, root) else {"split": holdout > 0} if name in ("folder", "imagenet") else {}
    splits = DATASETS[name](root, **accepted)
    _look(splits, tries)
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
    labels = getattr(splits.train, "targets", getattr(splits.train, "labels", None))  # of images in folders, in memory
    if labels is not None:
        where = f"the choice of {len(train)} training images (seed {seed})"
        _tell_absent((int(labels[i]) for i in train), splits.classes, where, "they are not trained on")
        if holdout:
            _tell_absent((int(labels[i]) for i in order[:kept_out]), splits.classes, f"data.holdout={holdout:g}", "they are not evaluated")
    return Splits(Part(splits.train, train), test, splits.classes)


def open_splits(config: "DataConfig", seed: int = 0, look: bool = True) -> Splits:
    """`open_dataset` of what the recipe says; without `look`, no image is read."""
    tries = max(TRIES, config.max_unreadable + 1) if look else 0
    return open_dataset(
        config.dataset, config.root, config.holdout, seed, config.train_images, tries, streaming=config.streaming, samples=config.samples,
        num_classes=config.num_classes, label=config.label, buffer=config.shuffle_buffer,
    )  # fmt: skip


def _look(splits: Splits, tries: int) -> None:
    """Read images of each split until one is whole, so that a dataset that cannot be read fails before training.

    Raises:
        ValueError: none of the first few can be read, or has 8 or 16 bits; they are named.
    """
    for split in (splits.train, splits.test) if tries else ():
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
            told = "; ".join(f"{k} ({v})" for k, v in islice(errors.items(), TRIES))
            raise ValueError(printable(f"the first {len(errors)} images cannot be read: {told}{'; ...' if len(errors) > TRIES else ''}"))


def _readers(split: Images | Stream) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, function that decodes it) of each image of a split."""
    if isinstance(split, Stream):
        yield from ((split.name_of(row), partial(decode, row[split.image])) for row in split.rows)
    else:
        yield from ((name_of(split, index), partial(split.__getitem__, index)) for index in range(len(split)))
