"""Runs in processes of one thread each."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def one_thread() -> None:
    torch.set_num_threads(1)


def _begin() -> None:
    one_thread()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, be it by a signal that this one did not get."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while True:  # the first signal lets a training write its checkpoint, the second ends the process, which waits for tasks
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)


def in_processes(function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[tuple[tuple[Any, ...], Result]]:
    """Call a function on each task, `jobs` at a time.

    A task is handed over when a process is free for it, so none begins after another has failed or was stopped.

    Args:
        function: function of a module.
        tasks: its arguments.
        jobs: number of processes.

    Yields:
        A task and its result, as they end.
    """
    waiting = iter(tasks)
    running: dict[Future[Result], tuple[Any, ...]] = {}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin) as pool:
        for task in itertools.islice(waiting, jobs):
            running[pool.submit(function, *task)] = task
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                ended, result = running.pop(future), future.result()
                if (task := next(waiting, None)) is not None:
                    running[pool.submit(function, *task)] = task
                yield ended, result
