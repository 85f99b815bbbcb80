"""Datasets of the Hub, local parquet files and webdataset tars, read with Hugging Face `datasets`: by index or as a stream."""

import logging
import pickle
import re
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from huggingface_hub import constants
from PIL import Image

from kat_zoo._text import one_line

from ..core.images import Images, decode

logger = logging.getLogger("kat_zoo")

TEST_SPLITS = ("test", "validation", "val", "valid")
LABEL_COLUMNS = ("label", "labels", "cls")  # integer columns that are taken for the label; cls is webdataset's


class HubImages:
    """A map-style dataset of Hugging Face `datasets` as (PIL image, class index).

    Args:
        rows: the `datasets.Dataset`.
        image: name of the image column, undecoded.
        label: name of the label column.
        split: its name, for messages.
    """

    def __init__(self, rows: Any, image: str, label: str, split: str) -> None:
        self.rows, self.image, self.label, self.split = rows, image, label, split

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = self.rows[int(index)]
        return decode(row[self.image]), int(row[self.label])

    def name(self, index: int) -> str:
        """The file the image came from, if the row has it, and the row."""
        value = self.rows[int(index)][self.image] or {}
        return " ".join(filter(None, (value.get("path"), f"row {index} of {self.split}")))


@dataclass(frozen=True)
class Stream:
    """A split that is read from its beginning on, without access by index.

    Attributes:
        rows: a `datasets.IterableDataset`, its images undecoded.
        image: name of the image column.
        label: name of the label column.
        num_classes: labels are below it.
        samples: images of an epoch, which may be less or more than the split has; 0 if they were never counted.
        buffer: images among which the order is shuffled, beyond that of the shards.
        folder: folder of the shards, where they are files of this machine.
    """

    rows: Any
    image: str
    label: str
    num_classes: int
    samples: int
    buffer: int
    folder: Path | None = None

    def __len__(self) -> int:
        return self.samples

    def label_of(self, row: dict[str, Any]) -> int:
        """The row's class.

        Raises:
            ValueError: none, or out of range.
        """
        label = row[self.label]
        if label is None or not 0 <= label < self.num_classes:
            raise ValueError(f"{self.name_of(row)}: {self.label}={label!r}: expected a class in [0, {self.num_classes})")
        return int(label)

    def read(self, rows: Any) -> Iterator[dict[str, Any]]:
        """The rows of a part of the split.

        Raises:
            ValueError: a shard is damaged; it is named where it is a file of this machine.
        """
        try:
            yield from rows
        except (tarfile.TarError, EOFError) as error:
            shards = damaged_shards(self.folder) if self.folder else ""
            raise ValueError(f"a shard of the stream cannot be read: {one_line(error)}{shards}") from error

    def name_of(self, row: dict[str, Any]) -> str:
        """The name of the image of a row, for messages."""
        path = (row[self.image] or {}).get("path")
        return " ".join(filter(None, (row.get("__url__"), row.get("__key__") or path))) or "a row without a name"


@dataclass(frozen=True)
class Splits:
    """A dataset ready for training.

    Attributes:
        train: images to train on.
        test: images to evaluate, never trained on.
        classes: class names, by index.
    """

    train: Images | Stream
    test: Images | Stream
    classes: tuple[str, ...]


def hub(
    name: str,
    streaming: bool = False,
    samples: int | None = None,
    num_classes: int | None = None,
    label: str | None = None,
    buffer: int = 1000,
    split: bool = False,
) -> Splits:
    """An image classification dataset of the Hub, or a local folder of parquet files or webdataset tars.

    Args:
        name: `org/name`, or a path that `datasets.load_dataset` reads.
        streaming: read it as a stream; else `datasets` first copies it to its cache.
        samples: images of a training epoch of a stream; None takes the number that the dataset states.
        num_classes: number of classes, for labels that are plain integers; None takes the largest, which a stream cannot tell.
        label: column of the labels; None takes the first ClassLabel, or an integer column label, labels or cls.
        buffer: images among which a stream is shuffled.
        split: whether a part of the training images takes the place of the second split, which may then be missing.

    Returns:
        Its train split, and the first of its test and validation splits that has labels; the first twice where there is one alone.

    Raises:
        ValueError: damaged files; no image column, label column or labeled second split.
        FileNotFoundError: no such dataset.
    """
    if not Path(name).exists() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise FileNotFoundError(f"data.root={name}: there is no such folder, and the name of a dataset of the Hub reads org/name")
    import datasets

    try:
        with _offline_without_network(name):
            parts = datasets.load_dataset(name, streaming=streaming)
        if split and "train" in parts and not any(key in parts for key in TEST_SPLITS):
            parts = {"train": parts["train"], "test": parts["train"]}
        return _splits(name, parts, streaming, samples, num_classes, label, buffer)
    except tarfile.TarError as error:
        raise ValueError(f"{name} could not be read as a dataset: {one_line(error)}{damaged_shards(Path(name))}") from error
    except (datasets.exceptions.DatasetsError, pickle.UnpicklingError, ConnectionError) as error:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{name}: {one_line(error)[:300]}; data.root must be a folder or a dataset of the Hub") from error
        advice = "" if Path(name).exists() else "; or give the folder of the data as data.root"
        raise ValueError(f"{name} could not be read as a dataset: {one_line(error.__cause__ or error)[:300]}{advice}") from error


def _splits(name: str, parts: Any, streaming: bool, samples: int | None, num_classes: int | None, label: str | None, buffer: int) -> Splits:
    """The two splits of a loaded dataset; arguments and errors as `hub`."""
    import datasets

    others = [key for key in TEST_SPLITS if key in parts]
    if "train" not in parts or not others:
        raise ValueError(f"{name} has the splits {', '.join(parts)}; needed: train, and test or validation")
    image, label = _columns(name, parts["train"].features, label)
    feature = parts["train"].features[label]
    if isinstance(feature, datasets.ClassLabel) and num_classes not in (None, len(feature.names)):
        raise ValueError(
            f"data.num_classes={num_classes}: expected {len(feature.names)}, the classes of the column {label} of {name}, or to be left out"
        )
    classes = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else _numbered(name, parts["train"], label, num_classes)
    splits: dict[str, HubImages | Stream] = {}
    for key in ("train", *others):
        rows = parts[key].cast_column(image, datasets.Image(decode=False))
        if not _labelled(f"{name} ({key})", rows, label, len(classes)):
            logger.warning("%s: the split %s has no labels; it is passed over", name, key)
            continue
        if not streaming:
            splits[key] = HubImages(rows, image, label, key)
        else:
            stated = (parts[key].info.splits or {}).get(key)
            size = (samples if key == "train" else None) or (stated.num_examples if stated else None) or 0
            splits[key] = Stream(rows, image, label, len(classes), size, buffer, Path(name) if Path(name).is_dir() else None)
        if len(splits) == 2 and "train" in splits:
            break
    if len(splits) < 2 or "train" not in splits:
        raise ValueError(f"{name}: of the splits train, {', '.join(others)}, only {', '.join(splits) or 'none'} has labels")
    train, test = splits.values()
    return Splits(train, test, classes)


@contextmanager
def _offline_without_network(name: str) -> Iterator[None]:
    """Without a network, let the clients look into their cache at once: they would try for half a minute."""
    import datasets

    places, before = (constants, datasets.config), (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE)
    try:
        if not Path(name).exists():
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except OSError:
        for place in places:
            setattr(place, "HF_HUB_OFFLINE", True)  # noqa: B010  (a constant to type checkers)
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            setattr(place, "HF_HUB_OFFLINE", value)  # noqa: B010


def damaged_shards(folder: Path) -> str:
    """Names of the tars of a folder that end too early or are not tars, for a message; empty where there is none."""
    damaged = []
    for path in sorted(folder.rglob("*.tar")) if folder.is_dir() else []:
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile():
                        tar.fileobj.seek(member.offset_data + member.size)
                if path.stat().st_size < tar.offset:
                    raise tarfile.ReadError("it ends too early")
        except (tarfile.TarError, OSError, EOFError):
            damaged.append(str(path))
    return f"; damaged: {', '.join(damaged[:10])}" if damaged else ""


def webdataset(root: str | None, **options: Any) -> Splits:
    """Webdataset tars as streams: `train*.tar` and `test*.tar` or `val*.tar`, with an image and an integer `.cls` per key.

    Args:
        root: folder of the tars, or the name of a dataset of the Hub that is made of tars.
        **options: options of `hub`.

    Returns:
        See `hub`.

    Raises:
        ValueError: no root; and see `hub`.
        FileNotFoundError: the folder has no tars.
    """
    if root is None:
        raise ValueError("data.root is needed: the folder of train*.tar and val*.tar, or a Hub dataset made of tars")
    if Path(root).is_dir() and not any(Path(root).rglob("*.tar")):
        raise FileNotFoundError(f"{root} has no *.tar: expected train*.tar and val*.tar, or folders train and val of tars")
    return hub(root, **{**options, "streaming": True})


def _columns(name: str, features: Any, label: str | None) -> tuple[str, str]:
    """Names of the image and the label column."""
    import datasets

    image = next((key for key, value in features.items() if isinstance(value, datasets.Image)), None)
    if label is None:
        named = [key for key, value in features.items() if isinstance(value, datasets.ClassLabel)]
        label = next(iter([*named, *(key for key in LABEL_COLUMNS if getattr(features.get(key), "dtype", "").startswith("int"))]), None)
    if image is None or label is None or label not in features:
        raise ValueError(
            f"{name} has the columns {dict(features)}; needed: one Image, and a ClassLabel or one of the integers "
            f"{', '.join(LABEL_COLUMNS)}, or data.label"
        )
    feature = features[label]
    if not isinstance(feature, datasets.ClassLabel) and "int" not in getattr(feature, "dtype", ""):
        raise ValueError(
            f"{name}: the column {label!r} holds {getattr(feature, 'dtype', 'other values')}: expected a ClassLabel or integers; "
            "`class_encode_column` of Hugging Face datasets makes them of names"
        )
    return image, label


def _labels(rows: Any, label: str) -> np.ndarray:
    """All labels of a map-style dataset; missing ones are -1."""
    column = rows.select_columns([label]).with_format("arrow")[:][label]
    return column.fill_null(-1).to_numpy()


def _numbered(name: str, rows: Any, label: str, num_classes: int | None) -> tuple[str, ...]:
    import datasets

    if num_classes is None and not isinstance(rows, datasets.Dataset):
        raise ValueError(f"{name}: the labels in {label!r} are plain integers; give data.num_classes")
    return tuple(map(str, range(num_classes or int(_labels(rows, label).max()) + 1)))


def _labelled(name: str, rows: Any, label: str, num_classes: int) -> bool:
    """Whether a split has labels; of a stream, its first image is asked.

    Raises:
        ValueError: the split is empty, or some labels are out of range.
    """
    import datasets

    if isinstance(rows, datasets.Dataset):
        labels = _labels(rows, label)
    else:
        first = next(iter(rows), None)
        labels = np.array([] if first is None else [-1 if first[label] is None else first[label]])
    if not len(labels):
        raise ValueError(f"{name} has no images")
    if labels.max() < 0:
        return False
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(f"{name}: {len(wrong)} labels in {label!r} are outside [0, {num_classes}), as {wrong[0]}")
    return True
