"""`kat-zoo predict --task segmentation`: paint the regions that a trained model finds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kat_zoo._text import printable
from kat_zoo.images import find_images, told

from ..dense.pictures import as_rgb, colors, overlay_regions, require_bytes, save_picture
from ..dense.runs import as_begun, as_trained, best_device, drawing_paths, predict_parser, read_dense_run, read_pictures
from .data import resize_for_evaluation, to_size
from .evaluate import predict_logits
from .loop import build_model
from .recipe import SegmentationRecipe


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A trained segmentation model.

    Attributes:
        recipe: recipe of its run.
        model: model with the run's last weights (the averaged ones where there are any), in evaluation mode.
        classes: names, by index.
    """

    recipe: SegmentationRecipe
    model: nn.Module
    classes: tuple[str, ...]

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Tensor:
        """Classes (H, W) of a picture (C, H, W) uint8, by the sliding window of the recipe.

        Raises:
            ValueError: another picture.
        """
        require_bytes(image)
        device = next(self.model.parameters()).device
        resized = resize_for_evaluation(image.to(device), self.recipe.data)
        logits = predict_logits(self.model, resized[None], self.recipe.data)
        return to_size(logits, image.shape[-2:])[0].argmax(0).cpu()

    @property
    def channels(self) -> int:
        """Of the images: 1 or 3."""
        return len(self.model.image_mean)  # type: ignore[arg-type]


def open_run(folder: Path) -> Segmenter:
    """Read the folder of a finished segmentation run.

    Args:
        folder: folder of a run.

    Raises:
        FileNotFoundError: not a finished run.
        ValueError: a run of another task.
    """
    run = read_dense_run(folder, "segmentation")
    recipe = run.recipe(SegmentationRecipe)
    model = build_model(as_begun(recipe.model, run.config), len(run.classes))
    run.fill(model)
    as_trained(model, recipe.system)
    return Segmenter(recipe, model.eval(), run.classes)


def main(argv: Sequence[str]) -> int:
    """Paint regions: `IMAGE... --task segmentation --model RUN [--out DIR]`.

    Args:
        argv: arguments.

    Returns:
        Exit code: 1 where some images could not be read.

    Raises:
        FileNotFoundError: a file is missing, or not a run folder.
    """
    arguments = predict_parser("segmentation", __doc__).parse_args(argv)
    paths = find_images(arguments.images)
    segmenter = open_run(arguments.model)
    segmenter.model.to(best_device())
    palette = colors(len(segmenter.classes))
    drawings = dict(zip(paths, drawing_paths(paths, arguments.out or Path(), "segmentation"), strict=True))
    failed: list[Path] = []
    for path, image in read_pictures(paths, segmenter.channels, failed):
        labels = segmenter.predict(image)
        if segmenter.classes[0] == "background":
            labels = torch.where(labels == 0, len(palette), labels)  # stays unpainted
        painted, present = overlay_regions(image, labels, len(palette))
        shares = ", ".join(f"{segmenter.classes[i]} {(labels == i).float().mean():.1%}" for i in present)
        print(f"{printable(path)}: {shares or 'background only'}")
        if arguments.out is not None:
            legend = [(segmenter.classes[i], palette[i]) for i in present]
            panels = [(path.name, as_rgb(image)), ("prediction", painted)]
            print(f"  {save_picture(panels, legend, drawings[path])}")
    return told(failed, len(paths))
