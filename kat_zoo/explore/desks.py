"""Sessions as the server holds them: each has a worker process, and a copy of its state in case that the process ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from . import frames

GRACE = 0.4  # seconds that a step has to end after an interrupt, before its process is ended
SPARE = 1  # processes that wait for a session
ENDED = "This session has ended: reload the page for a new one."


class Busy(Exception):
    """A step is being made."""


class Refused(Exception):
    """The worker's answer to a request that makes no sense."""


class Lost(Exception):
    """The worker process ended while it made a step; the session is as it was before."""


class Process:
    """A worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls) -> Process:
        """Start a process; it takes a few seconds until it answers."""
        pipe = asyncio.subprocess.PIPE
        arguments = (sys.executable, "-m", "kat_zoo.explore.worker")
        # Python 3.11 and later then imports nothing from the folder in which the command was called.
        environment = os.environ | {"PYTHONSAFEPATH": "1"}
        return cls(await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe, env=environment))

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    async def send(self, message: frames.Message, blob: bytes = b"") -> None:
        """Write a message; an error of a process that has ended shows when its answer is read."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(frames.pack(message, blob))
            await self.process.stdin.drain()

    async def receive(self) -> tuple[frames.Message, bytes]:
        """Wait for a message.

        Raises:
            Lost: the process has ended.
        """
        assert self.process.stdout is not None
        try:
            text, blob = frames.HEAD.unpack(await self.process.stdout.readexactly(frames.HEAD.size))
            return frames.unpack(await self.process.stdout.readexactly(text)), await self.process.stdout.readexactly(blob)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Lost from None

    def interrupt(self) -> None:
        """End the step that is being made."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)

    async def end(self) -> None:
        """End the process."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Pool:
    """Processes that wait for a session, for one takes seconds to start."""

    def __init__(self) -> None:
        self.waiting: deque[Process] = deque()
        self._filling: asyncio.Task[None] | None = None

    async def take(self) -> Process:
        """A process without a session."""
        if self._filling is not None:  # one that is being started is sooner ready than another
            await self._filling
        while self.waiting:
            process = self.waiting.popleft()
            if process.alive:
                return process
        return await Process.start()

    async def give(self, process: Process) -> None:
        """Take a process back whose session has ended."""
        if not process.alive or len(self.waiting) > SPARE:  # one more than `fill` starts, so that a process is used again
            await process.end()
        else:
            self.waiting.append(process)

    def fill(self) -> None:
        """Start processes until enough wait."""

        async def fill() -> None:
            while len(self.waiting) < SPARE:
                self.waiting.append(await Process.start())

        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(fill())

    async def close(self) -> None:
        """End all processes that wait."""
        if self._filling is not None:
            await self._filling
        while self.waiting:
            await self.waiting.popleft().end()


@dataclass(eq=False)
class Desk:
    """A session.

    Attributes:
        pool: processes that wait.
        name: secret name of the session.
        saved: the session as bytes, as the last whole step or part of a training left it.
        view: JSON that the page shows.
        process: the worker process; None until the first request, and after it was ended.
        listeners: queues of news, one for each page that is open.
        busy: name of the step that is being made; empty where none is.
        news: last news of that step.
        used: time of the last request, or at which the last page that listened went.
        unseen: time until which a page that is open in a hidden tab keeps the session; it says so again before.
    """

    pool: Pool
    name: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    saved: bytes = b""
    view: dict[str, Any] | None = None
    process: Process | None = None
    listeners: set[asyncio.Queue[dict[str, Any]]] = field(default_factory=set)
    busy: str = ""
    news: dict[str, Any] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)
    unseen: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _stopping: bool = False
    _partial: bytes = b""
    _closed: bool = False

    @property
    def resting(self) -> bool:
        """Whether nothing is being done and no page listens, as those that are seen do."""
        return not self.listeners and not self.busy and not self._lock.locked()

    async def ask(self, request: str, options: dict[str, Any] | None = None, blob: bytes = b"", *, step: bool = False) -> tuple[Any, bytes]:
        """Let the worker answer a request.

        Args:
            request: name of the request.
            options: options of the request.
            blob: bytes for it.
            step: whether it changes the session; all pages are told then.

        Raises:
            Busy: a step is being made.
            Refused: the worker refuses the request.
            Lost: the worker has ended, or the session.
        """
        self.used = time.monotonic()
        if self.busy:
            raise Busy
        if step:
            self.busy, self.news, self._partial = str((options or {}).get("name", request)), {}, b""
            self.tell({"busy": self.busy})
        try:
            async with self._lock:
                value, out = await self._exchange(request, options or {}, blob)
                if step:
                    self.view, self.saved = value, out
                return value, out
        finally:
            self.used = time.monotonic()
            if step:
                self.busy, self._stopping = "", False
                self.tell({"changed": True})

    async def _exchange(self, request: str, options: dict[str, Any], blob: bytes) -> tuple[Any, bytes]:
        if self._closed:
            raise Lost
        try:
            if self.process is None or not self.process.alive:
                self.process = await self.pool.take()
                await self.process.send({"request": "load"}, self.saved)
                await self._answer()
                self.pool.fill()  # not before: two that start at once are slower than one after the other
            if self._stopping:
                raise Refused("Stopped.")
            await self.process.send({"request": request, "options": options}, blob)
            return await self._answer()
        except Lost:
            if self.process is not None:
                await self.process.end()
            self.process = None
            if not self._stopping or self._closed:
                raise
            if not self._partial:
                raise Refused("Stopped. Nothing of the step was done, and the session is as it was before.") from None
            self.saved = self._partial
            return await self._exchange_view()

    async def _exchange_view(self) -> tuple[Any, bytes]:
        """The views after a training that was ended by force, of its last whole part."""
        self._stopping = False
        return await self._exchange("view", {}, b"")

    async def _answer(self) -> tuple[Any, bytes]:
        assert self.process is not None
        while True:
            message, blob = await self.process.receive()
            if "news" in message:
                self._partial = blob or self._partial
                self.news |= message["news"]
                self.tell({"news": message["news"]})
            elif "error" in message:
                raise Refused(message["error"])
            elif "stopped" in message:
                raise Refused("Stopped. Nothing of the step was done, and the session is as it was before.")
            else:
                return message["value"], blob

    def stop(self) -> None:
        """End the step that is being made, within half a second."""
        process = self.process
        if not self.busy or self._stopping:
            return
        self._stopping = True
        if process is None:
            return
        process.interrupt()

        def force() -> None:
            if self._stopping and self.process is process and process.alive:
                with contextlib.suppress(ProcessLookupError):
                    process.process.kill()

        asyncio.get_running_loop().call_later(GRACE, force)

    def tell(self, news: dict[str, Any]) -> None:
        """Pass news to all open pages."""
        for queue in self.listeners:
            if queue.full():  # a page that does not listen gets the newest
                queue.get_nowait()
            queue.put_nowait(news)

    async def rest(self) -> None:
        """End the process; the next request gets another, which takes the session up as it was."""
        process, self.process = self.process, None
        if process is not None:
            await process.end()

    async def close(self, text: str = ENDED) -> None:
        """End the session.

        Args:
            text: message for its pages.
        """
        process, self.process, self._closed = self.process, None, True
        self.tell({"closed": text})
        if process is None:
            return
        if self.busy:
            await process.end()
        else:
            await self.pool.give(process)
