"""What detectors and segmentation models share: the backbone's first weights, finished runs, and the pictures of `predict`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms import v2

from kat_zoo import dense
from kat_zoo.arguments import ArgumentParser
from kat_zoo.predict import open_image

from .config import RunRecipe, parse
from .dense_config import DenseModelConfig


def build_head(config: DenseModelConfig, num_classes: int, **arguments: Any) -> Any:
    """Create a model of `kat_zoo.dense`, its backbone with the weights that the recipe names.

    Args:
        config: head, backbone and its first weights.
        num_classes: as the head counts them.
        **arguments: of the head, which the recipe's own `kwargs` override.

    Raises:
        ValueError: unknown backbone or arguments that do not fit.
        FileNotFoundError: no such checkpoint.
    """
    backbone_args = dict(config.backbone_args)
    if config.checkpoint is not None:
        with open(config.checkpoint, "rb"):  # timm would look for it on the Hub
            backbone_args["pretrained_cfg_overlay"] = {"file": config.checkpoint}
    arguments = {
        "pretrained_backbone": config.pretrained or config.checkpoint is not None,
        "backbone_args": backbone_args,
        **arguments,
        **config.kwargs,
    }
    return getattr(dense, config.head)(config.backbone, num_classes, **arguments)


def read_run(folder: Path, recipe_class: type[RunRecipe], task: str) -> tuple[Any, tuple[str, ...], dict[str, Tensor]]:
    """Read the folder of a finished run.

    Args:
        folder: with recipe.yaml, result.json and last.safetensors.
        recipe_class: of the task.
        task: its name.

    Returns:
        (recipe, names of the classes, last weights, the averaged ones where there are any).

    Raises:
        FileNotFoundError: not a finished run.
        ValueError: a run of another task.
    """
    for name in ("recipe.yaml", "result.json", "last.safetensors"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder / name}: no such file; expected the folder of a finished {task} run of kat-zoo train")
    recipe, _ = parse(recipe_class, ["--config", str(folder / "recipe.yaml")], "kat-zoo predict")
    return recipe, tuple(json.loads((folder / "result.json").read_text())["classes"]), load_file(folder / "last.safetensors")


def predict_parser(task: str, description: str | None) -> argparse.ArgumentParser:
    """The options that `kat-zoo predict` has for every task with drawings.

    Args:
        task: its name.
        description: for the help.
    """
    parser = ArgumentParser(prog=f"kat-zoo predict --task {task}", description=description)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--task", choices=[task])
    parser.add_argument("--model", required=True, type=Path, metavar="RUN", help=f"folder of a finished {task} run of kat-zoo train")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the drawings; without it there are none")
    return parser


def read_pictures(paths: Sequence[Path], channels: int) -> list[Tensor]:
    """The pictures (C, H, W) uint8 in some files.

    Args:
        paths: of the files.
        channels: 1 converts to grey, 3 to RGB.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: an unreadable image.
    """
    return [v2.functional.pil_to_tensor(open_image(path, channels)) for path in paths]
