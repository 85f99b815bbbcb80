"""Knowledge distillation with the tasks of timm: the loss of a recipe, with or without a teacher."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from timm.task import ClassificationTask, LogitDistillationTask, TokenDistillationTask
from torch import Tensor, nn

from .model import check_classes, load_model
from .recipe import ModelConfig, Recipe


class Teacher(nn.Module):
    """A frozen model in evaluation mode, run in the precision of the recipe.

    Args:
        model: classifier.
        channels: number of channels of the images.
        autocast: function that makes the context of a forward pass.
    """

    def __init__(self, model: nn.Module, channels: int, autocast: Callable[[], AbstractContextManager]) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        cfg: Any = model.pretrained_cfg
        # timm reads the normalization here. Of a model made for gray images the cfg still has that of color.
        stats = {key: cfg[key] if len(cfg[key]) == channels else (sum(cfg[key]) / len(cfg[key]),) for key in ("mean", "std")}
        self.pretrained_cfg = {**vars(cfg), **stats} if not isinstance(cfg, dict) else {**cfg, **stats}
        self._autocast = autocast

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes) float32."""
        with torch.no_grad(), self._autocast():
            return self.model(x).float()


def load_teacher(recipe: Recipe, num_classes: int, input_size: tuple[int, int, int], weights: bool = True) -> nn.Module:
    """The teacher that a recipe names.

    Args:
        recipe: recipe whose `distill.teacher` is a timm name, for its published weights, or NAME@FILE.
        num_classes: number of classes of the student; the teacher must know the same.
        input_size: (channels, height, width) of the images it is shown.
        weights: load them; False for a rehearsal.

    Raises:
        ValueError: none, unknown, made for other classes, or for other images.
    """
    if recipe.distill.teacher is None:
        raise ValueError("distill.teacher is None: expected a timm name, or NAME@FILE")
    name, _, path = recipe.distill.teacher.partition("@")
    config = ModelConfig(name=name, kwargs=recipe.distill.kwargs)
    if weights:
        config = replace(config, pretrained=not path, checkpoint=path or None)
    if weights and not path:
        check_classes(name, recipe.data.dataset, num_classes)
    try:
        teacher = load_model(config, num_classes)
        with torch.no_grad():
            teacher.eval()(torch.zeros(1, *input_size))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"distill.teacher {recipe.distill.teacher} does not fit {num_classes} classes and images {input_size}: {error}"
        ) from error
    return teacher


def create_task(
    recipe: Recipe,
    model: nn.Module,
    criterion: nn.Module,
    resolved: dict[str, Any],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    weights: bool = True,
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

    Raises:
        ValueError: see `load_teacher`; or token distillation of a model without a distillation token.
    """
    distill = recipe.distill
    if distill.teacher is None:
        return ClassificationTask(model, criterion, device=device, verbose=False)
    if distill.kind != "soft" and not hasattr(model, "set_distilled_training"):
        raise ValueError(f"distill.kind {distill.kind} needs a student with a distillation token; {recipe.model.name} has none: use soft")
    size: tuple[int, int, int] = resolved["input_size"]
    teacher = Teacher(load_teacher(recipe, model.num_classes, size, weights), size[0], autocast).to(device)  # type: ignore[arg-type]
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
