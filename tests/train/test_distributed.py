"""Two gloo processes, started once; their runs are compared with one process and with each other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from kat_zoo.train.checkpoint import list_checkpoints
from kat_zoo.train.classification import train
from kat_zoo.train.config import to_yaml

from .test_classification import PLAIN, change, same_run


def test_two_processes(recipe, tmp_path):
    model = {"kwargs": recipe.model.kwargs | {"drop_path_rate": 0.0, "patch_drop_rate": 0.0}}
    plain = change(recipe, augment=PLAIN, model=model, optimizer={"name": "sgd", "lr": 0.05}, output=str(tmp_path / "plain1"))
    random = change(recipe, system={"checkpoint_every": 1, "keep_checkpoints": 100}, data={"workers": 1})
    (tmp_path / "plain.yaml").write_text(to_yaml(plain))
    (tmp_path / "random.yaml").write_text(to_yaml(random))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python", sys.executable]
    done = subprocess.run(
        [sys.executable, *command, str(Path(__file__).parent / "two_processes.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]

    # The same global batches: two processes train what one process trains, and count each test image once.
    result = train(plain)
    runs = tmp_path / "plain1", tmp_path / "plain2"
    one, two = (load_file(list_checkpoints(run)[-1] / "model.safetensors") for run in runs)
    assert max((one[key] - two[key]).abs().max().item() for key in one) <= 1e-6
    shared = json.loads((runs[1] / "result.json").read_text())
    assert shared["samples"] == 50 and shared["top1"] == result.top1

    # Everything random switched on: two processes, cut in epoch 1 and continued, end where they would have ended.
    same_run(tmp_path / "whole2", tmp_path / "cut2")
    states = [list_checkpoints(tmp_path / run)[-1] / "random_states_1.pkl" for run in ("whole2", "cut2")]
    assert torch.equal(*(torch.load(path, weights_only=False)["torch_manual_seed"] for path in states))
