"""`kat-zoo export`: write a model as ONNX, as a torch.export program, or compiled ahead of time by AOTInductor."""

import argparse
import logging
import tempfile
from pathlib import Path

import timm
import torch

from .. import models as zoo_models  # noqa: F401  (registers the models)
from .._arguments import require_writable
from .._checks import count
from ..export import FORMATS, describe_onnx, largest_difference, load, milliseconds, to_aoti, to_onnx, to_pt2
from ..hub.source import HUB, Source, as_folder, open_model

PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")

logger = logging.getLogger("kat_zoo")


def _open(name: str, checkpoint: Path | None, pretrained: bool) -> Source:
    if pretrained and checkpoint is not None:
        raise ValueError(f"--pretrained with --checkpoint {checkpoint}: expected one of them, as each names weights")
    registered = as_folder(name) is None and not name.startswith(HUB)
    untrained = registered and checkpoint is None and not pretrained and "." not in name  # a tag names weights
    source = open_model(name, checkpoint, untrained=untrained)
    if untrained:
        logger.warning("%s is exported untrained, with random weights: --pretrained and --checkpoint FILE load trained ones", name)
    return source


def run(options: argparse.Namespace) -> int:
    """Write the file, run it, and compare it with the model.

    Args:
        options: parsed arguments of `kat-zoo export`.

    Returns:
        Exit code 0.
    """
    if options.batch_size is not None:
        count("--batch-size", options.batch_size)
    count("--repeats", options.repeats)
    folder = as_folder(options.model)
    stem = folder.resolve().name if folder is not None else options.model.split("/")[-1]
    path = options.out or Path(f"{stem}{FORMATS[options.format]}")
    require_writable("--out", path)
    if options.format == "aoti" and path.suffix != ".pt2":
        raise ValueError(f"--out {path}: expected a name that ends in .pt2, as AOTInductor packages do")
    source = _open(options.model, options.checkpoint, options.pretrained)
    model, config = source.model, timm.data.resolve_model_data_config(source.model)
    images = torch.randn(options.batch_size or 2, *config["input_size"])
    write = {"onnx": to_onnx, "pt2": to_pt2, "aoti": to_aoti}[options.format]
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        draft = Path(temporary) / path.name
        write(model, images, draft, dynamic_batch=options.batch_size is None)
        if options.format == "onnx":
            describe_onnx(draft, {"classes": list(source.classes), **{key: config[key] for key in PREPROCESSING}})
        exported = load(draft, options.format)
        difference = largest_difference(model, exported, images)
        if not difference <= 1e-4:
            raise ValueError(f"{path} is not the model: expected what the model computes, largest relative difference {difference:.1e}")
        times = milliseconds(exported, images, options.repeats), milliseconds(model, images, options.repeats)
        draft.replace(path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; differs by {difference:.1e} of the model's largest output")
    print(f"batch {len(images)}, {torch.get_num_threads()} threads: {times[0]:.1f} ms, eager {times[1]:.1f} ms (medians)")
    return 0
