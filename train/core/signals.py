"""Stop signals are collected, from the start of a command on; the training loop looks at them between updates."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("kat_zoo")

STOP = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class _Received(list[int]):
    """The signals that have come; it is their handler as well, so that a block within another finds it."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if number in self:
                raise KeyboardInterrupt
            logger.warning("interrupted: the run stops and is saved after the current update; Ctrl-C again stops it at once")
        self.append(number)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM, SIGUSR1 and the first Ctrl-C instead of dying of them; a block within another has the signals of both."""
    received = signal.getsignal(STOP[0])
    if isinstance(received, _Received):
        yield received
        return
    received = _Received()
    previous = {number: signal.signal(number, received) for number in STOP}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
