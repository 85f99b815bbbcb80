"""Images with a class for every pixel in ADE20K's folders, checked before they are used."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate.utils import tqdm
from PIL import Image

from kat_zoo.images import SIDEWAYS, UNREADABLE, has_sixteen_bits, orientation, read_image, upright_size

from .recipe import SegmentationDataConfig

IGNORE = 255
SUFFIXES = (".jpg", ".jpeg", ".png")


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
        ValueError: no root, two images of one name, or the number of classes is unknown or contradicts `objectInfo*.txt`.
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
    images: dict[str, Path] = {}
    for path in sorted(folders[0].iterdir()):
        if path.suffix.lower() in SUFFIXES and images.setdefault(path.stem, path) is not path:
            raise ValueError(f"{images[path.stem]} and {path} have one name, and so one annotation for both; rename or remove one")
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
        path: a gray or palette PNG.
        reduce_zero_label: whether label 0 is "other" and ignored, and label k is class k - 1.

    Returns:
        (H, W) uint8; 255 is ignored.

    Raises:
        ValueError: not a picture with one 8-bit label a pixel.
    """
    picture = open_picture(path)
    if picture.mode not in ("L", "P"):
        raise ValueError(f"{path}: mode {picture.mode}; an annotation has one label of 8 bits a pixel (mode L or P)")
    labels = np.array(picture)
    if reduce_zero_label:
        labels = np.where((labels == 0) | (labels == IGNORE), IGNORE, labels - 1).astype(np.uint8)
    return labels


def open_picture(path: Path) -> Image.Image:
    """Read a picture, or an annotation, with its pixels, upright as its EXIF orientation says.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return read_image(path)
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a picture that can be read ({error})") from error


def check(pairs: Sequence[tuple[Path, Path]], num_classes: int, reduce_zero_label: bool, workers: int = 4) -> None:
    """Look at every annotation before work is lost.

    Args:
        pairs: (image, annotation) files.
        num_classes: labels run to num_classes - 1.
        reduce_zero_label: whether label 0 is "other" and ignored, and label k is class k - 1.
        workers: threads.

    Raises:
        ValueError: a file that cannot be read, an image of 32 bits or of another size than its annotation, or a label out of range.
    """

    def look(pair: tuple[Path, Path]) -> None:
        labels = read_annotation(pair[1], reduce_zero_label)
        try:
            with Image.open(pair[0]) as image:
                size = upright_size(image)[::-1]
                turned = orientation(image) in SIDEWAYS
                has_sixteen_bits(image)  # which are scaled; 32 bits are refused
        except UNREADABLE as error:
            raise ValueError(f"{pair[0]}: not a picture that can be read ({error})") from error
        if labels.shape != size:
            upright = ", once turned upright by its EXIF orientation" if turned else ""
            raise ValueError(f"{pair[1]} is {labels.shape[0]} x {labels.shape[1]} and {pair[0]} is {size[0]} x {size[1]} pixels{upright}")
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
