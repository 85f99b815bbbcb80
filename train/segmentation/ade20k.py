"""Images with a class for every pixel in ADE20K's folders, checked before they are used."""

import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate.utils import tqdm
from PIL import Image

from kat_zoo.images import SIDEWAYS, UNREADABLE, has_sixteen_bits, orientation, pictures_in, read_image, upright_size

from ..core.images import DamagedImage
from .recipe import SegmentationDataConfig

logger = logging.getLogger("kat_zoo")

IGNORE = 255
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
LOSSLESS = (".png", ".tif", ".tiff", ".bmp")  # of annotations


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


def open_folders(config: SegmentationDataConfig, train: bool = True) -> SegmentationSplits:
    """List a folder in ADE20K's format and read its class names.

    Args:
        config: the folder and how its labels count.
        train: whether the training split is needed.

    Returns:
        Its two splits, every image with its annotation.

    Raises:
        FileNotFoundError: a folder is missing or empty, or images without annotation or annotations without image.
        ValueError: no root, two images of one name, or the number of classes is unknown or contradicts `objectInfo*.txt`.
    """
    if config.root is None:
        raise ValueError("data.root is needed: a folder with images/{training,validation} and annotations/{training,validation}")
    root = Path(config.root)
    return SegmentationSplits(_pairs(root, "training") if train else [], _pairs(root, "validation"), _classes(root, config))


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    folders = [root / kind / split for kind in ("images", "annotations")]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; data.root must have images/{split} and annotations/{split}")
    images, annotations = (pictures_in(folder, suffixes) for folder, suffixes in zip(folders, (SUFFIXES, LOSSLESS), strict=True))
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
    rows = [re.split(r"\t+| {2,}", line.strip()) for line in tables[0].read_text(encoding="utf-8").splitlines()]
    named = [(int(row[0]), re.split(r"[,;]", row[-1])[0].strip()) for row in rows if len(row) > 1 and row[0].isdigit()]
    if not named or [number for number, _ in named] != list(range(1, len(named) + 1)):
        raise ValueError(
            f"{tables[0]} has the numbers {[number for number, _ in named][:5]}: expected rows 1, 2, 3, ... of a number and, last, a name, "
            "separated by tabs or two spaces; label k of the masks is row k, and label 0 the background or, with data.reduce_zero_label, "
            "ignored"
        )
    names = [name for _, name in named]
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
        path: a gray or palette PNG.
        reduce_zero_label: whether label 0 is "other" and ignored, and label k is class k - 1.

    Returns:
        (H, W) uint8; 255 is ignored.

    Raises:
        ValueError: not a picture with one 8-bit label a pixel.
    """
    picture = open_picture(path)
    if picture.mode == "L" and _has_few_bits(path):
        raise ValueError(f"{path}: gray of 2 or 4 bits, whose labels would be multiplied; an annotation has labels of 8 bits (mode L or P)")
    if picture.mode not in ("L", "P"):
        raise ValueError(f"{path}: mode {picture.mode}; an annotation has one label of 8 bits a pixel (mode L or P)")
    labels = np.array(picture)
    if reduce_zero_label:
        labels = np.where((labels == 0) | (labels == IGNORE), IGNORE, labels - 1).astype(np.uint8)
    return labels


def _has_few_bits(path: Path) -> bool:
    """Whether a file is gray of 2 or 4 bits, which Pillow scales to 8; it can be read."""
    with Image.open(path) as header:
        packing = header.tile[0][3] if header.tile else ""
    packing = packing[0] if isinstance(packing, tuple) and packing else packing
    return isinstance(packing, str) and packing.startswith(("L;2", "L;4"))


def open_picture(path: Path) -> Image.Image:
    """Read a picture, or an annotation, with its pixels, upright as its EXIF orientation says.

    Raises:
        DamagedImage: it cannot be read.
    """
    try:
        return read_image(path)
    except UNREADABLE as error:
        raise DamagedImage(f"{path}: not a picture that can be read ({error})") from error


def look_at(pair: tuple[Path, Path], reduce_zero_label: bool) -> np.ndarray:
    """Count the pixels of an annotation, and compare it with its image.

    Args:
        pair: (image, annotation) files.
        reduce_zero_label: whether label 0 is "other" and ignored, and label k is class k - 1.

    Returns:
        (256,) int64: pixels of each class, and at `IGNORE` those that are ignored.

    Raises:
        ValueError: a file that cannot be read, an image of 32 bits or of another size than its annotation.
    """
    labels = read_annotation(pair[1], reduce_zero_label)
    try:
        with Image.open(pair[0]) as image:
            size = upright_size(image)[::-1]
            turned = orientation(image) in SIDEWAYS
    except UNREADABLE as error:
        raise DamagedImage(f"{pair[0]}: not a picture that can be read ({error})") from error
    try:
        has_sixteen_bits(image)  # which are scaled
    except ValueError as error:
        raise ValueError(f"{pair[0]}: {error}") from error
    if labels.shape != size:
        upright = ", once turned upright by its EXIF orientation" if turned else ""
        raise ValueError(f"{pair[1]} is {labels.shape[0]} x {labels.shape[1]} and {pair[0]} is {size[0]} x {size[1]} pixels{upright}")
    return np.bincount(labels.ravel(), minlength=256)


def check(
    pairs: Sequence[tuple[Path, Path]], num_classes: int, reduce_zero_label: bool, max_unreadable: int = 0, workers: int = 4
) -> np.ndarray:
    """Look at every annotation before work is lost, and count its pixels.

    Args:
        pairs: (image, annotation) files.
        num_classes: labels run to num_classes - 1.
        reduce_zero_label: whether label 0 is "other" and ignored, and label k is class k - 1.
        max_unreadable: pairs that may be damaged, and are passed over.
        workers: threads.

    Returns:
        (256,) int64: pixels of each class, and at `IGNORE` those that are ignored.

    Raises:
        ValueError: a file more that cannot be read, an image of 32 bits or of another size than its annotation, or labels out of range,
            with their numbers of pixels.
    """
    total, wrong, damaged = np.zeros(256, np.int64), [], 0
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(look_at, pair, reduce_zero_label) for pair in pairs]
        try:
            for pair, future in zip(pairs, tqdm(futures, desc="check annotations", unit="file"), strict=True):
                try:
                    counts = future.result()
                except DamagedImage as error:
                    damaged += 1
                    if damaged > max_unreadable:
                        raise
                    logger.warning("%s; another takes its place", error)
                    continue
                total += counts
                if counts[num_classes:IGNORE].any():
                    wrong.append(pair[1])
        finally:
            pool.shutdown(cancel_futures=True)
    if wrong:
        beyond = {int(i) + reduce_zero_label: int(total[i]) for i in np.flatnonzero(total[:IGNORE]) if i >= num_classes}
        shown = ", ".join(f"{label} ({count} pixels)" for label, count in list(beyond.items())[:10])
        raise ValueError(
            f"{wrong[0]} has a label that is not a class, as {len(wrong)} of {len(pairs)} annotations have: {shown}; with {num_classes} "
            f"classes and data.reduce_zero_label {reduce_zero_label} the largest is {num_classes - 1 + reduce_zero_label}, and {IGNORE} is "
            "ignored"
        )
    return total


def check_counts(counts: np.ndarray, classes: Sequence[str], split: str) -> None:
    """Refuse a split that cannot teach or tell anything, and name the classes that it does not have.

    Args:
        counts: pixels of each class, and at `IGNORE` those that are ignored, as `check` counts them.
        classes: names of the classes.
        split: name of the split, for messages.

    Raises:
        ValueError: no class has a pixel, or one class alone while the other pixels are ignored, as in masks of 0 and 255.
    """
    absent = [name for name, count in zip(classes, counts, strict=False) if not count]
    seen = len(classes) - len(absent)
    if not seen or (seen == 1 and counts[IGNORE]):
        only = next((f"the class {name} alone, {count} pixels" for name, count in zip(classes, counts, strict=False) if count), "no class")
        raise ValueError(
            f"the {split} annotations have {only}, and {counts[IGNORE]} pixels that are ignored: expected pixels of two classes or more; "
            f"masks of 0 and {IGNORE} must become 0 and 1 (and data.reduce_zero_label false)"
        )
    if absent:
        logger.warning("the %s annotations have no pixel of %s%s", split, ", ".join(absent[:10]), ", ..." if len(absent) > 10 else "")
