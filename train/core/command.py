"""The command line of a task's training, under `kat-zoo train` and under every launcher."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils.memory import should_reduce_batch_size

from kat_zoo._text import one_line

from .config import RunRecipe, parse
from .processes import leave
from .run import OutOfMemory, TrainingDiverged
from .signals import stop_signals
from .workers import plain_errors

logger = logging.getLogger("kat_zoo")


def command(
    argv: Sequence[str] | None,
    recipe_class: type[RunRecipe],
    train: Callable[[Any, str], Any],
    rehearse: Callable[[Any], str],
) -> int:
    """The command line of a task's loop.

    Args:
        argv: `--config FILE`, overrides as `--optimizer.lr 1e-3`, `--resume`, `--dry-run`; sys.argv by default.
        recipe_class: class of the recipes of the task.
        train: the loop, called as train(recipe, resume).
        rehearse: function for --dry-run, called as rehearse(recipe); returns the text to print.

    Returns:
        Exit code: 0, also after a signal; 1 when training diverged or memory ran out.
    """
    resume = {"default": "no", "help": "no, auto (newest checkpoint of the run folder), or a checkpoint's folder"}
    dry_run = {"action": "store_true", "help": "build everything, run one batch of noise, write nothing"}
    arguments = sys.argv[1:] if argv is None else argv
    recipe, flags = parse(recipe_class, arguments, "kat-zoo train", resume=resume, dry_run=dry_run)
    if flags.dry_run:
        print(rehearse(recipe))
        return 0
    try:
        with stop_signals(), plain_errors():
            train(recipe, flags.resume)
    except (TrainingDiverged, OutOfMemory) as error:
        logger.error("%s", error)
        return 1
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        logger.error(
            "out of memory with data.batch_size %d and optimizer.grad_accum %d: raise grad_accum, which leaves the batch as it is, lower "
            "batch_size, or set system.grad_checkpointing or system.precision bf16 (%s)",
            recipe.batch_size, recipe.optimizer.grad_accum, one_line(error)[:150],
        )  # fmt: skip
        return 1
    leave()  # after an error it is left alone: the launcher then stops the other processes
    return 0


def _tell_torchrun(line: str) -> None:
    """Leave a line for the summary that torchrun prints last, which would bury the line above it and say that there is no traceback."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        told = {"message": {"message": line, "extraInfo": {"py_callstack": line, "timestamp": str(int(time.time()))}}}
        Path(path).write_text(json.dumps(told), encoding="utf-8")


def launched(main: Callable[[], int], name: str) -> int:
    """Run a command that a launcher started: an error is told in one line, as `kat-zoo` tells it.

    Args:
        main: the command.
        name: name of the module, for the message.

    Returns:
        Exit code: the command's own, 2 after an error, 130 after Ctrl-C.
    """
    process = f" (process {os.environ['RANK']})" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    try:
        return main()
    except (ValueError, OSError, ModuleNotFoundError) as error:
        logger.debug("%s failed", name, exc_info=True)
        line = f"{name}{process}: {one_line(error) or type(error).__name__}"
        print(line, file=sys.stderr)
        _tell_torchrun(line)
        return 2
    except KeyboardInterrupt:
        print(f"{name}{process}: interrupted", file=sys.stderr)
        return 130
