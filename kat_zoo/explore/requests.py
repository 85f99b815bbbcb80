"""The requests that a worker answers, each by a function of the worker, the options and the bytes that came with it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Protocol

from .._checks import choice, count, real
from . import views
from .opening import network_bytes
from .session import Session


class Holder(Protocol):
    """The process that holds a session."""

    session: Session

    def report(self, news: dict[str, Any]) -> None:
        """Pass news of a step on."""


Answer = tuple[Any, bytes]
Options = dict[str, Any]


def answer(worker: Holder, message: dict[str, Any], blob: bytes) -> Answer:
    """The answer to a request: a value for JSON, and bytes.

    Args:
        worker: the process that holds the session.
        message: name of the request and its options.
        blob: bytes that came with it.

    Raises:
        ValueError: an unknown request, or options that make no sense.
    """
    return REQUESTS[choice("request", message["request"], tuple(REQUESTS))](worker, message.get("options", {}), blob)


def _changed(worker: Holder) -> Answer:
    """All views of the session, and the session itself, which the server keeps in case that this process ends."""
    session = worker.session
    steps = [step.text for step in session.steps]
    view = {
        "data": views.data_view(session.state),
        "network": views.network_view(session.state),
        "formula": views.formula_view(session.state),
        "history": {"steps": steps, "position": session.position},
        "limits": views.limits(),
    }
    return view, session.to_bytes()


def _load(worker: Holder, options: Options, blob: bytes) -> Answer:
    worker.session = Session.from_bytes(blob) if blob else Session()
    return None, b""


def _view(worker: Holder, options: Options, blob: bytes) -> Answer:
    return _changed(worker)


def _step(worker: Holder, options: Options, blob: bytes) -> Answer:
    given = options["options"]
    if options["name"] == "open_file" and isinstance(given, dict):
        given = {**given, "data": base64.b64encode(blob).decode()}
    worker.session.do(options["name"], given, worker.report)
    return _changed(worker)


def _go(worker: Holder, options: Options, blob: bytes) -> Answer:
    worker.session.go(options["position"])
    return _changed(worker)


def _repeat(worker: Holder, options: Options, blob: bytes) -> Answer:
    worker.session = Session.from_json(blob.decode("utf-8", errors="replace"), worker.report)
    return _changed(worker)


def _edge(worker: Holder, options: Options, blob: bytes) -> Answer:
    return views.edge_view(worker.session.state, options["edge"]), b""


def _prune(worker: Holder, options: Options, blob: bytes) -> Answer:
    return views.prune_view(worker.session.state, real("threshold", options["threshold"], 0)), b""


def _download(worker: Holder, options: Options, blob: bytes) -> Answer:
    kind = choice("kind", options["kind"], ("script", "session", "network"))
    if kind == "script":
        return None, worker.session.script().encode()
    if kind == "session":
        return None, worker.session.to_json().encode()
    return None, network_bytes(worker.session.state.need_network())


def _vision(worker: Holder, options: Options, blob: bytes) -> Answer:
    from . import vision

    if options.get("sheet"):
        return vision.samples()
    sample = options.get("sample")
    return vision.compare(blob if sample is None else vision.sample(count("sample", sample, 0))), b""


REQUESTS: dict[str, Callable[[Holder, Options, bytes], Answer]] = {
    "load": _load,
    "view": _view,
    "step": _step,
    "go": _go,
    "repeat": _repeat,
    "edge": _edge,
    "prune": _prune,
    "download": _download,
    "vision": _vision,
}
