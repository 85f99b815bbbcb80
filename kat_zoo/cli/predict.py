"""`kat-zoo predict`: hand over to the task of the model that is named."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .._arguments import ArgumentParser
from . import parsers

DENSE = ("detection", "segmentation")
LOCAL, HUB = "local-dir:", "hf-hub:"
TAKE_A_VALUE = tuple(f"--{name}" for name in ("model", "task", "checkpoint", "top", "out", "batch-size", "device", "min-score"))


def main(argv: Sequence[str]) -> int:
    """Predict with a model of any task.

    Args:
        argv: `RUN IMAGE...`, or `IMAGE... --model NAME [--checkpoint FILE]`, and the options of the task, in any order.

    Returns:
        Exit code: 1 where some images could not be read.

    Raises:
        ValueError: unknown model, not a single image that can be read, an option out of range.
        FileNotFoundError: a file is missing.
    """
    arguments = list(argv)
    known = _known(arguments)
    if not known.model and known.places and (Path(known.places[0]).is_dir() or known.places[0].startswith((LOCAL, HUB))):
        run = known.places[0]
        if Path(run).is_dir() and not any((Path(run) / name).exists() for name in ("config.json", "recipe.yaml")):
            raise ValueError(f"{run} is not a run, it has no config.json: expected RUN IMAGE..., or IMAGE... --model NAME")
        before = ("", *arguments)
        position = next(i for i, argument in enumerate(arguments) if argument == run and before[i] not in TAKE_A_VALUE)
        arguments = [*arguments[:position], *arguments[position + 1 :], f"--model={run.removeprefix(LOCAL)}"]
    task = _task(_known(arguments))
    if task in DENSE:
        return int(import_module(f"kat_zoo.train.{task}.predict").main(arguments))
    options = parsers.predict().parse_args(arguments)
    return int(import_module("kat_zoo.cli.classify").run(options))


def _known(arguments: Sequence[str]) -> argparse.Namespace:
    """The options that choose the task."""
    parser = ArgumentParser(prog="kat-zoo predict", add_help=False, allow_abbrev=False)
    parser.add_argument("--model", default="")
    parser.add_argument("--task", choices=("classification", *DENSE))
    for option in TAKE_A_VALUE:
        if option not in ("--model", "--task"):
            parser.add_argument(option)
    parser.add_argument("places", nargs="*")
    return parser.parse_known_intermixed_args(arguments)[0]


def _task(known: argparse.Namespace) -> str:
    """The task that the folder of a run names, or `--task`."""
    folder = Path(known.model.removeprefix(LOCAL))
    if known.model and (folder / "recipe.yaml").is_file():
        from kat_zoo.train.core.runs import run_task

        task = run_task(folder)
        if known.task not in (None, task):
            raise ValueError(f"--task {known.task}: expected {task}, which {folder} is a run of")
        return task
    return str(known.task or "classification")
