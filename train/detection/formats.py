"""The formats of boxes and masks that a detector is trained on, told apart by the path of the annotations.

Each becomes the records of COCO's format, so that one check, one loader and one evaluation serve all: a `.yaml` file is YOLO's data.yaml,
a folder or a `.txt` list of names is Pascal VOC's XML, everything else COCO's JSON.
"""

from collections.abc import Sequence
from pathlib import Path

from .coco import CocoSplit, check_coco, read_coco
from .voc import read_voc, voc_classes, xml_files
from .yolo import read_yolo

YOLO = (".yaml", ".yml")


def is_voc(annotations: Path) -> bool:
    """Whether a path names XML files of Pascal VOC."""
    return annotations.is_dir() or annotations.suffix == ".txt"


def read_split(annotations: Path, folder: Path, masks: bool, strict: bool = False, classes: Sequence[str] = ()) -> CocoSplit:
    """Read and check the images of a split and their objects.

    Args:
        annotations: JSON file of COCO's format, data.yaml of YOLO's, or folder or list of Pascal VOC's XML files.
        folder: folder of the images.
        masks: whether every object needs a mask.
        strict: whether objects that cannot be seen are refused.
        classes: names of the classes, for VOC, whose files do not list them; by default those that occur.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: see `check_coco`, `read_voc` and `read_yolo`.
    """
    if is_voc(annotations):
        files = xml_files(annotations)
        content = read_voc(files, folder, classes or voc_classes(files), listed=not annotations.is_dir())
    else:
        content = read_yolo(annotations, folder) if annotations.suffix in YOLO else read_coco(annotations)
    return check_coco(content, annotations, folder, masks, strict)


def classes_of(annotations: Sequence[Path]) -> tuple[str, ...]:
    """Names of the classes that occur in splits of Pascal VOC; empty for other formats, which list them."""
    files = [path for place in annotations if is_voc(place) for path in xml_files(place)]
    return voc_classes(files)
