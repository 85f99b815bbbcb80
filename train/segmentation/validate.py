"""`kat-zoo validate --task segmentation`: evaluate a trained segmentation model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from accelerate.utils import tqdm

from ..core.config import parse
from ..core.processes import evaluation
from .ade20k import check, check_counts, open_folders
from .data import EvalPixels, eval_loader
from .evaluate import evaluate
from .predict import open_run


@dataclasses.dataclass(frozen=True)
class SegmentationValidateConfig:
    """Settings of the evaluation.

    Attributes:
        run: folder of a finished segmentation run.
        task: name of the task.
        root: folder in ADE20K's format; None is the one of the run.
        evaluate: `slide` or `whole`; None is as the run.
        precision: `no`, `bf16` or `fp16` autocast; None is as the run.
    """

    run: str
    task: Literal["segmentation"] = "segmentation"
    root: str | None = None
    evaluate: Literal["slide", "whole"] | None = None
    precision: Literal["no", "bf16", "fp16"] | None = None


def main(argv: Sequence[str]) -> int:
    """Evaluate the last weights of a run on a validation split and print the figures.

    Args:
        argv: `--task segmentation --run RUN [--root DIR]`.

    Returns:
        Exit code.

    Raises:
        ValueError: damaged data, or other classes than the run's.
        FileNotFoundError: not a finished run, or no data.
    """
    config, _ = parse(SegmentationValidateConfig, argv, "kat-zoo validate")
    segmenter = open_run(Path(config.run))
    changes = {key: getattr(config, key) for key in ("root", "evaluate") if getattr(config, key) is not None}
    data = dataclasses.replace(segmenter.recipe.data, **changes)
    splits = open_folders(data, train=False)
    if splits.classes != segmenter.classes:
        raise ValueError(f"--root {data.root} has the classes {', '.join(splits.classes)}; the run has {', '.join(segmenter.classes)}")
    check_counts(check(splits.test, len(splits.classes), data.reduce_zero_label), splits.classes, "validation")
    with evaluation(config.precision or segmenter.recipe.system.precision) as accelerator:
        loader = accelerator.prepare(eval_loader(EvalPixels(splits.test, data, segmenter.channels), data, accelerator.num_processes))
        batches = tqdm(loader, desc="validate", unit="batch")
        result = evaluate(accelerator, segmenter.model.to(accelerator.device), batches, len(splits.classes), data)
        accelerator.print(
            f"mIoU {result.miou:.2f} %, pixel accuracy {result.aacc:.2f} %, class accuracy {result.macc:.2f} %, {result.samples} images"
        )
        width = max(map(len, splits.classes))
        for name, value in zip(splits.classes, result.iou, strict=True):
            accelerator.print(f"  {name:<{width}}  IoU {value:6.2f} %")
    return 0
