"""Datasets as the trainer reads them, (PIL image, label) by index, and images that cannot be read."""

import io
import itertools
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image

from kat_zoo._text import printable
from kat_zoo.images import UNREADABLE, convert, read_image

__all__ = ["UNREADABLE", "ArrayImages", "DamagedImage", "Images", "Part", "UnreadableImages", "decode", "name_of", "to_mode"]

T = TypeVar("T")

logger = logging.getLogger("kat_zoo")


class DamagedImage(ValueError):
    """An image, or a mask, that cannot be read; others may be used in its place."""


class Images(Protocol):
    """A map-style dataset of (PIL image, class index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


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
        indices: indices of the images, in their new order.
    """

    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images[self.indices[index]]

    def name(self, index: int) -> str:
        """The name that the dataset itself gives the image."""
        return name_of(self.images, self.indices[index])


def name_of(images: Images, index: int) -> str:
    """The name of an image in messages: its file where it has one."""
    name = getattr(images, "name", None)
    return name(index) if name is not None else f"image {index}"


def decode(value: dict[str, Any]) -> Image.Image:
    """Decode the image of a row of Hugging Face `datasets` that was read with `Image(decode=False)`.

    Args:
        value: dict with `bytes`, or else the `path` of a file.

    Returns:
        The image, its pixels read, upright.

    Raises:
        OSError: or another of `UNREADABLE`, if it is damaged.
    """
    if value is None:
        raise ValueError("the row has no image")
    raw = value.get("bytes")
    return read_image(io.BytesIO(raw) if raw is not None else value["path"])


def to_mode(image: Image.Image, mode: str, name: str) -> Image.Image:
    """Convert an image whose pixels have been read, wider numbers being scaled to 8 bits.

    Args:
        image: the image.
        mode: PIL's, as L or RGB.
        name: name of the image, for the error.

    Raises:
        ValueError: its pixels are 32-bit numbers; that is not damage, of which `max_unreadable` allows some.
    """
    try:
        return convert(image, mode)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


class UnreadableImages:
    """Counts the different images that could not be read, over all loader workers of a process, up to a limit.

    Args:
        limit: how many are passed over.
    """

    SLOT = 512  # bytes kept of a name

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._names = torch.zeros(limit + 1, self.SLOT, dtype=torch.uint8).share_memory_()
        self._lock = multiprocessing.Lock()

    def read(self, index: int, size: int, read: Callable[[int], T], name: Callable[[int], str]) -> T:
        """Read an image, or the next that can be read.

        Args:
            index: index of the image.
            size: number of images.
            read: function from an index to an image; it raises `DamagedImage`.
            name: function from an index to the image's name.

        Raises:
            ValueError: more than `limit` images cannot be read, or none can.
        """
        for candidate in itertools.chain(range(index, size), range(index)):
            try:
                return read(candidate)
            except DamagedImage as error:
                self.note(name(candidate), error.__cause__ or error)
        raise ValueError(f"none of the {size} images can be read")

    @property
    def names(self) -> list[str]:
        """Names of the images found so far."""
        return [raw.decode(errors="replace") for raw in self._raw()]

    def _raw(self) -> list[bytes]:
        rows = (bytes(row.tolist()).rstrip(b"\0") for row in self._names)
        return [row for row in rows if row]

    def note(self, name: str, error: BaseException) -> None:
        """Count an image, once however often it is met.

        Args:
            name: name of the image.
            error: error that came of reading it.

        Raises:
            ValueError: more than `limit` images; it names them.
        """
        raw = name.encode(errors="surrogateescape")[-self.SLOT :]  # of any bytes, as the names of files are
        with self._lock:
            found = self._raw()
            new = raw not in found
            if new and len(found) <= self.limit:
                self._names[len(found), : len(raw)] = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
            known = self.names
        if new:
            reason = printable(str(error))
            logger.warning("unreadable image %s (%s: %s); another takes its place", printable(name), type(error).__name__, reason)
        if len(known) > self.limit:
            shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise ValueError(f"{len(known)} unreadable images, more than data.max_unreadable {self.limit}: {shown}") from error
