"""Weights from the Hub, fetched before timm asks for them, so that what goes wrong is said plainly and leaves no trace.

timm takes any failure to get model.safetensors for "this repository has none" and then reports a missing
pytorch_model.bin; a login page or a Git LFS pointer in place of weights ends in the parser, and stays in the cache.
Checkpoint files get the same checks.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, is_model, resolve_pretrained_cfg
from timm.models import load_checkpoint as timm_load_checkpoint
from torch import nn

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG_FILE = "config.json"


class WeightsError(OSError):
    """Weights could not be downloaded, or what came is not weights."""


def require_model(name: str) -> None:
    """Check a name of timm's registry.

    Args:
        name: architecture, with or without a tag.

    Raises:
        ValueError: an unknown architecture or tag.
    """
    if not is_model(name):
        raise ValueError(f"{name!r} is not a registered model; `kat-zoo list` prints the names")
    try:
        get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ValueError(f"model {name!r}: unknown tag; expected one of {', '.join(get_arch_pretrained_cfgs(name))}") from error


def fetch_weights(
    variant: str,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    **model_kwargs: Any,
) -> None:
    """Put the weights that timm is going to load into the Hub's cache, unless they come from elsewhere than the Hub.

    Args:
        variant: architecture.
        pretrained_cfg: as given to timm's `build_model_with_cfg`: a tag, a configuration or None.
        pretrained_cfg_overlay: changes to it.
        cache_dir: the Hub's by default.
        **model_kwargs: the model's other arguments.

    Raises:
        WeightsError: no such repository, revision or file; no answer, or not the Hub's; a broken download; a file
            that is damaged or no weights, which is then removed from the cache.
    """
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay)
    if not cfg.hf_hub_id or cfg.state_dict or cfg.file:
        return
    path = _download(cfg.hf_hub_id, (cfg.hf_hub_filename,) if cfg.hf_hub_filename else WEIGHT_FILES, cache_dir)
    if reason := weights_damage(path):
        raise _refused(path, cfg.hf_hub_id, reason)


def fetch_config(hub_id: str, cache_dir: str | Path | None = None) -> None:
    """Put the config.json that timm is going to read for `hf-hub:{hub_id}` into the Hub's cache.

    Args:
        hub_id: `org/name`, or `org/name@revision`.
        cache_dir: the Hub's by default.

    Raises:
        WeightsError: as `fetch_weights`; a file that is no JSON object is removed from the cache.
    """
    path = _download(hub_id, (CONFIG_FILE,), cache_dir)
    if reason := config_damage(path):
        raise _refused(path, hub_id, reason)


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint file, as `timm.create_model(checkpoint_path=...)` does, with errors that name the file.

    Args:
        model: of timm.
        path: .safetensors, or what torch.save wrote, or Google's .npz.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, no checkpoint, holds more than tensors, or does not fit the model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    if reason := weights_damage(path):
        raise ValueError(f"checkpoint {path} {reason}")
    try:
        timm_load_checkpoint(model, str(path))
    except Exception as error:  # of unpicklers, zip and safetensors readers, and load_state_dict
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"checkpoint {path} does not fit {type(model).__name__}: {text}") from error


def weights_damage(path: Path) -> str | None:
    """Say what is wrong with a file of weights, as its header and its size show it; None if they are right."""
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
    if start[:1] == b"\x80" and start[1] <= 5:  # a pickle: torch.save before 1.6
        return None
    return f"is not weights; it begins with {start!r}"


def config_damage(path: Path) -> str | None:
    """Say what is wrong with a config.json; None if it holds a JSON object."""
    data = path.read_bytes()
    try:
        wrong = not isinstance(json.loads(data), dict)
    except ValueError:  # of JSON and of UTF-8
        wrong = True
    return f"is not a JSON object; it begins with {data[:32]!r}" if wrong else None


def _refused(path: Path, hub_id: str, reason: str) -> WeightsError:
    """The error for a bad file in the cache, which is removed: a link and what it points at."""
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    repo = hub_id.split("@")[0]
    return WeightsError(
        f"{path.name} of the Hub repository {repo} {reason}. It has been removed from the cache; look at "
        f"{constants.ENDPOINT}/{repo}, and at your proxy if all is well there"
    )


def _download(hub_id: str, files: tuple[str, ...], cache_dir: str | Path | None) -> Path:
    """The first of the files that the repository has, in the cache; timm looks for the same names in the same order."""
    repo, _, revision = hub_id.partition("@")
    for file in files:
        try:
            return Path(hf_hub_download(repo, file, revision=revision or None, cache_dir=cache_dir))
        except Exception as error:  # the HTTP client's errors differ with the version of huggingface_hub
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
            text = " ".join(str(cause).split())
            raise WeightsError(f"cannot download {file} from the Hub repository {repo}: {text}") from error
    raise WeightsError(f"the Hub repository {repo} (revision {revision or 'main'}) has no {' or '.join(files)}")
