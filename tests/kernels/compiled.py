"""Runs code in a process in which Triton compiles (this session interprets), with no GPU in sight."""

import json
import os
import subprocess
import sys

PREAMBLE = """
import json, torch
from kat_zoo.kernels import aot, rational_triton
def report(**values): print(json.dumps(values))
"""


def run_compiling(code: str) -> dict:
    """Run `code` after the preamble; return what it passed to `report(...)`."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run([sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
