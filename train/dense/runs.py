"""What detectors and segmentation models share: the backbone's first weights, finished runs, and the pictures of `predict`."""

import argparse
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from timm.models import load_pretrained, load_state_dict
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torchvision.transforms import v2

from kat_zoo import dense
from kat_zoo._arguments import ArgumentParser
from kat_zoo.dense.backbone import create_backbone
from kat_zoo.images import open_image
from kat_zoo.models._pretrained import weights_damage

from ..core.config import RunRecipe, parse
from .recipe import DenseModelConfig


def build_head(config: DenseModelConfig, num_classes: int, **arguments: Any) -> Any:
    """Create a model of `kat_zoo.dense`, its backbone with the weights that the recipe names.

    Args:
        config: head, backbone and its first weights.
        num_classes: as the head counts them.
        **arguments: of the head, which the recipe's own `kwargs` override.

    Raises:
        ValueError: unknown backbone, arguments that do not fit, or a checkpoint without the backbone's weights.
        FileNotFoundError: no such checkpoint.
    """
    backbone: str | VisionTransformer = config.backbone
    first = {"pretrained_backbone": config.pretrained, "backbone_args": dict(config.backbone_args)}
    loaded = None
    if config.checkpoint is not None:
        backbone = create_backbone(config.backbone, False, config.backbone_args)
        loaded, first = _load_backbone(backbone, config.checkpoint), {}
    model = getattr(dense, config.head)(backbone, num_classes, **{**first, **arguments, **config.kwargs})
    if loaded is not None:  # now, for heads have removed what they do not use, as the last norm
        missing = [name for name, _ in model.get_submodule(model.backbone_path).named_parameters() if name not in loaded]
        if missing:
            raise ValueError(
                f"model.checkpoint {config.checkpoint} has no {', '.join(missing[:3])} ({len(missing)} of the backbone's weights are not "
                f"there); expected those of a {config.backbone}, or of a run with such a backbone"
            )
    return model


def _load_backbone(vit: VisionTransformer, checkpoint: str) -> set[str]:
    """Give a backbone the weights of a classifier or of a model of ours that has such a backbone; returns the names that were there."""
    path, loaded = Path(checkpoint), set[str]()
    if not path.is_file():
        raise FileNotFoundError(f"model.checkpoint {path}: no such file")
    if damage := weights_damage(path):
        raise ValueError(f"model.checkpoint {path} {damage}")
    convert = inspect.getmodule(type(vit)).checkpoint_filter_fn  # type: ignore[union-attr]  # timm's convention

    def to_backbone(weights: dict[str, Tensor], model: VisionTransformer) -> dict[str, Tensor]:
        for prefix in ("backbone.backbone.", "encoder.backbone."):  # of detectors, of segmentation models
            inner = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            weights = inner or weights
        weights = convert(weights, model)
        loaded.update(weights)
        return weights

    try:
        source = {**vit.pretrained_cfg, "state_dict": load_state_dict(str(path))}  # type: ignore[dict-item]
        channels = vit.patch_embed.proj.in_channels
        load_pretrained(vit, source, num_classes=0, in_chans=channels, filter_fn=to_backbone, strict=False)
    except Exception as error:  # of unpicklers, converters and load_state_dict
        raise ValueError(f"model.checkpoint {path} does not fit {type(vit).__name__}: {' '.join(str(error).split())[:300]}") from error
    return loaded


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
