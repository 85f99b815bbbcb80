"""`kat-zoo predict`: hand over to the task of the model that is named."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .._arguments import ArgumentParser
from . import parsers

DENSE = ("detection", "segmentation")
LOCAL, HUB = "local-dir:", "hf-hub:"


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
    named = any(argument.partition("=")[0] == "--model" for argument in arguments)
    if arguments and not named and (Path(arguments[0]).is_dir() or arguments[0].startswith((LOCAL, HUB))):
        arguments = [*arguments[1:], f"--model={arguments[0].removeprefix(LOCAL)}"]
    known = _known(arguments)
    task = _task(known)
    if task in DENSE:
        return int(import_module(f"kat_zoo.train.{task}.predict").main(arguments))
    options = parsers.predict().parse_args(arguments)
    return int(import_module("kat_zoo.cli.classify").run(options))


def _known(arguments: Sequence[str]) -> argparse.Namespace:
    """The options that choose the task."""
    parser = ArgumentParser(prog="kat-zoo predict", add_help=False, allow_abbrev=False)
    parser.add_argument("--model", default="")
    parser.add_argument("--task", choices=("classification", *DENSE))
    return parser.parse_known_args(arguments)[0]


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
