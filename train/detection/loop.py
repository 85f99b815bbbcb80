"""Training of detectors: one accelerate loop, read from top to bottom.

One process: `kat-zoo train --config RECIPE`. Several: `accelerate launch -m kat_zoo.train.detection` with the same
arguments, or torchrun.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from timm.layers import set_fused_attn

from ..core.begin import begin, check_schedule
from ..core.command import command
from ..core.images import UnreadableImages
from ..core.lock import exclusive
from ..core.processes import start
from ..core.signals import stop_signals
from ..core.trial import try_update
from ..dense.runs import build_head, check_names, dense_config
from .data import EvalScenes, TrainScenes, check_sizes, eval_loader, open_splits, train_loader, train_transform
from .evaluate import DetectionEvaluation, evaluate
from .recipe import DetectionDataConfig, DetectionRecipe, DetectorConfig

COCO = (80, 117_266)  # classes, and training images with objects, for a rehearsal without data


def build_model(config: DetectorConfig, num_classes: int, data: DetectionDataConfig) -> Any:
    """Create the detector to train.

    Args:
        config: head, backbone and its first weights.
        num_classes: number of classes without the background.
        data: sizes that the detector resizes images to in evaluation; in training it takes them as they come.

    Returns:
        A detector of torchvision, on the CPU.

    Raises:
        ValueError: unknown backbone or arguments that do not fit.
        FileNotFoundError: no such checkpoint.
    """
    return build_head(
        config,
        num_classes + 1,
        pyramid_args=config.pyramid_args,
        min_size=data.min_size[-1],
        max_size=data.max_size,
        _skip_resize=True,  # in training only; as torchvision's own recipes with jitter
    )


@exclusive
def train(recipe: DetectionRecipe, resume: str = "no") -> DetectionEvaluation | None:
    """Train a detector, leaving weights, logs and checkpoints in `recipe.output`.

    Args:
        recipe: the whole configuration.
        resume: `no`, `auto` (the newest checkpoint of the run folder, if any), or the folder of a checkpoint.

    Returns:
        The last evaluation, of the averaged weights where there are any; None when a signal stopped the run.

    Raises:
        ValueError: bad configuration, damaged annotations, or an output folder that holds another run.
        FileNotFoundError: data or checkpoint not there.
        TrainingDiverged: no finite gradient any more.
    """
    accelerator, checkpoint = start(recipe, resume)
    data, masks = recipe.data, recipe.model.head == "mask_rcnn"

    # ---- Data and model ----------------------------------------------------------------------------------------------
    train_split, test_split = open_splits(data, masks)
    set_fused_attn(recipe.system.fused_attention)
    model = build_model(recipe.model, len(train_split.classes), data)
    if recipe.system.grad_checkpointing:
        model.backbone.set_grad_checkpointing()
    mean = model.transform.image_mean
    unreadable = UnreadableImages(data.max_unreadable)
    scenes = TrainScenes(train_split, train_transform(data, recipe.augment, mean), len(mean), masks, data.skip_empty, unreadable)
    train_batches, sampler, updates_per_epoch = train_loader(scenes, data, recipe.seed, recipe.optimizer.grad_accum)
    test_batches = eval_loader(EvalScenes(test_split, len(mean)), data, accelerator.num_processes)
    check_schedule(recipe, accelerator, updates_per_epoch)
    for split in (train_split, test_split):
        check_sizes(split)

    # ---- Optimizer, schedule, average; continue or begin -------------------------------------------------------------
    name = f"{recipe.model.head} on {recipe.model.backbone}"
    summary = f"{name}: {len(train_split.classes)} classes, {len(scenes)} training and {len(test_split.images)} evaluation images"
    config = dense_config(recipe, recipe.model, train_split.classes, "detection", data.root, (mean, model.transform.image_std))
    run = begin(recipe, accelerator, checkpoint, model, train_batches, test_batches, updates_per_epoch, summary, config, "backbone")

    # ---- Training ----------------------------------------------------------------------------------------------------
    with stop_signals() as run.signals:
        while True:
            if run.stopped():
                return None

            # -- evaluate, at the end of an epoch
            if run.evaluation_due:
                values: dict[str, float] = {}
                for prefix, weights in run.weights.items():
                    result = evaluate(accelerator, weights, run.test_batches, test_split, masks)
                    values |= result.values(prefix)
                if unreadable.names:
                    values["unreadable_images"] = len(unreadable.names)
                run.evaluated(values, f"{prefix}box_ap")
            if run.finished:
                break

            # -- train for the rest of the epoch
            for images, targets in run.micro_batches(sampler):
                run.backward(run.model(images, targets))

    # ---- End ---------------------------------------------------------------------------------------------------------
    mask_ap = f", mask AP {result.mask['ap']:.1f} %" if result.mask else ""
    run.finish(
        f"box AP {result.box['ap']:.1f} %{mask_ap} on {result.images} images; weights in {run.folder}",
        asdict(result) | {"classes": train_split.classes},
    )
    return result


def rehearse(recipe: DetectionRecipe, side: int = 128) -> str:
    """Build model, transform, optimizer groups and schedule of a recipe, and make one update on noise.

    Args:
        recipe: the whole configuration; published weights are not fetched, data is not opened.
        side: side of the noise image, in pixels.

    Returns:
        A summary.

    Raises:
        ValueError: whatever would make the run fail before its first update.
    """
    classes, count = COCO
    check_names(recipe.model)
    model = build_model(recipe.model.untrained(), classes, recipe.data).train()
    mean = model.transform.image_mean
    transform = train_transform(recipe.data, recipe.augment, mean)
    updates = max(1, count // recipe.data.batch_size)
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.5, 0.1, 0.9, 0.5]]) * side
    masks = torch.zeros(2, side, side, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    target = {"boxes": boxes, "labels": torch.tensor([1, classes]), "masks": masks}
    losses = model([torch.rand(len(mean), side, side)], [target])
    lines = [
        f"{recipe.model.head} on {recipe.model.backbone}: {sum(p.numel() for p in model.parameters()):,} parameters, {classes} classes",
        f"{recipe.schedule.epochs * updates:,} updates of {recipe.data.batch_size} images, were the data COCO 2017",
        *try_update(model, recipe, updates, losses, f"{side} x {side}", transform),
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """`kat-zoo train --task detection`; see `command.command`."""
    return command(argv, DetectionRecipe, train, rehearse)
