"""`kat-zoo train` and `kat-zoo validate`: hand over to the task that the recipe, the run or `--task` names."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

from .core.config import RunRecipe, find_configs
from .core.runs import read_run
from .core.signals import stop_signals
from .core.yaml_file import read_settings

TASKS = ("classification", "detection", "segmentation")


def train(recipe: RunRecipe, resume: str = "no") -> Any:
    """Train from a recipe of any task, leaving weights, logs, checkpoints and a card in `recipe.output`.

    Args:
        recipe: `Recipe`, `DetectionRecipe` or `SegmentationRecipe`.
        resume: `no`, `auto` (the newest checkpoint of the run folder, if any), or the folder of a checkpoint.

    Returns:
        The last evaluation; None when a signal stopped the run.

    Raises:
        ValueError: bad configuration, damaged data, or an output folder that holds another run.
        FileNotFoundError: data or checkpoint not there.
    """
    return import_module(f".{cast(Any, recipe).task}.loop", __package__).train(recipe, resume)


def find_task(argv: Sequence[str]) -> str:
    """The task of a command line: `--task`, else that of the run in `--run` or of the `--config` file, else classification.

    Args:
        argv: arguments of the command.

    Returns:
        One of `TASKS`.

    Raises:
        ValueError: an unknown task, or one that the run is not of.
        FileNotFoundError: no such config, or not the folder of a run.
    """
    given = {}
    arguments = find_configs(argv)
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--task", "--run", "--config"):
            given[name] = value if equals else "".join(arguments[i + 1 : i + 2])
    task = given.get("--task")
    if task is not None and task not in TASKS:
        raise ValueError(f"--task {task}: expected one of {', '.join(TASKS)}")
    if given.get("--run") == "":
        raise ValueError("--run: expected the folder of a run")
    if "--run" in given:
        return read_run(given["--run"], task).task
    if task is None and "--config" in given:
        task = _task_of_config(given["--config"])
    return task or "classification"


def _task_of_config(config: str) -> str | None:
    task = read_settings(config).get("task")
    if task is not None and task not in TASKS:
        raise ValueError(f"--config {config}, task={str(task)[:40]!r}: expected one of {', '.join(TASKS)}")
    return task


def train_main(argv: Sequence[str]) -> int:
    """`kat-zoo train`: train from a recipe of any task.

    Args:
        argv: `--config FILE [--task TASK]` and overrides; `--task TASK --help` lists a task's keys.

    Returns:
        Exit code of the task's command.
    """
    with stop_signals():  # from here on: the import of a task takes seconds
        return import_module(f".{find_task(argv)}.loop", __package__).main(argv)


def validate_main(argv: Sequence[str]) -> int:
    """`kat-zoo validate`: evaluate a run, or weights of any task.

    Args:
        argv: `RUN` or `[--task TASK]`, and the keys of that task.

    Returns:
        Exit code of the task's command.
    """
    if argv and not argv[0].startswith("-"):
        argv = ["--run", *argv]
    task = find_task(argv)
    module = "evaluate" if task == "classification" else "validate"
    return import_module(f".{task}.{module}", __package__).main(argv)
