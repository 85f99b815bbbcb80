"""Weights from the Hub, fetched before timm asks for them, so that a failure is reported plainly and leaves no trace.

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
from huggingface_hub.file_download import repo_folder_name
from safetensors import SafetensorError, safe_open
from timm.models import resolve_pretrained_cfg

from .._text import one_line

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CONFIG_FILE = "config.json"


class WeightsError(OSError):
    """Weights could not be downloaded, or the downloaded file does not hold any."""


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
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


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


def _drop_beginnings(repo: str, cache_dir: str | Path | None) -> None:
    """Remove what has been received of unfinished files of a repository."""
    blobs = Path(cache_dir or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    for path in blobs.glob("*.incomplete"):
        path.unlink(missing_ok=True)


def _download(hub_id: str, files: tuple[str, ...], cache_dir: str | Path | None) -> Path:
    """Return the path in the cache of the first of the files that the repository has; timm looks for them in the same order."""
    repo, _, revision = hub_id.partition("@")
    for file in files:
        try:
            return Path(hf_hub_download(repo, file, revision=revision or None, cache_dir=cache_dir))
        except Exception as error:  # the HTTP client's errors differ with the version of huggingface_hub
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            if "onsistency check" in str(error):  # huggingface_hub before 1.0 would go on with it the next time, wrong as it is
                _drop_beginnings(repo, cache_dir)
            cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
            raise WeightsError(f"cannot download {file} from the Hub repository {repo}: {one_line(cause)}") from error
    raise WeightsError(f"the Hub repository {repo} (revision {revision or 'main'}) has no {' or '.join(files)}")
