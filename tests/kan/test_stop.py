"""A search ends in time, and an interrupt ends it with a fitted estimator."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from kat_zoo.kan import KAN, KANRegressor
from kat_zoo.kan.search.problem import OutOfTime, Problem
from kat_zoo.kan.sklearn.stop import STOPPED, Stop

SCRIPT = """
import signal
import sys
import time
import numpy as np
from kat_zoo.kan import KANRegressor

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored

generator = np.random.default_rng(0)
X = generator.uniform(0.5, 3, (600, 3))
y = np.floor(2.5 * X[:, 0]) * np.cos(9 * X[:, 2]) + X[:, 1] + 0.1 * generator.normal(size=600)
kind = sys.argv[1]
options = {"networks": {"widths": [[3, 4, 4, 1]]}, "outputs": {"n_jobs": 2}}.get(kind, {})
targets = np.column_stack([y, y**2]) if kind == "outputs" else y
model = KANRegressor(symbolic=True, **options)
print("ready", flush=True)
model.fit(X, targets)
print("fitted", np.isfinite(model.predict(X)).all(), len(model.table_) > 0, model.summary_, flush=True)
"""


SLOW = pytest.mark.slow  # each begins with an import of several seconds
MOMENTS = [
    pytest.param("closed", 0.05, marks=SLOW),
    ("closed", 1.5),
    pytest.param("networks", 0.05, marks=SLOW),
    ("networks", 2.0),
    pytest.param("outputs", 4.0, marks=SLOW),
]


@pytest.mark.parametrize("kind, seconds", MOMENTS)
def test_ctrl_c_returns_a_fitted_estimator(kind, seconds):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, kind], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and out.startswith("fitted True True") and "The search was cut short." in out, out


@pytest.mark.parametrize("options", [{}, {"widths": [[3, 5, 1], [3, 5, 5, 1]]}])
@pytest.mark.parametrize("rows, seconds", [(300, 0.2), (20000, 1.0)])
def test_the_time_limit_holds(rows, seconds, options):
    generator = np.random.default_rng(0)
    X = generator.uniform(0.5, 3, (rows, 3))
    y = X[:, 0] * X[:, 2] + np.sin(5 * X.prod(1)) + 0.1 * generator.normal(size=rows)
    began = time.process_time()  # of a busy machine, the clock on the wall would tell more than the search
    model = KANRegressor(symbolic=True, max_seconds=seconds, **options).fit(X, y)
    assert time.process_time() - began < seconds + 2
    assert model.summary_.endswith("The search was cut short.") and np.isfinite(model.predict(X)).all()


def test_levenberg_marquardt_looks_at_the_clock_before_each_step():
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
    looks: list[int] = []
    problem = Problem(x, torch.sin(9 * x), x, torch.sin(9 * x), deadline=3.5, now=lambda: looks.append(1) or len(looks))
    with pytest.raises(OutOfTime):
        problem.train(KAN([1, 3, 1], dtype=torch.float64), 50)
    assert len(looks) == 4


def test_the_interrupt_of_the_caller_is_back_after_a_fit():
    before = signal.getsignal(signal.SIGINT)
    X = np.random.default_rng(0).uniform(1, 2, (30, 1))
    KANRegressor(symbolic=True).fit(X, X[:, 0])
    assert signal.getsignal(signal.SIGINT) is before


def test_parts_of_a_stopped_clock_are_over(tmp_path):
    stop = Stop()
    clock = stop.clock(None)
    part = clock.part(0.5)
    assert not clock.over and not part.over
    stop.stop()
    assert clock.over and part.over and part.part(0.3).over and clock.part(0.5).over and stop.now() == STOPPED
    here, there = Stop(str(tmp_path / "stop")), Stop(str(tmp_path / "stop"))
    here.stop()
    assert there.clock(None).over
