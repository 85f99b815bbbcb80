"""Models of detection and segmentation: the backbone's first weights, finished runs, and the pictures of `predict`."""

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.transforms import v2

from kat_zoo import dense
from kat_zoo._arguments import ArgumentParser
from kat_zoo.dense._arguments import UnknownArgument
from kat_zoo.dense.backbone import create_backbone
from kat_zoo.hub.repository import Origin
from kat_zoo.images import open_images
from kat_zoo.models._pretrained import check_tag, load_backbone

from ..core.config import RunRecipe, SystemConfig
from ..core.models import arguments_of, check_published
from ..core.runs import RunFolder, read_run
from .recipe import DenseModelConfig

STATISTICS = ("image_mean", "image_std")  # in config.json, and as arguments of the heads


def check_names(config: DenseModelConfig) -> None:
    """Refuse a name of a backbone that `build_head` would refuse, before anything is built or fetched.

    Args:
        config: the model, of which the backbone's name alone is looked at.

    Raises:
        ValueError: an unknown tag, or weights that are not published.
    """
    check_tag(config.backbone, "model.backbone")
    if config.pretrained:
        check_published(config.backbone, "model.pretrained=True", "false")


def build_head(config: DenseModelConfig, num_classes: int, **arguments: Any) -> Any:
    """Create a model of `kat_zoo.dense`, its backbone with the weights that the recipe names.

    Args:
        config: head, backbone and its first weights.
        num_classes: number of classes, as the head counts them.
        **arguments: arguments of the head, which the recipe's own `kwargs` override.

    Raises:
        ValueError: unknown backbone, arguments that do not fit, or a checkpoint without the backbone's weights.
        FileNotFoundError: no such checkpoint.
    """
    check_names(config)
    backbone: str | VisionTransformer = config.backbone
    first = {"pretrained_backbone": config.pretrained, "backbone_args": dict(config.backbone_args)}
    loaded = None
    given = ", ".join(f"model.{key}={value}" for key, value in asdict(config).items() if isinstance(value, dict) and value)
    try:
        with arguments_of(f"{config.head} on {config.backbone}", given or f"model.head={config.head}"):
            if config.checkpoint is not None:
                backbone = create_backbone(config.backbone, False, config.backbone_args)
                loaded, first = load_backbone(backbone, config.checkpoint), {}
            model = getattr(dense, config.head)(backbone, num_classes, **{**first, **arguments, **config.kwargs})
    except UnknownArgument as error:
        of = next((key for key, value in asdict(config).items() if isinstance(value, dict) and error.argument in value), "kwargs")
        raise ValueError(f"model.{of}: {error}") from error
    if loaded is not None:  # now, for heads have removed what they do not use, as the last norm
        missing = [name for name, _ in model.get_submodule(model.backbone_path).named_parameters() if name not in loaded]
        if missing:
            raise ValueError(
                f"model.checkpoint {config.checkpoint} has no {', '.join(missing[:3])} ({len(missing)} of the backbone's weights are not "
                f"there): expected those of a {config.backbone}, or of a run with such a backbone"
            )
    return model


def dense_config(
    recipe: RunRecipe,
    model: DenseModelConfig,
    classes: Sequence[str],
    task: str,
    root: str | None,
    statistics: tuple[Sequence[float], Sequence[float]],
) -> dict[str, Any]:
    """The content of config.json for the run of a detector or a segmentation model.

    Args:
        recipe: recipe of the run.
        model: its head and backbone.
        classes: names of the classes.
        task: "detection" or "segmentation".
        root: folder of the data, whose name the data gets.
        statistics: mean and standard deviation of the images.
    """
    start = model.checkpoint or ("its published weights" if model.pretrained else "random weights")
    training = (
        f"By `kat-zoo train --config recipe.yaml`: {recipe.schedule.epochs} epochs, the backbone from {Path(start).name}, seed "
        f"{recipe.seed}. The log is metrics.jsonl, drawn in curves.png; the figures are those of the last weights, not of the best."
    )
    return {
        "architecture": model.head,
        "backbone": model.backbone,
        "num_classes": len(classes),
        "label_names": list(classes),
        **dict(zip(STATISTICS, map(list, statistics), strict=True)),
        "kat_zoo": asdict(Origin(task, Path(root or "").resolve().name, "evaluation split", training)),
    }


def as_begun(model: DenseModelConfig, config: Mapping[str, Any]) -> Any:
    """The settings of a run's model without its first weights, which may be gone, but with the statistics of its images.

    Args:
        model: model of the run's recipe.
        config: content of the run's config.json.
    """
    statistics = {name: config[name] for name in STATISTICS if name in config}
    return replace(model.untrained(), kwargs={**statistics, **model.kwargs})


def read_dense_run(folder: Path, task: str) -> RunFolder:
    """Read the folder of a run whose classes are known.

    Args:
        folder: folder of a run.
        task: "detection" or "segmentation".

    Raises:
        FileNotFoundError: not a run, one without an evaluation, or one of an older version that did not finish.
        ValueError: a run of another task.
    """
    run = read_run(folder, task)
    if not run.classes:
        raise FileNotFoundError(f"{folder} has no config.json that names the classes: expected a run that has finished")
    return run


def as_trained(model: nn.Module, system: SystemConfig) -> None:
    """Let a model's attention round as it did in its run: fused attention rounds differently.

    Args:
        model: model of a run.
        system: settings of the run.
    """
    module: Any
    for module in model.modules():
        if isinstance(getattr(module, "fused_attn", None), bool):
            module.fused_attn = system.fused_attention and module.fused_attn


def predict_parser(task: str, description: str | None) -> argparse.ArgumentParser:
    """The options that `kat-zoo predict` has for every task with drawings.

    Args:
        task: its name.
        description: text for the help.
    """
    parser = ArgumentParser(prog=f"kat-zoo predict --task {task}", description=description)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, folders of them, or quoted patterns")
    parser.add_argument("--task", choices=[task])
    parser.add_argument("--model", required=True, type=Path, metavar="RUN", help=f"folder of a finished {task} run of kat-zoo train")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the drawings; without it there are none")
    return parser


def drawing_paths(images: Sequence[Path], folder: Path, task: str) -> list[Path]:
    """The files that the drawings of some images get, none of them twice.

    Args:
        images: paths of the images.
        folder: folder of the drawings.
        task: name of the task.

    Returns:
        STEM_TASK.png, and STEM_2_TASK.png, STEM_3_TASK.png, ... for further images of the same stem.
    """
    paths: list[Path] = []
    for image in images:
        names = (f"{image.stem}{'' if number == 1 else f'_{number}'}_{task}.png" for number in itertools.count(1))
        paths.append(next(folder / name for name in names if folder / name not in paths))
    return paths


def read_pictures(paths: Sequence[Path], channels: int, failed: list[Path]) -> Iterator[tuple[Path, Tensor]]:
    """The pictures (C, H, W) uint8 in some files, one at a time; arguments as those of `open_images`, which names damaged ones."""
    yield from ((path, v2.functional.pil_to_tensor(image)) for path, image in open_images(paths, channels, failed))


def best_device() -> torch.device:
    """The GPU where torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
