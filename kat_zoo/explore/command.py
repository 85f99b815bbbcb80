"""Starting the page: from the command line, or on a fitted network in Python."""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
import threading
import webbrowser
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
import uvicorn

from .._checks import MOST_PORT, is_count
from .opening import network_bytes
from .server import Limits, Server, make_app
from .session import Session
from .tables import parse_table, unique_names

LOOPBACK = "127.0.0.1"


class _Uvicorn(uvicorn.Server):
    """uvicorn, but sessions end before it waits for its connections: streams of news never end by themselves, and steps take minutes."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._sessions = server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all sessions, then the server."""
        await self._sessions.end_all()
        await super().shutdown(sockets)


class Page:
    """A page that is being served by a thread of this process.

    Attributes:
        url: its address, with the token.
    """

    def __init__(self, server: Server, port: int = 0) -> None:
        self._socket = socket.create_server((LOOPBACK, port))
        token = secrets.token_urlsafe(18)
        self.url = f"http://{LOOPBACK}:{self._socket.getsockname()[1]}/{token}/"
        config = uvicorn.Config(make_app(token, server), log_level="warning", timeout_graceful_shutdown=1, server_header=False)
        self._server = _Uvicorn(config, server)
        self._thread: threading.Thread | None = None

    def start(self) -> Page:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        return self

    def run(self) -> None:
        """Serve until Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again once everything has ended
            self._server.run([self._socket])

    def close(self) -> None:
        """End the server and all of its processes."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()

    def __repr__(self) -> str:
        return f"Page({self.url})"

    def _repr_html_(self) -> str:
        """A link, which is what a notebook shows of the page."""
        return f'<a href="{self.url}" target="_blank" rel="noopener">kat-zoo explore</a>'


def explore(
    network: Any = None,
    X: Any = None,
    y: Any = None,
    *,
    names: Sequence[str] | None = None,
    scales: dict[str, Any] | None = None,
    port: int = 0,
    browser: bool = True,
) -> Page:
    """Open the page in the browser, empty or with a network and its data; it is served until `close` or the end of Python.

    Args:
        network: KAN of one output; None for an empty page.
        X: (N, inputs) samples.
        y: (N,) targets.
        names: names of the inputs; x_1, x_2, ... by default.
        scales: center, half, shift and spread of a network that maps (X - center) / half to (y - shift) / spread.
        port: port to listen on; 0 for any that is free.
        browser: whether the browser is opened.

    Raises:
        ValueError: a network of several outputs, data or names that do not fit it, or a port out of range.
    """
    if not is_count(port, 0, MOST_PORT):
        raise ValueError(f"port={port!r}: expected an integer from 0 to {MOST_PORT}")
    session = b""
    if network is not None:
        found = Session()
        found.do("open_network", _options(network, X, y, names, scales))
        session = found.to_bytes()
    page = Page(Server(Limits(), session=session), port).start()
    if browser:
        webbrowser.open(page.url)
    return page


def _options(network: Any, X: Any, y: Any, names: Sequence[str] | None, scales: dict[str, Any] | None) -> dict[str, Any]:
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if X.ndim != 2 or y.size != len(X):
        raise ValueError(f"X of shape {X.shape}, y of shape {y.shape}: expected (N, inputs) and (N,)")
    names = unique_names([f"x_{i + 1}" for i in range(X.shape[1])] if names is None else [str(name) for name in names], [])
    if len(names) != X.shape[1]:
        raise ValueError(f"names={names}: expected {X.shape[1]}, one for each column of X")
    target = next(name for name in ("y", *(f"y_{n}" for n in range(2, len(names) + 3))) if name not in names)
    table = {name: column.tolist() for name, column in zip([*names, target], [*X.T, y.ravel()], strict=True)}
    return {"table": table, "network": base64.b64encode(network_bytes(network)).decode(), "scales": scales}


def run(options: Namespace) -> int:
    """Serve the page until Ctrl-C.

    Args:
        options: parsed arguments of `kat-zoo explore`.

    Returns:
        Exit code 0.

    Raises:
        OSError: a file that cannot be read, or a port that is taken.
        ValueError: a target without a file, or one that the table lacks.
    """
    opened = None
    if options.target and not options.data:
        raise ValueError(f"--target {options.target}: expected a CSV file, too")
    if options.data:
        opened = (options.data.name, options.data.read_bytes(), options.target)
        table = parse_table(opened[1], opened[0])
        if options.target:
            table.column(options.target)
    page = Page(Server(Limits(), opened), options.port)
    print(f"kat-zoo explore: {page.url}\nCtrl-C ends it.", flush=True)
    if options.browser:
        webbrowser.open(page.url)
    page.run()
    return 0
