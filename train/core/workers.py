"""The processes of a loader: they outlive stop signals but not the process they load for, and their errors read like its own."""

import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.util import Finalize
from types import FrameType
from typing import Any


def outliving_stop_signals() -> Callable[[int], None]:
    """The `worker_init_fn` of every loader: schedulers signal the whole process group, and the batch in the making is needed.

    The workers of a process that exits are ended by a SIGTERM as well, of Python's `multiprocessing`, which then waits for them:
    that one they obey.
    """
    return partial(_outlive, _leaving(os.getpid()))


@cache
def _leaving(process: int) -> Any:
    """One byte that workers share with the process they load for: 1 once it exits, before multiprocessing ends its children."""
    leaving = multiprocessing.RawValue("b", 0)
    Finalize(None, setattr, (leaving, "value", 1), exitpriority=0)
    return leaving


def _outlive(leaving: Any, worker: int) -> None:
    def on_terminate(number: int, frame: FrameType | None) -> None:
        if leaving.value:
            os._exit(0)

    signal.signal(signal.SIGTERM, on_terminate)
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the error of a loader worker, which comes as its whole traceback, into the message that it was raised with.

    Raises:
        ValueError: in place of a ValueError or an OSError of a worker.
        OSError: a worker was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not re.match(r"DataLoader worker .* (?:killed by signal|exited unexpectedly)", str(error)):
            raise
        raise OSError("a loader worker was killed, perhaps for want of memory: expected to work with fewer data.workers") from error
    except (ValueError, OSError) as error:
        text = str(error)
        if not re.match(r"Caught \w+ in DataLoader worker process", text):
            raise
        raised = rf"^(?:\w+\.)*{type(error).__name__}: "  # the last such line of the traceback
        raise ValueError(re.split(raised, text, flags=re.MULTILINE)[-1].strip()) from error
