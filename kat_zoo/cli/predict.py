"""`kat-zoo predict`: classify image files, or draw the objects or regions that a trained model finds in them."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from timm.data import create_transform, resolve_data_config

from .. import models as zoo_models  # noqa: F401  (registers the models)
from .._arguments import ArgumentParser
from .._checks import count
from ..hub.repository import RECIPE
from ..hub.source import HUB, LOCAL, as_folder, open_model
from ..images import open_image, require_images

DENSE = ("detection", "segmentation")


def names_a_model(argument: str) -> bool:
    """Whether the first argument is a folder or a repository, not an image."""
    return as_folder(argument) is not None or argument.startswith(HUB)


def main(argv: Sequence[str]) -> int:
    """Predict with a model of any task.

    Args:
        argv: `RUN IMAGE...`, or `IMAGE... --model NAME [--checkpoint FILE]`, and the options of the task.

    Returns:
        Exit code 0.

    Raises:
        ValueError: unknown model, unreadable image, an option out of range.
        FileNotFoundError: a file is missing.
    """
    arguments = list(argv)
    if arguments and not any(a.partition("=")[0] == "--model" for a in arguments) and names_a_model(arguments[0]):
        arguments = [*arguments[1:], f"--model={arguments[0].removeprefix(LOCAL)}"]
    task = _task(arguments)
    if task in DENSE:
        return int(import_module(f"kat_zoo.train.{task}.predict").main(arguments))
    return _classify(arguments)


def _task(arguments: Sequence[str]) -> str:
    """The task that the folder of a run names, or `--task`."""
    parser = ArgumentParser(prog="kat-zoo predict", add_help=False, allow_abbrev=False)
    parser.add_argument("--model", default="")
    parser.add_argument("--task", choices=("classification", *DENSE))
    known, _ = parser.parse_known_args(arguments)
    folder = as_folder(known.model) if known.model else None
    if folder is not None and (folder / RECIPE).is_file():
        from kat_zoo.train.core.runs import run_task

        task = run_task(folder)
        if known.task not in (None, task):
            raise ValueError(f"--task {known.task}: expected {task}, which {folder} is a run of")
        return task
    return known.task or "classification"


@torch.inference_mode()
def _classify(arguments: Sequence[str]) -> int:
    """Print the likeliest classes of each image."""
    parser = ArgumentParser(prog="kat-zoo predict", usage="kat-zoo predict [RUN] IMAGE [IMAGE ...] [options]", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--model", required=True, help="folder of a run (or first, before the images), timm name, or hf-hub:org/name")
    parser.add_argument("--checkpoint", help="file of weights in place of the published ones, or of those in the folder")
    parser.add_argument("--top", type=int, default=3, help="classes to show (default: %(default)s)")
    parser.add_argument("--task", default="classification", help="options of another task: kat-zoo predict --task detection --help")
    options = parser.parse_args(arguments)
    count("--top", options.top)
    require_images(options.images)
    for path in options.images:
        open_image(path, 1)  # refuse a bad file before a model is fetched
    source = open_model(options.model, options.checkpoint)
    config = resolve_data_config({}, model=source.model)
    transform = create_transform(**config, is_training=False)
    for path in options.images:
        image = open_image(path, config["input_size"][0])
        probabilities = source.model(transform(image)[None]).softmax(1)[0]
        values, indices = probabilities.topk(min(options.top, len(source.classes)))
        answers = ", ".join(f"{source.classes[i]} {v:.1%}" for v, i in zip(values.tolist(), indices.tolist(), strict=True))
        print(f"{path}: {answers}")
    return 0
