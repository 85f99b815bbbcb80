"""Loader workers: an error in one ends the command, in one line; stop signals do not end them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from kat_zoo.train.core.workers import outliving_stop_signals, plain_errors


def write_folder(root, damaged):
    """Two classes of twelve images; one file of the split `damaged` is no image."""
    for split in ("train", "val"):
        for i in range(24):
            path = root / split / str(i % 2) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (28, 28), 10 * i).save(path)
    path = root / damaged / "1" / "13.png"
    path.write_bytes(b"not an image")
    return str(path)


def test_an_error_in_a_worker_ends_the_command_in_one_line(tmp_path):
    """Of training and evaluation images, in training, in the probe of lp_ft, and in validate."""
    bad = {split: write_folder(tmp_path / split, split) for split in ("train", "val")}
    kwargs = {"depth": 1, "embed_dim": 24}
    torch.manual_seed(0)
    weights = tmp_path / "start.safetensors"
    save_file(timm.create_model("kat_pico_patch4_28", num_classes=2, **kwargs).state_dict(), weights)

    def command(name, split, *options):
        model = ["--model.name=kat_pico_patch4_28", f"--model.kwargs={json.dumps(kwargs)}", f"--data.root={tmp_path / split}"]
        return [name, *model, "--data.dataset=folder", "--data.batch_size=8", "--data.workers=1", *options]

    def train(output, split, *options):
        quick = ("--schedule.epochs=1", "--schedule.warmup_epochs=0", "--system.trackers=[]")
        return command("train", split, f"--output={tmp_path / output}", *quick, *options)

    start = f"--model.checkpoint={weights}"
    commands = [
        train("a", "train"),
        train("b", "val"),
        train("c", "train", "--mode=lp_ft", start),
        command("validate", "val", "--model.pretrained=false", start),
    ]
    script = [sys.executable, str(Path(__file__).parent / "failing_commands.py"), json.dumps(commands)]
    done = subprocess.run(script, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500)
    codes = [line for line in done.stdout.splitlines() if line in ("0", "1", "2", "None")]
    assert codes == ["2"] * 3 and done.returncode == 2, done.stderr[-3000:]
    lines = [line.split("kat-zoo ", 1)[1] for line in done.stderr.splitlines() if "kat-zoo train: " in line or "kat-zoo validate: " in line]
    unreadable = f"1 unreadable images, more than data.max_unreadable 0: {bad['train']}"
    left_out = f"{bad['val']} cannot be read, and evaluation leaves no image out: "
    assert [lines[0], lines[2]] == [f"train: {unreadable}"] * 2
    assert lines[1].startswith(f"train: {left_out}") and lines[3].startswith(f"validate: {left_out}") and len(lines) == 4
    assert "Traceback" not in done.stderr


def test_workers_outlive_stop_signals():
    loader = DataLoader(range(4), num_workers=1, worker_init_fn=outliving_stop_signals(), persistent_workers=True)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    for number in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(worker.pid, number)
    assert len(list(batches)) == 3 and worker.is_alive()


@pytest.mark.parametrize("kind", [OSError, ValueError])
def test_errors_of_this_process_stay_as_they_are(kind):
    with pytest.raises(kind, match="^no data$"), plain_errors():
        raise kind("no data")
