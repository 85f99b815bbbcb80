"""Defaults of recipes, which the recipe.yaml of old run folders and the packaged recipes rely on, and of the log."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from kat_zoo.train.classification.recipe import ModelConfig, Recipe
from kat_zoo.train.core.config import EmaConfig, OptimizerConfig, RunRecipe, ScheduleConfig, SystemConfig, parse
from kat_zoo.train.core.log import JsonlLog, read_log
from kat_zoo.train.core.optim import initial_share
from kat_zoo.train.tasks import find_task

from .test_config import RECIPE_OF

DEFAULTS = {
    OptimizerConfig: {
        "name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "decay_rationals": True, "rational_lr_scale": 1.0, "layer_decay": None,
        "clip_grad": None, "grad_accum": 1, "kwargs": {},
    },
    ScheduleConfig: {
        "name": "cosine", "epochs": 300, "warmup_epochs": 5, "warmup_lr": 1e-6, "min_lr": 1e-5, "decay_epochs": None,
        "decay_rate": 0.1, "milestones": (),
    },
    EmaConfig: {"decay": 0.9999, "warmup": False},
    SystemConfig: {
        "precision": "no", "compile": False, "channels_last": False, "fused_attention": True, "grad_checkpointing": False,
        "log_every": 50, "eval_every": 1, "checkpoint_every": 0, "keep_checkpoints": 2, "max_skipped": 20,
        "trackers": ("tensorboard",), "processes": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("section", DEFAULTS)
def test_a_section_of_defaults(section):
    values = section()
    assert dataclasses.asdict(values) == DEFAULTS[section]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(values, next(iter(DEFAULTS[section])), None)


def test_a_recipe_of_defaults():
    recipe = Recipe("runs/x", model=ModelConfig("kat_pico_patch4_28"))
    assert recipe.seed == 0 and not recipe.auto_batch_size
    assert RunRecipe.images_together.fget(recipe) == 1 and RunRecipe.auto_batch_size is False
    assert [getattr(recipe, name) for name in ("optimizer", "schedule", "ema", "system")] == [section() for section in DEFAULTS]
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.seed = 1


def test_a_log_that_begins_anew_keeps_the_start_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"update": n, **more} for n in (0, 1, 2) for more in ({"loss": 1.0}, {"top1": 2.0})]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    JsonlLog(path, 2, 1)
    assert read_log(path) == rows[:5]
    JsonlLog(path)
    assert read_log(path) == rows[:2]


GUIDE = (Path(__file__).parents[2] / "docs" / "data.md").read_text().replace("\\\n", " ")
COMMANDS = [shlex.split(line, comments=True)[2:] for line in re.findall(r"^    (kat-zoo train .*)$", GUIDE, re.MULTILINE)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[3])
def test_the_commands_of_the_guide_deliver_trained_weights(command):
    """A thousand pictures: the average that the recipe keeps may be made for a thousand times as many."""
    recipe = parse(RECIPE_OF[find_task(command)], command, "test")[0]
    assert initial_share(recipe.ema, recipe.schedule.epochs * 1000 // recipe.data.batch_size) < 0.05


def test_the_guide_has_such_commands():
    assert len(COMMANDS) >= 5
