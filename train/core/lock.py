"""One run a folder: a lock that the kernel releases when the process ends, however it ends."""

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path

logger = logging.getLogger("kat_zoo")

LOCK = "run.lock"
_held: dict[Path, int] = {}  # lock file -> its descriptor, open until the process ends


def hold(folder: Path) -> None:
    """Lock a run folder for this process; where it has the lock already, after a run that failed, it keeps it.

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


def release(folder: Path) -> None:
    """Unlock a run folder; without a lock, nothing happens."""
    path = folder.resolve() / LOCK
    if path in _held:
        path.unlink(missing_ok=True)
        os.close(_held.pop(path))
