"""A handful of the kill points of kill_points.py; `make kill-points` goes through 200."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_ends_as_one_that_was_left_alone(data_root):
    script = Path(__file__).parent / "kill_points.py"
    done = subprocess.run([sys.executable, str(script), "--points", "8", "--data", data_root], capture_output=True, text=True)
    assert done.returncode == 0 and "8 of 8 runs ended bit for bit" in done.stdout, done.stdout + done.stderr[-2000:]
