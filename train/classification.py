"""Training of image classifiers: one accelerate loop, read from top to bottom.

One process: `kat-zoo train --config RECIPE`. Several: `accelerate launch -m kat_zoo.train.classification` with the same
arguments, or torchrun.
"""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from timm.layers import set_fused_attn
from timm.loss import create_classification_loss
from timm.task import ClassificationTask

from . import loader as loaders
from .checkpoint import stop_signals
from .classification_config import Recipe
from .data import open_dataset
from .evaluate import Evaluation, evaluate
from .model import build_model
from .rehearsal import rehearse
from .run import begin, command, start


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
    accelerator, checkpoint = start(recipe, resume)

    # ---- Data and model ----------------------------------------------------------------------------------------------
    splits = open_dataset(recipe.data.dataset, recipe.data.root, recipe.data.holdout, recipe.seed, recipe.data.train_images)
    set_fused_attn(recipe.system.fused_attention)
    model = build_model(recipe.model, len(splits.classes))
    if recipe.system.grad_checkpointing:
        model.set_grad_checkpointing()  # type: ignore[operator]  # every timm model has it
    resolved = loaders.data_config(recipe.data, model)
    train_batches, sampler, updates_per_epoch = loaders.train_loader(
        splits.train, recipe.data, recipe.augment, resolved, recipe.seed, recipe.optimizer.grad_accum
    )
    test_batches = loaders.eval_loader(splits.test, recipe.data, resolved, accelerator.num_processes)

    # ---- Loss, optimizer, schedule, average; continue or begin -------------------------------------------------------
    summary = f"{recipe.model.name}: {len(splits.train)} training and {len(splits.test)} evaluation images"
    run = begin(recipe, accelerator, checkpoint, model, train_batches, test_batches, updates_per_epoch, summary)
    mixup = loaders.mixup(recipe.augment, len(splits.classes))
    criterion = create_classification_loss(recipe.loss, smoothing=recipe.augment.smoothing, soft_targets=mixup is not None)
    task = ClassificationTask(run.model, criterion, device=accelerator.device, verbose=False)
    memory_format = torch.channels_last if recipe.system.channels_last else torch.contiguous_format

    # ---- Training ----------------------------------------------------------------------------------------------------
    with stop_signals() as run.signals:
        while True:
            # -- evaluate, at the end of an epoch
            if run.evaluation_due:
                if run.stopped():
                    return None
                raw = result = evaluate(accelerator, run.bare, run.test_batches)
                values = {"top1": raw.top1, "top5": raw.top5, "eval_loss": raw.loss}
                if run.ema is not None:
                    result = evaluate(accelerator, run.ema.module, run.test_batches)
                    values |= {"ema_top1": result.top1, "ema_top5": result.top5, "ema_eval_loss": result.loss}
                run.evaluated(values, "top1" if run.ema is None else "ema_top1")
            if run.finished:
                break

            # -- train for the rest of the epoch
            run.model.train()
            epoch, done = divmod(run.progress.update, updates_per_epoch)
            sampler.seek(epoch, done * recipe.data.batch_size)
            for images, targets in run.train_batches:
                with accelerator.accumulate(run.model):
                    if mixup is not None:
                        images, targets = mixup(images, targets)
                    loss = task(images.contiguous(memory_format=memory_format), targets)["loss"]
                    run.backward({"loss": loss})
                if accelerator.sync_gradients:
                    run.update()
                    if run.stopped():
                        return None

    # ---- End ---------------------------------------------------------------------------------------------------------
    run.finish(
        f"top-1 {result.top1:.2f} %, loss {result.loss:.4f} on {result.samples} images; weights in {run.folder}",
        asdict(result) | {"classes": splits.classes},
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """`kat-zoo train`: train a classifier from a recipe; see `run.command`."""
    return command(argv, Recipe, train, rehearse)


if __name__ == "__main__":
    raise SystemExit(main())
