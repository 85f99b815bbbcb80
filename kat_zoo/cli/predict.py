"""`kat-zoo predict`: classify image files with any registered or hub model."""

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from timm.data import create_transform, resolve_data_config
from timm.data.imagenet_info import ImageNetInfo
from torch import nn

from .. import models as zoo_models  # noqa: F401  (registers the models)
from .._arguments import ArgumentParser
from ..hub.samples import load_samples
from ..images import open_image, require_images
from ..models._pretrained import fetch_config, load_checkpoint, require_model

HUB = "hf-hub:"


def class_names(model: nn.Module) -> list[str]:
    """Names of a model's classes: its own `label_names`, ImageNet's, Fashion-MNIST's, or plain numbers."""
    config = getattr(model, "pretrained_cfg", {})
    if names := config.get("label_names"):
        return list(names)
    count = int(model.num_classes)  # type: ignore[arg-type]
    if str(config.get("tag", "")).startswith("fmnist"):
        return list(load_samples().classes)
    if count == 1000:
        info = ImageNetInfo("imagenet-1k")
        return [info.index_to_description(i) for i in range(count)]
    return [str(i) for i in range(count)]


def load_model(name: str, checkpoint: str | None) -> nn.Module:
    """Create a model with weights.

    Raises:
        ValueError: unknown name, a model without published weights and no checkpoint, or a checkpoint that is damaged or
            does not fit.
        FileNotFoundError: no such checkpoint.
        WeightsError: a model of the Hub that cannot be had.
    """
    registered = not {":", "/"} & set(name)
    if registered:
        require_model(name)
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise FileNotFoundError(f"--checkpoint {checkpoint}: no such file")
    if registered and checkpoint is None and not timm.is_model_pretrained(name):
        raise ValueError(f"--model {name!r} has no published weights; give --checkpoint FILE")
    if name.startswith(HUB):
        fetch_config(name.removeprefix(HUB))
    model = timm.create_model(name, pretrained=checkpoint is None)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    return model.eval()


@torch.inference_mode()
def main(argv: Sequence[str]) -> int:
    """Classify images and print the likeliest classes of each.

    Args:
        argv: `IMAGE... --model NAME [--checkpoint FILE] [--top K]`.

    Returns:
        Exit code 0.

    Raises:
        ValueError: unknown model, unreadable image, top < 1.
        FileNotFoundError: a file is missing.
    """
    parser = ArgumentParser(prog="kat-zoo predict", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--task", default="classification", help="detection or segmentation: see kat-zoo predict --task TASK --help")
    parser.add_argument("--model", required=True, help="timm name with optional .tag, or hf-hub:org/name")
    parser.add_argument("--checkpoint", help="weights from a file instead of the published ones")
    parser.add_argument("--top", type=int, default=3, help="classes to show (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.top < 1:
        raise ValueError(f"--top {arguments.top}: expected 1 or more")
    require_images(arguments.images)
    for path in arguments.images:
        open_image(path, 1)  # refuse a bad file before a model is fetched
    model = load_model(arguments.model, arguments.checkpoint)
    config = resolve_data_config({}, model=model)
    transform = create_transform(**config, is_training=False)
    names = class_names(model)
    for path in arguments.images:
        image = open_image(path, config["input_size"][0])
        probabilities = model(transform(image)[None]).softmax(1)[0]
        values, indices = probabilities.topk(min(arguments.top, len(names)))
        answers = ", ".join(f"{names[i]} {v:.1%}" for v, i in zip(values.tolist(), indices.tolist(), strict=True))
        print(f"{path}: {answers}")
    return 0
