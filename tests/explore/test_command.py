"""`kat-zoo explore` as a program: its port, its end, and clients that hang up."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest

from kat_zoo.cli.main import main
from kat_zoo.explore import explore
from kat_zoo.explore.command import Page
from kat_zoo.explore.server import Limits, Server
from kat_zoo.kan import KANRegressor

LONG = {"name": "train", "options": {"hidden": [8], "grid_size": 20, "chunks": 200}}


def post(url, body=None):
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body or {}).encode(), method="POST"), timeout=60) as answer:
        return json.load(answer)


def connect(url, request):
    """A connection on which a request was begun."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=60)
    connection.sendall(request.replace("PATH", parts.path).replace("HOST", parts.netloc).encode())
    return connection


@pytest.mark.parametrize("port", ["99999", "-1", "x"])
def test_a_port_out_of_range_is_refused_by_name(port, capsys):
    assert main(["explore", "--no-browser", "--port", port]) == 2
    said = capsys.readouterr().err
    assert "--port" in said and port in said and "expected 0 to 65535" in said and said.count("\n") == 1


@pytest.mark.parametrize("port", [65536, -1, 80.5, "8800"])
def test_python_refuses_a_port_out_of_range(port):
    with pytest.raises(ValueError, match=f"port={port!r}: expected an integer from 0 to 65535"):
        explore(port=port, browser=False)
    x = np.linspace(0, 1, 30)[:, None]
    with pytest.raises(ValueError, match="expected an integer from 0 to 65535"):
        KANRegressor().fit(x, x[:, 0]).explore(port=port, browser=False)


@pytest.mark.parametrize("busy", [False, True])
def test_ctrl_c_ends_it_quietly(busy):
    """With a page that listens, and in the middle of a training."""
    command = [sys.executable, "-m", "kat_zoo", "explore", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        url = process.stdout.readline().split()[-1]
        path = f"{url}api/sessions/{post(url + 'api/sessions')['session']}"
        post(f"{path}/steps", {"name": "open_example", "options": {"name": "toy"}})
        stream = connect(f"{path}/events", "GET PATH HTTP/1.1\r\nHost: HOST\r\n\r\n")
        heard = stream.recv(9999)
        if busy:
            body = json.dumps(LONG)
            step = connect(f"{path}/steps", f"POST PATH HTTP/1.1\r\nHost: HOST\r\nContent-Length: {len(body)}\r\n\r\n{body}")
            while b'"loss"' not in heard:
                heard += stream.recv(9999)
        os.kill(process.pid, signal.SIGINT)
        while piece := stream.recv(9999):
            heard += piece
        _, trouble = process.communicate(timeout=30)
    finally:
        process.kill()
    assert b'"closed": "kat-zoo explore has ended.' in heard
    assert (process.returncode, trouble) == (0, "")
    if busy:
        assert b" 502 " in step.recv(9999)
        step.close()
    stream.close()


@pytest.fixture
def page():
    page = Page(Server(Limits())).start()
    yield page
    page.close()


def test_a_client_that_hangs_up_in_the_middle_of_an_upload(page, caplog):
    path = f"{page.url}api/sessions/{post(page.url + 'api/sessions')['session']}"
    with caplog.at_level(logging.WARNING):
        for kind in ("table", "steps", "repeat", "vision", "position"):
            connect(f"{path}/{kind}", "POST PATH HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5000\r\n\r\na,b\n").close()
        time.sleep(0.5)
        post(f"{path}/steps", {"name": "open_example", "options": {"name": "planets"}})
    assert caplog.text == ""
