"""DeepSpeed's ZeRO 1 and 2: what is refused, and two gloo processes that train what one process trains."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kat_zoo.train.classification.loop import train
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import to_yaml
from kat_zoo.train.core.zero import check_zero

from .test_classification import PLAIN, change, figures
from .test_distributed import distance
from .test_launchers import accelerate, start


def zero(stage=2, **more):
    """DeepSpeed's configuration, as accelerate reads it from deepspeed.yaml."""
    none = {"device": "none", "nvme_path": None}
    sections = {"zero_optimization": {"stage": stage, "offload_optimizer": none, "offload_param": none}, "fp16": {"enabled": False}}
    return {"gradient_accumulation_steps": "auto", "gradient_clipping": "auto", **sections, **more}


@pytest.mark.parametrize(
    "config, sections, message",
    [
        (zero(stage=3), {}, "zero_stage=3: expected 1 or 2"),
        (zero(stage=0), {}, "zero_stage=0: expected 1 or 2"),
        (zero(zero_optimization={"stage": 2, "offload_param": {"device": "cpu"}}), {}, "offload_param_device=cpu: expected none"),
        (zero(bf16={"enabled": True}), {}, "has bf16: expected none: a recipe says it, as system.precision"),
        (zero(scheduler={"type": "WarmupLR"}), {}, "has scheduler: expected none"),
        (zero(gradient_clipping=2.0), {}, "gradient_clipping is 2.0, but optimizer.clip_grad is 1.0"),
        (zero(gradient_accumulation_steps=4), {}, "gradient_accumulation_steps is 4, but optimizer.grad_accum is 2"),
        (zero(), {"optimizer": {"name": "lamb"}}, "optimizer.name=lamb"),
        (zero(), {"optimizer": {"name": "muon"}}, "optimizer.name=muon"),
        (zero(), {"optimizer": {"kwargs": {"caution": True}}}, "without caution"),
        (zero(), {"system": {"precision": "fp16"}}, "system.precision is fp16 under DeepSpeed: expected no or bf16"),
        (zero(), {"system": {"compile": True}}, "system.compile is true under DeepSpeed"),
    ],
)
def test_what_deepspeed_cannot_train_is_refused(config, sections, message, recipe):
    check_zero(recipe, zero())
    with pytest.raises(ValueError, match=message):
        check_zero(change(recipe, **sections), config)


def test_a_checkpoint_of_another_sharding_is_refused(recipe):
    recipe = change(recipe, schedule={"epochs": 1, "warmup_epochs": 0})
    train(recipe)
    folder = list_checkpoints(Path(recipe.output))[-1]
    (folder / "model.safetensors").rename(folder / "pytorch_model")
    with pytest.raises(ValueError, match="has no model.safetensors: DDP .* FSDP2 and DeepSpeed do not read each other's"):
        train(change(recipe, schedule={"epochs": 2}), resume="auto")


def weights(run, update):
    folder = list_checkpoints(run)[update - 1] / "pytorch_model"
    return torch.load(folder / "mp_rank_00_model_states.pt", weights_only=False)["module"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
def test_zero_trains_what_one_process_trains(recipe, tmp_path):
    model = {"kwargs": recipe.model.kwargs | {"drop_path_rate": 0.0, "patch_drop_rate": 0.0}}
    groups = {"name": "momentum", "lr": 0.05, "clip_grad": 0.5, "layer_decay": 0.8, "rational_lr_scale": 0.5}
    plain = change(recipe, augment=PLAIN, model=model, optimizer=groups, schedule={"epochs": 1, "warmup_epochs": 0.5})
    random = change(recipe, system={"checkpoint_every": 1, "keep_checkpoints": 100}, schedule={"epochs": 1, "warmup_epochs": 0})
    recipes = {"float32": plain, "bf16": change(plain, system={"precision": "bf16"}), "random": random}
    for name, one in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(to_yaml(one))
    train(change(plain, output=str(tmp_path / "one")))
    script = [str(Path(__file__).parent / "two_processes_zero.py"), str(tmp_path)]
    done = start([*accelerate("deepspeed"), *script], tmp_path)
    assert done.returncode == 0, done.stderr[-5000:]

    # Clipping, accumulation, layer decay, the rationals' learning rate, averages: as one process, so as DDP.
    for run, weight, figure in (("float32_zero1", 1e-6, 1e-5), ("float32_zero2", 1e-6, 1e-5), ("bf16_zero2", 1e-3, 5e-3)):
        last = load_file(tmp_path / run / "model.safetensors")
        assert distance(last, load_file(tmp_path / "one" / "model.safetensors")) <= weight
        assert all(value.dtype == torch.float32 for value in last.values())
        for ours, theirs in zip(figures(tmp_path / run), figures(tmp_path / "one"), strict=True):
            assert ours.keys() == theirs.keys() and all(abs(ours[key] - theirs[key]) <= figure for key in ours if "top" not in key)
    assert figures(tmp_path / "bf16_zero2") != figures(tmp_path / "float32_zero2")

    # Everything random switched on: continued bit by bit.
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")
    assert distance(weights(tmp_path / "cut", 6), weights(tmp_path / "whole", 6)) == 0
    assert distance(*(load_file(tmp_path / run / "model.safetensors") for run in ("cut", "whole"))) == 0

    # A loss that is no number in one process: none of them takes the step, the averages stay, and the run goes on.
    run = tmp_path / "poisoned"
    skipped = [json.loads((folder / "progress.json").read_text())["skipped"] for folder in list_checkpoints(run)]
    averages = [load_file(folder / "ema.safetensors") for folder in list_checkpoints(run)]
    assert skipped == [0, 0, 1, 1, 1, 1]
    for states in (averages, [weights(run, update) for update in range(1, 7)]):
        assert distance(states[1], states[2]) == 0 < min(distance(states[0], states[1]), distance(states[2], states[3]))
