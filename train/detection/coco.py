"""Instances in COCO's format (cocodataset.org/#format-data), read by pycocotools and checked before they are used."""

import contextlib
import io
import json
import logging
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from torch import Tensor

from kat_zoo._checks import is_count, is_real

logger = logging.getLogger("kat_zoo")

LARGEST_SIDE = 65_536  # pixels of an image's side: the formats of pictures end there
LONGEST_OUTLINE = 100  # length of a polygon's outline at most, in sums of the image's height and width


@dataclass(frozen=True)
class CocoSplit:
    """The images of a split and their objects.

    Attributes:
        api: pycocotools' index of the annotations that were kept; their ids run from 1, as its evaluation needs.
        folder: folder of the images.
        images: COCO's records of the images, by rising id.
        category_ids: COCO's id of each class; label k of a detector is `category_ids[k - 1]`, label 0 the background.
        classes: names, in the same order.
    """

    api: COCO
    folder: Path
    images: list[dict[str, Any]]
    category_ids: list[int]
    classes: tuple[str, ...]

    def objects(self, image_id: int) -> list[dict[str, Any]]:
        """COCO's records of the objects in an image, without crowds."""
        return [a for a in self.api.loadAnns(self.api.getAnnIds(imgIds=[image_id])) if not a["iscrowd"]]

    def labels(self, objects: list[dict[str, Any]]) -> Tensor:
        """Labels (N,) int64 of objects."""
        return torch.tensor([self.category_ids.index(a["category_id"]) + 1 for a in objects], dtype=torch.int64)


def read_coco(annotations: Path) -> dict[str, Any]:
    """The content of a file of instances.

    Args:
        annotations: the JSON file.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: not JSON.
    """
    if not annotations.is_file():
        raise FileNotFoundError(f"{annotations}: no such file: expected instances in COCO's format")
    try:
        return json.loads(annotations.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{annotations} is not JSON: {error}") from error


def check_coco(content: Any, annotations: Path, folder: Path, masks: bool, strict: bool = False) -> CocoSplit:
    """Refuse, or mend and count, whatever is wrong in a split.

    Objects that cannot be seen (an empty box, a box outside the image, an empty mask, a polygon of fewer than three points) are left out
    and boxes that reach over the edge are clipped, both with a warning that counts them and names the first image. Anything else is
    refused. A detector without masks does not look at polygons.

    Args:
        content: images, annotations and categories as COCO's JSON has them.
        annotations: file or folder that it was read from, for messages.
        folder: folder of the images.
        masks: whether every object needs a mask (a polygon, or RLE).
        strict: whether objects that cannot be seen are refused.

    Returns:
        The split.

    Raises:
        FileNotFoundError: an image is missing.
        ValueError: not COCO's format, an id that is used twice or unknown, a box that is not four numbers, an absent or damaged mask,
            or under `strict` an object that cannot be seen; naming the record and its image.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("images", "annotations", "categories")):
        raise ValueError(f"{annotations} is not COCO's format: expected the lists images, annotations, categories")
    images = _check_images(content["images"], folder, annotations)
    categories = _check_categories(content["categories"], annotations)
    faults: dict[str, list[int]] = {}
    kept: list[dict[str, Any]] = []
    for i, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict):
            raise ValueError(f"{annotations}: annotation number {i} is {str(annotation)[:40]!r}: expected an object")
        place = f"{annotations}: annotation {annotation.get('id')} of image {annotation.get('image_id')!r}"
        if not is_count(annotation.get("image_id"), 0) or annotation["image_id"] not in images:
            raise ValueError(f"{place}: there is no such image; ids are integers")
        place += f" ({images[annotation['image_id']]['file_name']})"
        if not is_count(annotation.get("category_id"), 0) or annotation["category_id"] not in categories:
            raise ValueError(f"{place}: category_id {annotation.get('category_id')} is not among the categories")
        record = _checked(annotation, images[annotation["image_id"]], masks, place, faults)
        if record is not None:
            kept.append(record | {"id": len(kept) + 1})
    for fault, ids in faults.items():
        first = f"{ids[0]} ({images[ids[0]]['file_name']})"
        if strict and fault.endswith("left out"):
            raise ValueError(f"{annotations}: {len(ids)} objects {fault}, first in image {first}, and data.strict is true")
        logger.warning("%s: %d objects %s, first in image %s", annotations, len(ids), fault, first)
    api = COCO()
    api.dataset = {"images": list(images.values()), "annotations": kept, "categories": content["categories"]}
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
    return CocoSplit(api, folder, [images[i] for i in sorted(images)], list(categories), tuple(categories.values()))


def _check_categories(records: list[Any], annotations: Path) -> dict[int, str]:
    """Names of the categories by rising id."""
    for i, record in enumerate(records):
        named = isinstance(record, dict) and is_count(record.get("id"), 0) and isinstance(record.get("name"), str)
        if not named:
            raise ValueError(f"{annotations}: category number {i} is {str(record)[:80]}: expected an integer id and a name")
    ids = [record["id"] for record in records]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"{annotations} has the category ids {ids}: expected one or more, all different (of Pascal VOC: an <object>)")
    return {record["id"]: record["name"] for record in sorted(records, key=lambda record: record["id"])}


def _check_images(records: list[Any], folder: Path, annotations: Path) -> dict[int, dict[str, Any]]:
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{annotations}: image number {i} is {str(record)[:40]!r}: expected an object")
        if not {"id", "file_name", "height", "width"} <= record.keys():
            raise ValueError(f"{annotations}: image {record.get('id')} needs id, file_name, height and width; it has {', '.join(record)}")
        if not all(is_count(record[key], least) for key, least in (("id", 0), ("height", 1), ("width", 1))):
            sizes = {key: record[key] for key in ("id", "height", "width")}
            raise ValueError(f"{annotations}: image {record['id']} has {sizes}: expected integers")
        if max(record["height"], record["width"]) > LARGEST_SIDE:
            size = f"height={record['height']}, width={record['width']}"
            raise ValueError(f"{annotations}: image {record['id']} has {size}: expected at most {LARGEST_SIDE}")
        if not isinstance(record["file_name"], str):
            raise ValueError(f"{annotations}: image {record['id']} has file_name={record['file_name']!r}: expected the path of a file")
    twice = [i for i, count in Counter(record["id"] for record in records).items() if count > 1]
    if twice:
        raise ValueError(f"{annotations}: image id {twice[0]} is used twice")
    if not records:
        raise ValueError(f"{annotations} has no images")
    missing = [record for record in records if not (folder / record["file_name"]).is_file()]
    if missing:
        first = missing[0]
        raise FileNotFoundError(
            f"{len(missing)} of {len(records)} images of {annotations} are missing, the first image {first['id']}: "
            f"{folder / first['file_name']}"
        )
    return {record["id"]: record for record in records}


def _checked(
    annotation: dict[str, Any], image: dict[str, Any], masks: bool, place: str, faults: dict[str, list[int]]
) -> dict[str, Any] | None:
    """The annotation with every key that pycocotools needs; None if there is nothing to see. Faults are noted by image id."""
    height, width = image["height"], image["width"]
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not _finite(box):
        raise ValueError(f"{place}: bbox={box}: expected [x, y, width, height]")
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise ValueError(f"{place}: iscrowd={crowd!r}: expected 0 or 1")
    area = box[2] * box[3]
    record = {"image_id": image["id"], "category_id": annotation["category_id"], "bbox": box, "iscrowd": int(crowd)}
    segmentation = annotation.get("segmentation")
    if segmentation and masks:
        if isinstance(segmentation, list) and (kept := [p for p in segmentation if not _is_line(p)]) != segmentation:
            fault = "with a polygon of fewer than three points " + ("keep their other polygons" if kept else "are left out")
            faults.setdefault(fault, []).append(image["id"])
            if not kept:
                return None
            segmentation = kept
        # Polygons stay as they are: they take less memory, and are cheap to draw.
        code = _encoded(segmentation, height, width, place)
        record["segmentation"] = segmentation if isinstance(segmentation, list) else code
        area = int(rle.area(code))
    elif masks:
        raise ValueError(f"{place}: there is no segmentation, and the detector learns masks; model.head faster_rcnn learns boxes alone")
    given = annotation.get("area")
    if given is not None and not (is_real(given) and math.isfinite(given)):
        raise ValueError(f"{place}: area={given!r}: expected a number")
    record["area"] = area if given is None else given

    x0, y0, x1, y1 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    inside = [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]
    if box[2] <= 0 or box[3] <= 0:
        faults.setdefault("with an empty box are left out", []).append(image["id"])
        return None
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        faults.setdefault("with a box outside the image are left out", []).append(image["id"])
        return None
    if masks and not area:
        faults.setdefault("with an empty mask are left out", []).append(image["id"])
        return None
    if max(-x0, -y0, x1 - width, y1 - height) > 1:  # a rounded pixel is no fault
        faults.setdefault("with a box across the edge are clipped", []).append(image["id"])
        record["bbox"] = [inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1]]
    return record


def _finite(values: list[Any]) -> bool:
    return all(is_real(value) and math.isfinite(value) for value in values)


def _is_line(polygon: Any) -> bool:
    """Whether a polygon has points, but fewer than three."""
    return isinstance(polygon, list) and len(polygon) in (0, 2, 4) and all(map(is_real, polygon))


def _outline(polygon: list[float]) -> float:
    """Length of a polygon's outline in pixels, of which pycocotools keeps each; infinite where its integers would overflow."""
    if max(map(abs, polygon)) > 2 * LARGEST_SIDE:
        return math.inf
    points = [(float(x), float(y)) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
    edges = zip(points, [*points[1:], points[0]], strict=True)
    return sum(max(abs(x1 - x0), abs(y1 - y0)) for (x0, y0), (x1, y1) in edges)


def _encoded(segmentation: Any, height: int, width: int, place: str) -> dict[str, Any]:
    """Polygons or RLE of either kind as one compressed RLE; pycocotools itself reads past the end of damaged ones."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not _finite(polygon):
                raise ValueError(f"{place}: a polygon={str(polygon)[:80]}: expected three or more pairs of finite coordinates")
            if not _outline(polygon) <= LONGEST_OUTLINE * (height + width):
                fit = f"expected an outline that fits an image of {width} x {height} pixels"
                raise ValueError(f"{place}: a polygon={str(polygon)[:80]}: {fit}")
        return rle.merge(rle.frPyObjects(segmentation, height, width))
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width] or "counts" not in segmentation:
        size = segmentation.get("size") if isinstance(segmentation, dict) else segmentation
        raise ValueError(f"{place}: the size of the RLE is {size}; the image has {[height, width]}")
    counts = segmentation["counts"]
    runs = counts if isinstance(counts, list) else _run_lengths(counts)
    if runs is None or not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        total = "not readable" if runs is None else f"runs of {sum(runs)} pixels"
        raise ValueError(f"{place}: damaged RLE, {total}; the image has {height * width} pixels")
    if isinstance(counts, list):
        return rle.frPyObjects(segmentation, height, width)
    return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}


def _run_lengths(counts: str | bytes) -> list[int] | None:
    """Run lengths of a compressed RLE (maskApi.c of cocoapi: 5 bits a character, differences from the third run on), or None."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts.encode() if isinstance(counts, str) else counts:
        bits = character - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return None if shift else runs


def decode_masks(objects: list[dict[str, Any]], height: int, width: int) -> Tensor:
    """Masks (N, height, width) uint8 of COCO's records.

    Raises:
        KeyError: a record without a segmentation.
    """
    if not objects:
        return torch.zeros(0, height, width, dtype=torch.uint8)
    codes = [_encoded(a["segmentation"], height, width, f"image {a['image_id']}") for a in objects]
    return torch.from_numpy(rle.decode(codes)).permute(2, 0, 1).contiguous()
