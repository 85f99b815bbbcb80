"""The server of the page: sessions, their steps, and news of them as Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from .desks import ENDED, Busy, Desk, Lost, Pool, Refused
from .examples import EXAMPLES
from .guard import Guard, TooLarge
from .tables import MAX_BYTES

HEARTBEAT = 15.0  # seconds between two signs of life of an event stream
BACKLOG = 100  # news that wait for a page
UNSEEN = 180.0  # seconds for which a word of a hidden page keeps its session; browsers wake such pages once a minute
GONE = "kat-zoo explore has ended. Start it again for a new page."
DOWNLOADS = {
    "script": ("explore.py", "text/x-python; charset=utf-8"),
    "session": ("session.json", "application/json"),
    "network": ("network.safetensors", "application/octet-stream"),
}
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Limits:
    """Bounds of the server.

    Attributes:
        sessions: sessions at a time.
        idle_seconds: time after which a session without an open page ends.
        rest_seconds: time after which the process of a session ends that no page shows; the session stays.
        body_bytes: largest body of a request, a table; a saved session, which holds the table in base64, may have twice as many.
    """

    sessions: int = 16
    idle_seconds: float = 1800.0
    rest_seconds: float = 120.0
    body_bytes: int = MAX_BYTES


class Server:
    """The sessions and the routes to them.

    Args:
        limits: bounds of the server.
        page: table and target that the page opens with: (file name, bytes, column to explain or None).
        session: session of an estimator, as bytes, that `kat_zoo.explore.explore` opens.
    """

    def __init__(self, limits: Limits, page: tuple[str, bytes, str | None] | None = None, session: bytes = b"") -> None:
        self.limits, self.page, self.first = limits, page, session
        self.desks: dict[str, Desk] = {}
        self.pool = Pool()

    def routes(self) -> list[BaseRoute]:
        """All routes, without the token."""
        one = "/api/sessions/{name}"
        table: list[tuple[str, str, Handler]] = [
            ("POST", "/api/sessions", self.open),
            ("GET", one, self.show),
            ("DELETE", one, self.close),
            ("POST", one + "/steps", self.step),
            ("POST", one + "/table", self.table),
            ("POST", one + "/position", self.go),
            ("POST", one + "/repeat", self.repeat),
            ("POST", one + "/stop", self.stop),
            ("POST", one + "/unseen", self.unseen),
            ("GET", one + "/edge", self.edge),
            ("GET", one + "/prune", self.prune),
            ("GET", one + "/download/{kind}", self.download),
            ("GET", one + "/events", self.events),
            ("GET", one + "/vision/sheet", self.sheet),
            ("POST", one + "/vision", self.vision),
        ]
        routes = [Route(path, _plain_errors(handler), methods=[method]) for method, path, handler in table]
        return [*routes, Mount("/", StaticFiles(packages=[(__package__, "static")], html=True))]

    def desk(self, request: Request) -> Desk:
        """The session of a request.

        Raises:
            KeyError: there is no such session.
        """
        return self.desks[request.path_params["name"]]

    async def open(self, request: Request) -> Response:
        """Open a session. Where all are taken, the one ends for it that was used longest ago of those that no page shows."""
        left = None
        if len(self.desks) >= self.limits.sessions:
            now = time.monotonic()
            left = min(
                (desk for desk in self.desks.values() if desk.resting and desk.unseen < now), key=lambda desk: desk.used, default=None
            )
            if left is None:
                return _error(429, f"{len(self.desks)} sessions are open: expected fewer; close a page, or wait for the end of its step")
            del self.desks[left.name]
        desk = Desk(self.pool)
        self.desks[desk.name] = desk
        if self.first:
            desk.saved = self.first
        if left is not None:
            await left.close()
        return JSONResponse({"session": desk.name})

    async def show(self, request: Request) -> Response:
        """Everything that the page shows of a session."""
        desk = self.desk(request)
        if desk.view is None and not desk.busy and (desk.saved or self.page):
            if desk.saved:
                desk.view, _ = await desk.ask("view")
            elif self.page is not None:
                await self._open_page(desk, *self.page)
        examples = [{"name": name, "title": example.title, "text": example.text} for name, example in EXAMPLES.items()]
        return JSONResponse({"view": desk.view, "busy": desk.busy, "news": desk.news, "examples": examples})

    async def _open_page(self, desk: Desk, name: str, data: bytes, target: str | None) -> None:
        options = {"name": name} if target is None else {"name": name, "target": target}
        await desk.ask("step", {"name": "open_file", "options": options}, data, step=True)

    async def close(self, request: Request) -> Response:
        """End a session."""
        await self.desks.pop(request.path_params["name"]).close()
        return JSONResponse({})

    async def step(self, request: Request) -> Response:
        """Make a step."""
        given = await _json(request)
        options = {"name": str(given.get("name"))[:40], "options": given.get("options") or {}}
        await self.desk(request).ask("step", options, step=True)
        return JSONResponse({})

    async def table(self, request: Request) -> Response:
        """Read the CSV file that is the body."""
        options = {"name": "open_file", "options": {"name": request.query_params.get("name", "table.csv")}}
        await self.desk(request).ask("step", options, await request.body(), step=True)
        return JSONResponse({})

    async def go(self, request: Request) -> Response:
        """Undo or redo to a position of the history."""
        await self.desk(request).ask("go", {"position": (await _json(request)).get("position"), "name": "history"}, step=True)
        return JSONResponse({})

    async def repeat(self, request: Request) -> Response:
        """Repeat the steps of a saved session, which is the body."""
        await self.desk(request).ask("repeat", {"name": "repeat"}, await request.body(), step=True)
        return JSONResponse({})

    async def stop(self, request: Request) -> Response:
        """End the step that is being made."""
        self.desk(request).stop()
        return JSONResponse({})

    async def unseen(self, request: Request) -> Response:
        """Keep the session for a page in a hidden tab, which does not listen."""
        self.desk(request).unseen = time.monotonic() + UNSEEN
        return JSONResponse({})

    async def edge(self, request: Request) -> Response:
        """One edge."""
        edge = [int(text) for text in request.query_params.get("edge", "").split(",")]
        return await self._glance(request, "edge", {"edge": edge})

    async def prune(self, request: Request) -> Response:
        """A preview of pruning."""
        threshold = float(request.query_params.get("threshold", ""))
        return await self._glance(request, "prune", {"threshold": threshold})

    async def _glance(self, request: Request, name: str, options: dict[str, Any]) -> Response:
        """A look at the session; null while a step is being made, after which the page asks again."""
        try:
            return JSONResponse((await self.desk(request).ask(name, options))[0])
        except Busy:
            return JSONResponse(None)

    async def download(self, request: Request) -> Response:
        """A file to keep."""
        kind = request.path_params["kind"]
        if kind not in DOWNLOADS:
            return _error(404, f"kind={kind[:40]!r}: expected one of {', '.join(DOWNLOADS)}")
        name, media = DOWNLOADS[kind]
        _, data = await self.desk(request).ask("download", {"kind": kind})
        return Response(data, media_type=media, headers={"content-disposition": f'attachment; filename="{name}"'})

    async def sheet(self, request: Request) -> Response:
        """The sample images, as a PNG with their labels in a header."""
        value, data = await self.desk(request).ask("vision", {"sheet": True})
        return Response(data, media_type="image/png", headers={"x-samples": json.dumps(value)})

    async def vision(self, request: Request) -> Response:
        """Answers of the models to the body, an image, or to a sample."""
        sample = request.query_params.get("sample")
        options = {} if sample is None else {"sample": int(sample)}
        return JSONResponse((await self.desk(request).ask("vision", options, await request.body()))[0])

    async def events(self, request: Request) -> Response:
        """News of a session until the page closes."""
        desk = self.desk(request)
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(BACKLOG)

        async def stream() -> AsyncIterator[str]:
            desk.listeners.add(queue)
            try:
                yield "retry: 1000\n\n"
                while True:
                    try:
                        news = await asyncio.wait_for(queue.get(), HEARTBEAT)
                    except asyncio.TimeoutError:
                        yield ": alive\n\n"
                        continue
                    yield f"data: {json.dumps(news)}\n\n"
                    if "closed" in news:
                        return
            finally:
                desk.listeners.discard(queue)
                desk.used = time.monotonic()

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def tidy(self) -> None:
        """End idle sessions and processes, again and again."""
        while True:
            await asyncio.sleep(min(self.limits.idle_seconds / 4, self.limits.rest_seconds / 4, 30))
            await self.end_idle()

    async def end_idle(self) -> None:
        """End the sessions that no page shows and nobody has used for long, and before that their processes."""
        for name, desk in list(self.desks.items()):
            now = time.monotonic()
            if not desk.resting:
                continue
            if now - max(desk.used, desk.unseen) > self.limits.idle_seconds:
                self.desks.pop(name, None)
                await desk.close()
            elif now - desk.used > self.limits.rest_seconds:
                await desk.rest()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Start a process that waits, and end all of them at last."""
        self.pool.fill()
        tidying = asyncio.create_task(self.tidy())
        try:
            yield
        finally:
            tidying.cancel()
            await self.end_all()
            await self.pool.close()

    async def end_all(self) -> None:
        """End all sessions and the steps that are being made, and tell their pages, whose requests are answered by that."""
        for desk in list(self.desks.values()):
            desk.busy = desk.busy or "closing"  # its process is ended, not kept
            await desk.close(GONE)


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)


async def _json(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        ValueError: the body is something else.
    """
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ValueError("body: expected JSON") from None
    if not isinstance(found, dict):
        raise ValueError("body: expected a JSON object")
    return found


def _plain_errors(handler: Handler) -> Handler:
    """The handler with errors as JSON {"error": text}."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except KeyError:
            return _error(404, ENDED)
        except Busy:
            return _error(409, "A step is being made: wait for its end, or stop it.")
        except Refused as error:
            return _error(422, str(error))
        except TooLarge as error:
            return _error(413, str(error))
        except ValueError as error:
            return _error(400, str(error))
        except ClientDisconnect:  # in the middle of its body: nobody hears an answer
            return _error(400, "body: expected all of it")
        except Lost:
            return _error(502, "The process of this session ended in the middle of the step. The session is as it was before; try again.")

    return handle


def make_app(token: str, server: Server) -> ASGIApp:
    """The application behind its gate.

    Args:
        token: secret part of every path.
        server: the sessions.
    """
    most = server.limits.body_bytes
    return Guard(Starlette(routes=server.routes(), lifespan=server.lifespan), token, most, {"/repeat": 2 * most})
