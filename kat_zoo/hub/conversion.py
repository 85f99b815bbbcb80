"""Checkpoints of other projects as safetensors with a config.json: `kat-zoo convert`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm

from .._arguments import ArgumentParser
from ..models._pretrained import weights_damage
from .repository import count_classes, one_line, save_model

CHECKPOINTS = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".npz", ".safetensors")


def convert(checkpoint: str | Path, model: str, folder: str | Path, num_classes: int | None = None) -> Path:
    """Turn a checkpoint into safetensors and a config.json. Pickles are read by torch's weights-only unpickler.

    Args:
        checkpoint: upstream's .pth, FlashKAT's, timm's or DeiT's ViT, Google's .npz, or ours.
        model: architecture to load it into; an MLP's ViT becomes a KAT.
        folder: it gets model.safetensors and config.json.
        num_classes: of the checkpoint; that of its classifier by default, the model's own for .npz.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: unknown model, a file that is no checkpoint, holds more than tensors, or does not fit the model.
    """
    path, folder = Path(checkpoint), Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if path.suffix not in CHECKPOINTS:
        raise ValueError(f"{path}: expected a checkpoint ending in one of {', '.join(CHECKPOINTS)}")
    if not timm.is_model(model):
        raise ValueError(f"model {model!r} is not a timm model; kat-zoo list shows ours")
    if reason := weights_damage(path):
        raise ValueError(f"{path} cannot be loaded into {model}: it {reason}")
    try:
        if num_classes is None and path.suffix != ".npz":
            num_classes = count_classes(timm.models.load_state_dict(str(path)), model)
        arguments: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        made = timm.create_model(model, checkpoint_path=str(path), **arguments)
    except Exception as error:  # of unpicklers, zip and safetensors readers, and load_state_dict
        raise ValueError(f"{path} cannot be loaded into {model}: {one_line(error)}") from error
    save_model(made, folder)
    return folder


def convert_main(argv: Sequence[str]) -> int:
    """`kat-zoo convert`: turn a checkpoint into safetensors."""
    parser = ArgumentParser(prog="kat-zoo convert", description=convert.__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path, help="gets model.safetensors and config.json")
    parser.add_argument("--model", required=True, help="architecture")
    parser.add_argument("--num-classes", type=int, help="default: that of the checkpoint")
    options = parser.parse_args(argv)
    folder = convert(options.checkpoint, options.model, options.folder, options.num_classes)
    print(f'{folder}: timm.create_model("local-dir:{folder}", pretrained=True) loads it')
    return 0
