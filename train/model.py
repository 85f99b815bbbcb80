"""The model of a recipe: created, given its first weights, and frozen where the recipe says so."""

import logging
from fnmatch import fnmatch
from typing import Any

import timm
from torch import nn

import kat_zoo

from .classification_config import ModelConfig
from .optim import RATIONALS

logger = logging.getLogger("kat_zoo")


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """Create the model to train.

    Args:
        config: name, arguments, first weights and what is trained.
        num_classes: used unless config.kwargs has its own.

    Returns:
        The model, on the CPU; parameters that are not trained do not require gradients.

    Raises:
        ValueError: unknown model, a ViT of another shape, or nothing to train.
    """
    model = load_model(config, num_classes)
    if config.init_from is not None:
        _transfer(model, config.init_from, num_classes)
    freeze(model, config.train_only)
    return model


def load_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """Create the configured model.

    Args:
        config: name, arguments and weights.
        num_classes: used unless config.kwargs has its own.

    Returns:
        The model, on the CPU.

    Raises:
        ValueError: unknown model.
    """
    if not timm.is_model(config.name):
        close = timm.list_models(f"*{config.name.split('_')[0]}*")[:8]
        raise ValueError(f"model.name {config.name!r} is not a timm model; similar: {', '.join(close) or 'none'}")
    kwargs: dict[str, Any] = {"num_classes": num_classes, **config.kwargs}
    pretrained = config.pretrained and not config.checkpoint  # a checkpoint needs no download
    return timm.create_model(config.name, pretrained=pretrained, checkpoint_path=config.checkpoint or "", **kwargs)


def _transfer(model: nn.Module, source: str, num_classes: int) -> None:
    """Fill a KAT with the weights of a ViT; `source` is NAME, for timm's weights, or NAME@FILE."""
    name, _, path = source.partition("@")
    vit = timm.create_model(name, pretrained=not path, checkpoint_path=path, num_classes=num_classes)
    kat, report = kat_zoo.vit_to_kat(vit)
    logger.info("transferred %s: relative logits error %.2g", source, report.relative_logits_error)
    try:
        model.load_state_dict(kat.state_dict())
    except RuntimeError as error:
        raise ValueError(f"model.init_from {name} does not have the shape of the model: {str(error)[:300]}") from error


def freeze(model: nn.Module, train_only: str) -> None:
    """Leave gradients to some parameters only.

    Args:
        model: a timm model.
        train_only: `all`, `head`, `rationals`, or comma-separated patterns of parameter names, as `blocks.11.*,head.*`.

    Raises:
        ValueError: no parameter matches.
    """
    if train_only == "all":
        return
    head = getattr(model, "pretrained_cfg", {}).get("classifier", "head")
    known = {"head": [f"{head}.*"], "rationals": [f"*{name}" for name in RATIONALS]}
    patterns = known.get(train_only, train_only.split(","))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(fnmatch(name, pattern) for pattern in patterns)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model.train_only {train_only!r} matches no parameter of {type(model).__name__}")
