"""An image through the shipped models: their answers, where they look, and their learned functions over what they get to see."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from .. import models as zoo_models  # noqa: F401  (registers the models)
from ..analysis.attention import AttentionLayer, capture_attention, token_maps
from ..hub.registry import shipped_models
from ..hub.samples import SHEET, load_samples
from ..images import UNREADABLE, convert, read_image
from .activations import learned_functions

MOST_PIXELS = 40_000_000
SHOWN_LAYERS = 2  # first and last layers of attention


@lru_cache(maxsize=8)
def _model(name: str) -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:
    config = resolve_data_config({}, pretrained_cfg=cast(PretrainedCfg, get_pretrained_cfg(name)).to_dict())
    transform: Any = create_transform(**config, is_training=False)
    return timm.create_model(name, pretrained=True).eval(), transform


def samples() -> tuple[dict[str, Any], bytes]:
    """Labels of the shipped images, and the sheet of them as a PNG file."""
    found = load_samples()
    return {"classes": list(found.classes), "labels": found.labels.tolist(), "size": int(found.images.shape[1])}, SHEET.read_bytes()


def sample(number: int) -> bytes:
    """A shipped image as a PNG file.

    Args:
        number: its number.

    Raises:
        ValueError: there is no such image.
    """
    found = load_samples()
    if number >= len(found.images):
        raise ValueError(f"sample={number}: expected an integer from 0 to {len(found.images) - 1}")
    out = io.BytesIO()
    found.pil(number).save(out, "PNG")
    return out.getvalue()


def compare(data: bytes) -> dict[str, Any]:
    """Answers of all shipped models to an image.

    Args:
        data: the bytes of an image file.

    Raises:
        ValueError: not an image that can be read, or one of more than 40 million pixels.
    """
    try:
        with Image.open(io.BytesIO(data)) as head:
            width, height = head.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"image of {width} x {height} pixels: expected at most {MOST_PIXELS // 1_000_000} million")
        image = convert(read_image(io.BytesIO(data)), "L")
    except UNREADABLE as error:
        raise ValueError(f"the file cannot be read as an image ({error}): expected PNG, JPEG, WebP or another that Pillow reads") from None
    return {"classes": list(load_samples().classes), "models": [_answers(name, image) for name in shipped_models()]}


def _answers(name: str, image: Image.Image) -> dict[str, Any]:
    model, transform = _model(name)
    x = transform(image)[None]
    attention = capture_attention(model, x)
    with torch.inference_mode():
        probabilities = model(x).softmax(1)[0]
    return {
        "name": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "probabilities": [round(float(p), 5) for p in probabilities],
        "input": _png(x[0, 0]),
        "attention": _maps(model, attention),
        "activations": learned_functions(model, x, attention),
    }


def _maps(model: nn.Module, attention: Mapping[str, AttentionLayer]) -> list[dict[str, Any]]:
    """Maps of attention, one for each head, of the first and the last layer."""
    layers = list(attention.items())
    chosen = [layers[0], layers[-1]] if len(layers) >= SHOWN_LAYERS else layers
    return [{"layer": name, "heads": [_png(head, color=True) for head in token_maps(model, layer)[0]]} for name, layer in chosen]


def _png(values: Tensor, color: bool = False) -> str:
    """A picture as a data URL; in the colors of attention maps, from dark violet to yellow."""
    array = values.float().numpy()
    scaled = (array - array.min()) / (np.ptp(array) or 1.0)
    if color:
        from matplotlib import colormaps

        picture = Image.fromarray((colormaps["viridis"](scaled)[..., :3] * 255).astype(np.uint8))
    else:
        picture = Image.fromarray((scaled * 255).astype(np.uint8))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
