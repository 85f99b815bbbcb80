"""`kat-zoo train`, `validate` and `predict`: hand over to the task that the recipe, or `--task`, names."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import yaml

from .core.config import find_configs
from .core.signals import stop_signals

# task -> modules with `main` of training, of validation, of prediction
TASKS = {
    "classification": ("classification.loop", "classification.evaluate", ".cli.predict"),
    "detection": ("detection.loop", "detection.validate", "detection.predict"),
    "segmentation": ("segmentation.loop", "segmentation.validate", "segmentation.predict"),
}


def find_task(argv: Sequence[str]) -> str:
    """The task of a command line: `--task`, else the key `task` of the `--config` file, else classification.

    Args:
        argv: arguments of the command.

    Returns:
        A key of `TASKS`.

    Raises:
        ValueError: an unknown task.
        FileNotFoundError: no such config.
    """
    given = {}
    arguments = find_configs(argv)
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--task", "--config"):
            given[name] = value if equals else "".join(arguments[i + 1 : i + 2])
    task = given.get("--task")
    if task is None and "--config" in given:
        try:
            settings = yaml.safe_load(Path(given["--config"]).read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"--config {given['--config']} is not YAML: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"--config {given['--config']} holds no settings; expected lines such as `seed: 0`")
        task = settings.get("task")
    task = task or "classification"
    if task not in TASKS:
        raise ValueError(f"task {task!r} is unknown; expected one of: {', '.join(TASKS)}")
    return task


def _call(stage: int, argv: Sequence[str]) -> int:
    return import_module(f".{TASKS[find_task(argv)][stage]}", __package__).main(argv)


def train_main(argv: Sequence[str]) -> int:
    """`kat-zoo train`: train from a recipe of any task.

    Args:
        argv: `--config FILE [--task TASK]` and overrides; `--task TASK --help` lists a task's keys.

    Returns:
        Exit code of the task's command.
    """
    with stop_signals():  # from here on: the import of a task takes seconds
        return _call(0, argv)


def validate_main(argv: Sequence[str]) -> int:
    """`kat-zoo validate`: evaluate weights of any task.

    Args:
        argv: `[--task TASK]` and the keys of that task.

    Returns:
        Exit code of the task's command.
    """
    return _call(1, argv)


def predict_main(argv: Sequence[str]) -> int:
    """`kat-zoo predict`: classify pictures, or draw what a detector or segmentation model finds in them.

    Args:
        argv: pictures, `[--task TASK] --model MODEL` and the options of that task.

    Returns:
        Exit code of the task's command.
    """
    return _call(2, argv)
