"""What a run is kept from: other classes, a diverged checkpoint, another run in its folder, a full disk, an interruption."""

import errno
import itertools
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.rehearsal import rehearse
from kat_zoo.train.core import lock, processes
from kat_zoo.train.core.checkpoint import list_checkpoints, write_atomically
from kat_zoo.train.core.command import launched
from kat_zoo.train.core.log import JsonlLog, read_log
from kat_zoo.train.core.run import Run, TrainingDiverged
from kat_zoo.train.core.signals import stop_signals
from kat_zoo.train.core.workers import plain_errors
from kat_zoo.train.planning.workload import workload

from .test_classification import PLAIN, change


@pytest.fixture
def short(recipe):
    """Six updates, without anything slow."""
    return change(recipe, augment=PLAIN, ema={"decay": 0.0}, schedule={"epochs": 1, "warmup_epochs": 0})


# ---- Classes ---------------------------------------------------------------------------------------------------------


def test_a_run_is_not_continued_with_other_classes(short, tmp_path):
    root = tmp_path / "pictures"
    for split, name, i in itertools.product(("train", "val"), ("cat", "dog"), range(8)):
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((28, 28), 100 * (name == "dog") + i, np.uint8)).save(folder / f"{i}.png")
    recipe = change(short, data={"dataset": "folder", "root": str(root), "batch_size": 8})
    result = train(recipe)
    for split in ("train", "val"):
        (root / split / "cat").rename(root / split / "zebra")
    with pytest.raises(ValueError, match=r"class 0 of the data is 'dog', but .*update_00000002 was made with 'cat': expected the same"):
        train(recipe, resume="auto")
    for split in ("train", "val"):
        (root / split / "zebra").rename(root / split / "cat")
    assert train(recipe, resume="auto") == result


# ---- Divergence ------------------------------------------------------------------------------------------------------


def test_what_diverges_does_not_replace_good_checkpoints(short, monkeypatch, caplog):
    """From the fourth update on the loss is NaN; two updates are skipped before the run stops."""
    backward, calls = Run.backward, itertools.count()

    def diverge(self, losses):
        bad = next(calls) >= 3 * self.recipe.optimizer.grad_accum
        backward(self, {name: value * float("nan") if bad else value for name, value in losses.items()})

    monkeypatch.setattr(Run, "backward", diverge)
    recipe = change(short, system={"checkpoint_every": 1, "keep_checkpoints": 1, "max_skipped": 2})
    with pytest.raises(TrainingDiverged, match="last good checkpoint: .*update_00000003"):
        train(recipe)
    (kept,) = list_checkpoints(Path(recipe.output))
    assert kept.name == "update_00000003"
    assert all(weight.isfinite().all() for weight in load_file(kept / "model.safetensors").values())
    assert "update 4 is not saved, for its loss or weights are not finite; kept:" in caplog.text


def test_weights_that_are_not_finite_are_not_delivered(short, monkeypatch):
    update = Run.update

    def spoil(self):
        with torch.no_grad():
            if self.progress.update == 5:
                next(self.bare.parameters()).fill_(float("inf"))
        update(self)

    monkeypatch.setattr(Run, "update", spoil)
    recipe = change(short, system={"checkpoint_every": 1, "keep_checkpoints": 1})
    train(recipe)
    run = Path(recipe.output)
    assert [folder.name for folder in list_checkpoints(run)] == ["update_00000005"]
    assert not (run / "model.safetensors").exists() and not (run / "best.safetensors").exists()


# ---- One run a folder ------------------------------------------------------------------------------------------------


HOLD = (
    "import sys, time; from pathlib import Path; from kat_zoo.train.core.lock import hold; hold(Path(sys.argv[1])); print(); time.sleep(99)"
)


def test_two_runs_in_a_folder_are_noticed_and_a_killed_one_is_forgotten(short):
    folder = Path(short.output)
    folder.mkdir()
    other = subprocess.Popen([sys.executable, "-uc", HOLD, str(folder)], stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"\n"
    with pytest.raises(ValueError, match=f"output .*: process {other.pid} on .* trains there now"):
        train(short)
    assert not (folder / "recipe.yaml").exists()
    other.kill()
    other.communicate()
    assert train(short) is not None
    assert not (folder / lock.LOCK).exists()


def test_the_checkpoint_is_chosen_after_the_folder_is_locked(short, monkeypatch):
    """Another run saves its last checkpoint between the look of this one, while it starts, and its lock."""
    more = change(short, schedule={"epochs": 2, "warmup_epochs": 0})
    train(short)
    (checkpoint,) = list_checkpoints(Path(short.output))
    aside = shutil.move(checkpoint, Path(short.output) / "aside")
    starting = processes.Accelerator

    def start_while_the_other_ends(*args, **kwargs):
        shutil.move(aside, checkpoint)
        return starting(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(processes, "Accelerator", start_while_the_other_ends)
        for name in ("model.safetensors", "best.safetensors", "result.json", "README.md", "curves.png", "curves.csv"):
            (checkpoint.parents[1] / name).unlink()  # as if it had begun: its folder is one to go on in
        train(more, resume="auto")
    assert [record["update"] for record in read_log(Path(short.output) / "metrics.jsonl") if "top1" in record] == [6, 12]


def test_a_run_holds_its_folder_while_it_opens_the_data(short, monkeypatch):
    def compete(*_):
        subprocess.run([sys.executable, "-c", HOLD, short.output], check=True, stderr=subprocess.PIPE, timeout=60)

    monkeypatch.setattr("kat_zoo.train.classification.loop.open_splits", compete)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        train(short)
    assert f"process {os.getpid()} on".encode() in refused.value.stderr and not Path(short.output).exists()


def test_a_run_that_failed_is_continued_in_the_same_process(short, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="lost"):
        patch.setattr("kat_zoo.train.classification.loop.evaluate", lambda *_: (_ for _ in ()).throw(RuntimeError("lost")))
        train(short)
    assert train(short, resume="auto") is not None


# ---- The mean over a global batch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("accum", [1, 2, 4])
def test_the_loss_of_an_update_is_the_mean_over_all_its_items(accum):
    torch.manual_seed(0)
    logits = torch.randn(8, 3, 5, requires_grad=True)
    labels = torch.randint(3, (8, 5)).masked_fill(torch.rand(8, 5) < torch.linspace(0, 1, 8)[:, None], 255)  # the last has none
    F.cross_entropy(logits, labels, ignore_index=255).backward()
    expected, logits.grad = logits.grad, None
    accelerator = SimpleNamespace(gradient_accumulation_steps=accum, num_processes=1, reduce=lambda value, _: value)
    batches = list(zip(logits.chunk(accum), labels.chunk(accum), strict=True))
    run = SimpleNamespace(train_batches=batches, accelerator=accelerator)
    for (x, y), share in Run._with_shares(run, lambda batch: (batch[1] != 255).sum()):
        counted = (y != 255).sum().clamp(min=1)
        (share * F.cross_entropy(x, y, ignore_index=255, reduction="sum") / counted / accum).backward()
    assert torch.allclose(logits.grad, expected, atol=1e-7)


# ---- Short runs, precision, interruptions ----------------------------------------------------------------------------


def test_a_short_run_logs_losses(short):
    recipe = change(short, system={"log_every": 50})
    train(recipe)
    run = Path(recipe.output)
    assert [record["update"] for record in read_log(run / "metrics.jsonl") if "loss" in record] == [1, 2, 3, 4, 5, 6]
    assert ",loss," in (run / "curves.csv").read_text()


def test_trainings_of_different_precision_in_one_process(short, tmp_path):
    for precision in ("no", "bf16"):
        assert train(change(short, output=str(tmp_path / precision), system={"precision": precision})) is not None


def test_the_first_interruption_stops_and_saves_and_the_second_ends_at_once(short, monkeypatch, capsys, caplog):
    update = Run.update

    def interrupt(self):
        update(self)
        if self.progress.update == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "update", interrupt)
    assert train(short) is None
    assert "stopped at update 3 by a signal" in capsys.readouterr().out and "Ctrl-C again" in caplog.text
    monkeypatch.undo()
    assert train(short, resume="auto") is not None
    with pytest.raises(KeyboardInterrupt), stop_signals():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)


# ---- Files -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_and_the_file_is_named(short):
    """A limit on the size of files, which torch, safetensors and Python meet as they meet a full disk."""
    recipe = change(short, system={"checkpoint_every": 2, "keep_checkpoints": 1})
    save, limit = Run.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_on_a_full_disk(self):
        if self.progress.update == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
        return save(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match=r"update_00000004 could not be written .*update_00000002"):
        patch.setattr(Run, "save", save_on_a_full_disk)
        try:
            train(recipe)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    folders = sorted(path.name for path in (Path(recipe.output) / "checkpoints").iterdir())
    assert folders == ["update_00000002"]
    assert train(recipe, resume="auto") is not None


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("old")

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device, and the file is as it was: '.*a.json'"):
        write_atomically(tmp_path / "a.json", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "old"
    with pytest.raises(OSError, match="missing/log.jsonl"):
        JsonlLog(tmp_path / "missing" / "log.jsonl").write({"update": 1})


def test_files_have_the_permissions_of_the_users_umask(short):
    before = os.umask(0o027)
    try:
        train(short)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(short.output).rglob("*") if path.is_file()}
    assert modes and {name: mode for name, mode in modes.items() if mode != 0o640} == {}


def test_errors_under_a_launcher_are_one_line(capsys, monkeypatch):
    def fail():
        raise ValueError("data.root=x: expected\na folder")

    assert launched(fail, "kat_zoo.train.detection") == 2
    assert capsys.readouterr().err == "kat_zoo.train.detection: data.root=x: expected a folder\n"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert launched(fail, "kat_zoo.train.detection") == 2
    assert capsys.readouterr().err.startswith("kat_zoo.train.detection (process 1): data.root=x")


def test_a_killed_loader_worker_is_one_line():
    with pytest.raises(OSError, match="a loader worker was killed, perhaps for want of memory"), plain_errors():
        for _ in DataLoader(Deadly(), num_workers=1):
            pass


class Deadly(Dataset):
    """Its first item kills the process that reads it."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_size_of_own_data_is_counted_or_assumed_aloud(short, tmp_path):
    for split, name, i in itertools.product(("train", "val"), ("cat", "dog"), range(8)):
        folder = tmp_path / "pictures" / split / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28)).save(folder / f"{i}.png")
    own = change(short, data={"dataset": "folder", "root": str(tmp_path / "pictures"), "batch_size": 8})
    unknown = change(short, data={"dataset": "hub", "root": "org/pets", "batch_size": 8, "streaming": True})
    told = change(unknown, data={"num_classes": 37, "samples": 3680})
    for function in (rehearse, workload):
        with pytest.raises(ValueError, match="data.batch_size 20 is larger than the training split of 16 images"):
            function(change(own, data={"batch_size": 20}))
    assert "folder: 2 classes, input (1, 28, 28), 2 updates of 8 images" in rehearse(own) and "ImageNet" not in rehearse(own)
    assert "The size of the data (hub) is not known here: it is counted as ImageNet, 1,000 classes" in rehearse(unknown)
    assert "hub: 37 classes" in rehearse(told) and "ImageNet" not in rehearse(told)
    assert workload(own).updates_per_epoch == 2 and "ImageNet" in workload(unknown).assumed and not workload(told).assumed


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"samples": 20}}, "data.samples=20: expected none, for 'fashion_mnist' is read by index .* data.train_images"),
        ({"data": {"num_classes": 7}}, "data.num_classes=7: expected none"),
        ({"data": {"label": "fine"}}, "data.label='fine': expected none"),
        ({"data": {"dataset": "hub", "root": "org/pets", "samples": 20}}, "data.samples=20: expected none, for 'hub' is read by index"),
        ({"data": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}, "data.mean is .* the model takes 1 channel"),
        ({"model": {"kwargs": {"num_classes": 100}}}, "model.kwargs={'num_classes': 100}: expected num_classes 10, those of the data"),
        ({"system": {"processes": 5}}, "data.batch_size=16: expected a multiple of 10: 5 process"),
        ({"system": {"trackers": ("absent",)}}, "system.trackers has absent"),
    ],
)
@pytest.mark.parametrize("function", [rehearse, train])
def test_a_rehearsal_refuses_what_the_run_refuses(function, sections, message, short, monkeypatch):
    monkeypatch.setattr("kat_zoo.train.core.processes._check_world", lambda *_: None)
    monkeypatch.setattr("kat_zoo.train.core.processes.Accelerator.num_processes", sections.get("system", {}).get("processes", 1))
    with pytest.raises(ValueError, match=message):
        function(change(short, **sections))


# ---- Averages that are hardly trained --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ema", "share"), [({"decay": 0.99}, "94 %"), ({"decay": 0.2}, None), ({"warmup": True}, None), ({"decay": 0.0}, None)]
)
def test_an_average_that_is_mostly_the_initial_weights_is_announced(short, caplog, ema, share):
    train(change(short, ema={"decay": 0.99, **ema}))
    said = [record.getMessage() for record in caplog.records if "ema.decay" in record.getMessage()]
    assert [f"leaves {share} of the initial weights in the average of 6 updates" in text for text in said] == [True] * (share is not None)
