"""The server by Starlette's client: each refusal, sessions, stops, and processes that die."""

import asyncio
import base64
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from starlette.requests import Request
from starlette.testclient import TestClient

from kat_zoo.explore import Session, frames, views
from kat_zoo.explore.desks import Desk
from kat_zoo.explore.guard import Guard
from kat_zoo.explore.server import Limits, Server, make_app

TOKEN = "secret-of-this-launch"
HOST = "127.0.0.1:8123"
SESSION = b'{"kat_zoo_explore": 1, "steps": [{"step": "open_example", "options": {"name": "toy"}}, %b]}'
LONG = {"name": "train", "options": {"hidden": [8], "grid_size": 20, "chunks": 200}}


@pytest.fixture(scope="module")
def server():
    return Server(Limits(sessions=5, idle_seconds=1000, body_bytes=100_000))


@pytest.fixture(scope="module")
def client(server):
    with TestClient(make_app(TOKEN, server), base_url=f"http://{HOST}") as client:
        client.base_url = f"http://{HOST}/{TOKEN}/"
        yield client


@pytest.fixture
def path(client):
    name = client.post("api/sessions").json()["session"]
    yield f"api/sessions/{name}"
    client.delete(f"api/sessions/{name}")


def step(client, path, name, /, **options):
    return client.post(f"{path}/steps", json={"name": name, "options": options})


def view(client, path):
    return client.get(path).json()["view"]


def test_only_this_machine_and_pages_with_the_token_are_served(client):
    page = client.get("")
    assert page.status_code == 200 and "kat-zoo" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"] and page.headers["referrer-policy"] == "no-referrer"
    for url in ("/", "/wrong/", f"/{TOKEN}x/", f"/wrong/{TOKEN}/", f"/{TOKEN[:-1]}/api/sessions"):
        refused = client.get(f"http://{HOST}{url}")
        assert refused.status_code == 403 and "expected" in refused.text, url
        assert "content-security-policy" in refused.headers
    for host in ("evil.example", "evil.example:8123", "127.0.0.1.evil.example", "", "[::1]:8123", "localhost.evil"):
        assert client.get("", headers={"host": host}).status_code == 403, host
    assert client.get("", headers={"host": "localhost:8123"}).status_code == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9"):
        assert client.post("api/sessions", headers={"origin": origin}).status_code == 403, origin


def test_bodies_are_bounded_before_they_are_read(client, path):
    assert client.post(f"{path}/table", content=b"x" * 100_001).status_code == 413

    def pieces():
        for _ in range(200):
            yield b"a,b\n" * 250

    saved = client.post(f"{path}/repeat", content=b"x" * 200_000)  # a table in base64 is larger than a table
    assert saved.status_code == 422 and "not a session" in saved.text
    assert client.post(f"{path}/repeat", content=b"x" * 200_001).status_code == 413
    streamed = client.post(f"{path}/table", content=pieces())
    assert streamed.status_code == 413 and "expected at most" in streamed.text
    assert client.post(f"{path}/table", headers={"content-length": "-5"}).status_code == 413


def test_files_of_the_page_and_no_others(client):
    for name in ("app.js", "style.css", "icon.svg"):
        assert client.get(name).status_code == 200
    assert "javascript" in client.get("app.js").headers["content-type"]
    bare = client.get(f"http://{HOST}/{TOKEN}")  # the address without its last slash, as people copy it
    assert bare.status_code == 200 and bare.url.path == f"/{TOKEN}/" and "kat-zoo" in bare.text
    for name in ("__init__", "..%2fserver.py", "%2e%2e/server.py", "static/app.js", ".hidden", "..\\server.py", "nothing.js"):
        assert client.get(name).status_code == 404, name


@pytest.mark.parametrize(
    "method, url, body, status",
    [
        ("POST", "/steps", b"no json", 400),
        ("POST", "/steps", b"[]", 400),
        ("POST", "/steps", b'{"name": "nonsense"}', 422),
        ("POST", "/steps", b'{"name": "train", "options": {"hidden": [5]}}', 422),
        ("POST", "/steps", b"[" * 20_000, 400),
        ("POST", "/steps", b'{"name": "train", "options": [1]}', 422),
        ("POST", "/steps", b'{"name": "open_file", "options": [1]}', 422),
        ("POST", "/table?name=t.csv", b"", 422),
        ("POST", "/table?name=t.csv", b"\0\1\2", 422),
        ("POST", "/position", b'{"position": 99}', 422),
        ("POST", "/position", b'{"position": "1"}', 422),
        ("POST", "/repeat", b'{"a": 1}', 422),
        ("POST", "/repeat", b'{"kat_zoo_explore": 1, "steps": [{"step": "open_example", "options": [1]}]}', 422),
        ("POST", "/repeat", SESSION % b'{"step": "choose", "options": {"inputs": 5, "target": "z"}}', 422),
        ("POST", "/repeat", SESSION % b'{"step": "search", "options": {"units": 5}}', 422),
        ("POST", "/vision", b"no image", 422),
        ("POST", "/vision?sample=9999", b"", 422),
        ("POST", "/vision?sample=-1", b"", 422),
        ("POST", "/vision?sample=x", b"", 400),
        ("GET", "/edge?edge=a,b", None, 400),
        ("GET", "/edge?edge=0,0,0", None, 422),
        ("GET", "/prune?threshold=0.1", None, 422),
        ("GET", "/prune", None, 400),
        ("GET", "/download/passwords", None, 404),
        ("GET", "/download/network", None, 422),
        ("PUT", "/steps", b"", 405),
    ],
)
def test_refused_requests_say_why_and_the_session_lives_on(client, path, method, url, body, status):
    answer = client.request(method, path + url, content=body)
    assert answer.status_code == status
    if status != 405:
        assert answer.json()["error"]
    assert client.get(path).status_code == 200


def test_sessions_are_secret_and_bounded(client, server):
    assert client.get("api/sessions/unknown").status_code == 404
    names = [client.post("api/sessions").json()["session"] for _ in range(5)]
    assert len(set(names)) == 5 and min(map(len, names)) >= 16
    for name in names:
        server.desks[name].listeners.add(asyncio.Queue(100))
    full = client.post("api/sessions")
    assert full.status_code == 429 and "5 sessions are open" in full.json()["error"] and list(server.desks) == names
    for name in names:
        assert client.delete(f"api/sessions/{name}").status_code == 200
    assert not server.desks and client.delete(f"api/sessions/{names[0]}").status_code == 404


def test_a_table_a_network_and_its_files(client, path, tmp_path):
    rows = "\n".join(f"{x / 50},{(x / 50) ** 2}" for x in range(100))
    assert client.post(f"{path}/table?name=squares.csv", content=f"x,y\n{rows}\n").status_code == 200
    assert view(client, path)["data"]["target"] == "y"
    assert step(client, path, "train", hidden=[], chunks=2).status_code == 200
    assert step(client, path, "auto").status_code == 200
    shown = view(client, path)
    assert shown["network"]["edges"][0]["kind"] == "x^2" and shown["history"]["position"] == 3 and shown["formula"]["exact"]
    network = client.get(f"{path}/download/network")
    (tmp_path / "network.safetensors").write_bytes(network.content)
    with safe_open(tmp_path / "network.safetensors", "pt") as file:
        assert "kan" in file.metadata()
    script = client.get(f"{path}/download/script").text
    assert "model.auto_symbolic" in script and compile(script, "script", "exec")
    session = client.get(f"{path}/download/session").content
    assert client.post(f"{path}/position", json={"position": 0}).status_code == 200 and view(client, path)["data"] is None
    assert client.post(f"{path}/repeat", content=session).status_code == 200
    assert view(client, path)["formula"]["latex"] == shown["formula"]["latex"]


def test_an_error_without_a_number_is_a_dash_and_the_session_lives_on(client, path, server):
    """A row of 1e300 makes the error infinite, which JSON does not have."""
    rows = "".join(f"{x / 30},{(x / 30) ** 2}\n" for x in range(60))
    assert client.post(f"{path}/table?name=outlier.csv", content=f"x,y\n{rows}1,1e300\n").status_code == 200
    assert step(client, path, "train", hidden=[1], chunks=1).status_code == 200
    shown = client.get(path)
    assert shown.status_code == 200 and shown.json()["news"]["loss"][2] is None
    found = shown.json()["view"]
    assert found["network"]["error"] is None and found["formula"]["network_error"] is None and found["network"]["losses"][0][2] is None
    assert client.get(f"{path}/edge?edge=0,0,0").status_code == 200 and client.get(f"{path}/prune?threshold=0.1").status_code == 200


def test_no_message_of_a_worker_holds_what_json_lacks():
    message = {"a": float("nan"), "b": [1.5, (float("inf"), {"c": -float("inf"), "d": "NaN"})]}
    text, _ = frames.HEAD.unpack(frames.pack(message)[: frames.HEAD.size])
    packed = frames.pack(message, b"blob")[frames.HEAD.size :]
    assert packed[text:] == b"blob"
    assert frames.unpack(packed[:text]) == {"a": None, "b": [1.5, [None, {"c": None, "d": "NaN"}]]}


def test_views_and_news_hold_no_nan_by_themselves():
    rows = "".join(f"{x / 30},{(x / 30) ** 2}\n" for x in range(60))
    session, news = Session(), []
    with np.errstate(all="ignore"):
        session.do("open_file", {"name": "t.csv", "data": base64.b64encode(f"x,y\n{rows}1,1e300\n".encode()).decode()})
    with np.errstate(all="ignore"):
        session.do("train", {"hidden": [1], "chunks": 1}, lambda one: news.append({**one, "session": None}))
        for found in (news, views.data_view(session.state), views.network_view(session.state), views.formula_view(session.state)):
            json.dumps(found, allow_nan=False)


def in_background(work):
    result = {}

    def run():
        result["answer"], result["at"] = work(), time.monotonic()

    thread = threading.Thread(target=run)
    thread.start()
    return thread, result


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def training(client, path, server):
    """A session in the middle of a long training."""
    assert step(client, path, "open_example", name="toy").status_code == 200
    desk = server.desks[path.split("/")[-1]]
    thread, result = in_background(lambda: client.post(f"{path}/steps", json=LONG))
    wait_for(lambda: desk.news.get("loss") and desk._partial)
    yield desk, thread, result
    thread.join()


def test_a_training_stops_and_keeps_what_was_done(client, path, training):
    desk, thread, result = training
    pid = desk.process.pid
    busy = step(client, path, "prune", threshold=0.1)
    assert busy.status_code == 409 and client.get(path).json()["busy"] == "train"
    client.post(f"{path}/stop")
    wait_for(lambda: not desk.busy or desk.process is None or desk.process.pid != pid)  # on a busy machine the process is ended by force
    thread.join()
    assert result["answer"].status_code == 200
    shown = view(client, path)
    assert shown["history"]["position"] == 2 and 0 < len(shown["network"]["losses"]) < 200
    assert step(client, path, "train", chunks=1).status_code == 200  # and goes on


def test_a_process_that_does_not_listen_is_ended_and_the_training_kept(client, path, training):
    desk, thread, result = training
    pid = desk.process.pid
    os.kill(pid, signal.SIGSTOP)
    client.post(f"{path}/stop")
    wait_for(lambda: desk.process is None or desk.process.pid != pid)
    thread.join()
    assert result["answer"].status_code == 200 and view(client, path)["history"]["position"] == 2


def test_a_process_that_dies_is_reported_and_replaced(client, path, training):
    desk, thread, result = training
    os.kill(desk.process.pid, signal.SIGKILL)
    thread.join()
    assert result["answer"].status_code == 502 and "ended in the middle" in result["answer"].json()["error"]
    shown = view(client, path)
    assert shown["history"]["position"] == 1 and shown["data"]["rows"] == 1000 and shown["network"] is None
    assert step(client, path, "train", hidden=[1], chunks=1).status_code == 200


def test_stopping_nothing_is_fine(client, path):
    assert client.post(f"{path}/stop").status_code == 200


def test_idle_sessions_end(client, server):
    name = client.post("api/sessions").json()["session"]
    client.portal.call(server.end_idle)
    assert name in server.desks
    server.desks[name].used -= 2000
    client.portal.call(server.end_idle)
    assert client.get(f"api/sessions/{name}").status_code == 404


def test_a_new_session_takes_the_place_of_one_that_no_page_shows(client, server):
    """Of closed tabs the one that was used longest ago goes; not a hidden one, one that is being worked on, or one that is seen."""
    names = [client.post("api/sessions").json()["session"] for _ in range(5)]
    seen, hidden, busy, *closed = names
    queue = asyncio.Queue(100)
    server.desks[seen].listeners.add(queue)
    assert client.post(f"api/sessions/{hidden}/unseen").status_code == 200
    server.desks[busy].busy = "train"
    assert step(client, f"api/sessions/{closed[0]}", "open_example", name="planets").status_code == 200
    assert client.get(f"api/sessions/{closed[0]}/edge?edge=0,0,0").status_code == 422
    new = [client.post("api/sessions").json()["session"]]
    assert set(server.desks) == {seen, hidden, busy, closed[0], *new}
    new.append(client.post("api/sessions").json()["session"])
    assert set(server.desks) == {seen, hidden, busy, *new}
    assert client.get(f"api/sessions/{closed[0]}").status_code == 404 and queue.empty()
    server.desks[busy].busy = ""
    server.desks[hidden].unseen = time.monotonic() - 1  # its page was closed
    assert client.post("api/sessions").status_code == 200
    assert set(server.desks) >= {seen, *new} and len(server.desks) == 5
    for name in list(server.desks):
        client.delete(f"api/sessions/{name}")


def test_a_hidden_page_keeps_its_session(client, path, server):
    desk = server.desks[path.split("/")[-1]]
    desk.used -= 2000
    assert client.post(f"{path}/unseen").status_code == 200
    client.portal.call(server.end_idle)
    assert client.get(path).status_code == 200
    desk.used, desk.unseen = desk.used - 2000, desk.unseen - 2000
    client.portal.call(server.end_idle)
    assert client.get(path).status_code == 404


def test_a_session_that_no_page_shows_gives_its_process_back(client, path, server):
    assert step(client, path, "open_example", name="planets").status_code == 200
    assert step(client, path, "train", hidden=[], chunks=1).status_code == 200
    assert client.post(f"{path}/position", json={"position": 1}).status_code == 200
    desk, before = server.desks[path.split("/")[-1]], view(client, path)
    process, queue = desk.process, asyncio.Queue(100)
    client.portal.call(server.end_idle)
    assert desk.process is process  # it was used just now
    desk.used -= 200
    desk.listeners.add(queue)
    client.portal.call(server.end_idle)
    assert desk.process is process
    desk.listeners.remove(queue)
    desk.busy = "train"
    client.portal.call(server.end_idle)
    assert desk.process is process
    desk.busy = ""
    assert client.post(f"{path}/unseen").status_code == 200
    client.portal.call(server.end_idle)
    assert desk.process is None and not process.alive
    assert view(client, path) == before
    assert client.post(f"{path}/position", json={"position": 2}).status_code == 200  # another process takes it up
    assert view(client, path)["network"] is not None and desk.process.alive


def test_the_end_of_a_stream_is_a_use(server):
    """A page that was open for hours is not ended while it is reloaded."""

    async def story():
        desk = server.desks["hours"] = Desk(server.pool, "hours")
        try:
            desk.used -= 2000
            scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "path_params": {"name": "hours"}}
            stream = (await server.events(Request(scope))).body_iterator
            await anext(stream)
            assert len(desk.listeners) == 1
            await stream.aclose()
            await server.end_idle()
            assert not desk.listeners and "hours" in server.desks
        finally:
            del server.desks["hours"]

    asyncio.run(story())


def footprint():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(list(Path("/proc/self/fd").iterdir()))
    return {"files": files, "threads": threading.active_count(), "memory": pages * os.sysconf("SC_PAGE_SIZE")}


@pytest.mark.slow  # half a minute
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_200_sessions_leave_memory_threads_and_files_flat(client, server):
    def visit():
        name = client.post("api/sessions").json()["session"]
        path = f"api/sessions/{name}"
        assert step(client, path, "open_example", name="planets").status_code == 200
        assert view(client, path)["data"]["rows"] == 9
        assert client.delete(path).status_code == 200

    for _ in range(20):
        visit()
    before = footprint()
    for _ in range(200):
        visit()
    after = footprint()
    assert after["files"] <= before["files"] + 2 and after["threads"] <= before["threads"] + 1, (before, after)
    assert after["memory"] - before["memory"] < 20e6, (before, after)
    assert not server.desks and len(server.pool.waiting) <= 2


def test_the_next_session_of_a_process_sees_nothing_of_the_last(client, path):
    assert step(client, path, "open_example", name="planets").status_code == 200
    client.delete(path)
    name = client.post("api/sessions").json()["session"]
    assert client.post(f"api/sessions/{name}/position", json={"position": 0}).status_code == 200
    assert view(client, f"api/sessions/{name}")["data"] is None
    assert json.loads(client.get(f"api/sessions/{name}/download/session").text)["steps"] == []
    client.delete(f"api/sessions/{name}")


def test_a_websocket_and_the_like_pass_the_gate_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(Guard(app, TOKEN, 9)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
