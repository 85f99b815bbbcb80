"""An update asks the device for no value: the host can be several updates ahead. Reads of values are counted on the CPU."""

import itertools
import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kat_zoo.train.classification.loop import train
from kat_zoo.train.core import run as run_module
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import OptimizerConfig
from kat_zoo.train.core.log import read_log
from kat_zoo.train.core.optim import FUSED, average, create_optimizer
from kat_zoo.train.core.run import Run, TrainingDiverged

from .test_classification import PLAIN, change

READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique")


@pytest.fixture
def fused(recipe):
    """Two epochs of six updates by the fused AdamW, with everything an update can have; logs and checkpoints at each end only."""
    return change(
        recipe,
        augment=PLAIN,
        ema={"decay": 0.9},
        optimizer={"kwargs": {"fused": True}, "clip_grad": 1.0, "grad_accum": 2},
        schedule={"epochs": 2, "warmup_epochs": 0},
        system={"log_every": 6, "max_skipped": 5},
    )


class Reads(TorchDispatchMode):
    """Counts the operators after which the host must wait for the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in READS
        return func(*args, **(kwargs or {}))


def count_reads(monkeypatch, name):
    """A list, filled by the runs that follow, of the reads in each call of a method of `Run`."""
    counts, method = [], getattr(Run, name)

    def counted(self, *args):
        with Reads() as reads:
            method(self, *args)
        counts.append(reads.count)

    monkeypatch.setattr(Run, name, counted)
    return counts


def test_an_update_reads_no_value(fused, monkeypatch):
    updates, passes = count_reads(monkeypatch, "update"), count_reads(monkeypatch, "backward")
    train(fused)
    # Every fifth norm for `max_skipped`; log and checkpoint at the end of an epoch.
    assert [number for number, count in enumerate(updates, 1) if count] == [5, 6, 11, 12] and not any(passes)


def test_the_reads_are_counted(fused, monkeypatch):
    """Without the optimizer that skips by itself each norm is read at once."""
    updates = count_reads(monkeypatch, "update")
    train(change(fused, optimizer={"kwargs": {"fused": False}}))
    assert len(updates) == 12 and min(updates) > 0


def spoil(monkeypatch, *bad):
    """Let the gradients of some updates be NaN; updates count from 1."""
    backward, calls = Run.backward, itertools.count()

    def diverge(self, losses):
        update = next(calls) // self.recipe.optimizer.grad_accum + 1
        backward(self, {name: value * float("nan") if update in bad else value for name, value in losses.items()})

    monkeypatch.setattr(Run, "backward", diverge)


def outcome(folder):
    """Log and result without speeds, and the last checkpoint."""
    log = [{key: value for key, value in row.items() if key != "images_per_second"} for row in read_log(folder / "metrics.jsonl")]
    last = list_checkpoints(folder)[-1]
    progress = json.loads((last / "progress.json").read_text())
    return log, progress, load_file(last / "model.safetensors"), load_file(last / "ema.safetensors")


def test_skipped_updates_are_those_of_the_host(fused, monkeypatch, tmp_path, caplog):
    """The same optimizer under a host that reads every norm: same log, same weights, same words."""
    caplog.set_level(logging.WARNING, "kat_zoo")
    spoil(monkeypatch, 2, 3, 8)
    train(fused)
    ahead, said = outcome(Path(fused.output)), [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    caplog.clear()
    monkeypatch.setattr(run_module, "skips_by_itself", lambda optimizer: False)
    spoil(monkeypatch, 2, 3, 8)
    blocking = change(fused, output=str(tmp_path / "blocking"))
    train(blocking)
    expected = outcome(Path(blocking.output))
    assert ahead[1]["skipped"] == 3 and said == [f"update {number} skipped: the gradient norm is nan" for number in (2, 3, 8)]
    assert said == [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert ahead[1] == expected[1]
    averaged = [key for row in expected[0] for key in row if key.startswith("ema")]
    assert averaged and [{k: v for k, v in row.items() if k not in averaged} for row in ahead[0]] == [
        {k: v for k, v in row.items() if k not in averaged} for row in expected[0]
    ]
    assert all(torch.equal(value, expected[2][name]) for name, value in ahead[2].items())
    for name, value in ahead[3].items():
        torch.testing.assert_close(value, expected[3][name], rtol=1e-5, atol=1e-7)


def test_a_run_that_diverges_stops(fused, monkeypatch):
    """The fifth bad update in a row is the seventh; it is noticed before the log of update 12."""
    spoil(monkeypatch, *range(3, 99))
    with pytest.raises(TrainingDiverged, match="no finite gradient in 5 updates in a row"):
        train(change(fused, system={"checkpoint_every": 100}))


@pytest.mark.parametrize("name", FUSED)
def test_fused_optimizers_skip_by_themselves(name):
    model = nn.Linear(2, 2)
    assert create_optimizer(model, OptimizerConfig(name), fused=True)._step_supports_amp_scaling
    for config in (OptimizerConfig(name, kwargs={"foreach": True}), OptimizerConfig("lamb")):
        assert not getattr(create_optimizer(model, config, fused=True), "_step_supports_amp_scaling", False)


def test_average_is_timms_or_nothing(generator):
    model = nn.BatchNorm1d(4)
    ours, timms = ModelEmaV3(model, decay=0.7), ModelEmaV3(model, decay=0.7)
    for step in range(1, 5):
        for value in model.state_dict().values():
            value.copy_(torch.randn(value.shape, generator=generator).mul(9).to(value.dtype))
        before = {name: value.clone() for name, value in ours.module.state_dict().items() if value.is_floating_point()}
        average(ours, model, step, torch.tensor(1.0))
        assert all(torch.equal(ours.module.state_dict()[name], value) for name, value in before.items())
        average(ours, model, step, torch.tensor(0.0))
        timms.update(model, step)
        torch.testing.assert_close(ours.module.state_dict(), timms.module.state_dict())
