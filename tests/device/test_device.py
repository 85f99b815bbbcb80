"""The package on a device that refuses tensors of two devices, as GPUs do (standin.cpp)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("scenarios.py")
NAMES = [line.removeprefix("def ").partition("(")[0] for line in SCRIPT.read_text().split("@scenario\n")[1:]]


@pytest.fixture(scope="module")
def errors():
    """The error of every scenario; in a process of its own, for a device cannot be unregistered."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_on_a_device(errors, name):
    assert not errors[name], errors[name]
