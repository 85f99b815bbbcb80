"""Weights from the Hub, fetched before timm asks for them, so that what goes wrong is said plainly and leaves no trace.

timm takes any failure to get model.safetensors for "this repository has none" and then reports a missing
pytorch_model.bin; a login page or a Git LFS pointer in place of weights ends in the parser, and stays in the cache.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from timm.models import resolve_pretrained_cfg

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


class WeightsError(OSError):
    """Weights could not be downloaded, or what came is not weights."""


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
            that is text, which is then removed from the cache.
    """
    cfg = resolve_pretrained_cfg(variant, pretrained_cfg, pretrained_cfg_overlay)
    if not cfg.hf_hub_id or cfg.state_dict or cfg.file:
        return
    repo, *revision = cfg.hf_hub_id.split("@")
    path = _download(repo, revision[0] if revision else None, cfg.hf_hub_filename, cache_dir)
    with open(path, "rb") as file:
        start = file.read(64)
    # A safetensors file begins with a 64-bit length, a .pth file with a zip header or a pickle: none of them is text.
    if start.isascii() and b"\0" not in start:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise WeightsError(
            f"{path.name} of the Hub repository {repo} is not weights but text, which begins with {start[:32]!r}; "
            f"removed from the cache. Look at {constants.ENDPOINT}/{repo}, and at your proxy if all is well there."
        )


def _download(repo: str, revision: str | None, filename: str | None, cache_dir: str | Path | None) -> Path:
    """The file in the cache; timm looks for the same names in the same order."""
    files = (filename,) if filename else WEIGHT_FILES
    for file in files:
        try:
            return Path(hf_hub_download(repo, file, revision=revision, cache_dir=cache_dir))
        except Exception as error:  # the HTTP client's errors differ with the version of huggingface_hub
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
            text = " ".join(str(cause).split())
            raise WeightsError(f"cannot download {file} from the Hub repository {repo}: {text}") from error
    raise WeightsError(f"the Hub repository {repo} (revision {revision or 'main'}) has no {' or '.join(files)}")
