"""Two gloo processes, started once; their runs are compared with one process and with each other."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from kat_zoo.train.classification.loop import train
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import to_yaml

from .test_classification import PLAIN, change, figures, same_run
from .two_processes import SHARDS


def start(folder):
    """The two processes, without a launcher that would stop one when the other dies."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, str(Path(__file__).parent / "two_processes.py"), str(folder)]
    return [
        subprocess.Popen(
            command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]  # fmt: skip


def cut_copy(run, cut, update):
    shutil.copytree(run, cut)
    for checkpoint in list_checkpoints(cut)[update:]:
        shutil.rmtree(checkpoint)


def last_weights(run, name="model.safetensors"):
    return load_file(list_checkpoints(run)[-1] / name)


def distance(a, b):
    assert a.keys() == b.keys()
    return max((a[key] - b[key]).abs().max().item() for key in a)


def test_two_processes(recipe, tmp_path):
    every = {"checkpoint_every": 1, "keep_checkpoints": 100}
    model = {"kwargs": recipe.model.kwargs | {"drop_path_rate": 0.0, "patch_drop_rate": 0.0}}
    plain = change(recipe, augment=PLAIN, model=model, system=every, optimizer={"name": "sgd", "lr": 0.05})
    plain = change(plain, output=str(tmp_path / "plain1"))
    random = change(recipe, system=every, data={"workers": 1})
    (tmp_path / "plain.yaml").write_text(to_yaml(plain))
    (tmp_path / "random.yaml").write_text(to_yaml(random))
    result = train(plain)
    cut_copy(tmp_path / "plain1", tmp_path / "one_to_two", 7)
    processes = start(tmp_path)
    (out, error), (out_of_the_dead, error_of_the_dead) = (process.communicate() for process in processes)
    assert "done" in out, error[-3000:] + error_of_the_dead[-3000:]

    # The same global batches: two processes train what one process trains, and count each test image once.
    one, two = (last_weights(tmp_path / name) for name in ("plain1", "plain2"))
    assert distance(one, two) <= 1e-6
    shared = json.loads((tmp_path / "plain2" / "result.json").read_text())
    assert shared["samples"] == 50 and shared["top1"] == result.top1

    # Everything random switched on: two processes, cut in epoch 1 and continued, end where they would have ended.
    same_run(tmp_path / "whole2", tmp_path / "cut2")
    states = [list_checkpoints(tmp_path / run)[-1] / "random_states_1.pkl" for run in ("whole2", "cut2")]
    assert torch.equal(*(torch.load(path, weights_only=False)["torch_manual_seed"] for path in states))

    # Continued by another number of processes, a run sees the data it would have seen.
    cut_copy(tmp_path / "plain2", tmp_path / "two_to_one", 7)
    train(change(plain, output=str(tmp_path / "two_to_one")), resume="auto")
    for name in ("one_to_two", "two_to_one"):
        assert distance(last_weights(tmp_path / name), one) <= 1e-6
        assert [r["update"] for r in figures(tmp_path / name)] == [r["update"] for r in figures(tmp_path / "plain1")]

    # FSDP2, through accelerate: the same weights, averages and figures; continued bit by bit from sharded checkpoints.
    if SHARDS:
        for name in ("model", "best"):
            assert distance(*(load_file(tmp_path / run / f"{name}.safetensors") for run in ("plain2", "sharded2"))) <= 1e-6
        for ours, theirs in zip(figures(tmp_path / "sharded2"), figures(tmp_path / "plain2"), strict=True):
            assert ours.keys() == theirs.keys() and all(abs(ours[key] - theirs[key]) < 1e-4 for key in ours)
        assert figures(tmp_path / "sharded_cut2") == figures(tmp_path / "sharded2")
        averages = [last_weights(tmp_path / run, "ema.safetensors") for run in ("sharded2", "sharded_cut2")]
        assert distance(*averages) == 0 and distance(averages[0], last_weights(tmp_path / "plain2", "ema.safetensors")) <= 1e-6

    # A loss that is no number in one process: none of them takes the step, all count it, and go on.
    for text in (out, out_of_the_dead):
        assert [line for line in text.splitlines() if " skipped " in line][:4] == [
            f"update {update} skipped {skipped}" for update, skipped in ((1, 0), (2, 0), (3, 1), (4, 1))
        ]
    saved = list_checkpoints(tmp_path / "dead")[:3]
    assert [int(path.name.rpartition("_")[2]) for path in saved] == [1, 2, 4]  # a skipped update is not saved
    first, second, fourth = (load_file(path / "model.safetensors") for path in saved)
    assert min(distance(first, second), distance(second, fourth)) > 0 and all(value.isfinite().all() for value in fourth.values())

    # One process killed: the other stops with an error.
    assert processes[1].returncode == -signal.SIGKILL and processes[0].returncode == 1
    assert "RuntimeError" in error and len(list_checkpoints(tmp_path / "dead")) >= 2
