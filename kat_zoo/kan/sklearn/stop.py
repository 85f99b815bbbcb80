"""The end of a search: its time limit, or an interrupt, which ends it like the limit."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..search.judge import Clock

# Seconds of the clock that no search reaches, and that a stopped clock shows: finite, so that a part of a stopped clock is over, too.
NEVER, STOPPED = 1e300, 1e301
CHECKED_EVERY = 0.05  # seconds between two looks at the file that stops the searches of other processes


class Stop:
    """Ends searches that look at its clock.

    Args:
        path: file whose presence stops the search as well, by which a process stops those that it has started.
    """

    seconds = staticmethod(time.monotonic)  # a benchmark counts the CPU seconds of its process instead

    def __init__(self, path: str | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.stopped = False
        self._looked = 0.0

    def now(self) -> float:
        """Seconds of a monotonic clock; `STOPPED` after a stop."""
        now = self.seconds()
        if self.path is not None and now > self._looked + CHECKED_EVERY:
            self._looked, self.stopped = now, self.stopped or self.path.exists()
        return STOPPED if self.stopped else now

    def clock(self, seconds: float | None) -> Clock:
        """A clock that ends after some seconds, or never.

        Args:
            seconds: time until its end; None for no limit.
        """
        return Clock(NEVER if seconds is None else self.seconds() + seconds, self.now)

    def stop(self) -> None:
        """End the search."""
        self.stopped = True
        if self.path is not None:
            self.path.touch()


@contextlib.contextmanager
def interruptible(stop: Stop) -> Iterator[None]:
    """Let the first interrupt (Ctrl-C) end a search at its next look at the clock, the second one at once.

    Python handles signals in the main thread alone; in other threads nothing changes.

    Args:
        stop: the end of the search that the interrupt brings.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if stop.stopped:
            raise KeyboardInterrupt
        stop.stop()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
