"""The processes that train or evaluate together: as many as were asked for, in one precision, and stopped together."""

import gc
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    broadcast_object_list,
    compare_versions,
    set_seed,
)
from torch import nn

from .checkpoint import find_resume
from .config import RunRecipe
from .lock import hold
from .optim import first_step
from .resume import check_resume
from .workers import plain_errors
from .zero import check_zero

logger = logging.getLogger("kat_zoo")

# While the main process fits a linear probe, or counts COCO's figures, the others wait for it; NCCL's own 10 minutes are too few for that.
PATIENCE = timedelta(hours=12)


def start(recipe: RunRecipe, resume: str) -> tuple[Accelerator, Path | None]:
    """Set up this process, seed it and lock the run folder; to be called first, so that bad arguments cost nothing.

    The loop around it is `lock.exclusive`, which unlocks the folder.

    Args:
        recipe: recipe of any task.
        resume: `no`, `auto` (the newest checkpoint of the run folder, if any), or the folder of a checkpoint.

    Returns:
        (accelerator, checkpoint to continue from or None).

    Raises:
        ValueError: the output folder holds another run, or another process trains there; the checkpoint is not one of this recipe, the
            processes or the precision are not to be had as asked for, the processes cannot share the batch, or the optimizer does not
            take its arguments.
        FileNotFoundError: the checkpoint is not there.
        OSError: the folder cannot be made or written to.
    """
    find_resume(Path(recipe.output), resume)  # what is refused is so before the processes meet
    check_trackers(recipe.system.trackers)
    zero, on_cpu = _asked_for("DEEPSPEED"), not torch.accelerator.is_available()
    _check_precision(recipe.system.precision, "system.precision")
    if zero and "LOCAL_RANK" not in os.environ:
        raise ValueError("accelerate's configuration asks for DeepSpeed; start with accelerate launch or torchrun, see docs/launch.md")
    AcceleratorState._reset_state(reset_partial_state=False)  # it keeps the precision of the first training of a process
    group: dict[str, Any] = {"timeout": PATIENCE} | ({"backend": "gloo"} if on_cpu and zero else {})
    accelerator = Accelerator(
        cpu=on_cpu and not zero,  # without it, several CPU processes would not find each other; with it, DeepSpeed is ignored
        kwargs_handlers=[InitProcessGroupKwargs(**group)],
        mixed_precision="no" if zero else recipe.system.precision,  # DeepSpeed's would turn the weights themselves into bfloat16
        # An update ends by the count of micro-batches alone: the loader may be ahead of them.
        gradient_accumulation_plugin=GradientAccumulationPlugin(recipe.optimizer.grad_accum, sync_with_dataloader=False),
        dataloader_config=_global_batches(),
        rng_types=[],  # the sampler is the same in all processes without any exchange
        log_with=list(recipe.system.trackers) or None,
        project_dir=recipe.output,
    )
    _check_world(accelerator, recipe.system.processes, recipe.system.compile)
    check_shares(recipe, accelerator.num_processes)
    if recipe.trains:
        first_step(recipe.optimizer, device=accelerator.device)
    checkpoint = _claim(Path(recipe.output), resume, accelerator)
    if checkpoint is not None:
        check_resume(recipe, checkpoint)
    if zero:
        if compare_versions("deepspeed", "<", "0.19.8"):
            raise ValueError("DeepSpeed is older than 0.19.8, which leaves out updates whose gradient is not finite; install a newer one")
        check_zero(recipe, accelerator.deepspeed_plugin.deepspeed_config)
    set_seed(recipe.seed)  # equal initial weights everywhere
    return accelerator, checkpoint


def _claim(folder: Path, resume: str, accelerator: Accelerator) -> Path | None:
    """Make the run folder, lock it, and only then choose the checkpoint: until then another process may save there; every process calls it.

    Returns:
        The checkpoint, the same in all processes, or None to start anew.
    """
    found: list[tuple[Path | None, Exception | None]] = [(None, None)]
    if accelerator.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            hold(folder)
            found = [(find_resume(folder, resume), None)]
        except (OSError, ValueError) as error:  # the other processes must hear of it
            found = [(None, error)]
    ((checkpoint, refusal),) = broadcast_object_list(found)
    if refusal is not None:
        raise refusal
    return checkpoint


def _asked_for(library: str) -> bool:
    """Whether `accelerate launch` was told to use FSDP or DEEPSPEED."""
    return os.environ.get(f"ACCELERATE_USE_{library}", "false").lower() == "true"


def _check_precision(precision: str, key: str) -> None:
    """Refuse float16 on CPUs, where accelerate would compute in float32 in silence; warn of bfloat16 where it is emulated."""
    if torch.accelerator.is_available():
        return
    if precision == "fp16":
        raise ValueError(f"{key} is fp16, but there is no GPU: expected no or bf16 on CPUs")
    if precision == "bf16" and not _computes_bf16() and os.environ.get("RANK", "0") == "0":
        logger.warning(
            "%s is bf16, but this CPU has no bfloat16 instructions: it is several times slower than float32 here, which is --%s no",
            key, key,
        )  # fmt: skip


def _computes_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16, as torch sees it."""
    if not hasattr(torch.cpu, "get_capabilities"):  # torch 2.8
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def _check_world(accelerator: Accelerator, processes: int | None, compiled: bool) -> None:
    """Refuse to train in another world than the one asked for: accelerate falls back in silence."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise ValueError(
            f"{launched} processes were launched, but accelerate runs {accelerator.num_processes}; "
            "on CPUs launch with: torchrun --standalone --nproc_per_node N"
        )
    if processes not in (None, launched):
        raise ValueError(
            f"system.processes is {processes}, but the launcher started {launched} (accelerate launch --cpu starts one, whatever "
            "--num_processes says); see docs/launch.md"
        )
    sharded = accelerator.distributed_type == DistributedType.FSDP
    if _asked_for("FSDP") and not sharded:
        raise ValueError(
            f"accelerate's configuration asks for FSDP, but accelerate runs {accelerator.distributed_type.value}: "
            "it shards on two or more GPUs only"
        )
    if sharded and not accelerator.is_fsdp2:
        raise ValueError("accelerate's configuration has fsdp_version 1: expected 2, as in train/configs/accelerate/fsdp2.yaml")
    if sharded and compiled:
        raise ValueError("system.compile is true under FSDP2: expected false, and dynamo_config in accelerate's configuration")


def check_trackers(trackers: Sequence[str]) -> None:
    """Refuse trackers that are not installed: accelerate would go on without them.

    Args:
        trackers: names of trackers, as accelerate knows them.

    Raises:
        ValueError: naming them.
    """
    available = [str(name) for name in get_available_trackers()]
    if missing := set(trackers) - set(available):
        raise ValueError(f"system.trackers has {', '.join(sorted(missing))}; installed are: {', '.join(available) or 'none'}")


def check_shares(recipe: RunRecipe, processes: int) -> None:
    """Refuse a batch of which the processes cannot all have an equal part in each pass.

    Args:
        recipe: recipe of any task.
        processes: number of processes.

    Raises:
        ValueError: it is not a multiple of what they take together.
    """
    accum, together = 1 if recipe.auto_batch_size else recipe.optimizer.grad_accum, recipe.images_together
    if recipe.trains and recipe.batch_size % (accum * processes * together):
        parts = [f"{processes} process(es)", *([f"optimizer.grad_accum {accum}"] if accum > 1 else [])]
        parts += [f"{together}, for mixup and cutmix pair images"] if together > 1 else []
        raise ValueError(
            f"data.batch_size={recipe.batch_size}: expected a multiple of {accum * processes * together}: {' times '.join(parts)}"
        )


def share_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Give all processes the first one's batch norm statistics, which each updates from its own images."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def signaled(accelerator: Accelerator, signals: list[int]) -> bool:
    """Whether any process has received a stop signal; every process calls it, and all get the same answer.

    The hosts ask each other: through the devices the answer would be waited for after every update.
    """
    if accelerator.num_processes == 1:
        return bool(signals)
    received = torch.tensor(len(signals))
    torch.distributed.all_reduce(received, group=_hosts(torch.distributed.group.WORLD))
    return bool(received)


def leave() -> None:
    """End the group of the processes, after a command that went well: one that is alive at the exit of a process may abort it."""
    _hosts.cache_clear()
    gc.collect()  # what a run leaves holds the group, in circles that may otherwise live until the exit
    PartialState().destroy_process_group()


@cache
def _hosts(world: Any) -> Any:
    """A group of all processes of `world` that exchanges tensors on CPUs."""
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


@contextmanager
def evaluation(precision: str) -> Iterator[Accelerator]:
    """The accelerator of `kat-zoo validate`, and its end: processes that leave a living group behind may abort as they exit.

    Args:
        precision: `no`, `bf16` or `fp16` autocast.

    Raises:
        ValueError: fp16 without a GPU.
    """
    _check_precision(precision, "precision")
    AcceleratorState._reset_state(reset_partial_state=False)
    with plain_errors():
        yield Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=precision, dataloader_config=_global_batches())
    leave()  # after an error it is left alone: the launcher then stops the other processes


def _global_batches() -> DataLoaderConfiguration:
    """A loader's batch is the global one, so that a run does not depend on the number of processes; its way to a GPU is not waited for."""
    return DataLoaderConfiguration(split_batches=True, non_blocking=True)
