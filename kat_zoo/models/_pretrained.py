"""Weights from the Hub, fetched before timm asks for them, so that a failure is reported plainly and leaves no trace.

timm takes any failure to get model.safetensors for "this repository has none" and then reports a missing
pytorch_model.bin; a login page or a Git LFS pointer in place of weights ends in the parser, and stays in the cache.
Checkpoint files get the same checks.
"""

import inspect
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, is_model, load_pretrained, load_state_dict, resolve_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .._text import one_line
from .._weights import check_weights

logger = logging.getLogger("kat_zoo")

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG_FILE = "config.json"


class WeightsError(OSError):
    """Weights could not be downloaded, or the downloaded file does not hold any."""


def require_model(name: str) -> None:
    """Check a name of timm's registry.

    Args:
        name: name of an architecture, with or without a tag.

    Raises:
        ValueError: an unknown architecture or tag.
    """
    if not is_model(name):
        raise ValueError(f"model={name!r}: expected a registered model; `kat-zoo list` prints the names")
    try:
        get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ValueError(f"model={name!r} with an unknown tag: expected one of {', '.join(get_arch_pretrained_cfgs(name))}") from error


def fetch_weights(
    variant: str,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    **model_kwargs: Any,
) -> None:
    """Put the weights that timm is going to load into the Hub's cache, unless they come from elsewhere than the Hub.

    Args:
        variant: name of the architecture.
        pretrained_cfg: tag or configuration as for timm's `build_model_with_cfg`, or None.
        pretrained_cfg_overlay: changes to that configuration.
        cache_dir: folder of the cache; the Hub's by default.
        **model_kwargs: other arguments of the model, which do not matter here.

    Raises:
        WeightsError: a repository, revision or file that does not exist; no answer, or not the Hub's; a broken download; a file
            that is damaged or does not hold weights, which is then removed from the cache.
    """
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay)
    if not cfg.hf_hub_id or cfg.state_dict or cfg.file:
        return
    path = _download(cfg.hf_hub_id, (cfg.hf_hub_filename,) if cfg.hf_hub_filename else WEIGHT_FILES, cache_dir)
    if reason := weights_damage(path):
        raise _refused(path, cfg.hf_hub_id, reason)


def fetch_config(hub_id: str, cache_dir: str | Path | None = None) -> dict[str, Any]:
    """Put the config.json that timm is going to read for `hf-hub:{hub_id}` into the Hub's cache, and read it.

    Args:
        hub_id: repository as `org/name` or `org/name@revision`.
        cache_dir: folder of the cache; the Hub's by default.

    Raises:
        WeightsError: as for `fetch_weights`; a file that is not a JSON object is removed from the cache.
    """
    path = _download(hub_id, (CONFIG_FILE,), cache_dir)
    if reason := config_damage(path):
        raise _refused(path, hub_id, reason)
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def count_classes(tensors: Mapping[str, Any], architecture: str) -> int:
    """Return the number of classes of a state dict; 0 if it does not have a classifier.

    Args:
        tensors: state dict.
        architecture: name of the model it is for, with or without a tag.
    """
    cfg = get_pretrained_cfg(architecture)
    classifier = cfg.classifier if cfg else None
    classifier = classifier[0] if isinstance(classifier, (tuple, list)) else classifier  # a distilled model has two
    head = tensors.get(f"{classifier}.weight")
    return 0 if head is None else len(head)


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
        adapt: whether the model gets a new head, which is logged, where a checkpoint is for other classes.
        **kwargs: further arguments of the model.

    Returns:
        The model, on the CPU, in training mode.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: the file is damaged, is not a checkpoint, holds more than tensors, or does not fit the model.
    """
    wanted: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if checkpoint is None:
        return timm.create_model(name, pretrained=pretrained, **wanted, **kwargs)
    path = _require_weights(checkpoint)
    try:
        model = _load(name, path, num_classes, adapt, kwargs)
        check_weights(model.state_dict(), model.state_dict(), name)  # of models of timm's own, too
        return model
    except Exception as error:  # of unpicklers, zip and safetensors readers, and load_state_dict
        raise ValueError(f"checkpoint {path} does not fit {name}: {one_line(error)[:500]}") from error


def _load(name: str, path: Path, num_classes: int | None, adapt: bool, kwargs: dict[str, Any]) -> nn.Module:
    npz = path.suffix == ".npz"  # timm silently drops the head of an .npz that has other classes
    known = known_classes(name, path) if npz or adapt or num_classes is None else num_classes
    if num_classes is None:
        num_classes = known
    new_head = known != num_classes and (npz or known != 0)
    if new_head:
        logger.warning("%s knows %d classes, the data has %d: the head is new", path, known, num_classes)
    if npz:
        return timm.create_model(name, checkpoint_path=str(path), num_classes=num_classes, **kwargs)
    # As published weights are loaded: converted to the model's shapes, strictly where the number of classes is the same.
    overlay = {"file": str(path), "num_classes": known if new_head else num_classes, "custom_load": False, "label_offset": 0}
    if new_head:  # timm then passes over all that is missing: see first that it is the head alone
        with torch.random.fork_rng(devices=[]):
            timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=known, **kwargs)
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=num_classes, **kwargs)


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
        for prefix in ("backbone.backbone.", "encoder.backbone."):  # of detectors, of segmentation models
            inner = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            weights = inner or weights
        weights = gray_to_color(convert(weights, model), model)
        loaded.update(weights)
        check_weights(weights, model.state_dict(), "weights")
        return weights

    try:
        source = {**vit.pretrained_cfg, "state_dict": load_state_dict(str(path))}  # type: ignore[dict-item]
        channels = vit.patch_embed.proj.in_channels
        load_pretrained(vit, source, num_classes=0, in_chans=channels, filter_fn=to_backbone, strict=False)
    except Exception as error:  # of unpicklers, converters and load_state_dict
        raise ValueError(f"checkpoint {path} does not fit {type(vit).__name__}: {one_line(error)[:300]}") from error
    return loaded


def gray_to_color(weights: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Let the first layer of a model for gray images look at colors, where the model has three channels.

    Its weights go in parts of a quarter, a half and a quarter to red, green and blue, which is close to how bright each looks to the eye.
    The parts are powers of two: their sum is exactly the gray model's weight, so that both models see the same in an image whose channels
    are alike.

    Args:
        weights: state dict, in the names of the model.
        model: model that gets it.

    Returns:
        The state dict, as it was for any other model.
    """
    name = f"{model.default_cfg['first_conv']}.weight" if model.default_cfg.get("first_conv") else ""  # type: ignore[operator,index]
    weight, own = weights.get(name), model.state_dict().get(name)
    if weight is None or own is None or weight.ndim != 4 or (weight.shape[1], own.shape[1]) != (1, 3):
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


def weights_damage(path: Path) -> str | None:
    """Describe the damage of a file of weights, as its header and its size show it.

    Args:
        path: path of a file that exists.

    Returns:
        The second half of a sentence that begins with the file's name; None if nothing is wrong.
    """
    with path.open("rb") as file:
        start = file.read(32)
    if not start:
        return "is empty"
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return None
        except SafetensorError as error:
            return f"is not safetensors ({error}); it begins with {start!r}"
    if zipfile.is_zipfile(path):  # torch.save since 1.6, and .npz
        return None
    if start.startswith(b"PK"):
        return "is cut off: the zip archive has no end"
    if start[:1] == b"\x80" and len(start) > 1 and start[1] <= 5:  # a pickle: torch.save before 1.6
        return None
    return f"is not weights; it begins with {start!r}"


def config_damage(path: Path) -> str | None:
    """Describe the damage of a config.json.

    Args:
        path: path of a file that exists.

    Returns:
        The second half of a sentence that begins with the file's name; None if the file holds a JSON object.
    """
    data = path.read_bytes()
    try:
        wrong = not isinstance(json.loads(data), dict)
    except ValueError:  # of JSON and of UTF-8
        wrong = True
    return f"is not a JSON object; it begins with {data[:32]!r}" if wrong else None


def _refused(path: Path, hub_id: str, reason: str) -> WeightsError:
    """Remove a bad file from the cache, the link and its target, and return the error for it."""
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    repo = hub_id.split("@")[0]
    return WeightsError(
        f"{path.name} of the Hub repository {repo} {reason}. It has been removed from the cache; look at "
        f"{constants.ENDPOINT}/{repo}, and at your proxy if all is well there"
    )


def _download(hub_id: str, files: tuple[str, ...], cache_dir: str | Path | None) -> Path:
    """Return the path in the cache of the first of the files that the repository has; timm looks for them in the same order."""
    repo, _, revision = hub_id.partition("@")
    for file in files:
        try:
            return Path(hf_hub_download(repo, file, revision=revision or None, cache_dir=cache_dir))
        except Exception as error:  # the HTTP client's errors differ with the version of huggingface_hub
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
            raise WeightsError(f"cannot download {file} from the Hub repository {repo}: {one_line(cause)}") from error
    raise WeightsError(f"the Hub repository {repo} (revision {revision or 'main'}) has no {' or '.join(files)}")
