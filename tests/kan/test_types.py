"""What editors and type checkers see of KANs: mypy reads a program that uses them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from typing import assert_type

import numpy as np
import torch

from kat_zoo.kan import KAN, KANClassifier, KANRegressor
from kat_zoo.kan.operations.fit_run import History

X, x = np.zeros((3, 2)), torch.zeros(3, 2)
assert_type(KAN([2, 1]), KAN)
assert_type(KAN([2, 1])(x), torch.Tensor)
assert_type(KAN([2, 1]).fit(X, X, optimizer="lbfgs", steps=3), History)
assert_type(KAN([2, 1]).prune(X), KAN)
assert_type(KAN.load("file"), KAN)
assert_type(KANRegressor().fit(X, X), KANRegressor)
assert_type(KANRegressor().fit(X, X).pairs_, list[tuple[str, str]])
assert_type(KANRegressor().fit(X, X).network_, KAN)
print(KANRegressor(symbolic=True).fit(X, X).formula_)
assert_type(KANClassifier().fit(X, X).predict_proba(X), np.ndarray)

KAN([2, 1]).fit(X, X, optimizer="lbfg")  # type: ignore[arg-type]
KAN([2, 1], extrapolate="lin")  # type: ignore[arg-type]
KAN([2, 1], grid_size="3")  # type: ignore[arg-type]
KAN([2, 1]).fit(X, X, steps="3")  # type: ignore[arg-type]
KAN([2, 1])(X)  # type: ignore[arg-type]
KANRegressor(loss="hubert")  # type: ignore[arg-type]
"""


@pytest.mark.slow
def test_types_of_networks_and_estimators(tmp_path):
    """Types are as said, and wrong words are errors: an ignore that nothing needs is one, too."""
    (tmp_path / "program.py").write_text(PROGRAM)
    options = ["--ignore-missing-imports", "--follow-imports", "silent", "--warn-unused-ignores", "--cache-dir", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "mypy", *options, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
