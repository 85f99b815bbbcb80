"""Boxes in Pascal VOC's XML files, as labelImg and CVAT write them too, turned into the records of COCO's format."""

import logging
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.parsers import expat

from kat_zoo.images import UNREADABLE, is_hidden, picture_size, pictures_in

logger = logging.getLogger("kat_zoo")

MAX_BYTES = 1 << 20  # of an XML file; those of VOC have a few KB


def xml_files(annotations: Path) -> list[Path]:
    """The XML files that a setting names, sorted.

    Args:
        annotations: folder of XML files, in further folders too, or a list of names as `ImageSets/Main/train.txt`, whose XML files lie in
            the folder `Annotations` beside `ImageSets` or beside the list.

    Raises:
        FileNotFoundError: no such file or folder, none that holds XML files, or none of a name in the list.
        ValueError: a name that is twice in the list.
    """
    if annotations.is_dir():
        files = sorted(path for path in annotations.rglob("*") if path.suffix.lower() == ".xml" and not is_hidden(path, annotations))
        if not files:
            raise FileNotFoundError(f"{annotations} has no *.xml: expected annotations of Pascal VOC, or a JSON file of COCO's format")
        return files
    if not annotations.is_file():
        raise FileNotFoundError(f"{annotations}: no such file: expected a list of names, as ImageSets/Main/train.txt")
    folders = [annotations.parent / "Annotations", *(parent / "Annotations" for parent in annotations.resolve().parents[:3])]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f"{annotations}: there is no folder Annotations beside it or beside ImageSets")
    lines = [line.strip() for line in annotations.read_text(encoding="utf-8").splitlines() if line.strip()]
    # A list of one class has a second column, whether the image shows it; names may hold spaces.
    names = [line if (folder / f"{line}.xml").is_file() else re.sub(r"\s+-?[01]$", "", line) for line in lines]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"{annotations} names {twice[0]!r} twice ({len(twice)} such names): expected every name once")
    missing = [name for name in names if not (folder / f"{name}.xml").is_file()]
    if missing or not names:
        raise FileNotFoundError(f"{annotations}: {len(missing)} of {len(names)} names have no XML file in {folder}: {missing[:1]}")
    return [folder / f"{name}.xml" for name in names]


def voc_classes(files: Iterable[Path]) -> tuple[str, ...]:
    """Names of the classes that occur in XML files, sorted: VOC has no list of them.

    Raises:
        ValueError: a file that cannot be read, or an object without a name.
    """
    return tuple(sorted({_text(item, "name", path) for path in files for item in _parse(path).iter("object")}))


def read_voc(files: Sequence[Path], folder: Path, classes: Sequence[str], listed: bool = False) -> dict[str, Any]:
    """The content of COCO's JSON for XML files of Pascal VOC.

    Objects that are marked difficult become crowds, which neither training nor evaluation counts. VOC counts pixels from 1, both ends
    included.

    Args:
        files: XML files.
        folder: folder of the pictures; one lies where its XML file does in its own folder, or has the name that the file states.
        classes: names of the classes.
        listed: whether a list chose the files, so that pictures without one are not worth a warning.

    Raises:
        FileNotFoundError: an XML file has no picture.
        ValueError: a file that is not VOC's, is larger than 1 MiB, or declares a document type (as files with entities do); a class that
            is not among `classes`; a picture with two XML files, or one whose size is not stated and cannot be read.
    """
    pictures = pictures_in(folder)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    numbers = {name: number for number, name in enumerate(classes, 1)}
    used: dict[Path, Path] = {}
    for number, path in enumerate(files, 1):
        root = _parse(path)
        picture = _picture(root, path, folder, pictures)
        if used.setdefault(picture, path) is not path:
            raise ValueError(f"{used[picture]} and {path} both annotate {picture}: expected one XML file for each picture")
        width, height = _size(root, path, picture)
        images.append({"id": number, "file_name": str(picture.relative_to(folder)), "width": width, "height": height})
        for item in root.iter("object"):
            name = _text(item, "name", path)
            if name not in numbers:
                raise ValueError(f"{path} has an object {name!r}: expected one of {', '.join(classes)[:300]}")
            left, top, right, bottom = (_number(item, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
            box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
            difficult = (item.findtext("difficult") or "0").strip().lower() in ("1", "true")
            objects.append(
                {"id": len(objects) + 1, "image_id": number, "category_id": numbers[name], "bbox": box, "iscrowd": int(difficult)}
            )
    if not listed and (unused := [path for path in pictures.values() if path not in used]):
        logger.warning("%s: %d of %d pictures have no XML file and are left out, first %s", folder, len(unused), len(pictures), unused[0])
    return {"images": images, "annotations": objects, "categories": [{"id": i, "name": name} for name, i in numbers.items()]}


def _parse(path: Path) -> ElementTree.Element:
    """The root of an XML file; declarations of a document type, which entities need, are refused before anything is expanded."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes: expected an annotation of at most {MAX_BYTES}")

    def refuse(*declaration: Any) -> None:
        raise ValueError(f"{path} declares a document type: expected plain XML, without entities")

    data = path.read_bytes()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
        root = ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, LookupError) as error:  # LookupError: of an unknown encoding
        raise ValueError(f"{path} is not XML: {error}") from error
    if root.tag != "annotation":
        raise ValueError(f"{path} begins with <{root.tag[:40]}>: expected <annotation>, as in Pascal VOC")
    return root


def _text(element: ElementTree.Element, name: str, path: Path) -> str:
    text = (element.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"{path}: <{element.tag}> has no {name}: expected one")
    return text


def _number(element: ElementTree.Element, name: str, path: Path) -> float:
    text = _text(element, name, path)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{path}: {name}={text[:40]!r}: expected a number of pixels") from None


def _picture(root: ElementTree.Element, path: Path, folder: Path, pictures: dict[str, Path]) -> Path:
    """The picture of an XML file: that of its own name, or of the name it states, of which folders are left out."""
    stated = PureWindowsPath(root.findtext("filename") or "").name  # a Windows path has both kinds of slashes
    keys = [path.stem, Path(stated).stem]
    if path.is_relative_to(folder):
        keys.insert(0, str(path.relative_to(folder).with_suffix("")))
    found = next((pictures[key] for key in keys if key in pictures), None)
    if found is None:
        raise FileNotFoundError(f"{path} has no picture in {folder}: expected {path.stem}.jpg, or another kind of image")
    return found


def _size(root: ElementTree.Element, path: Path, picture: Path) -> tuple[int, int]:
    """(width, height) that an XML file states; of the picture where it states none or, as some tools do, 0."""
    stated = [int(_number(root, f"size/{side}", path)) if root.findtext(f"size/{side}") else 0 for side in ("width", "height")]
    if all(stated):
        return stated[0], stated[1]
    try:
        return picture_size(picture)
    except UNREADABLE as error:
        raise ValueError(f"{picture} cannot be read, and {path} does not state its size: {error}") from error
