"""Worlds that are refused, accelerate's configuration files, and the SLURM script, as far as a machine without GPUs can tell."""

import os
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import timm
import torch

from kat_zoo.cli.main import main
from kat_zoo.train.classification.loop import train
from kat_zoo.train.core.config import RECIPES
from kat_zoo.train.core.processes import evaluation, start

from .test_classification import change

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "environment, processes, message",
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, None, "asks for FSDP, but accelerate runs NO"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, None, "asks for DeepSpeed; start with accelerate launch or torchrun"),
        ({}, 2, "system.processes is 2, but the launcher started 1"),
        ({}, 0, "system.processes=0"),
    ],
)
def test_a_world_that_was_not_asked_for_is_refused(environment, processes, message, recipe, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        train(change(recipe, system={"processes": processes}))
    assert not Path(recipe.output).exists()


@pytest.mark.parametrize(
    "processes, sections, message",
    [
        (3, {}, "data.batch_size=16: expected a multiple of 12: 3 process.es. times optimizer.grad_accum 2 times 2, for mixup"),
        (8, {}, "expected a multiple of 32"),
        (8, {"augment": {"mixup": 0.0, "cutmix": 0.0}}, None),
        (8, {"auto_batch_size": True}, None),
        (16, {"auto_batch_size": True}, "expected a multiple of 32: 16 process.es. times 2, for mixup"),
    ],
)
def test_a_batch_that_the_processes_cannot_share_is_refused_first(processes, sections, message, recipe, monkeypatch):
    monkeypatch.setattr("kat_zoo.train.core.processes._check_world", lambda *_: None)
    monkeypatch.setattr("kat_zoo.train.core.processes.Accelerator.num_processes", processes)
    recipe = change(recipe, **{"augment": {"cutmix": 0.0}} | sections)
    if message is None:
        start(recipe, "no")
        return
    with pytest.raises(ValueError, match=message):
        start(recipe, "no")
    assert not Path(recipe.output).exists()


def test_processes_wait_for_the_main_one_longer_than_nccl_would(recipe, monkeypatch):
    given = {}

    class Recorder(Exception):
        def __init__(self, **settings):
            given.update(settings)
            raise self

    monkeypatch.setattr("kat_zoo.train.core.processes.Accelerator", Recorder)
    with pytest.raises(Recorder):
        start(recipe, "no")
    (handler,) = given["kwargs_handlers"]
    assert handler.to_kwargs()["timeout"] >= timedelta(hours=6)


def launch_environment(path):
    """What `accelerate launch --config_file` would give to the processes."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    settings = load_config_from_file(str(path))  # refuses unknown keys
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
    arguments.use_fsdp, arguments.multi_gpu = settings.distributed_type == "FSDP", settings.distributed_type == "MULTI_GPU"
    arguments.num_processes, arguments.num_machines = settings.num_processes, settings.num_machines
    arguments.mixed_precision, arguments.num_cpu_threads_per_process, arguments.dynamo_backend = settings.mixed_precision, 1, "no"
    for key, value in getattr(settings, "fsdp_config", {}).items():
        assert hasattr(arguments, key), f"{path} has {key}, which accelerate launch does not know"
        setattr(arguments, key, value)
    return settings, prepare_multi_gpu_env(arguments)


def test_accelerate_reads_the_configurations():
    settings, environment = launch_environment(RECIPES / "accelerate" / "one_node.yaml")
    assert (settings.distributed_type, settings.num_processes) == ("MULTI_GPU", 8) and "ACCELERATE_USE_FSDP" not in environment
    settings, environment = launch_environment(RECIPES / "accelerate" / "fsdp2.yaml")
    assert environment["ACCELERATE_USE_FSDP"] == "true" and environment["FSDP_VERSION"] == "2"
    wrapped = environment["FSDP_TRANSFORMER_CLS_TO_WRAP"]
    for name in ("test_kat", "karat_pico_patch4_28"):
        assert sum(type(module).__name__ == wrapped for module in timm.create_model(name).modules()) >= 4


@pytest.mark.parametrize("precision, feature, warned", [("bf16", "avx2", True), ("bf16", "amx_bf16", False), ("no", "avx2", False)])
def test_bfloat16_is_warned_of_where_it_is_emulated(precision, feature, warned, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True}, raising=False)  # torch 2.8 has none
    with evaluation(precision):
        pass
    assert ("no bfloat16 instructions: it is several times slower than float32 here, which is --precision no" in caplog.text) == warned


def test_float16_is_refused_where_it_would_be_float32(recipe):
    with pytest.raises(ValueError, match="precision is fp16, but there is no GPU"):
        train(change(recipe, system={"precision": "fp16"}))
    with pytest.raises(ValueError, match="precision is fp16, but there is no GPU"), evaluation("fp16"):
        raise AssertionError("it went on")


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "recipe, options, output",
    [
        ("kat_pico_fmnist", ("--data.root", "a b"), "runs/kat_pico_fmnist"),
        ("own.yaml", (), "x y"),
        ("own.yaml", ("--output=else/where",), "else/where"),
    ],
)
def test_slurm_script_starts_each_task_and_queues_what_is_not_finished(recipe, options, output, finished, tmp_path, monkeypatch, capsys):
    """The real command tells where the run's folder is; here it does so beforehand, for starting it takes seconds."""
    (tmp_path / "own.yaml").write_text("output: x y\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "--config", recipe, *options, "--print_config"])
    (tmp_path / "config").write_text(capsys.readouterr().out)
    stubs = {
        "srun": 'shift; SLURM_PROCID=5 SLURM_LOCALID=1 exec "$@"',
        "scontrol": 'case $1 in show) printf "node7\\nnode8\\n";; *) echo "scontrol $*" >> calls;; esac',
        "kat-zoo": 'case "$*" in *--print_config) cat config;; *) echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $*" >> calls;; esac',
    }
    (tmp_path / "bin").mkdir()
    for name, body in stubs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    if finished:
        (tmp_path / output).mkdir(parents=True)
        (tmp_path / output / "result.json").touch()
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NTASKS": "16", "SLURM_JOB_ID": "42",
    }  # fmt: skip
    command = ["bash", str(ROOT / "docs" / "kat_zoo.sbatch"), recipe, *options]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == " ".join([f"5 1 16 node7 train --config {recipe} --system.processes 16 --resume auto", *options])
    assert calls[1:] == ([] if finished else ["scontrol requeue 42"])
