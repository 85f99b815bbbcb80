"""A classifier, named in any of four ways: a model of timm's, the folder of a run, a repository of the Hub, a file of weights."""

import logging
from dataclasses import dataclass
from pathlib import Path

import timm
from safetensors import SafetensorError
from torch import nn

from .._text import one_line
from ..models._download import fetch_config
from ..models._pretrained import create_model, require_model
from ..models.kat_of_vit import classifies
from .repository import CONFIG, check_config, class_names, read_config

HUB, LOCAL = "hf-hub:", "local-dir:"

logger = logging.getLogger("kat_zoo")


@dataclass(frozen=True)
class Source:
    """A model with its weights.

    Attributes:
        model: model of timm's, on the CPU, in evaluation mode; its `pretrained_cfg` holds the preprocessing of its weights.
        classes: names of the classes, by index.
    """

    model: nn.Module
    classes: tuple[str, ...]


def as_folder(name: str) -> Path | None:
    """The folder that a name means: the path of one, or `local-dir:PATH`; None for other names."""
    path = Path(name.removeprefix(LOCAL))
    if name.startswith(LOCAL):
        return path
    return path if path.is_dir() and not timm.is_model(name) else None  # a folder called as a model is written with a slash


def open_model(name: str, checkpoint: str | Path | None = None, *, untrained: bool = False) -> Source:
    """Create a model with weights, and name its classes.

    Args:
        name: name in timm's registry, `hf-hub:org/name`, or a folder that `kat-zoo train`, `convert` or `pull` left.
        checkpoint: file of weights in place of the published ones, or of those in the folder. Where a config.json lies beside it,
            names and preprocessing are those of that file; else the classes are numbers and the preprocessing is the architecture's.
        untrained: leave the model of a registered name without weights.

    Raises:
        ValueError: unknown name, a model without published weights and no checkpoint, a folder of another task, a checkpoint that is
            damaged or does not fit, or one beside a repository of the Hub.
        FileNotFoundError: no such folder or checkpoint, or a folder without a model.
        WeightsError: a model of the Hub that cannot be had.
    """
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise FileNotFoundError(f"--checkpoint {checkpoint}: no such file")
    folder = as_folder(name)
    if folder is not None:
        require_classifier(folder)
        return _published(f"{LOCAL}{folder}") if checkpoint is None else _of_file(folder, Path(checkpoint))
    if name.startswith(HUB):
        if checkpoint is not None:
            repo = name.removeprefix(HUB)
            raise ValueError(
                f"--checkpoint {checkpoint} with {name}: expected a name of the list or a folder (kat-zoo pull {repo} makes one)"
            )
        _require_classifier_of_hub(name.removeprefix(HUB))
        return _published(name)
    require_model(name)
    if checkpoint is not None:
        return _of_file(Path(checkpoint).parent, Path(checkpoint), name)
    if untrained:
        model = timm.create_model(name).eval()
        return Source(model, tuple(class_names(model, False)))
    if not timm.is_model_pretrained(name):
        raise ValueError(f"model {name!r} has no published weights: expected --checkpoint FILE, or a model that has (kat-zoo list)")
    return _published(name)


def require_classifier(folder: Path) -> None:
    """Check that a folder holds a classifier.

    Raises:
        FileNotFoundError: it does not hold a model.
        ValueError: it holds one of another task.
    """
    task = read_config(folder)["kat_zoo"]["task"]
    if task != "classification":
        raise ValueError(f"{folder} is a run of {task}: expected one of classification")


def require_classes(name: str) -> None:
    """Refuse a registered model whose outputs are features, before its weights are fetched; other names pass.

    Raises:
        ValueError: outputs that are not classes, or an unknown tag.
    """
    if as_folder(name) is None and not name.startswith(HUB) and timm.is_model(name):
        require_model(name)
        config = timm.get_pretrained_cfg(name)
        tagged = f"{name.split('.')[0]}.{config.tag}" if config is not None else name
        if config is not None and not classifies(tagged, config.num_classes):
            raise ValueError(f"model {name} gives features and not classes: expected a classifier")


def _require_classifier_of_hub(repo: str) -> None:
    task = check_config(fetch_config(repo), f"{HUB}{repo}")["kat_zoo"]["task"]
    if task != "classification":
        short = repo.split("@")[0].split("/")[-1]
        raise ValueError(f"{HUB}{repo} is a model of {task}: expected a classifier; kat-zoo pull {repo}, then give the folder {short}")


def _published(name: str) -> Source:
    registered = not name.startswith((HUB, LOCAL)) or name.startswith(f"{HUB}timm/")
    try:
        model = timm.create_model(name, pretrained=True).eval()
    # Of a description that does not fit the weights, or of weights that are not finite.
    except (AttributeError, KeyError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be loaded: {one_line(error)[:300]}") from error
    return Source(model, tuple(class_names(model, registered)))


def _describes(folder: Path) -> bool:
    """Whether a config.json lies in a folder that names an architecture of timm's; that of transformers does not."""
    path = folder / CONFIG
    return path.is_file() and '"architecture"' in path.read_text(encoding="utf-8")


def _of_file(folder: Path, checkpoint: Path, name: str | None = None) -> Source:
    """A model with the weights of a file, as the config.json of a folder describes it; else as the architecture does."""
    if name is not None and not _describes(folder):
        model = create_model(name, checkpoint=checkpoint).eval()
        logger.warning(
            "%s has no config.json beside it: classes are numbers, and images are prepared as for the architecture %s", checkpoint, name
        )
        return Source(model, tuple(class_names(model, False)))
    config = read_config(folder)
    architecture = config["architecture"]
    if name is not None and name.split(".")[0] != architecture:
        raise ValueError(f"model {name!r} with {checkpoint}: expected {architecture}, which the config.json beside it names")
    model = create_model(architecture, checkpoint=checkpoint, num_classes=config["num_classes"], **config.get("model_args", {})).eval()
    own = {**config["pretrained_cfg"], "label_names": config.get("label_names"), "num_classes": config["num_classes"]}
    model.pretrained_cfg = {**model.pretrained_cfg, **own}  # type: ignore[dict-item,assignment]
    return Source(model, tuple(class_names(model, False)))
