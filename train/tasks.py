"""`kat-zoo train` and `kat-zoo validate`: hand over to the task that the recipe, or `--task`, names."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import yaml

from .config import find_configs

# task -> (module with `main` of training, module with `main` of validation)
TASKS = {"classification": ("classification", "evaluate")}


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
        task = settings.get("task") if isinstance(settings, dict) else None
    task = task or "classification"
    if task not in TASKS:
        raise ValueError(f"task {task!r} is unknown; expected one of: {', '.join(TASKS)}")
    return task


def train_main(argv: Sequence[str]) -> int:
    """`kat-zoo train`: train from a recipe of any task.

    Args:
        argv: `--config FILE [--task TASK]` and overrides; `--task TASK --help` lists a task's keys.

    Returns:
        Exit code of the task's command.
    """
    return import_module(f".{TASKS[find_task(argv)][0]}", __package__).main(argv)


def validate_main(argv: Sequence[str]) -> int:
    """`kat-zoo validate`: evaluate weights of any task.

    Args:
        argv: `[--task TASK]` and the keys of that task.

    Returns:
        Exit code of the task's command.
    """
    return import_module(f".{TASKS[find_task(argv)][1]}", __package__).main(argv)
