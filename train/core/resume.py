"""Settings that may change when a run is continued, and those that may not."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

from kat_zoo.hub.repository import CONFIG, RESULT

from .config import RunRecipe, to_yaml
from .runs import read_json
from .yaml_file import read_settings

logger = logging.getLogger("kat_zoo")

FIXED = {
    "the model": ("model.name", "model.kwargs", "model.head", "model.backbone", "model.backbone_args", "model.train_only",
                  "model.pyramid_args", "model.neck_args"),
    "the state of the optimizer": ("optimizer.name", "optimizer.weight_decay", "optimizer.decay_rationals",
                                   "optimizer.rational_lr_scale", "optimizer.layer_decay", "optimizer.kwargs"),
    "the meaning of the labels": ("data.reduce_zero_label", "data.label"),
    "the order of the data": ("seed", "data.dataset", "data.batch_size", "data.train_images", "data.holdout", "data.samples",
                              "data.updates_per_epoch", "data.skip_empty", "augment.repeats"),
}  # fmt: skip


def check_resume(recipe: RunRecipe, checkpoint: Path) -> None:
    """Compare a recipe with the one that a checkpoint was made with, and say in one line of the log what is different.

    Args:
        recipe: recipe of any task.
        checkpoint: its folder, in that of a run.

    Raises:
        ValueError: a setting is different that the checkpoint does not allow to change.
    """
    stored = checkpoint.resolve().parents[1] / "recipe.yaml"
    if not stored.is_file():
        logger.warning("%s: no such file; settings are not compared with those that %s was made with", stored, checkpoint)
        return
    before, now = _flat(read_settings(stored)), _flat(yaml.safe_load(to_yaml(recipe)))
    changed = {key: (before[key], value) for key, value in now.items() if key in before and before[key] != value}
    changed.pop("output", None)  # a run folder may have been moved
    for what, keys in FIXED.items():
        for key in keys:
            if key in changed:
                old, new = changed[key]
                raise ValueError(
                    f"{key} is {new!r}, but {checkpoint} was made with {old!r}, which {what} depends on; continue with that, or begin "
                    "another run (its model.checkpoint may be the model.safetensors of this one)"
                )
    if (before.get("ema.decay") == 0) != (now["ema.decay"] == 0):
        old, new = before.get("ema.decay"), now["ema.decay"]
        raise ValueError(f"ema.decay is {new}, but {checkpoint} was made with {old}: both must be 0, or neither")
    if getattr(recipe, "auto_batch_size", False):
        changed.pop("optimizer.grad_accum", None)  # the run keeps what was found
    if changed and PartialState().is_main_process:
        logger.warning("continued with other settings: %s", ", ".join(f"{key} {old!r} -> {new!r}" for key, (old, new) in changed.items()))


def check_classes(config: Mapping[str, Any], checkpoint: Path | None) -> None:
    """Compare the classes of the data with those of the run that a checkpoint is of: the head knows them by number alone.

    Args:
        config: content of config.json for the data.
        checkpoint: a checkpoint's folder, in that of a run; None where a run begins.

    Raises:
        ValueError: they are others, or in another order.
    """
    stored = None if checkpoint is None else checkpoint.resolve().parents[1] / CONFIG
    before = (
        [] if stored is None else list(read_json(stored).get("label_names") or read_json(stored.with_name(RESULT)).get("classes") or [])
    )
    now = list(config.get("label_names", []))
    if not before or before == now:
        return
    if len(before) != len(now):
        raise ValueError(f"the data has {len(now)} classes, but {checkpoint} was made with {len(before)}: expected the same")
    first = next(i for i in range(len(now)) if now[i] != before[i])
    raise ValueError(
        f"class {first} of the data is {now[first]!r}, but {checkpoint} was made with {before[first]!r}: expected the same classes in the "
        "same order; was a folder renamed?"
    )


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """`section.key` -> value; dicts that are themselves values, as kwargs, stay whole."""
    nested = {key: value if isinstance(value, dict) else {"": value} for key, value in recipe.items()}
    return {f"{section}.{key}".rstrip("."): value for section, values in nested.items() for key, value in values.items()}
