"""Checkpoints of other projects as safetensors with a config.json: `kat-zoo convert`."""

from pathlib import Path

from ..models._pretrained import create_model, known_classes, require_model
from .repository import CODE, CONFIG, RECIPE, WEIGHTS, save_model

CHECKPOINTS = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".npz", ".safetensors")


def convert(checkpoint: str | Path, model: str, folder: str | Path, num_classes: int | None = None) -> Path:
    """Turn a checkpoint into safetensors and a config.json. Pickles are read by torch's weights-only unpickler.

    Args:
        checkpoint: upstream's .pth, FlashKAT's, timm's or DeiT's ViT, Google's .npz, or ours.
        model: architecture to load it into; a ViT with MLPs is turned into a KAT if it is one.
        folder: folder that gets model.safetensors and config.json; it is made if need be.
        num_classes: number of classes of the checkpoint; the rows of its classifier by default.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: unknown model, a folder that holds a model or a config.json, another number of classes than the checkpoint has, or a
            file that is not a checkpoint, holds more than tensors, or does not fit the model.
    """
    path, folder = Path(checkpoint), Path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if path.suffix not in CHECKPOINTS:
        raise ValueError(f"{path}: expected a checkpoint ending in one of {', '.join(CHECKPOINTS)}")
    require_model(model)
    for name in (RECIPE, WEIGHTS, CONFIG, CODE):
        if (folder / name).exists():
            raise ValueError(f"{folder} has a {name}: expected a new folder")
    if num_classes is not None and (known := _classes_of(path, model)) not in (0, num_classes):
        raise ValueError(f"num_classes={num_classes}: expected {known}, the number of classes of {path}")
    made = create_model(model, checkpoint=path, num_classes=num_classes)
    save_model(made, folder)
    return folder


def _classes_of(path: Path, model: str) -> int:
    """Number of classes of a checkpoint; 0 where it cannot be told."""
    try:
        return known_classes(model, path)
    except Exception:  # of unpicklers, zip and safetensors readers; create_model then says what is wrong with the file
        return 0
