"""`kat-zoo predict` of classifiers: the likeliest classes of image files."""

import argparse

import torch
from timm.data import create_transform, resolve_data_config

from .. import models as zoo_models  # noqa: F401  (registers the models)
from .._checks import count
from ..hub.source import open_model
from ..images import open_image, require_images


@torch.inference_mode()
def run(options: argparse.Namespace) -> int:
    """Print the likeliest classes of each image.

    Args:
        options: parsed arguments of `kat-zoo predict`.

    Returns:
        Exit code 0.
    """
    count("--top", options.top)
    require_images(options.images)
    for path in options.images:
        open_image(path, 1)  # refuse a bad file before a model is fetched
    source = open_model(options.model, options.checkpoint)
    config = resolve_data_config({}, model=source.model)
    transform = create_transform(**config, is_training=False)
    for path in options.images:
        image = open_image(path, config["input_size"][0])
        probabilities = source.model(transform(image)[None]).softmax(1)[0]
        values, indices = probabilities.topk(min(options.top, len(source.classes)))
        answers = ", ".join(f"{source.classes[i]} {v:.1%}" for v, i in zip(values.tolist(), indices.tolist(), strict=True))
        print(f"{path}: {answers}")
    return 0
