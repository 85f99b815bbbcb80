"""`kat-zoo predict --task detection`: the objects that a trained detector finds, told and drawn."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from kat_zoo._text import printable
from kat_zoo.images import find_images, told

from ..dense.pictures import as_rgb, colors, require_bytes
from ..dense.runs import as_begun, as_trained, best_device, drawing_paths, predict_parser, read_dense_run, read_pictures
from .loop import build_model
from .recipe import DetectionRecipe

SIDE = 480  # pixels that the shorter side of a drawing has at least, so that labels can be read


@dataclasses.dataclass(frozen=True)
class Detector:
    """A trained detector.

    Attributes:
        recipe: recipe of its run.
        model: model with the run's last weights (the averaged ones where there are any), in evaluation mode.
        classes: names; label k is `classes[k - 1]`.
    """

    recipe: DetectionRecipe
    model: Any
    classes: tuple[str, ...]

    @torch.inference_mode()
    def predict(self, image: Tensor, min_score: float = 0.0) -> dict[str, Tensor]:
        """Objects in a picture (C, H, W) uint8, the surest first: boxes (N, 4), labels, scores, perhaps masks (N, H, W) bool.

        Raises:
            ValueError: another picture.
        """
        require_bytes(image)
        device = next(self.model.parameters()).device
        found = self.model([image.to(device).float() / 255])[0]
        kept = (found["scores"] >= min_score) & (found["labels"] > 0)  # one-stage detectors may give label 0, the background
        found = {name: value[kept].cpu() for name, value in found.items()}
        if "masks" in found:
            found["masks"] = found["masks"][:, 0] > 0.5
        return found

    @property
    def channels(self) -> int:
        """Of the images: 1 or 3."""
        return len(self.model.transform.image_mean)


def open_run(folder: Path) -> Detector:
    """Read the folder of a finished detection run.

    Args:
        folder: folder of a run.

    Raises:
        FileNotFoundError: not a finished run.
        ValueError: a run of another task.
    """
    run = read_dense_run(folder, "detection")
    recipe = run.recipe(DetectionRecipe)
    model = build_model(as_begun(recipe.model, run.config), len(run.classes), recipe.data)
    run.fill(model)
    as_trained(model, recipe.system)
    return Detector(recipe, model.eval(), run.classes)


def draw(image: Tensor, found: dict[str, Tensor], classes: Sequence[str]) -> Tensor:
    """Draw boxes, masks, labels and scores on a picture.

    Args:
        image: (1 or 3, H, W) uint8.
        found: boxes, labels and perhaps masks and scores, in the image's own pixels.
        classes: names; label k is `classes[k - 1]`.

    Returns:
        (3, H, W) uint8; small pictures are enlarged by an integer.
    """
    zoom = max(1, -(-SIDE // min(image.shape[-2:])))
    picture = as_rgb(image).repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    if not len(found["boxes"]):
        return picture
    palette = colors(len(classes))
    labels = found["labels"].tolist()
    chosen: Any = [palette[label - 1] for label in labels]
    if "masks" in found:
        masks = found["masks"].bool().repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
        for mask, color in reversed(list(zip(masks, chosen, strict=True))):  # one by one: torchvision blackens where masks overlap
            picture = draw_segmentation_masks(picture, mask, alpha=0.4, colors=[color])
    scores = [f" {score:.0%}" for score in found["scores"].tolist()] if "scores" in found else [""] * len(labels)
    names = [f"{classes[label - 1]}{score}" for label, score in zip(labels, scores, strict=True)]
    return draw_bounding_boxes(
        picture,
        zoom * found["boxes"],
        names,
        colors=chosen,
        width=2,
        font=str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")),  # Pillow's own cannot be enlarged
        font_size=14,
        label_colors="white",
        fill_labels=True,
    )


def main(argv: Sequence[str]) -> int:
    """Find objects: `IMAGE... --task detection --model RUN [--min-score S] [--out DIR]`.

    Args:
        argv: arguments.

    Returns:
        Exit code: 1 where some images could not be read.

    Raises:
        FileNotFoundError: a file is missing, or not a run folder.
        ValueError: a score out of range.
    """
    parser = predict_parser("detection", __doc__)
    parser.add_argument("--min-score", type=float, default=0.5, help="least score of what is drawn (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.min_score <= 1:
        raise ValueError(f"--min-score {arguments.min_score}: expected a number from 0 to 1")
    paths = find_images(arguments.images)
    detector = open_run(arguments.model)
    detector.model.to(best_device())
    drawings = dict(zip(paths, drawing_paths(paths, arguments.out or Path(), "detection"), strict=True))
    failed: list[Path] = []
    for path, image in read_pictures(paths, detector.channels, failed):
        found = detector.predict(image, arguments.min_score)
        print(f"{printable(path)}: {len(found['boxes'])} objects with a score of {arguments.min_score:g} or more")
        for box, label, score in zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True):
            print(f"  {detector.classes[label - 1]} {score:.1%}, x {box[0]:.0f} to {box[2]:.0f}, y {box[1]:.0f} to {box[3]:.0f}")
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            v2.functional.to_pil_image(draw(image, found, detector.classes)).save(drawings[path])
            print(f"  {drawings[path]}")
    return told(failed, len(paths))
