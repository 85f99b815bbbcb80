"""One run a folder: a lock that the kernel releases when the process ends, however it ends."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger("kat_zoo")

Loop = TypeVar("Loop", bound=Callable[..., Any])

LOCK = "run.lock"
_held: dict[Path, int] = {}  # lock file -> its descriptor, open until the process ends


def hold(folder: Path) -> None:
    """Lock a run folder for this process; where it has the lock already, it keeps it.

    Args:
        folder: run folder, which exists.

    Raises:
        ValueError: another process trains in the folder.
        OSError: the folder cannot be written to.
    """
    path = folder.resolve() / LOCK
    if path in _held:
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # Not flock: loader workers, which may outlive a killed process for seconds, would inherit it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise ValueError(f"output {folder}: {holder} trains there now; stop it, or choose another output") from error
        logger.warning("%s cannot be locked (%s): two runs in this folder would not be noticed", path, error.strerror)
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    _held[path] = file


def release(folder: Path) -> bool:
    """Unlock a run folder; returns whether this process had locked it."""
    path = folder.resolve() / LOCK
    if path not in _held:
        return False
    path.unlink(missing_ok=True)
    os.close(_held.pop(path))
    return True


def exclusive(train: Loop) -> Loop:
    """Let a loop keep the run folder that `processes.start` locks until it ends, however it ends.

    Args:
        train: the loop of a task, called as train(recipe, resume).

    Returns:
        The same, which also removes the folder again where it made it and nothing came into it.
    """

    @wraps(train)
    def locked(recipe: Any, resume: str = "no") -> Any:
        folder = Path(recipe.output)
        there = folder.exists()
        try:
            return train(recipe, resume)
        finally:
            if release(folder) and not there:
                with suppress(OSError):  # it holds something
                    folder.rmdir()

    return locked  # type: ignore[return-value]
