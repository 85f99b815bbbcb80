"""Settings that the recipes of all tasks share: frozen dataclasses read from YAML and the command line.

An unknown key or a wrong type is refused.
"""

import argparse
import dataclasses
import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import yaml

from kat_zoo._text import one_line

from .explain import check_keys, did_you_mean, explain
from .ranges import check_ranges
from .yaml_file import read_settings

RECIPES = Path(__file__).parent.parent / "configs"
SCHEDULES = ("cosine", "tanh", "poly", "step", "multistep", "wsd", "rsqrt", "constant")  # timm's that are known in advance
STEP = 90  # epochs of a step where schedule.decay_epochs is None, as timm has it


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and its regularization.

    Attributes:
        name: timm optimizer name: adamw, lamb, lion, muon, sgd (Nesterov), ...
        lr: peak learning rate.
        weight_decay: weight decay of matrices; biases, norms and the model's own `no_weight_decay` are exempt.
        decay_rationals: whether rational coefficients, which are 2-D, decay too (the published KATs did).
        rational_lr_scale: learning rate of rational coefficients as a multiple of `lr`.
        layer_decay: learning rate factor from each block to the one below, in (0, 1]; None is off.
        clip_grad: largest gradient norm; None does not clip.
        grad_accum: forward and backward passes per update.
        kwargs: further arguments of the optimizer, as betas.
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    decay_rationals: bool = True
    rational_lr_scale: float = 1.0
    layer_decay: float | None = None
    clip_grad: float | None = None
    grad_accum: int = 1
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run; stepped at every update.

    Attributes:
        name: timm scheduler name: cosine, tanh, poly, step, multistep, wsd, rsqrt or constant.
        epochs: passes over the training split, warm-up included.
        warmup_epochs: epochs of linear warm-up.
        warmup_lr: learning rate at the first update.
        min_lr: learning rate at the end.
        decay_epochs: length of the decay phase (wsd; below 1: its part of what follows the warm-up) or of a step (step), in epochs;
            None is timm's default.
        decay_rate: power (poly) or factor of each step (step, multistep).
        milestones: epochs of the steps (multistep).
    """

    name: str = "cosine"
    epochs: int = 300
    warmup_epochs: float = 5
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    decay_epochs: float | None = None
    decay_rate: float = 0.1
    milestones: tuple[float, ...] = ()

    def check(self, lr: float) -> None:
        """Refuse phases that do not fit into the run or that the schedule has not, steps that it does not reach, and rates above the peak.

        Args:
            lr: peak learning rate.

        Raises:
            ValueError: naming them.
        """
        left, decay = self.epochs - self.warmup_epochs, self.decay_epochs
        if self.warmup_epochs and left <= 0:
            raise ValueError(
                f"schedule.warmup_epochs={self.warmup_epochs}: expected below schedule.epochs = {self.epochs}: give fewer, as "
                f"--schedule.warmup_epochs {self.epochs / 10:g}, or 0"
            )
        if self.warmup_epochs and self.warmup_lr > lr:
            raise ValueError(f"schedule.warmup_lr={self.warmup_lr}: expected at most optimizer.lr = {lr}")
        if self.name not in ("constant", "step", "multistep") and self.min_lr > lr:
            raise ValueError(f"schedule.min_lr={self.min_lr}: expected at most optimizer.lr = {lr}")
        self._check_steps()
        if decay is not None and self.name not in ("wsd", "rsqrt", "step"):
            raise ValueError(
                f"schedule.decay_epochs={decay:g}: expected with schedule.name wsd, rsqrt or step, and only there; give "
                f"--schedule.decay_epochs null with {self.name}"
            )
        if self.name not in ("wsd", "rsqrt"):
            return
        if decay is not None and decay > left and not decay < 1:  # below 1 it is a fraction
            raise ValueError(
                f"schedule.decay_epochs={decay}: expected at most {left:g}, which schedule.warmup_epochs {self.warmup_epochs:g} leave "
                f"of schedule.epochs {self.epochs}: give fewer, as --schedule.decay_epochs {left / 2:g}"
            )

    def _check_steps(self) -> None:
        """Refuse steps that the run does not reach: the rate would not fall, and nothing would say so."""
        steps, length, epochs = self.milestones, self.decay_epochs, self.epochs
        rising = all(before < after for before, after in itertools.pairwise((0, *steps)))
        require(
            ("schedule.milestones", steps, rising, "epochs in rising order, above 0"),
            (
                "schedule.milestones",
                steps,
                not steps or steps[-1] < epochs,
                f"below schedule.epochs = {epochs}: give others, as --schedule.milestones '[{epochs * 2 / 3:.3g}, {epochs * 8 / 9:.3g}]'",
            ),
            (
                "schedule.decay_epochs",
                length,
                self.name != "step" or (STEP if length is None else length) < epochs,
                f"the length of a step, below schedule.epochs = {epochs}{f' (timm takes {STEP})' if length is None else ''}",
            ),
        )


@dataclass(frozen=True)
class EmaConfig:
    """Exponential moving average of the weights; it is evaluated beside the raw weights and is what a run delivers.

    Attributes:
        decay: decay of the average, in [0, 1); 0 is off.
        warmup: lower decay at the start, for short runs.
    """

    decay: float = 0.9999
    warmup: bool = False


@dataclass(frozen=True)
class SystemConfig:
    """How the run is executed, watched and kept.

    Attributes:
        precision: `no` (float32), `bf16` or `fp16` autocast.
        compile: run the model through torch.compile.
        channels_last: memory format of the images.
        fused_attention: torch's fused attention; on CPUs its bfloat16 backward is slower than plain matrix products.
        grad_checkpointing: recompute activations in the backward pass.
        log_every: updates between log records.
        eval_every: epochs between evaluations.
        checkpoint_every: updates between checkpoints, beside those at the end of each epoch; 0: these only.
        keep_checkpoints: newest checkpoints that are kept.
        max_skipped: consecutive updates without a finite gradient before the run stops.
        trackers: accelerate's, as tensorboard or wandb; the JSONL log is always written.
        processes: processes that must take part, or the run is refused; None takes what the launcher starts.
    """

    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    channels_last: bool = False
    fused_attention: bool = True
    grad_checkpointing: bool = False
    log_every: int = 50
    eval_every: int = 1
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    max_skipped: int = 20
    trackers: tuple[str, ...] = ("tensorboard",)
    processes: int | None = None


RANGES = {
    "seed": "[0, 4294967296)",
    "optimizer.lr": "(0, inf)",
    "optimizer.weight_decay": "[0, inf)",
    "optimizer.rational_lr_scale": "[0, inf)",
    "optimizer.layer_decay": "(0, 1]",
    "optimizer.clip_grad": "(0, inf)",
    "optimizer.grad_accum": "[1, 1e6]",
    "schedule.epochs": "[0, 1e6]",
    "schedule.warmup_epochs": "[0, 1e6]",
    "schedule.warmup_lr": "[0, inf)",
    "schedule.min_lr": "[0, inf)",
    "schedule.decay_epochs": "(0, inf)",
    "schedule.decay_rate": "[0, inf)",
    "schedule.milestones": "[0, 1e6]",
    "ema.decay": "[0, 1)",
    "system.log_every": "[1, 1e9]",
    "system.eval_every": "[1, 1e6]",
    "system.checkpoint_every": "[0, 1e9]",
    "system.keep_checkpoints": "[1, 1e6]",
    "system.max_skipped": "[1, 1e9]",
    "system.processes": "[1, 1e6]",
    "data.batch_size": "[1, 1e7]",
    "data.workers": "[0, 1024]",
}  # of every task


@dataclass(frozen=True)
class RunRecipe:
    """The settings that recipes of all tasks share; `data.batch_size` counts images per update, over all processes and accumulation steps.

    Attributes:
        output: run folder; it is made, and must not hold another run.
        seed: seed of the initial weights, the data order, the augmentation and the regularization.
    """

    output: str
    seed: int = 0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    system: SystemConfig = field(default_factory=SystemConfig)

    auto_batch_size = False  # recipes may have it as a setting
    ranges: ClassVar[Mapping[str, str]] = RANGES

    @property
    def trains(self) -> bool:
        """Whether the run makes updates; without them its schedule and its batch do not matter."""
        return True

    @property
    def images_together(self) -> int:
        """Every process takes a multiple of this in every pass."""
        return 1

    @property
    def batch_size(self) -> int:
        """Images per update, the `data.batch_size` of the task's own `data`."""
        return cast(Any, self).data.batch_size

    def __post_init__(self) -> None:
        """Refuse values that no later stage would name as clearly; each task adds its own.

        Raises:
            ValueError: naming the key, its value and what is right.
        """
        check_ranges(self, self.ranges)
        schedule = self.schedule
        require(
            ("output", self.output, bool(self.output.strip()), "the path of a folder"),
            ("schedule.name", schedule.name, schedule.name in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("schedule.epochs", schedule.epochs, schedule.epochs >= 1 or not self.trains, "at least 1"),
            (
                "schedule.milestones",
                schedule.milestones,
                bool(schedule.milestones) == (schedule.name == "multistep"),
                "given with schedule.name multistep, and only there",
            ),
        )
        if self.trains:
            schedule.check(self.optimizer.lr)


def require(*rules: tuple[str, Any, bool, str]) -> None:
    """Check values of a recipe.

    Args:
        *rules: (key, value, whether it is right, what would be right).

    Raises:
        ValueError: for the first rule that does not hold.
    """
    for key, value, ok, expected in rules:
        if not ok:
            raise ValueError(f"{key}={value!r}: expected {expected}")


def require_batch(batch_size: int, grad_accum: int) -> None:
    """Check that a recipe's global batch can be split into equal passes.

    Args:
        batch_size: images per update.
        grad_accum: forward and backward passes per update.

    Raises:
        ValueError: it cannot.
    """
    if batch_size % grad_accum:
        raise ValueError(f"data.batch_size {batch_size} is not a multiple of optimizer.grad_accum {grad_accum}")


def parse(
    cls: type, argv: Sequence[str], prog: str, defaults: dict[str, Any] | None = None, **flags: dict[str, Any]
) -> tuple[Any, argparse.Namespace]:
    """Read a dataclass from `--config FILE` and `--nested.key value` overrides.

    Args:
        cls: the dataclass to fill.
        argv: command-line arguments.
        prog: name of the command, for its help.
        defaults: key -> value, or section -> dict of them, in place of those of the dataclass.
        **flags: further `--flag` options of the command, name -> arguments of `add_argument`.

    Returns:
        (the dataclass, a namespace with the further flags).

    Raises:
        ValueError: unknown key, wrong type, or a missing required value.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file, or the name of a packaged recipe")
    for name, options in flags.items():
        parser.add_argument("--" + name.replace("_", "-"), **options)
    parser.add_class_arguments(cls)
    parser.set_defaults(defaults or {})
    for action in parser._actions:  # a default does not make an option optional
        action.required = action.required and action.dest not in (defaults or {})
    argv = find_configs(argv)
    for path in config_files(argv):
        check_keys(read_settings(path), cls, path, flags)
    try:
        parsed = parser.parse_args(argv)
        instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # renamed in 4.49
        extra = argparse.Namespace(**{name: parsed.pop(name) for name in flags})
        parsed.pop("config", None)
        return cls(**instantiate(parsed).as_dict()), extra
    except argparse.ArgumentError as error:
        raise ValueError(explain(one_line(error), cls, config_files(argv))) from error


def find_configs(argv: Sequence[str]) -> list[str]:
    """Let `--config` also name a packaged recipe, or give its path in the repository from anywhere.

    Raises:
        FileNotFoundError: neither a file nor a packaged recipe.
        ValueError: no value, or the folder of a run.
    """
    found = list(argv)
    for i, value in _configs(found):
        if not value or value.startswith("--"):
            raise ValueError("--config: expected a file of settings, or the name of a packaged recipe (`kat-zoo recipes` lists them)")
        path = Path(value)
        if path.is_file():
            continue
        packaged = _packaged(path)
        if packaged is None and (path / "recipe.yaml").is_file():
            raise ValueError(f"--config {value} is the folder of a run: expected its recipe, {path / 'recipe.yaml'}")
        if packaged is None or not packaged.is_file():
            name, names = path.name.removesuffix(".yaml"), sorted(path.stem for path in RECIPES.glob("*.yaml"))
            near = difflib.get_close_matches(name, names, 3)
            advice = f"; {did_you_mean(near)} `kat-zoo recipes` lists them" if near else "; `kat-zoo recipes` lists those that are packaged"
            raise FileNotFoundError(f"--config {value}: no such file, and not the name of a packaged recipe{advice}")
        found[i] = found[i].removesuffix(value) + str(packaged)
    return found


def _packaged(path: Path) -> Path | None:
    """The packaged recipe that a path may stand for: a bare name, or one in train/configs or configs; None for other paths.

    A file of another folder, as runs/NAME or mine/NAME.yaml, is the user's own, and another recipe than the packaged one of its name.
    """
    folder = path.parent.parts
    if folder and folder != ("configs",) and folder[-2:] != ("train", "configs"):
        return None
    return RECIPES / f"{path.name.removesuffix('.yaml')}.yaml"


def config_files(argv: Sequence[str]) -> list[str]:
    """The files that `--config` names in a command line."""
    return [value for _, value in _configs(argv)]


def _configs(argv: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(position, file) of each `--config FILE` or `--config=FILE`; where FILE is missing it is empty, or the next option."""
    for i, argument in enumerate(argv):
        if argument.startswith("--config="):
            yield i, argument.removeprefix("--config=")
        elif argument == "--config":
            yield (i + 1, argv[i + 1]) if i + 1 < len(argv) else (i, "")


def to_yaml(recipe: Any) -> str:
    """The recipe as YAML that `parse` reads back to an equal object."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return yaml.safe_dump(plain(dataclasses.asdict(recipe)), sort_keys=False)
