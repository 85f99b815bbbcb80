"""The gate of the server: only this machine, only pages that know the launch's token, only bodies of a bounded size."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class TooLarge(Exception):
    """A body has more bytes than the server reads; whoever reads a body answers with its text."""


class Guard:
    """Middleware that refuses requests before anything of them is read.

    Args:
        app: application behind the gate; the token is its root path.
        token: secret part of every path.
        most_bytes: largest body.
        larger: largest body of paths by their ends.
    """

    def __init__(self, app: ASGIApp, token: str, most_bytes: int, larger: Mapping[str, int] | None = None) -> None:
        self.app, self.token, self.most_bytes, self.larger = app, token, most_bytes, larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            return await PlainTextResponse(refusal[1], refusal[0], HEADERS)(scope, receive, send)
        read, most = 0, self._most(scope)

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise TooLarge(_size_text(most))
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((key.encode(), value.encode()) for key, value in HEADERS.items())]
            await send(message)

        await self.app({**scope, "root_path": f"/{self.token}"}, bounded, with_headers)

    def _most(self, scope: Scope) -> int:
        """Largest body of a request."""
        return next((most for end, most in self.larger.items() if scope["path"].endswith(end)), self.most_bytes)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and text of a refusal, or None."""
        host = headers.get("host", "")
        name, _, _ = host.rpartition(":") if ":" in host else (host, "", "")
        if name not in HOSTS:  # a page of another name that resolves to this machine
            return 403, f"Host {host[:80]!r}: expected 127.0.0.1 or localhost."
        given = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return 403, "No such page: expected the address that kat-zoo explore printed."
        if scope["method"] not in ("GET", "HEAD") and headers.get("origin", f"http://{host}") != f"http://{host}":
            return 403, "Origin: expected a page of this server."
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > self._most(scope):
            return 413, _size_text(self._most(scope))
        return None


def _size_text(most: int) -> str:
    return f"The file is too large: expected at most {most // 1_000_000} MB."
