"""Pictures of what the segmentation runs of `dense_proof.py` and `nuclei.py` find."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torchvision.transforms import v2

from kat_zoo.images import open_image
from kat_zoo.train.dense.pictures import colors, overlay_regions
from kat_zoo.train.segmentation.ade20k import read_annotation
from kat_zoo.train.segmentation.predict import open_run


def draw_regions(work: Path, names: Sequence[str], path: Path, count: int = 6) -> Path:
    """Paint the first evaluation pictures: the truth, and what the first seed of each backbone finds.

    Args:
        work: with `scenes` and the run folders segmentation_NAME_0; those that are not finished are left out.
        names: of the backbones.
        path: of the PNG.
        count: number of pictures.

    Returns:
        `path`.
    """
    runs = {name: open_run(work / f"segmentation_{name}_0") for name in names if (work / f"segmentation_{name}_0/result.json").exists()}
    classes, channels = next(iter(runs.values())).classes, next(iter(runs.values())).channels
    palette = colors(len(classes))
    figure = Figure(figsize=(1.6 * count + 1.3, 1.7 * (len(runs) + 1)), dpi=100, layout="constrained")
    grid = figure.subplots(len(runs) + 1, count)
    for column, file in enumerate(sorted((work / "scenes/images/validation").iterdir())[:count]):
        image = v2.functional.pil_to_tensor(open_image(file, channels))
        truth = torch.from_numpy(read_annotation(work / "scenes/annotations/validation" / file.name, reduce_zero_label=False))
        for row, (name, labels) in enumerate({"truth": truth, **{n: run.predict(image) for n, run in runs.items()}}.items()):
            painted, _ = overlay_regions(image, torch.where(labels == 0, len(classes), labels), len(classes))
            axes = grid[row, column]
            axes.imshow(painted.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set(xticks=[], yticks=[], ylabel=name if not column else "")
    patches = [Patch(color=(r / 255, g / 255, b / 255), label=n) for n, (r, g, b) in list(zip(classes, palette, strict=True))[1:]]
    figure.legend(handles=patches, loc="outside right center", fontsize=8, frameon=False)
    figure.savefig(path)
    return path
