"""The model of a recipe: created, given its first weights, and frozen where the recipe says so."""

import logging
from collections.abc import Iterable
from fnmatch import fnmatch
from types import MethodType
from typing import Any, NoReturn

import timm
import torch
from timm.models import get_pretrained_cfg, group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import kat_zoo
from kat_zoo.models._pretrained import UnknownArgument, check_tag, classifier_of, create_model, known_classes

from ..core.models import arguments_of, check_published
from ..core.optim import RATIONALS
from .recipe import ModelConfig

logger = logging.getLogger("kat_zoo")


def build_model(config: ModelConfig, num_classes: int, adapt: bool = False) -> nn.Module:
    """Create the model to train.

    Args:
        config: name, arguments, first weights and what is trained.
        num_classes: number of classes.
        adapt: a checkpoint may be for other classes or have no head; the model then gets a new one.

    Returns:
        The model, on the CPU; parameters that are not trained do not require gradients.

    Raises:
        ValueError: unknown model, weights of another shape, nothing to train, or a new head that is not trained.
    """
    model: Any = load_model(config, num_classes, adapt)
    if config.init_from is not None:
        _transfer(model, config.init_from, num_classes, adapt)
    if config.new_head:
        model.reset_classifier(model.num_classes)
    freeze(model, config.train_only)
    if config.train_only != "all":
        head = model.get_classifier()
        heads = head if isinstance(head, tuple) else (head,)
        frozen = not any(parameter.requires_grad for part in heads for parameter in part.parameters())
        if frozen and _has_new_head(config, model.num_classes):
            raise ValueError(
                f"model.train_only is {config.train_only!r}, which does not train the head, and the head is new; add it, as "
                f"'{config.train_only},head', or run mode linear_probe first and begin with its weights"
            )
    return model


def _has_new_head(config: ModelConfig, num_classes: int) -> bool:
    """Whether the weights that the configuration names have no head for that many classes."""
    name, path = config.name, config.checkpoint
    if config.init_from is not None:
        name, _, path = config.init_from.partition("@")
    elif not (config.pretrained or path):
        return False  # all is new, and to be left so is what was asked for
    return config.new_head or (bool(classifier_of(name)) and known_classes(name, path or None) != num_classes)


def check_names(config: ModelConfig) -> None:
    """Refuse names of models that `build_model` would refuse, before anything is built or fetched.

    Args:
        config: the model, of which the names alone are looked at.

    Raises:
        ValueError: an unknown model or tag, or weights that are not published.
    """
    if not timm.is_model(config.name):
        _refuse_name(config.name, "model.name")
    check_tag(config.name, "model.name")
    if config.pretrained:
        check_published(config.name, "model.pretrained=True", "false")
    if config.init_from is not None:
        name, _, path = config.init_from.partition("@")
        if not timm.is_model(name):
            _refuse_name(name, "model.init_from")
        check_tag(name, "model.init_from")
        if not path:
            check_published(name, f"model.init_from={name!r}", "NAME@FILE")


def _refuse_name(name: str, key: str) -> NoReturn:
    close = timm.list_models(f"*{name.split('_')[0]}*")[:8]
    raise ValueError(f"{key} {name!r} is not a timm model; similar: {', '.join(close) or 'none'}")


def load_model(config: ModelConfig, num_classes: int, adapt: bool = False, key: str = "model.kwargs") -> nn.Module:
    """Create the configured model.

    Args:
        config: name, arguments and weights.
        num_classes: number of classes.
        adapt: a checkpoint may be for other classes or have no head; the model then gets a new one.
        key: setting that config.kwargs come from, for messages.

    Returns:
        The model, on the CPU.

    Raises:
        ValueError: unknown model, arguments that it does not have, another number of classes among them, or a checkpoint that is
            damaged or does not fit it.
        FileNotFoundError: no such checkpoint.
    """
    check_names(config)
    arguments: dict[str, Any] = {"num_classes": num_classes, **config.kwargs}
    if arguments["num_classes"] != num_classes:
        raise ValueError(f"{key}={config.kwargs}: expected num_classes {num_classes}, those of the data, or to be left out")
    shown = f"{key}={dict(item for item in config.kwargs.items() if item[0] != 'device')}"  # which is the planner's
    try:
        with arguments_of(config.name, shown):
            return create_model(config.name, pretrained=config.pretrained, checkpoint=config.checkpoint, adapt=adapt, **arguments)
    except ValueError as error:
        of_weights = config.pretrained or config.checkpoint  # which the message names
        if str(error).startswith(key) or not config.kwargs or (of_weights and not isinstance(error, UnknownArgument)):
            raise
        raise ValueError(f"{shown}: {error}") from error


def _transfer(model: nn.Module, source: str, num_classes: int, adapt: bool) -> None:
    """Fill a KAT with the weights of a ViT; `source` is NAME, for timm's weights, or NAME@FILE."""
    name, _, path = source.partition("@")  # looked at by `check_names`
    vit = load_model(ModelConfig(name=name, pretrained=not path, checkpoint=path or None), num_classes, adapt)
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
        train_only: `all`, `last:N` (the last N blocks and what follows them), or comma-separated `head`, `rationals` and
            patterns of parameter names, as `blocks.11.*,head`. Batch norms of which nothing is trained stay in evaluation mode.

    Raises:
        ValueError: a part that matches no parameter, or a model without blocks.
    """
    if train_only == "all":
        return
    if train_only.startswith("last:"):
        _freeze_first(model, train_only)
        return
    head = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    heads = head if isinstance(head, (tuple, list)) else (head,)  # a distilled model has two
    known = {"head": [f"{name}.*" for name in heads], "rationals": [f"*{name}" for name in RATIONALS]}
    parts = {part.strip(): known.get(part.strip(), [part.strip()]) for part in train_only.split(",")}
    names = [name for name, _ in model.named_parameters()]
    for part, patterns in parts.items():
        if not any(fnmatch(name, pattern) for name in names for pattern in patterns):
            raise ValueError(
                f"model.train_only={train_only!r}: {part!r} matches no parameter of {type(model).__name__}, as {names[0]} or {names[-1]}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(fnmatch(name, pattern) for patterns in parts.values() for pattern in patterns)
    _freeze_norms(model)


def _freeze_norms(model: nn.Module) -> None:
    """Keep batch norms without trained parameters in evaluation mode: in training mode their statistics would move."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(parameter.requires_grad for parameter in module.parameters()):
            setattr(module, "train", MethodType(_evaluate, module))  # noqa: B010  (a method to type checkers); a copy has its own
            module.eval()


def _evaluate(module: nn.Module, mode: bool = True) -> nn.Module:
    return type(module).train(module, False)


def _freeze_first(model: nn.Module, train_only: str) -> None:
    """Leave gradients to the last N of the model's layers, as timm's layer decay counts them, and to what follows them."""
    last = train_only.removeprefix("last:")
    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    blocks = sorted({layer for name, layer in layers.items() if name.startswith(("blocks.", "stages.", "layers."))})
    if not blocks:
        names = [name for name, _ in model.named_parameters()]
        raise ValueError(
            f"model.train_only={train_only!r}: {type(model).__name__} has no blocks that last:N counts: expected patterns of parameter "
            f"names, as {names[-1].split('.')[0]}.* or {names[len(names) // 2].rpartition('.')[0]}.*"
        )
    if not last.isdecimal() or not 1 <= int(last) <= len(blocks):
        raise ValueError(f"model.train_only={train_only!r}: expected last:N with N in [1, {len(blocks)}], the model's blocks")
    for name, parameter in model.named_parameters():
        parameter.requires_grad = layers[name] >= blocks[-int(last)]
    _freeze_norms(model)


def check_sizes(model: nn.Module, input_size: tuple[int, int, int], sizes: Iterable[int]) -> None:
    """Refuse images that the model cannot take, before training begins.

    Args:
        model: model on the CPU.
        input_size: (channels, height, width).
        sizes: sides of progressive resolution, in pixels.

    Raises:
        ValueError: naming the setting and its value.
    """
    model.eval()
    shapes = {f"data.input_size is {list(input_size)}": input_size}
    for name, shape in (shapes | {f"data.sizes has {side}": (input_size[0], side, side) for side in sizes}).items():
        try:
            with torch.no_grad():
                model(torch.zeros(1, *shape))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{name}, which the model cannot take: {error} (a ViT or KAT of other sizes needs model.kwargs "
                "{dynamic_img_size: true} or img_size, and multiples of its patch size; other channels, in_chans)"
            ) from error


def check_classes(name: str, dataset: str, num_classes: int) -> None:
    """Refuse published weights whose head is for other classes: timm would replace it by an untrained one.

    Args:
        name: timm model name.
        dataset: name of the data, for the message.
        num_classes: number of classes that the head must have.

    Raises:
        ValueError: it has others.
    """
    cfg = get_pretrained_cfg(name) if timm.is_model(name) else None
    if cfg is not None and cfg.num_classes != num_classes:
        raise ValueError(
            f"the published weights of {name} know {cfg.num_classes} classes and {dataset} has {num_classes}: there is no "
            "trained head; fine-tune first, and give model.checkpoint"
        )
