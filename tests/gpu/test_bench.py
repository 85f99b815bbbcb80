"""The figures of `make bench-gpu` at tiny sizes, with the timer of the device: every function is right, captured or not."""

import pytest

from kat_zoo.bench import models, run, timing
from kat_zoo.bench.task import DRY

pytestmark = pytest.mark.gpu  # tests/bench has the same on the CPU


def test_kernels(device):
    rows, left = run.measure(timing.timer(device), ["ceilings", "rational", "attention", "splines"], 600, sizes=DRY)
    assert left == 0 and [row["note"] for row in rows] == [""] * len(rows)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("family", ["ViT", "KAT + KArAt"])
def test_models(family, mode, device):
    timer = timing.timer(device)
    for task in models.tasks(DRY, device):
        if task.what == family and mode in task.case:
            assert task.run(timer).us > 0
