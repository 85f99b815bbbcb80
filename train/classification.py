"""Training of image classifiers: one accelerate loop, read from top to bottom.

One process: `kat-zoo train --config RECIPE`. Several: `accelerate launch -m kat_zoo.train.classification` with the same
arguments, or torchrun.
"""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, set_seed, tqdm
from timm.layers import set_fused_attn
from timm.loss import create_classification_loss
from timm.task import ClassificationTask
from timm.utils import ModelEmaV3
from torch import nn

from . import loader as loaders
from .checkpoint import (
    Progress,
    find_resume,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    save_weights,
    stop_signals,
    write_atomically,
)
from .config import Recipe, parse, to_yaml
from .data import open_dataset
from .evaluate import Evaluation, evaluate
from .log import JsonlLog
from .model import build_model
from .optim import create_optimizer, create_scheduler
from .rehearsal import rehearse

logger = logging.getLogger("kat_zoo")


class TrainingDiverged(RuntimeError):
    """No finite gradient for `system.max_skipped` consecutive updates."""


def train(recipe: Recipe, resume: str = "no") -> Evaluation | None:
    """Train a classifier, leaving weights, logs and checkpoints in `recipe.output`.

    Args:
        recipe: the whole configuration.
        resume: `no`, `auto` (the newest checkpoint of the run folder, if any), or the folder of a checkpoint.

    Returns:
        The last evaluation, of the averaged weights where there are any; None when a signal stopped the run.

    Raises:
        ValueError: bad configuration, damaged data, or an output folder that holds another run.
        FileNotFoundError: data or checkpoint not there.
        TrainingDiverged: no finite gradient any more.
    """
    # ---- Processes ---------------------------------------------------------------------------------------------------
    run, system = Path(recipe.output), recipe.system
    checkpoint = find_resume(run, resume)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # without it, several CPU processes would not find each other
        mixed_precision=system.precision,
        gradient_accumulation_steps=recipe.optimizer.grad_accum,
        # The loader's batch is the global one, so that a run does not depend on the number of processes.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        rng_types=[],  # the sampler is the same in all processes without any exchange
        log_with=list(system.trackers) or None,
        project_dir=run,
    )
    if accelerator.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
        raise ValueError(
            f"{os.environ['WORLD_SIZE']} processes were launched, but accelerate runs {accelerator.num_processes}; "
            "on CPUs launch with: torchrun --standalone --nproc_per_node N"
        )
    set_seed(recipe.seed)  # equal initial weights everywhere

    # ---- Data and model ----------------------------------------------------------------------------------------------
    splits = open_dataset(recipe.data.dataset, recipe.data.root, recipe.data.holdout, recipe.seed, recipe.data.train_images)
    set_fused_attn(system.fused_attention)
    model = build_model(recipe.model, len(splits.classes))
    if system.grad_checkpointing:
        model.set_grad_checkpointing()  # type: ignore[operator]  # every timm model has it
    resolved = loaders.data_config(recipe.data, model)
    train_batches, sampler, updates_per_epoch = loaders.train_loader(
        splits.train, recipe.data, recipe.augment, resolved, recipe.seed, recipe.optimizer.grad_accum
    )
    test_batches = loaders.eval_loader(splits.test, recipe.data, resolved, accelerator.num_processes)
    mixup = loaders.mixup(recipe.augment, len(splits.classes))

    # ---- Loss, optimizer, schedule, average --------------------------------------------------------------------------
    memory_format = torch.channels_last if system.channels_last else torch.contiguous_format
    model.to(accelerator.device).to(memory_format=memory_format)
    ema = ModelEmaV3(model, decay=recipe.ema.decay, use_warmup=recipe.ema.warmup) if recipe.ema.decay else None
    bare, optimizer = model, create_optimizer(model, recipe.optimizer)
    scheduler = create_scheduler(optimizer, recipe.schedule, updates_per_epoch)
    if system.compile:
        model = cast(nn.Module, torch.compile(model))
    model, optimizer, train_batches, test_batches = accelerator.prepare(model, optimizer, train_batches, test_batches)
    criterion = create_classification_loss(recipe.optimizer.loss, smoothing=recipe.augment.smoothing, soft_targets=mixup is not None)
    task = ClassificationTask(model, criterion, device=accelerator.device, verbose=False)
    set_seed(recipe.seed, device_specific=True)  # from here on, dropout and mixup differ between processes

    # ---- Continue or begin -------------------------------------------------------------------------------------------
    progress = load_checkpoint(accelerator, checkpoint, ema) if checkpoint else Progress()
    scheduler.step_update(progress.update)
    total = recipe.schedule.epochs * updates_per_epoch
    log = None
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        write_atomically(run / "recipe.yaml", to_yaml(recipe).encode())
        log = JsonlLog(run / "metrics.jsonl", progress.update, progress.evaluated)
    accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": progress.update}})
    accelerator.print(
        f"{recipe.model.name}: {sum(p.numel() for p in bare.parameters()) / 1e6:.2f}M parameters, {len(splits.train)} "
        f"training and {len(splits.test)} evaluation images, {total} updates of {recipe.data.batch_size} images on "
        f"{accelerator.num_processes} process(es), " + (f"continued from {checkpoint}" if checkpoint else f"run folder {run}")
    )
    losses = [torch.tensor(loss, device=accelerator.device) for loss in progress.window]

    def record(values: dict[str, float]) -> None:
        if log is not None:
            log.write({"update": progress.update, "epoch": progress.update / updates_per_epoch, **values})
        accelerator.log(values, step=progress.update)

    def save() -> Path:
        progress.window = accelerator.reduce(torch.stack(losses), "mean").tolist() if losses else []
        return save_checkpoint(accelerator, run, progress, ema, system.keep_checkpoints)

    def finish(message: str) -> None:
        bar.close()
        accelerator.print(message)
        for tracker in accelerator.trackers:
            tracker.finish()

    # ---- Training ----------------------------------------------------------------------------------------------------
    interval = 0.5 if sys.stderr.isatty() else 30.0  # a log file is no terminal
    bar = tqdm(total=total, initial=progress.update, desc="train", unit="update", mininterval=interval)
    clip_grad = recipe.optimizer.clip_grad or math.inf
    skipped_in_a_row, since, since_update = 0, time.perf_counter(), progress.update
    with stop_signals() as signals:
        while True:
            # -- evaluate, at the end of an epoch
            epoch, done = divmod(progress.update, updates_per_epoch)
            if progress.update == total or not done and epoch and epoch % system.eval_every == 0:
                if progress.evaluated < progress.update or progress.update == total:
                    if _stopped(accelerator, signals):
                        finish(f"stopped by a signal at update {progress.update}: {save()}; continue with --resume auto")
                        return None
                    raw = result = evaluate(accelerator, bare, test_batches)
                    values = {"top1": raw.top1, "top5": raw.top5, "eval_loss": raw.loss}
                    if ema is not None:
                        result = evaluate(accelerator, ema.module, test_batches)
                        values |= {"ema_top1": result.top1, "ema_top5": result.top5, "ema_eval_loss": result.loss}
                    if progress.evaluated < progress.update:
                        record(values)
                    if accelerator.is_main_process:
                        weights = (ema.module if ema is not None else bare).state_dict()
                        for name in ("last", "best") if result.top1 > progress.best else ("last",):
                            save_weights(weights, run / f"{name}.safetensors")
                    progress.best, progress.evaluated = max(progress.best, result.top1), progress.update
                    save()
                    since, since_update = time.perf_counter(), progress.update
            if progress.update == total:
                break

            # -- train for the rest of the epoch
            model.train()
            sampler.seek(epoch, done * recipe.data.batch_size)
            for images, targets in train_batches:
                with accelerator.accumulate(model):
                    if mixup is not None:
                        images, targets = mixup(images, targets)
                    loss = task(images.contiguous(memory_format=memory_format), targets)["loss"]
                    accelerator.backward(loss)
                    losses.append(loss.detach())
                    if not accelerator.sync_gradients:
                        continue
                    # The norm of the gradient averaged over all processes: each of them sees the same NaN.
                    norm = float(accelerator.clip_grad_norm_(model.parameters(), clip_grad))
                    finite = math.isfinite(norm)
                    if finite or accelerator.scaler is not None:  # fp16's scaler skips by itself, and adapts
                        optimizer.step()
                    optimizer.zero_grad()
                progress.update += 1
                scheduler.step_update(progress.update)
                if finite and ema is not None:
                    ema.update(bare, step=progress.update)
                bar.update()

                skipped_in_a_row = 0 if finite else skipped_in_a_row + 1
                if not finite:
                    progress.skipped += 1
                    losses.clear()
                    logger.warning("update %d skipped: the gradient norm is %s", progress.update, norm)
                    if skipped_in_a_row >= system.max_skipped:
                        good = next(reversed(list_checkpoints(run)), "none")
                        raise TrainingDiverged(f"no finite gradient in {skipped_in_a_row} updates in a row; last good checkpoint: {good}")
                if progress.update % system.log_every == 0 and losses:
                    mean = float(accelerator.reduce(torch.stack(losses).mean(), "mean"))
                    speed = (progress.update - since_update) * recipe.data.batch_size / (time.perf_counter() - since)
                    rate = optimizer.param_groups[0]["lr"]
                    record({"loss": mean, "lr": rate, "grad_norm": norm, "images_per_second": speed})
                    bar.set_postfix(loss=f"{mean:.3f}", lr=f"{rate:.1e}", top1=f"{progress.best:.2f}", refresh=False)
                    losses, since, since_update = [], time.perf_counter(), progress.update
                if _stopped(accelerator, signals):
                    finish(f"stopped at update {progress.update} by a signal: {save()}; --resume auto continues")
                    return None
                if system.checkpoint_every and progress.update % system.checkpoint_every == 0:
                    save()

    # ---- End ---------------------------------------------------------------------------------------------------------
    if accelerator.is_main_process:
        write_atomically(run / "result.json", json.dumps(asdict(result) | {"classes": splits.classes}, indent=2).encode())
    finish(f"top-1 {result.top1:.2f} %, loss {result.loss:.4f} on {result.samples} images; weights in {run}")
    return result


def _stopped(accelerator: Accelerator, signals: list[int]) -> bool:
    """Whether any process has received a signal; all processes get the same answer."""
    if accelerator.num_processes == 1:
        return bool(signals)
    if signals:
        accelerator.set_trigger()
    return accelerator.check_trigger()


def main(argv: Sequence[str] | None = None) -> int:
    """`kat-zoo train`: train a classifier from a recipe.

    Args:
        argv: `--config FILE`, overrides as `--optimizer.lr 1e-3`, `--resume`, `--dry-run`; sys.argv by default.

    Returns:
        Exit code: 0, also after a signal; 1 when training diverged.
    """
    resume = {"default": "no", "help": "no, auto (newest checkpoint of the run folder), or a checkpoint's folder"}
    dry_run = {"action": "store_true", "help": "build everything, run one batch of noise, write nothing"}
    arguments = sys.argv[1:] if argv is None else argv
    recipe, flags = parse(Recipe, arguments, "kat-zoo train", resume=resume, dry_run=dry_run)
    if flags.dry_run:
        print(rehearse(recipe))
        return 0
    try:
        train(recipe, flags.resume)
    except TrainingDiverged as error:
        logger.error("%s", error)
        return 1
    PartialState().destroy_process_group()  # after an error it is left alone: the launcher then stops the other processes
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
