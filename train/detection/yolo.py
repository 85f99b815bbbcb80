"""Boxes and polygons in YOLO's text files, one for each picture, turned into the records of COCO's format."""

import logging
import math
from pathlib import Path
from typing import Any

from kat_zoo.images import UNREADABLE, is_hidden, picture_size, pictures_in

from ..core.yaml_file import read_settings

logger = logging.getLogger("kat_zoo")

MAX_BYTES = 1 << 24  # of a text file of labels
SLACK = 1e-3  # beyond the edge of a picture, by rounding


def yolo_classes(settings: Path) -> tuple[str, ...]:
    """Names of the classes in a data.yaml.

    Args:
        settings: the YAML file; its `names` is a list, or a mapping from 0, 1, 2, ... to names.

    Raises:
        ValueError: no such list.
    """
    names = read_settings(settings).get("names")
    if isinstance(names, dict):
        names = [names.get(i) for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"{settings}: names={str(names)[:80]}: expected a list of different names, or a mapping from 0, 1, 2, ... to them")
    return tuple(names)


def read_yolo(settings: Path, folder: Path) -> dict[str, Any]:
    """The content of COCO's JSON for a folder of pictures with text files of labels.

    A line is `class x y width height`, of a box by its center, or `class x1 y1 x2 y2 x3 y3 ...`, of a polygon; numbers are parts of the
    picture's width and height. A picture without a text file shows nothing.

    Args:
        settings: data.yaml with the names of the classes.
        folder: folder of the pictures. Their labels lie in the folder of the same path with `labels` in place of the last `images`, or else
            beside them.

    Raises:
        FileNotFoundError: no pictures, or not a single text file.
        ValueError: a line that is not a label, a class that has no name, or a picture that cannot be read.
    """
    classes, pictures, labels = yolo_classes(settings), pictures_in(folder), _labels_folder(folder)
    if not pictures:
        raise FileNotFoundError(f"{folder} has no pictures")
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    found: set[Path] = set()
    for number, (name, picture) in enumerate(pictures.items(), 1):
        try:
            width, height = picture_size(picture)
        except UNREADABLE as error:
            raise ValueError(f"{picture} cannot be read: {error}") from error
        images.append({"id": number, "file_name": str(picture.relative_to(folder)), "width": width, "height": height})
        path = labels / f"{name}.txt"
        if path.is_file():
            found.add(path)
            objects += [record | {"image_id": number} for record in _read_labels(path, width, height, len(classes))]
    if not found:
        raise FileNotFoundError(f"{labels} has no text file of labels for the {len(pictures)} pictures of {folder}")
    if bare := [picture for name, picture in pictures.items() if labels / f"{name}.txt" not in found]:
        logger.warning("%s: %d of %d pictures have no labels and show nothing, first %s", folder, len(bare), len(pictures), bare[0])
    texts = [path for path in sorted(labels.rglob("*.txt")) if path.name != "classes.txt" and not is_hidden(path, labels)]
    if unused := [path for path in texts if path not in found]:
        logger.warning("%s: %d of %d label files have no picture and are left out, first %s", labels, len(unused), len(texts), unused[0])
    for number, record in enumerate(objects, 1):
        record["id"] = number
    return {"images": images, "annotations": objects, "categories": [{"id": i, "name": name} for i, name in enumerate(classes)]}


def _labels_folder(folder: Path) -> Path:
    parts = list(folder.parts)
    if "images" not in parts:
        return folder
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def _read_labels(path: Path, width: int, height: int, num_classes: int) -> list[dict[str, Any]]:
    """The objects of one picture."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes: expected labels of at most {MAX_BYTES}")
    records = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        label, values = _numbers(line, place)
        if not 0 <= label < num_classes:
            raise ValueError(f"{place}: class {label}: expected an integer from 0 to {num_classes - 1}, as names in data.yaml")
        if not all(-SLACK <= value <= 1 + SLACK for value in values):
            raise ValueError(f"{place}: {line[:80]!r}: expected parts of the picture's width and height, from 0 to 1")
        xs, ys = [value * width for value in values[::2]], [value * height for value in values[1::2]]
        record: dict[str, Any] = {"category_id": label, "iscrowd": 0}
        if len(values) == 4:
            record["bbox"] = [xs[0] - xs[1] / 2, ys[0] - ys[1] / 2, xs[1], ys[1]]
        else:
            record["bbox"] = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            record["segmentation"] = [[value for pair in zip(xs, ys, strict=True) for value in pair]]
        records.append(record)
    return records


def _numbers(line: str, place: str) -> tuple[int, list[float]]:
    """Class and coordinates of a line."""
    try:
        label, *values = (float(part) for part in line.split())
    except ValueError:
        label, values = math.nan, []
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if not label.is_integer() or not (len(values) == 4 or polygon):
        raise ValueError(
            f"{place}: {line[:80]!r}: expected `class x y width height`, or `class x1 y1 x2 y2 x3 y3 ...` of three points or more"
        )
    return int(label), values
