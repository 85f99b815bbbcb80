"""The beginning of a run: optimizer, schedule and average prepared, a checkpoint loaded, the run folder opened."""

import logging
import sys
from collections.abc import Mapping, Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, set_seed, tqdm
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from timm.utils import ModelEmaV3
from torch import nn

from kat_zoo.hub.repository import CARD, CONFIG, RECIPE, RESULT, dumps, write_code

from .checkpoint import LOG, Progress, drop_abandoned, is_of, load_checkpoint, write_atomically
from .config import RunRecipe, to_yaml
from .log import JsonlLog
from .optim import create_optimizer, create_scheduler, first_step, initial_share
from .resume import check_classes
from .run import Run
from .zero import configure_zero

logger = logging.getLogger("kat_zoo")


@runtime_checkable
class Ordered(Protocol):
    """A loader whose order depends on more than seed and epoch."""

    def order_numbers(self) -> dict[str, int]:
        """The numbers that the order depends on."""

    def compare_order(self, before: dict[str, int]) -> None:
        """Say so where they were others."""


def check_schedule(recipe: RunRecipe, accelerator: Accelerator, updates_per_epoch: int) -> None:
    """Refuse before any work what `begin` would refuse after it: a schedule whose phases have no place in so many updates.

    Args:
        recipe: recipe of any task.
        accelerator: accelerator that `start` made.
        updates_per_epoch: optimizer updates in one epoch.

    Raises:
        ValueError: they have no place.
    """
    if recipe.trains:
        create_scheduler(first_step(recipe.optimizer, device=accelerator.device), recipe.schedule, updates_per_epoch)


def _lacks_best(folder: Path, checkpoint: Path | None, progress: Progress) -> bool:
    """Whether the best value that a checkpoint knows has no best.safetensors here; what was abandoned is removed first."""
    if checkpoint is not None and is_of(checkpoint, folder):
        drop_abandoned(folder, checkpoint, progress.update)
    return progress.best is not None and not (folder / "best.safetensors").exists()


def begin(
    recipe: RunRecipe,
    accelerator: Accelerator,
    checkpoint: Path | None,
    model: nn.Module,
    train_batches: Any,
    test_batches: Any,
    updates_per_epoch: int,
    summary: str,
    config: Mapping[str, Any],
    compiled: str = "",
) -> Run:
    """Make optimizer, schedule and average, prepare them for the processes, continue from a checkpoint, open the run folder.

    Args:
        recipe: recipe of any task.
        accelerator: accelerator that `start` made.
        checkpoint: checkpoint that `start` found, or None.
        model: model on the CPU; it is moved to the device.
        train_batches: loader of global micro-batches.
        test_batches: loader of the evaluation split.
        updates_per_epoch: optimizer updates in one epoch.
        summary: model and data in a few words, for the first line of output.
        config: content of config.json.
        compiled: the part of the model that `system.compile` compiles, by its path; all of it by default.

    Returns:
        The run, its random state that of the update it stands at.

    Raises:
        FileNotFoundError: `checkpoint` is not a checkpoint.
        ValueError: it is past the end of the run, counts other epochs, or knows other classes.
    """
    folder, system = Path(recipe.output), recipe.system
    memory_format = torch.channels_last if system.channels_last else torch.contiguous_format
    model.to(accelerator.device).to(memory_format=memory_format)
    ema = ModelEmaV3(model, decay=recipe.ema.decay, use_warmup=recipe.ema.warmup) if recipe.ema.decay else None
    sharded = accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP)
    bare, optimizer = model, create_optimizer(model, recipe.optimizer, fused=accelerator.device.type == "cuda" and not sharded)
    dataset = getattr(train_batches, "dataset", None)
    images = len(dataset) if isinstance(dataset, Sized) else 0
    scheduler = create_scheduler(optimizer, recipe.schedule, updates_per_epoch)
    if system.compile:
        model.get_submodule(compiled).compile()  # in place: the names of the weights stay
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        configure_zero(recipe, accelerator, [model] if ema is None else [model, ema.module])
    model, optimizer, train_batches, test_batches = accelerator.prepare(model, optimizer, train_batches, test_batches)
    if ema is not None and accelerator.is_fsdp2:
        ema.module = fsdp2_prepare_model(accelerator, ema.module)  # sharded as the model, so that each process averages its part
    set_seed(recipe.seed, device_specific=True)  # from here on, dropout and mixup differ between processes

    check_classes(config, checkpoint)
    progress = load_checkpoint(accelerator, checkpoint, ema) if checkpoint else Progress()
    accelerator.step = 0  # a checkpoint is made after an update, whatever the number of micro-batches in it was
    counts = ((progress.images, images, "training images"), (progress.updates_per_epoch, updates_per_epoch, "updates an epoch"))
    for before, now, what in counts if recipe.trains else ():
        if before and now and before != now:
            raise ValueError(
                f"there are {now} {what}, but {checkpoint} was made with {before}: the training images must stay what they were"
            )
    progress.images, progress.updates_per_epoch, progress.processes = images, updates_per_epoch, accelerator.num_processes
    if isinstance(train_batches, Ordered):
        if progress.stream:
            train_batches.compare_order(progress.stream)
        progress.stream = train_batches.order_numbers()
    total = recipe.schedule.epochs * updates_per_epoch
    if progress.update > total:
        raise ValueError(
            f"schedule.epochs {recipe.schedule.epochs} is {total} updates, but {checkpoint} stands at update {progress.update}; give "
            f"schedule.epochs {-(-progress.update // updates_per_epoch)} or more"
        )
    scheduler.step_update(progress.update)
    lost = [accelerator.is_main_process and _lacks_best(folder, checkpoint, progress)]
    if broadcast_object_list(lost)[0]:  # in all processes, which evaluate together; the weights at hand are evaluated again
        progress.best, progress.evaluated = None, min(progress.evaluated, progress.update - 1)
    log = None
    if accelerator.is_main_process:
        write_atomically(folder / RECIPE, to_yaml(recipe).encode())
        write_atomically(folder / CONFIG, dumps(config))
        write_code(config, folder)
        if checkpoint is not None and is_of(checkpoint, folder) and progress.update < total:
            # A finished run that goes on: its figures are of other weights than those to come.
            for name in (RESULT, CARD):
                (folder / name).unlink(missing_ok=True)
        log = JsonlLog(folder / LOG, progress.update, progress.evaluated)
    accelerator.project_configuration.logging_dir = str(folder / "tensorboard")
    wandb = {"name": folder.name, "group": folder.name, "dir": str(folder), "config": asdict(recipe)}  # a continued run is a new one there
    after = 0 if checkpoint is None else progress.update + 1  # the records of the checkpoint's own update stay
    accelerator.init_trackers("kat_zoo", init_kwargs={"tensorboard": {"purge_step": after}, "wandb": wandb})
    accelerator.print(
        f"{summary}, {sum(p.numel() for p in bare.parameters()) / 1e6:.2f}M parameters, {total} updates of "
        f"{recipe.batch_size} images on {accelerator.num_processes} process(es), "
        + (f"continued from {checkpoint}" if checkpoint else f"run folder {folder}")
    )
    if accelerator.is_main_process and (left := initial_share(recipe.ema, total)) > 0.05:
        logger.warning(
            "ema.decay %g leaves %.0f %% of the initial weights in the average of %d updates, which is what the run delivers; "
            "give --ema.warmup true, or --ema.decay 0 for no average",
            recipe.ema.decay, 100 * left, total,
        )  # fmt: skip
    interval = 0.5 if sys.stderr.isatty() else 30.0  # a log file is no terminal
    bar = tqdm(total=total, initial=progress.update, desc="train", unit="update", mininterval=interval)
    losses = {name: [torch.tensor(v, device=accelerator.device) for v in values] for name, values in progress.window.items()}
    run = Run(
        recipe, accelerator, bare, model, ema, optimizer, scheduler, train_batches, test_batches, updates_per_epoch,
        progress, log, bar, losses, config,
    )  # fmt: skip
    run.restart_clock()
    return run
