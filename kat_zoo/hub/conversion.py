"""Checkpoints of other projects as safetensors with a config.json: `kat-zoo convert`."""

from collections.abc import Sequence
from pathlib import Path

from .._arguments import ArgumentParser
from ..models._pretrained import create_model, require_model
from .repository import save_model

CHECKPOINTS = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".npz", ".safetensors")


def convert(checkpoint: str | Path, model: str, folder: str | Path, num_classes: int | None = None) -> Path:
    """Turn a checkpoint into safetensors and a config.json. Pickles are read by torch's weights-only unpickler.

    Args:
        checkpoint: upstream's .pth, FlashKAT's, timm's or DeiT's ViT, Google's .npz, or ours.
        model: architecture to load it into; an MLP's ViT becomes a KAT.
        folder: folder that gets model.safetensors and config.json; it is made if need be.
        num_classes: number of classes of the checkpoint; the rows of its classifier by default.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: unknown model, a file that is not a checkpoint, holds more than tensors, or does not fit the model.
    """
    path, folder = Path(checkpoint), Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if path.suffix not in CHECKPOINTS:
        raise ValueError(f"{path}: expected a checkpoint ending in one of {', '.join(CHECKPOINTS)}")
    require_model(model)
    made = create_model(model, checkpoint=path, num_classes=num_classes)
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
