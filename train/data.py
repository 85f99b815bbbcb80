"""Datasets of (PIL image, label): opened by name, checked before training starts."""

import gzip
import logging
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

logger = logging.getLogger("kat_zoo")

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_FOLDERS = ("/usr/share/datasets/fashion-mnist", "data/fashion-mnist", "data")
FASHION_MNIST_HUB = "zalando-datasets/fashion_mnist"


class Images(Protocol):
    """A map-style dataset of (PIL image, class index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True)
class Splits:
    """A dataset ready for training.

    Attributes:
        train: images to train on.
        test: images to evaluate, never trained on.
        classes: class names, by index.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]


class ArrayImages:
    """Images and labels held in memory.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8.
        labels: (N,) class indices.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images but {len(labels)} labels")
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), int(self.labels[index])


class Part:
    """Some images of a dataset.

    Args:
        images: the dataset.
        indices: of the images, in their new order.
    """

    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[self.indices[index]]


class HubImages:
    """A map-style dataset of Hugging Face `datasets` as (PIL image, class index).

    Args:
        rows: the `datasets.Dataset`.
        image: name of the image column.
        label: name of the label column.
    """

    def __init__(self, rows: Any, image: str, label: str) -> None:
        self.rows, self.image, self.label = rows, image, label

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.rows[int(index)]
        return row[self.image], int(row[self.label])


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not (format: yann.lecun.com/exdb/mnist).

    Args:
        path: the file.

    Returns:
        uint8 array with the shape that the header states.

    Raises:
        ValueError: the file is not IDX, is cut short, or is a damaged gzip.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: not a complete gzip file ({error})") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if data.size != np.prod(shape):
        raise ValueError(f"{path}: the header promises {shape}, the file holds {data.size} bytes")
    return data.reshape(shape)


def _idx_split(folder: Path, stem: str) -> ArrayImages:
    def find(kind: str) -> Path:
        for name in (f"{stem}-{kind}.gz", f"{stem}-{kind}"):
            if (folder / name).is_file():
                return folder / name
        raise FileNotFoundError(f"{folder / stem}-{kind}[.gz] is missing")

    return ArrayImages(read_idx(find("images-idx3-ubyte")), read_idx(find("labels-idx1-ubyte")))


def fashion_mnist(root: str | None) -> Splits:
    """Fashion-MNIST from gzipped IDX files, from torchvision's layout (`FashionMNIST/raw`) or from the Hub.

    Args:
        root: folder with the four files or with `FashionMNIST/raw`; None looks in the usual folders, then on the Hub.

    Returns:
        60,000 training and 10,000 test images, 28 x 28.

    Raises:
        FileNotFoundError: none of the places has it.
        ValueError: a file is damaged.
    """
    folders = [Path(root)] if root else [Path(folder) for folder in FASHION_MNIST_FOLDERS]
    candidates = [place for folder in folders for place in (folder, folder / "FashionMNIST" / "raw")]
    for folder in candidates:
        if any(folder.glob("train-images-idx3-ubyte*")):
            return Splits(_idx_split(folder, "train"), _idx_split(folder, "t10k"), FASHION_MNIST_CLASSES)
    reason = "data.root is given, so the Hub was not asked"
    if root is None:
        try:
            return hub(FASHION_MNIST_HUB)
        except Exception as error:  # any failure of the network stack ends in the one message that helps
            reason = f"the Hub dataset {FASHION_MNIST_HUB} could not be loaded: {type(error).__name__}"
    raise FileNotFoundError(
        f"Fashion-MNIST was not found in {', '.join(map(str, candidates))} ({reason}). Install the Debian package "
        "dataset-fashion-mnist, or run torchvision.datasets.FashionMNIST('data', download=True), or give data.root "
        "a folder with the four idx files."
    )


def hub(name: str) -> Splits:
    """An image classification dataset of the Hub, or a local folder of parquet files.

    Args:
        name: `org/name`, or a path that `datasets.load_dataset` reads.

    Returns:
        Its train split, and its test or else validation split.

    Raises:
        ValueError: no image column, no class label column, or no second split.
    """
    import datasets

    parts = datasets.load_dataset(name)
    test = next((parts[key] for key in ("test", "validation", "val") if key in parts), None)
    if "train" not in parts or test is None:
        raise ValueError(f"{name} has the splits {', '.join(parts)}; needed: train, and test or validation")
    features = parts["train"].features
    image = next((key for key, value in features.items() if isinstance(value, datasets.Image)), None)
    label = next((key for key, value in features.items() if isinstance(value, datasets.ClassLabel)), None)
    if image is None or label is None:
        raise ValueError(f"{name} has the columns {dict(features)}; needed: one Image and one ClassLabel")
    classes = tuple(features[label].names)
    return Splits(HubImages(parts["train"], image, label), HubImages(test, image, label), classes)


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
    splits = [torchvision.datasets.ImageFolder(str(folder)) for folder in (Path(root) / "train", test)]
    if splits[0].classes != splits[1].classes:
        odd = sorted(set(splits[0].classes) ^ set(splits[1].classes))
        raise ValueError(f"{root}: train and {test.name} have different classes ({', '.join(odd[:5])})")
    return Splits(splits[0], splits[1], tuple(splits[0].classes))


def imagenet(root: str | None) -> Splits:
    """ImageNet-1K from folders of synsets, or without a root from the Hub (gated: needs a token)."""
    return image_folder(root) if root else hub("ILSVRC/imagenet-1k")


def _named_hub(root: str | None) -> Splits:
    if root is None:
        raise ValueError("data.root is needed: the Hub's org/name, or a folder of parquet files")
    return hub(root)


DATASETS: dict[str, Callable[[str | None], Splits]] = {
    "fashion_mnist": fashion_mnist,
    "cifar10": partial(_cifar, "CIFAR-10", CIFAR10, "uoft-cs/cifar10"),
    "cifar100": partial(_cifar, "CIFAR-100", CIFAR100, "uoft-cs/cifar100"),
    "imagenet": imagenet,
    "folder": image_folder,
    "hub": _named_hub,
}


def open_dataset(
    name: str, root: str | None = None, holdout: float = 0.0, seed: int = 0, train_images: int | None = None
) -> Splits:
    """Open a dataset by name.

    Args:
        name: a key of `DATASETS`.
        root: its folder; None looks in the usual places.
        holdout: fraction of the training split that takes the place of the test split, in [0, 1).
        seed: of the choice of that fraction, and of the training images.
        train_images: how many images of the training split are kept for training; None keeps all.

    Returns:
        The training and evaluation splits.

    Raises:
        ValueError: unknown name, damaged data, or fewer images than asked for.
        FileNotFoundError: the data is not there.
    """
    if name not in DATASETS:
        raise ValueError(f"data.dataset {name!r} is unknown; expected one of: {', '.join(DATASETS)}")
    splits = DATASETS[name](root)
    if not holdout and train_images is None:
        return splits
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed)).tolist()
    kept_out = round(holdout * len(order))
    available = len(order) - kept_out
    if train_images is not None and train_images > available:
        raise ValueError(f"data.train_images is {train_images}; {name} has {available} images to train on")
    train = order[kept_out:][:train_images]
    test = Part(splits.train, order[:kept_out]) if holdout else splits.test
    return Splits(Part(splits.train, train), test, splits.classes)
