"""`kat-zoo validate --task detection`: evaluate a trained detector."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from accelerate.utils import tqdm

from ..core.config import parse
from ..core.processes import evaluation
from .data import EvalScenes, eval_loader
from .evaluate import evaluate
from .formats import read_split
from .predict import open_run


@dataclasses.dataclass(frozen=True)
class DetectionValidateConfig:
    """Settings of the evaluation.

    Attributes:
        run: folder of a finished detection run.
        task: name of the task.
        images: folder of images; None is the evaluation split of the run.
        annotations: file or folder of the instances in `images`, in any format of a recipe's `data.val_annotations`.
        precision: `no`, `bf16` or `fp16` autocast; None is as the run.
    """

    run: str
    task: Literal["detection"] = "detection"
    images: str | None = None
    annotations: str | None = None
    precision: Literal["no", "bf16", "fp16"] | None = None


def main(argv: Sequence[str]) -> int:
    """Evaluate the last weights of a run and print COCO's figures.

    Args:
        argv: `--task detection --run RUN [--images DIR --annotations FILE]`.

    Returns:
        Exit code.

    Raises:
        ValueError: damaged annotations, or other classes than the run's.
        FileNotFoundError: not a finished run, or no data.
    """
    config, _ = parse(DetectionValidateConfig, argv, "kat-zoo validate")
    if (config.images is None) != (config.annotations is None):
        raise ValueError(f"--images {config.images}, --annotations {config.annotations}: give both, or neither for the run's own")
    detector = open_run(Path(config.run))
    data, masks = detector.recipe.data, detector.recipe.model.head == "mask_rcnn"
    annotations = Path(config.annotations or Path(data.root) / data.val_annotations)
    images = Path(config.images or Path(data.root) / data.val_images)
    split = read_split(annotations, images, masks, classes=detector.classes)
    if split.classes != detector.classes:
        raise ValueError(f"{annotations} has the classes {', '.join(split.classes)}; the run has {', '.join(detector.classes)}")
    with evaluation(config.precision or detector.recipe.system.precision) as accelerator:
        loader = accelerator.prepare(eval_loader(EvalScenes(split, detector.channels), data, accelerator.num_processes))
        batches = tqdm(loader, desc="validate", unit="batch")
        result = evaluate(accelerator, detector.model.to(accelerator.device), batches, split, masks)
        kinds = {"box": (result.box, result.box_per_class)}
        if result.mask is not None and result.mask_per_class is not None:
            kinds["mask"] = (result.mask, result.mask_per_class)
        for kind, (figures, _) in kinds.items():
            accelerator.print(
                f"{kind}: " + ", ".join(f"{name} {value:.2f} %" for name, value in figures.items()) + f", {result.images} images"
            )
        width = max(map(len, split.classes))
        for i, name in enumerate(split.classes):
            shares = "  ".join(f"{kind} AP {per_class[i]:6.2f} %" for kind, (_, per_class) in kinds.items())
            accelerator.print(f"  {name:<{width}}  {shares}")
    return 0
