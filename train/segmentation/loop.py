"""Training of segmentation models: one accelerate loop, read from top to bottom.

One process: `kat-zoo train --config RECIPE`. Several: `accelerate launch -m kat_zoo.train.segmentation` with the same
arguments, or torchrun. Batch norm needs two images or more per process and micro-batch.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from timm.layers import set_fused_attn
from torch import nn

from ..core.begin import begin, check_schedule
from ..core.command import command
from ..core.images import UnreadableImages
from ..core.lock import exclusive
from ..core.processes import start
from ..core.signals import stop_signals
from ..core.trial import try_update
from ..dense.runs import build_head, check_names, dense_config
from .ade20k import IGNORE, check, check_counts, open_folders
from .data import EvalPixels, TrainPixels, eval_loader, train_loader, train_transform
from .evaluate import SegmentationEvaluation, evaluate
from .recipe import SegmentationRecipe, SegmenterConfig

if TYPE_CHECKING:
    from kat_zoo.dense.segmentation import SegmentationModel

ADE20K = (150, 20_210)  # classes and training images, for a rehearsal without data


def build_model(config: SegmenterConfig, num_classes: int) -> "SegmentationModel":
    """Create the model to train.

    Args:
        config: head, backbone and its first weights.
        num_classes: number of classes of the head.

    Returns:
        The model, on the CPU.

    Raises:
        ValueError: unknown backbone or arguments that do not fit.
        FileNotFoundError: no such checkpoint.
    """
    neck = "pyramid_args" if config.head == "upernet" else "features_args"
    return build_head(config, num_classes, ignore_index=IGNORE, **{neck: config.neck_args})


@exclusive
def train(recipe: SegmentationRecipe, resume: str = "no") -> SegmentationEvaluation | None:
    """Train a segmentation model, leaving weights, logs and checkpoints in `recipe.output`.

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
    data, system = recipe.data, recipe.system
    synchronized = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    check_batch(recipe, 1 if synchronized else accelerator.num_processes)

    # ---- Data and model ----------------------------------------------------------------------------------------------
    splits = open_folders(data)
    classes = len(splits.classes)
    set_fused_attn(system.fused_attention)
    model: Any = build_model(recipe.model, classes)
    if system.grad_checkpointing:
        model.encoder.set_grad_checkpointing()
    if synchronized:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    mean = model.image_mean.flatten().tolist()
    transform = train_transform(data, recipe.augment, mean)
    unreadable = UnreadableImages(data.max_unreadable)
    train_pixels = TrainPixels(splits.train, transform, data.reduce_zero_label, len(mean), unreadable)
    train_batches, sampler, updates_per_epoch = train_loader(train_pixels, data, recipe.seed, recipe.optimizer.grad_accum)
    test_batches = eval_loader(EvalPixels(splits.test, data, len(mean)), data, accelerator.num_processes)
    check_schedule(recipe, accelerator, updates_per_epoch)
    if data.check:  # each process looks at its share
        for split, pairs in (("training", splits.train), ("validation", splits.test)):
            share = pairs[accelerator.process_index :: accelerator.num_processes]
            counts = check(share, classes, data.reduce_zero_label, data.max_unreadable if split == "training" else 0)
            total = accelerator.reduce(torch.from_numpy(counts).to(accelerator.device), "sum")
            if accelerator.is_main_process:
                check_counts(total.cpu().numpy(), splits.classes, split)

    # ---- Loss, optimizer, schedule, average; continue or begin -------------------------------------------------------
    name = f"{recipe.model.head} on {recipe.model.backbone}"
    summary = f"{name}: {classes} classes, {len(splits.train)} training and {len(splits.test)} evaluation images"
    statistics = mean, model.image_std.flatten().tolist()
    config = dense_config(recipe, recipe.model, splits.classes, "segmentation", recipe.data.root, statistics)
    run = begin(recipe, accelerator, checkpoint, model, train_batches, test_batches, updates_per_epoch, summary, config)
    memory_format = torch.channels_last if system.channels_last else torch.contiguous_format

    # ---- Training ----------------------------------------------------------------------------------------------------
    with stop_signals() as run.signals:
        while True:
            if run.stopped():
                return None

            # -- evaluate, at the end of an epoch
            if run.evaluation_due:
                values: dict[str, float] = {}
                for prefix, weights in run.weights.items():
                    result = evaluate(accelerator, weights, run.test_batches, classes, data)
                    values |= result.values(prefix)
                if unreadable.names:
                    values["unreadable_images"] = len(unreadable.names)
                run.evaluated(values, f"{prefix}miou")
            if run.finished:
                break

            # -- train for the rest of the epoch
            for images, labels in run.micro_batches(sampler, count=lambda batch: (batch[1] != IGNORE).sum()):
                run.backward(run.model(images.contiguous(memory_format=memory_format), labels))

    # ---- End ---------------------------------------------------------------------------------------------------------
    run.finish(
        f"mIoU {result.miou:.2f} %, pixel accuracy {result.aacc:.2f} % on {result.samples} images; weights in {run.folder}",
        asdict(result) | {"classes": splits.classes},
    )
    return result


def check_batch(recipe: SegmentationRecipe, processes: int) -> None:
    """Refuse micro-batches of one image, of which batch norm has no variance.

    Args:
        recipe: the whole configuration.
        processes: number of processes, each of which normalizes its own images.

    Raises:
        ValueError: such micro-batches.
    """
    images = recipe.data.batch_size // (recipe.optimizer.grad_accum * processes)
    if images < 2:
        raise ValueError(
            f"data.batch_size={recipe.data.batch_size} with optimizer.grad_accum={recipe.optimizer.grad_accum} and {processes} process(es) "
            f"gives batch norm {images} image(s) at a time: expected 2 or more, a data.batch_size of at least "
            f"{2 * recipe.optimizer.grad_accum * processes}"
        )


def rehearse(recipe: SegmentationRecipe) -> str:
    """Build model, transform, optimizer groups and schedule of a recipe, and make one update on noise, of 8 patches a side at most.

    Args:
        recipe: the whole configuration; published weights are not fetched, data is not opened.

    Returns:
        A summary.

    Raises:
        ValueError: whatever would make the run fail before its first update.
    """
    data = recipe.data
    check_batch(recipe, 1)  # several processes are taken for those of GPUs, which normalize their images together
    classes, images = data.num_classes or ADE20K[0], ADE20K[1]
    check_names(recipe.model)
    model = build_model(recipe.model.untrained(), classes).train()
    mean = model.image_mean.flatten().tolist()
    transform = train_transform(data, recipe.augment, mean)
    updates = data.updates_per_epoch or max(1, images // data.batch_size)
    side = min(data.crop, 8 * model.encoder.patch_size)
    losses = model(torch.rand(2, len(mean), side, side), torch.randint(classes, (2, side, side)))
    lines = [
        f"{recipe.model.head} on {recipe.model.backbone}: {sum(p.numel() for p in model.parameters()):,} parameters, {classes} classes",
        f"{recipe.schedule.epochs * updates:,} updates of {data.batch_size} images, were the data ADE20K",
        *try_update(model, recipe, updates, losses, f"{side} x {side}", transform),
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """`kat-zoo train --task segmentation`; see `command.command`."""
    return command(argv, SegmentationRecipe, train, rehearse)
