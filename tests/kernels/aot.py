"""Compiles kernels, which the test session interprets, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPORT = Path(__file__).parents[2] / "benchmarks/kernels.json"


def checked_in(operator):
    """Rows of the checked-in report of an operator's kernels."""
    return [row for row in json.loads(REPORT.read_text()) if row["kernel"].startswith(operator)]


def probe(part):
    """What `aot_probe.py PART` prints."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    script = Path(__file__).with_name("aot_probe.py")
    done = subprocess.run([sys.executable, script, part], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
