"""The one way to load weights into a model: names and arguments checked, checkpoints of any kind converted, their values looked at."""

import inspect
import json
import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import safe_open
from timm.models import (
    clean_state_dict,
    get_arch_pretrained_cfgs,
    get_pretrained_cfg,
    is_model,
    list_models,
    load_pretrained,
    load_state_dict,
)
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .._text import one_line
from .._weights import check_weights
from ._download import weights_damage

logger = logging.getLogger("kat_zoo")


class UnknownArgument(ValueError):
    """A model has no argument of that name."""


@contextmanager
def _named_arguments(name: str) -> Iterator[None]:
    """Say which argument a model does not have, and which was perhaps meant.

    Raises:
        UnknownArgument: in place of the TypeError of a constructor.
    """
    try:
        yield
    except TypeError as error:
        wrong = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if wrong is None:
            raise
        classes = type(timm.create_model(name, device="meta")).__mro__
        known = sorted({argument for kind in classes for argument in inspect.signature(kind).parameters} - {"args", "kwargs"})
        near = get_close_matches(wrong[1], known, 1)
        advice = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
        raise UnknownArgument(f"{name} has no argument {wrong[1]}; {advice}") from error


def require_model(name: str) -> None:
    """Check a name of timm's registry.

    Args:
        name: name of an architecture, with or without a tag.

    Raises:
        ValueError: an unknown architecture or tag.
    """
    if not is_model(name):
        near = get_close_matches(name.split(".")[0], list_models(), 3)
        advice = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"model={name!r}: expected a registered model; {advice}`kat-zoo list` prints the names")
    check_tag(name, "model")


def check_tag(name: str, key: str) -> None:
    """Refuse a tag that timm does not know.

    Args:
        name: name of an architecture, with or without a tag; one that timm does not know is left to others.
        key: name of the argument, for the message.

    Raises:
        ValueError: an unknown tag.
    """
    if not is_model(name):
        return
    try:
        get_pretrained_cfg(name)
    except RuntimeError as error:
        known = get_arch_pretrained_cfgs(name)
        near = get_close_matches(name, known, 1)
        advice = f"; did you mean {near[0]}?" if near else ""
        expected = f"one of {', '.join(known)}" if known else "it without a tag"
        raise ValueError(f"{key}={name!r} with an unknown tag: expected {expected}{advice}") from error


def count_classes(tensors: Mapping[str, Any], architecture: str) -> int:
    """Return the number of classes of a state dict; 0 if it does not have a classifier.

    Args:
        tensors: state dict.
        architecture: name of the model it is for, with or without a tag.
    """
    head = tensors.get(f"{classifier_of(architecture)}.weight")
    return 0 if head is None else len(head)


def classifier_of(architecture: str) -> str:
    """Return the name of a model's classifier, the first of two; empty where timm does not know it."""
    cfg = get_pretrained_cfg(architecture)
    classifier = cfg.classifier if cfg else None
    return (classifier[0] if isinstance(classifier, (tuple, list)) else classifier) or ""  # a distilled model has two


def known_classes(name: str, checkpoint: str | Path | None = None) -> int:
    """Return the number of classes that weights tell apart.

    Args:
        name: name of an architecture, with or without a tag.
        checkpoint: file of weights; the published weights of `name` by default.

    Returns:
        Number of classes; 0 where the weights have no classifier.
    """
    if checkpoint is None:
        cfg = get_pretrained_cfg(name)
        return 0 if cfg is None else int(cfg.num_classes)
    if str(checkpoint).endswith(".npz"):
        with np.load(checkpoint) as arrays:
            return len(arrays["head/bias"]) if "head/bias" in arrays else 0
    return count_classes(load_state_dict(str(checkpoint)), name)


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    num_classes: int | None = None,
    adapt: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """`timm.create_model`, with weights of a file converted and loaded as published ones are; the one way to load weights into a model.

    Args:
        name: name in timm's registry.
        pretrained: whether to load the published weights.
        checkpoint: file of weights (.safetensors, or torch.save's, read by the weights-only unpickler, or Google's .npz).
        num_classes: number of classes of the model; by default those of the checkpoint, or those of the architecture.
        adapt: whether the model gets a new head, which is logged, where a checkpoint is for other classes or has none.
        **kwargs: further arguments of the model.

    Returns:
        The model, on the CPU, in training mode; mean and standard deviation of its images are those of the config.json beside a checkpoint.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: an argument that the model does not have (`UnknownArgument`); a file that is damaged, is not a checkpoint, holds more
            than tensors, or does not fit the model.
    """
    wanted: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if checkpoint is None:
        with _named_arguments(name):
            return timm.create_model(name, pretrained=pretrained, **wanted, **kwargs)
    path = _require_weights(checkpoint)
    try:
        with _named_arguments(name):
            model = _load(name, path, num_classes, adapt, kwargs)
        check_weights(model.state_dict(), model.state_dict(), name)  # of models of timm's own, too
        _check_grid(path, model)
        _take_statistics(path, model)
        return model
    except UnknownArgument:
        raise
    except Exception as error:  # of unpicklers, zip and safetensors readers, and load_state_dict
        raise ValueError(f"checkpoint {path} does not fit {name}: {one_line(error)[:500]}") from error


def _load(name: str, path: Path, num_classes: int | None, adapt: bool, kwargs: dict[str, Any]) -> nn.Module:
    npz = path.suffix == ".npz"  # timm silently drops the head of an .npz that has other classes
    known = known_classes(name, path) if npz or adapt or num_classes is None else num_classes
    if num_classes is None:
        num_classes = known
    # Without a head that timm knows by name, none is missed: strict loading says so.
    new_head = known != num_classes and (npz or known != 0 or (adapt and bool(classifier_of(name))))
    if new_head:
        told = f"knows {known} classes, the data has {num_classes}" if known else "has no head"
        logger.warning("%s %s: the head is new", path, told)
    if npz:
        return timm.create_model(name, checkpoint_path=str(path), num_classes=num_classes, **kwargs)
    # As published weights are loaded: converted to the model's shapes, strictly where the number of classes is the same.
    overlay = {"file": str(path), "num_classes": known if new_head else num_classes, "custom_load": False, "label_offset": 0}
    if new_head:  # timm then passes over all that is missing: see first that it is the head alone
        with torch.random.fork_rng(devices=[]):
            timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=known, **kwargs)
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=num_classes, **kwargs)


GRID = "patch_grid"  # key of the metadata of our files


def grid_metadata(model: nn.Module) -> dict[str, str]:
    """The grid of patches that a model's position embedding and operators belong to, as metadata of the file of its weights."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return {} if grid is None else {GRID: "x".join(map(str, grid))}


def _check_grid(path: Path, model: nn.Module) -> None:
    """Compare the grid that a file states with the model's: 8 x 8 patches are as many as 4 x 16, and would be copied row after row.

    Of a file that states none and has as many patches, a grid that is not square is taken for the model's own, with a warning.

    Raises:
        ValueError: as many patches in another shape.
    """
    own = grid_metadata(model).get(GRID)
    if own is None:
        return
    stated = None
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            stated = (file.metadata() or {}).get(GRID)
    height, width = map(int, own.split("x"))
    if stated is None:
        if height != width and math.isqrt(height * width) ** 2 == height * width:
            logger.warning(
                "%s does not state its grid of patches: it is taken for %s, the model's, which has as many as a square", path, own
            )
    elif stated != own and math.prod(map(int, re.findall(r"\d+", stated))) == height * width:
        raise ValueError(f"its grid of patches is {stated}: expected {own}, the model's; load it at its own img_size, then set_input_size")


def _take_statistics(path: Path, model: nn.Module) -> None:
    """Take mean and standard deviation of the images from the config.json that lies beside weights, as `kat-zoo train` leaves it."""
    beside, own = path.parent / "config.json", getattr(model, "pretrained_cfg", None)
    if not own or not beside.is_file():
        return
    try:
        config = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError:  # another program's
        return
    theirs = config.get("pretrained_cfg") if isinstance(config, dict) and config.get("architecture") == own.get("architecture") else None
    if not isinstance(theirs, dict):
        return
    found = {key: tuple(theirs[key]) for key in ("mean", "std") if isinstance(theirs.get(key), list) and len(theirs[key]) == len(own[key])}
    if any(value != tuple(own[key]) for key, value in found.items()):
        logger.info("%s: mean and std of the images are those of the config.json beside it", path)
        model.pretrained_cfg = {**own, **found}  # type: ignore[assignment]


def load_backbone(vit: VisionTransformer, checkpoint: str | Path) -> set[str]:
    """Give a backbone the weights of a classifier, or of a detector or segmentation model that has such a backbone.

    Args:
        vit: model to fill; weights that the file does not have stay as they are.
        checkpoint: file of weights, as for `create_model`.

    Returns:
        Names of the weights that the file has.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the file is damaged, is not a checkpoint, or does not fit the backbone.
    """
    path, loaded = _require_weights(checkpoint), set[str]()
    convert = inspect.getmodule(type(vit)).checkpoint_filter_fn  # type: ignore[union-attr]  # timm's convention

    def to_backbone(weights: dict[str, Tensor], model: VisionTransformer) -> dict[str, Tensor]:
        weights = unwrap_state_dict(weights)
        for prefix in ("backbone.backbone.", "encoder.backbone."):  # of detectors, of segmentation models
            inner = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            weights = inner or weights
        weights = gray_to_color(convert(weights, model), model)
        loaded.update(weights)
        check_weights(weights, model.state_dict(), "weights")
        return weights

    try:
        _check_grid(path, vit)
        source = {**vit.pretrained_cfg, "state_dict": load_state_dict(str(path))}  # type: ignore[dict-item]
        channels = vit.patch_embed.proj.in_channels
        load_pretrained(vit, source, num_classes=0, in_chans=channels, filter_fn=to_backbone, strict=False)
        _refuse_other_parts(loaded, vit)
        _take_statistics(path, vit)
    except Exception as error:  # of unpicklers, converters and load_state_dict
        raise ValueError(f"checkpoint {path} does not fit {type(vit).__name__}: {one_line(error)[:300]}") from error
    return loaded


def _refuse_other_parts(loaded: Collection[str], vit: nn.Module) -> None:
    """Refuse weights of parts that a backbone does not have; heads, last norms, pooling and decoders may be left over."""
    own = vit.state_dict()
    parts = {name.partition(".")[0] for name in own} | {"cls_token", "reg_token", "pos_embed", "norm_pre"}
    parts -= {"head", "norm", "fc_norm", "attn_pool"}
    other = sorted(name for name in loaded if name not in own and name.partition(".")[0] in parts)
    if other:
        raise ValueError(
            f"the backbone has no place for {', '.join(other[:3])} ({len(other)} of its weights), which another architecture has"
        )


def unwrap_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict within a training checkpoint.

    Args:
        state_dict: entries by name, or a checkpoint that holds them under state_dict, model or (preferred) their EMA entries, in
            any nesting, with or without the prefixes of DDP, torch.compile and torch's AveragedModel.
    """
    wrappers = ("state_dict_ema", "model_ema", "state_dict", "model")
    while inner := next((state_dict[key] for key in wrappers if isinstance(state_dict.get(key), Mapping)), None):
        state_dict = inner
    return clean_state_dict({key: value for key, value in state_dict.items() if key != "n_averaged"})  # AveragedModel's counter


def gray_to_color(weights: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Let the first layer of a model for gray images look at colors, where the model or its configuration has three channels.

    Its weights go in parts of a quarter, a half and a quarter to red, green and blue, which is close to how bright each looks to the eye.
    The parts are powers of two: their sum is exactly the gray model's weight, so that both models see the same in an image whose channels
    are alike. timm goes on from three channels to any other number.

    Args:
        weights: state dict, in the names of the model.
        model: model that gets it.

    Returns:
        The state dict, as it was for any other model.
    """
    cfg = getattr(model, "default_cfg", {})
    name = f"{cfg.get('first_conv')}.weight"
    weight, own = weights.get(name), model.state_dict().get(name)
    if weight is None or own is None or weight.ndim != 4 or weight.shape[1] != 1 or 3 not in (own.shape[1], cfg["input_size"][0]):
        return weights
    parts = torch.tensor([0.25, 0.5, 0.25]).view(1, 3, 1, 1)
    return {**weights, name: weight.to(torch.promote_types(weight.dtype, torch.float32)) * parts}


def _require_weights(checkpoint: str | Path) -> Path:
    """Return the path of a file that may hold weights; raise the errors of `create_model` for another."""
    path = Path(checkpoint)
    if not path.is_file():  # timm's error has no message
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    if reason := weights_damage(path):
        raise ValueError(f"checkpoint {path} {reason}")
    return path
