"""Training of image classifiers: one accelerate loop, read from top to bottom.

One process: `kat-zoo train --config RECIPE`. Several: `accelerate launch -m kat_zoo.train.classification` with the same
arguments, or torchrun.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from timm.layers import set_fused_attn
from timm.loss import create_classification_loss

from kat_zoo.hub.repository import model_config

from ..core.begin import begin, check_schedule
from ..core.command import command
from ..core.images import UnreadableImages
from ..core.lock import exclusive
from ..core.processes import signaled, start
from ..core.signals import stop_signals
from . import loader as loaders
from .datasets import open_splits
from .distill import create_task
from .evaluate import Evaluation, evaluate
from .memory import Trial, explain_out_of_memory, fit_batch
from .model import build_model, check_sizes
from .origin import origin
from .probe import fit_head
from .recipe import Recipe
from .rehearsal import rehearse


@exclusive
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
        OutOfMemory: with a hint of what would fit.
    """
    recipe = recipe.after_probe
    accelerator, checkpoint = start(recipe, resume)
    processes = accelerator.num_processes

    # ---- Data, model, loss -------------------------------------------------------------------------------------------
    splits = open_splits(recipe.data, recipe.seed)
    set_fused_attn(recipe.system.fused_attention)
    model = build_model(recipe.model, len(splits.classes), adapt=recipe.mode != "pretrain")
    resolved = loaders.data_config(recipe.data, model)
    check_sizes(model, resolved["input_size"], recipe.data.sizes.values())
    if recipe.system.grad_checkpointing:
        model.set_grad_checkpointing()  # type: ignore[operator]  # every timm model has it
    model.to(accelerator.device)
    mixup = loaders.mixup(recipe.augment, len(splits.classes))
    criterion = create_classification_loss(recipe.loss, smoothing=recipe.augment.smoothing, soft_targets=mixup is not None)
    task = create_task(recipe, model, criterion, resolved, accelerator.device, accelerator.autocast, classes=splits.classes)

    # ---- A batch that fits, loaders, all that can be refused; then the head of a linear probe -------------------------
    trial = Trial(recipe, model, task, resolved["input_size"], len(splits.classes), mixup, accelerator)
    if recipe.auto_batch_size and recipe.trains:
        recipe = fit_batch(recipe, trial, checkpoint)
    unreadable = UnreadableImages(recipe.data.max_unreadable)
    train_batches: Any = []
    sampler, updates_per_epoch = None, 1  # of a linear probe
    if recipe.trains:
        train_batches, sampler, updates_per_epoch = loaders.train_loader(
            splits.train, recipe.data, recipe.augment, resolved, recipe.seed, recipe.optimizer.grad_accum, unreadable
        )
    test_batches = loaders.eval_loader(splits.test, recipe.data, resolved, processes)
    if recipe.probes and checkpoint is None:
        check_schedule(recipe, accelerator, updates_per_epoch)
        with stop_signals() as signals:
            if not fit_head(recipe, accelerator, model, splits.train, resolved, partial(signaled, accelerator, signals)):
                accelerator.print("stopped by a signal in the linear probe; --resume auto begins it again")
                return None

    # ---- Optimizer, schedule, average; continue or begin -------------------------------------------------------------
    summary = f"{recipe.model.name}: {len(splits.train)} training and {len(splits.test) or 'streamed'} evaluation images"
    config = model_config(model, splits.classes, resolved, origin(recipe))
    run = begin(recipe, accelerator, checkpoint, model, train_batches, test_batches, updates_per_epoch, summary, config)
    task.trainable_module = run.model
    memory_format = torch.channels_last if recipe.system.channels_last else torch.contiguous_format

    # ---- Training ----------------------------------------------------------------------------------------------------
    with stop_signals() as run.signals, explain_out_of_memory(recipe, trial):
        while True:
            if run.stopped():
                return None

            # -- evaluate, at the end of an epoch, and what the linear probe has made
            if run.evaluation_due or (recipe.probes and not run.progress.update and run.progress.best is None):
                values: dict[str, float] = {}
                for prefix, weights in run.weights.items():
                    result = evaluate(accelerator, weights, run.test_batches)
                    values |= result.values(prefix)
                if unreadable.names:
                    values["unreadable_images"] = len(unreadable.names)
                run.evaluated(values, f"{prefix}top1")
            if run.finished:
                break

            # -- train for the rest of the epoch
            for images, targets in run.micro_batches(sampler):
                if mixup is not None:
                    images, targets = mixup(images, targets)
                outputs = task(images.contiguous(memory_format=memory_format), targets)
                run.backward({name: value for name, value in outputs.items() if name.endswith("loss")})

    # ---- End ---------------------------------------------------------------------------------------------------------
    run.finish(
        f"top-1 {result.top1:.2f} %, loss {result.loss:.4f} on {result.samples} images; weights in {run.folder}",
        asdict(result) | {"classes": splits.classes},
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """`kat-zoo train`: train a classifier from a recipe; see `command.command`."""
    return command(argv, Recipe, train, rehearse)
