"""The real launchers start the real training script on two CPU processes, and it refuses a world that was not asked for."""

import json
import os
import socket
import subprocess
import sysconfig
from pathlib import Path

import pytest

from kat_zoo.train.core.config import RECIPES, to_yaml

from .test_classification import PLAIN, change

SCRIPTS = Path(sysconfig.get_path("scripts"))
SCRIPT = ["-m", "kat_zoo.train.classification", "--config", "recipe.yaml"]


def accelerate(name):
    """The launcher of docs/launch.md, for two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    file = str(RECIPES / "accelerate" / f"{name}.yaml")
    return ["accelerate", "launch", "--config_file", file, "--num_processes", "2", "--main_process_port", port]


def start(command, folder):
    command = [str(SCRIPTS / command[0]), *command[1:]]
    return subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [lambda: accelerate("one_node"), lambda: ["torchrun", "--standalone", "--nproc_per_node", "2"]],
    ids=["accelerate", "torchrun"],
)
def test_two_processes_train_one_run(launcher, recipe, tmp_path):
    recipe = change(recipe, augment=PLAIN, schedule={"epochs": 1, "warmup_epochs": 0}, ema={"decay": 0.0}, system={"processes": 2})
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    done = start([*launcher(), *SCRIPT], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "6 updates of 16 images on 2 process(es)" in done.stdout
    assert json.loads((Path(recipe.output) / "result.json").read_text())["samples"] == 50


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher, message",
    [
        (lambda: ["accelerate", "launch", "--cpu", "--num_processes", "2"], "system.processes is 2, but the launcher started 1"),
        (lambda: accelerate("fsdp2"), "asks for FSDP, but accelerate runs MULTI_CPU"),
    ],
    ids=["accelerate --cpu", "fsdp2 without GPUs"],
)
def test_another_world_is_refused(launcher, message, recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(to_yaml(change(recipe, system={"processes": 2})))
    done = start([*launcher(), *SCRIPT], tmp_path)
    assert done.returncode != 0 and message in done.stderr and not Path(recipe.output).exists()
