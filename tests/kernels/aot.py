"""Compiles kernels, which the test session interprets, in a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "benchmarks/kernels.json"
# Whether torch, and with it Triton, is that of constraints.txt, by which the checked-in report was made.
PINNED = torch.__version__.partition("+")[0] == re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


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
