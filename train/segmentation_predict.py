"""`kat-zoo predict --task segmentation`: paint the regions that a trained model finds."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms import v2

from kat_zoo.arguments import ArgumentParser
from kat_zoo.predict import open_image

from .config import parse
from .pictures import as_rgb, colours, overlay_regions, save_picture
from .segmentation import build_model
from .segmentation_config import SegmentationRecipe
from .segmentation_data import resize_for_evaluation, to_size
from .segmentation_evaluate import predict_logits


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A trained segmentation model.

    Attributes:
        recipe: of its run.
        model: with the run's last weights (the averaged ones where there are any), in evaluation mode.
        classes: names, by index.
    """

    recipe: SegmentationRecipe
    model: nn.Module
    classes: tuple[str, ...]

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Tensor:
        """Classes (H, W) of a picture (C, H, W) uint8, by the sliding window of the recipe."""
        resized = resize_for_evaluation(image, self.recipe.data)
        logits = predict_logits(self.model, resized[None], self.recipe.data)
        return to_size(logits, image.shape[-2:])[0].argmax(0)

    @property
    def channels(self) -> int:
        """Of the images: 1 or 3."""
        return len(self.model.image_mean)  # type: ignore[arg-type]


def open_run(folder: Path) -> Segmenter:
    """Read the folder of a finished segmentation run.

    Args:
        folder: with recipe.yaml, result.json and last.safetensors.

    Raises:
        FileNotFoundError: not a finished run.
        ValueError: a run of another task.
    """
    for name in ("recipe.yaml", "result.json", "last.safetensors"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name}: no such file; expected the folder of a finished segmentation run of kat-zoo train")
    recipe, _ = parse(SegmentationRecipe, ["--config", str(folder / "recipe.yaml")], "kat-zoo predict")
    classes = tuple(json.loads((folder / "result.json").read_text())["classes"])
    model = build_model(dataclasses.replace(recipe.model, pretrained=False, checkpoint=None), len(classes))
    model.load_state_dict(load_file(folder / "last.safetensors"))
    return Segmenter(recipe, model.eval(), classes)


def main(argv: Sequence[str]) -> int:
    """Paint regions: `IMAGE... --task segmentation --model RUN [--out DIR]`.

    Args:
        argv: arguments.

    Returns:
        Exit code.

    Raises:
        FileNotFoundError: a file is missing, or not a run folder.
        ValueError: an unreadable image.
    """
    parser = ArgumentParser(prog="kat-zoo predict --task segmentation", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--task", choices=["segmentation"])
    parser.add_argument("--model", required=True, type=Path, metavar="RUN", help="folder of a finished segmentation run of kat-zoo train")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the drawings; without it there are none")
    arguments = parser.parse_args(argv)
    missing = [str(path) for path in arguments.images if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"no such image: {', '.join(missing)}")
    segmenter = open_run(arguments.model)
    pictures = [v2.functional.pil_to_tensor(open_image(path, segmenter.channels)) for path in arguments.images]
    palette = colours(len(segmenter.classes))
    for path, image in zip(arguments.images, pictures, strict=True):
        labels = segmenter.predict(image)
        if segmenter.classes[0] == "background":
            labels = torch.where(labels == 0, len(palette), labels)  # stays unpainted
        painted, present = overlay_regions(image, labels, len(palette))
        shares = ", ".join(f"{segmenter.classes[i]} {(labels == i).float().mean():.1%}" for i in present)
        print(f"{path}: {shares or 'background only'}")
        if arguments.out is not None:
            legend = [(segmenter.classes[i], palette[i]) for i in present]
            panels = [(path.name, as_rgb(image)), ("prediction", painted)]
            print(f"  {save_picture(panels, legend, arguments.out / f'{path.stem}_segmentation.png')}")
    return 0
