"""DeepSpeed's ZeRO 1 and 2 through accelerate: which recipes it can train, and its configuration.

DeepSpeed takes the optimizer's step within backward. It clips the gradient and leaves out an update whose gradient norm is not finite
by itself, in every process; `Run.update` finds the norm infinite then, and counts the update as skipped.
"""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32
from torch import nn

from .config import RunRecipe

# ZeRO hands the optimizer one long vector per group, so it must treat each number by itself; LAMB and Muon look at whole matrices.
ELEMENTWISE = ("adam", "adamw", "lion", "momentum", "nadamw", "sgd", "sgdw")

FROM_THE_RECIPE = {
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "fp16": "system.precision",
    "bf16": "system.precision",
    "torch_autocast": "system.precision",
    "activation_checkpointing": "system.grad_checkpointing",
}


def check_zero(recipe: RunRecipe, config: dict[str, Any]) -> None:
    """Refuse, before anything is read, what cannot be trained under DeepSpeed.

    Args:
        recipe: recipe of any task.
        config: DeepSpeed's configuration, as accelerate read it.

    Raises:
        ValueError: naming the setting, its value, and what would be right.
    """
    zero, optimizer, system = config["zero_optimization"], recipe.optimizer, recipe.system
    if zero["stage"] not in (1, 2):
        raise ValueError(
            f"DeepSpeed's zero_stage={zero['stage']}: expected 1 or 2: 0 is DDP (one_node.yaml), 3 leaves no weights to average in the "
            "model; use train/configs/accelerate/fsdp2.yaml"
        )
    for key in ("offload_optimizer", "offload_param"):
        if (device := zero.get(key, {}).get("device", "none")) != "none":
            raise ValueError(f"DeepSpeed's {key}_device={device}: expected none: its own optimizer would take the place of timm's")
    for key, ours in FROM_THE_RECIPE.items():
        if key in config and config[key] != {"enabled": False}:
            raise ValueError(f"DeepSpeed's configuration has {key}: expected none: a recipe says it, as {ours}")
    for key, name, value in (
        ("gradient_clipping", "optimizer.clip_grad", optimizer.clip_grad),
        ("gradient_accumulation_steps", "optimizer.grad_accum", optimizer.grad_accum),
    ):
        if config.get(key, "auto") not in ("auto", value):
            raise ValueError(f"DeepSpeed's {key} is {config[key]}, but {name} is {value}; leave it out of DeepSpeed's configuration")
    if optimizer.name.lower() not in ELEMENTWISE or optimizer.kwargs.get("caution"):
        raise ValueError(
            f"optimizer.name={optimizer.name}, kwargs={optimizer.kwargs}, under DeepSpeed, which cuts the weights into vectors: "
            f"expected one of {', '.join(ELEMENTWISE)}, without caution"
        )
    if system.precision == "fp16":
        raise ValueError("system.precision is fp16 under DeepSpeed: expected no or bf16")
    if system.compile:
        raise ValueError("system.compile is true under DeepSpeed: expected false")


def configure_zero(recipe: RunRecipe, accelerator: Accelerator, models: list[nn.Module]) -> None:
    """Complete DeepSpeed's configuration from the recipe; to be called right before `accelerator.prepare`.

    Args:
        recipe: recipe of any task, passed by `check_zero`.
        accelerator: accelerator of this process.
        models: models to train and to average into; made to run in the recipe's precision, as accelerate does without DeepSpeed.
    """
    accum = recipe.optimizer.grad_accum
    accelerator.deepspeed_plugin.deepspeed_config.update(
        train_micro_batch_size_per_gpu=recipe.batch_size // accum // accelerator.num_processes,
        gradient_accumulation_steps=accum,
        gradient_clipping=recipe.optimizer.clip_grad or 0.0,
    )
    if recipe.system.precision == "bf16":
        for model in models:
            autocast = torch.autocast(accelerator.device.type, torch.bfloat16)
            model.forward = convert_outputs_to_fp32(autocast(model.forward))
