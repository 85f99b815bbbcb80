"""Knowledge distillation with the tasks of timm: the loss of a recipe, with or without a teacher."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.task import ClassificationTask, LogitDistillationTask, TokenDistillationTask
from torch import Tensor, nn
from torch.nn import functional as F

from kat_zoo.hub.source import as_folder, open_model
from kat_zoo.models._pretrained import require_model

from ..core.models import check_published
from .model import check_classes, load_model
from .recipe import ModelConfig, Recipe


class Teacher(nn.Module):
    """A frozen model in evaluation mode, run in the precision of the recipe.

    Args:
        model: classifier.
        channels: number of channels of the images.
        autocast: function that makes the context of a forward pass.
        size: (height, width) that images are resized to before; None leaves them.
    """

    def __init__(
        self, model: nn.Module, channels: int, autocast: Callable[[], AbstractContextManager], size: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        cfg: Any = model.pretrained_cfg
        # timm reads the normalization here. Of a model made for gray images the cfg still has that of color.
        stats = {key: cfg[key] if len(cfg[key]) == channels else (sum(cfg[key]) / len(cfg[key]),) for key in ("mean", "std")}
        self.pretrained_cfg = {**vars(cfg), **stats} if not isinstance(cfg, dict) else {**cfg, **stats}
        self._autocast, self.size = autocast, size

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes) float32, of images (B, C, H, W)."""
        with torch.no_grad(), self._autocast():
            if self.size is not None:
                x = F.interpolate(x, self.size, mode="bicubic", antialias=True)
            return self.model(x).float()


def load_teacher(
    recipe: Recipe, num_classes: int, input_size: tuple[int, int, int], weights: bool = True, classes: Sequence[str] = ()
) -> nn.Module:
    """The teacher that a recipe names.

    Args:
        recipe: recipe whose `distill.teacher` is a timm name, for its published weights, NAME@FILE, or the folder of a run.
        num_classes: number of classes of the student; the teacher must know the same.
        input_size: (channels, height, width) of the student's images; `distill.input_size` goes before it.
        weights: load them; False for a rehearsal.
        classes: names of the classes of the data, which those of a run must be; empty: not compared.

    Raises:
        ValueError: none, unknown, made for other classes, or for other images.
    """
    if recipe.distill.teacher is None:
        raise ValueError("distill.teacher is None: expected a timm name, NAME@FILE, or the folder of a run")
    folder = as_folder(recipe.distill.teacher)
    name, _, path = recipe.distill.teacher.partition("@")
    if folder is None:
        try:
            require_model(name)
        except ValueError as error:
            raise ValueError(
                f"distill.teacher={recipe.distill.teacher!r}: expected a timm name, NAME@FILE, or the folder of a run ({error})"
            ) from error
    config = ModelConfig(name=name, kwargs=recipe.distill.kwargs)
    if weights:
        config = replace(config, pretrained=not path, checkpoint=path or None)
    own = recipe.distill.input_size
    if own is not None and own[0] != input_size[0]:
        raise ValueError(f"distill.input_size={list(own)}: expected {input_size[0]} channels, as the student's images have")
    input_size = own or input_size
    if not path and folder is None:
        check_published(name, f"distill.teacher={name!r}", "NAME@FILE")
    if weights and not path and folder is None:
        check_classes(name, recipe.data.dataset, num_classes)
    try:
        teacher = load_model(config, num_classes, key="distill.kwargs") if folder is None else _of_run(folder, recipe, num_classes, classes)
        with torch.no_grad():
            teacher.eval()(torch.zeros(1, *input_size))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"distill.teacher {recipe.distill.teacher} does not fit {num_classes} classes and images {input_size}: {error}"
        ) from error
    return teacher


def _of_run(folder: Path, recipe: Recipe, num_classes: int, classes: Sequence[str]) -> nn.Module:
    """The model of a run's folder, if it knows the same classes in the same order."""
    if recipe.distill.kwargs:
        raise ValueError(f"distill.kwargs={recipe.distill.kwargs}: expected none with the folder of a run, whose config.json has them")
    source = open_model(str(folder))
    named = source.classes != tuple(map(str, range(len(source.classes))))
    if len(source.classes) != num_classes or (classes and named and source.classes != tuple(classes)):
        expected = ", ".join(classes) if classes else f"{num_classes} of them"
        raise ValueError(f"distill.teacher {folder} knows the classes {', '.join(source.classes)}: expected those of the data, {expected}")
    return source.model


def create_task(
    recipe: Recipe,
    model: nn.Module,
    criterion: nn.Module,
    resolved: dict[str, Any],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    weights: bool = True,
    classes: Sequence[str] = (),
) -> nn.Module:
    """The task of timm that turns (images, targets) into a dict with `loss`, and with a teacher its parts.

    Args:
        recipe: recipe with or without `distill.teacher`.
        model: the student; `trainable_module` of the task may be replaced by a prepared one.
        criterion: loss against the targets.
        resolved: preprocessing, as `loader.data_config` resolves it.
        device: device of the model.
        autocast: function that makes the context that the teacher runs in.
        weights: load those of the teacher; False for a rehearsal.
        classes: names of the classes of the data, see `load_teacher`.

    Raises:
        ValueError: see `load_teacher`; or token distillation of a model without a distillation token.
    """
    distill = recipe.distill
    if distill.teacher is None:
        return ClassificationTask(model, criterion, device=device, verbose=False)
    if distill.kind != "soft" and not hasattr(model, "set_distilled_training"):
        raise ValueError(f"distill.kind {distill.kind} needs a student with a distillation token; {recipe.model.name} has none: use soft")
    size: tuple[int, int, int] = resolved["input_size"]
    trained = load_teacher(recipe, model.num_classes, size, weights, classes)  # type: ignore[arg-type]
    teacher = Teacher(trained, size[0], autocast, distill.input_size and distill.input_size[1:]).to(device)
    settings: dict[str, Any] = dict(
        criterion=criterion, task_loss_weight=1 - distill.weight, temperature=distill.temperature, device=device, verbose=False
    )
    if distill.kind == "soft":
        task: nn.Module = LogitDistillationTask(model, teacher, **settings)
    else:
        task = TokenDistillationTask(model, teacher, distill_type=distill.kind.removeprefix("token_"), **settings)
    for key in ("mean", "std"):  # of the images as they really come, which the recipe may have set
        setattr(task, f"student_{key}", torch.tensor(resolved[key], device=device).view(1, -1, 1, 1))
    return task
