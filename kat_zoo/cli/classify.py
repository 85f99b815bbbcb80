"""`kat-zoo predict` of classifiers: the likeliest classes of image files."""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform, resolve_data_config
from torch import Tensor
from tqdm import tqdm

from .. import models as zoo_models  # noqa: F401  (registers the models)
from .._arguments import require_writable
from .._checks import count
from .._files import replaced
from .._text import one_line, printable
from ..hub.source import Source, open_model, require_classes
from ..images import UNREADABLE, find_images, open_images, picture_size, told

SUFFIXES = (".csv", ".json")
Answer = tuple[Path, list[tuple[str, float]]]


def predict(
    source: Source, paths: Sequence[Path], options: argparse.Namespace, device: torch.device, failed: list[Path]
) -> Iterator[Answer]:
    """Classify images, a batch at a time.

    Args:
        source: model and the names of its classes.
        paths: image files.
        options: number of classes to name (`top`), images that pass through the model together (`batch_size`), and whether the
            probabilities are averaged with those of the mirrored image (`flip`).
        device: device to compute on.
        failed: list that gets the files that cannot be read.

    Yields:
        (path, [(class, probability), ...]) in the order of the files, the likeliest class first.
    """
    config = resolve_data_config({}, model=source.model)
    transform = create_transform(**config, is_training=False)
    model = source.model.to(device)
    readable = open_images(paths, config["input_size"][0], failed)
    while part := [(path, transform(image)) for path, image in islice(readable, options.batch_size)]:
        images: Tensor = torch.stack([image for _, image in part]).to(device)
        with torch.inference_mode():
            probabilities = model(images).softmax(1)
            if options.flip:
                probabilities = (probabilities + model(images.flip(-1)).softmax(1)) / 2
        values, indices = probabilities.cpu().topk(min(options.top, len(source.classes)))
        for (path, _), row, best in zip(part, values.tolist(), indices.tolist(), strict=True):
            yield path, [(source.classes[index], value) for index, value in zip(best, row, strict=True)]


def run(options: argparse.Namespace) -> int:
    """Print the likeliest classes of each image, and write them to a file where one is named.

    Args:
        options: parsed arguments of `kat-zoo predict`.

    Returns:
        Exit code: 1 where some images could not be read.

    Raises:
        ValueError: unknown model, one without classes, not a single image that can be read, an option out of range.
        FileNotFoundError: a file is missing.
    """
    count("--top", options.top)
    count("--batch-size", options.batch_size)
    if options.out is not None and options.out.suffix not in SUFFIXES:
        raise ValueError(f"--out {options.out}: expected a name that ends in {' or '.join(SUFFIXES)}")
    require_writable("--out", options.out)
    device = _device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    paths = find_images(options.images)
    _require_readable(paths)
    if options.checkpoint is None:
        require_classes(options.model)
    source = open_model(options.model, options.checkpoint)
    if not source.classes:
        raise ValueError(f"model {options.model} gives features and not classes: expected a classifier")
    answers: list[Answer] = []
    bar = tqdm(total=len(paths), unit="image", disable=len(paths) <= options.batch_size or not sys.stderr.isatty())
    failed: list[Path] = []
    try:
        for path, best in predict(source, paths, options, device, failed):
            bar.write(f"{printable(path)}: {', '.join(f'{name} {value:.1%}' for name, value in best)}")
            answers.append((path, best))
            bar.update()
    finally:  # an interrupted call keeps the answers that it has
        bar.close()
        if options.out is not None and answers:
            _write(options.out, answers)
    return told(failed, len(paths))


def _device(name: str) -> torch.device:
    """The device of a name, if there is one.

    Raises:
        ValueError: torch does not know it, or has none here.
    """
    try:
        device = torch.zeros(0, device=name).device
        if device.type == "meta":
            raise RuntimeError("meta holds no values")
        return device
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"--device {name}: expected a device that torch has here, as cpu ({one_line(error).split('. ')[0][:100]})"
        ) from error


def _require_readable(paths: Sequence[Path]) -> None:
    """Refuse files of which not one is an image, by their headers, before a model is fetched."""
    first = None
    for path in paths:
        try:
            picture_size(path)
            return
        except UNREADABLE as error:
            first = first or ValueError(f"{path} is not an image that can be read: {error}")
    if first is not None:
        raise first


def _write(path: Path, answers: Sequence[Answer]) -> None:
    rows: list[dict[str, Any]] = [
        {"file": printable(file), "classes": [{"class": name, "probability": round(value, 6)} for name, value in best]}
        for file, best in answers
    ]
    with replaced(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".json":
            file.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        else:
            writer = csv.writer(file)
            writer.writerow(["file", "rank", "class", "probability"])
            for row in rows:
                writer.writerows([row["file"], rank, *best.values()] for rank, best in enumerate(row["classes"], 1))
