"""The process of a session: it makes the steps, so that the server stays quick and outlives it.

`python -m kat_zoo.explore.worker` reads messages from standard input and answers on standard output. An interrupt ends the step that is
being made; a training keeps the parts that were done, a search the best so far.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from typing import IO, Any

import torch

from . import frames
from .session import Session

SAVE_EVERY = 0.3  # seconds between two copies of an unfinished training that the server gets


class Worker:
    """The loop of the process.

    Args:
        source: stream of messages.
        sink: stream of answers.
    """

    def __init__(self, source: IO[bytes], sink: IO[bytes]) -> None:
        self.source, self.sink = source, sink
        self.session = Session()
        self._saved_at = 0.0

    def run(self) -> None:
        """Answer messages until the stream ends."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            try:
                message, blob = frames.read(self.source)
            except EOFError:
                return
            self._answer(message, blob)

    def _answer(self, message: frames.Message, blob: bytes) -> None:
        from . import requests

        before = self.session
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                value, out = requests.answer(self, message, blob)
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._write({"value": value}, out)
        except KeyboardInterrupt:
            self.session = before
            self._write({"stopped": True})
        except (ValueError, OSError, ModuleNotFoundError, ArithmeticError, RuntimeError, MemoryError) as error:
            self.session = before
            self._write({"error": " ".join(str(error).split())[:600] or type(error).__name__})

    def report(self, news: dict[str, Any]) -> None:
        """Pass news of a step on; at times with a copy of the session as it would be if the step ended there."""
        session, saved = news.pop("session", None), b""
        now = time.monotonic()
        if session is not None and now > self._saved_at + SAVE_EVERY:
            self._saved_at, saved = now, session.to_bytes()
        self._write({"news": news}, saved)

    def _write(self, message: frames.Message, blob: bytes = b"") -> None:
        """Write a whole message: an interrupt waits until it is out."""
        held: list[int] = []
        old = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
        try:
            self.sink.write(frames.pack(message, blob))
            self.sink.flush()
        finally:
            signal.signal(signal.SIGINT, old)
        if held and callable(old):
            signal.raise_signal(signal.SIGINT)


class _News(logging.Handler):
    """Passes the log of a search on as news."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(logging.INFO)
        self.worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self.worker.report({"text": record.getMessage()})


def main() -> None:
    """Run a worker on the standard streams."""
    # Nothing that a library prints may get between the messages.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(1)  # tables this small are not shared out with profit
    worker = Worker(sys.stdin.buffer, sink)
    logger = logging.getLogger("kat_zoo")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_News(worker))
    worker.run()


if __name__ == "__main__":
    main()
