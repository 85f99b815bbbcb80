"""Recipes: frozen dataclasses read from YAML and the command line; an unknown key or a wrong type is refused."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

RECIPES = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class ModelConfig:
    """What is trained.

    Attributes:
        name: timm model name; every kat_zoo model is registered.
        kwargs: further arguments of `timm.create_model` (drop_path_rate, ...); num_classes defaults to the data's.
        pretrained: start from the model's published weights.
        checkpoint: start from this file (.safetensors, .pth, .npz).
        init_from: start a KAT from a ViT, transferred by `vit_to_kat`: a timm name, for its published weights, or NAME@FILE.
        train_only: `all`, `head`, `rationals` (a few thousand coefficients), or patterns as `blocks.11.*,head.*`.
    """

    name: str = "kat_tiny_patch16_224"
    kwargs: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    checkpoint: str | None = None
    init_from: str | None = None
    train_only: str = "all"


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are shaped; None takes the value from the model's own `pretrained_cfg`.

    Attributes:
        dataset: one of the names of `kat_zoo.train.data.DATASETS`.
        root: folder of the data; None looks in the usual places, then on the Hub.
        holdout: fraction of the training split, in [0, 1), kept out of training and evaluated instead of the test
            split: for choosing hyper-parameters.
        batch_size: images per update over all processes and accumulation steps.
        workers: loader processes per training process.
        input_size: (channels, height, width).
        mean: per-channel mean, of images scaled to [0, 1].
        std: per-channel standard deviation, of images scaled to [0, 1].
        interpolation: of resizing: bilinear, bicubic, ...
        crop_pct: part of the resized image that evaluation crops, in (0, 1].
        sizes: progressive resolution, as `{0: 128, 100: 224}`: first epoch -> side of the training images from then on, in
            pixels; empty: the input size throughout. Evaluation is at the input size.
        streaming: read a dataset of the Hub, or local parquet, as a stream instead of copying it; webdatasets always are.
        samples: images of a training epoch of a stream; None takes the number that the dataset states.
        shuffle_buffer: images among which a stream is shuffled, beyond the order of its shards.
        num_classes: for labels that are plain integers, as those of webdatasets.
        label: column of the labels; None takes the first ClassLabel, or an integer column label, labels or cls.
        max_unreadable: different training images that one process may find damaged; another image takes the place of
            each. One more is an error, as is a single one in the evaluation split.
    """

    dataset: str = "fashion_mnist"
    root: str | None = None
    holdout: float = 0.0
    batch_size: int = 1024
    workers: int = 2
    input_size: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    sizes: dict[int, int] = field(default_factory=dict)
    streaming: bool = False
    samples: int | None = None
    shuffle_buffer: int = 1000
    num_classes: int | None = None
    label: str | None = None
    max_unreadable: int = 0

    @property
    def stream_options(self) -> dict[str, Any]:
        """Keyword arguments of `data.open_dataset` for datasets that the Hub's library reads."""
        return {
            "streaming": self.streaming, "samples": self.samples, "num_classes": self.num_classes, "label": self.label,
            "buffer": self.shuffle_buffer,
        }  # fmt: skip


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; defaults are the recipe of DeiT and KAT (arXiv 2409.10594, section 5.1).

    Attributes:
        crop: `rrc` random resized crop; `pad` random crop after padding by `pad` pixels; `none` resize and centre crop.
        pad: pixels of zero padding for `crop: pad`.
        scale: area range of the random resized crop.
        ratio: aspect ratio range of the random resized crop.
        hflip: probability of a horizontal flip.
        vflip: probability of a vertical flip.
        color_jitter: strength; 0 is off. RandAugment replaces it.
        auto_augment: timm's string, as `rand-m9-mstd0.5-inc1` or `3a`; None is off.
        random_erasing: probability, per image.
        mixup: alpha of mixup, 0 is off.
        cutmix: alpha of cutmix, 0 is off.
        mixup_prob: probability of mixing a batch.
        mixup_switch_prob: probability of cutmix where both are on.
        mixup_mode: `batch`, `pair` or `elem`.
        smoothing: label smoothing in [0, 1); mixup applies it to the mixed targets.
        repeats: times an image is drawn per pass (repeated augmentation); an epoch keeps its length.
    """

    crop: Literal["rrc", "pad", "none"] = "rrc"
    pad: int = 4
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.4
    auto_augment: str | None = "rand-m9-mstd0.5"
    random_erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mixup_prob: float = 1.0
    mixup_switch_prob: float = 0.5
    mixup_mode: Literal["batch", "pair", "elem"] = "batch"
    smoothing: float = 0.1
    repeats: int = 1


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer, loss and their regularisation.

    Attributes:
        name: timm optimizer name: adamw, lamb, lion, muon, sgd (Nesterov), ...
        lr: peak learning rate.
        weight_decay: of matrices; biases, norms and the model's own `no_weight_decay` are exempt.
        decay_rationals: whether rational coefficients, which are 2-D, decay too (the published KATs did).
        rational_lr_scale: learning rate of rational coefficients as a multiple of `lr`.
        layer_decay: learning rate factor from each block to the one below, in (0, 1]; None is off.
        clip_grad: largest gradient norm; None does not clip.
        grad_accum: forward and backward passes per update.
        loss: `ce` or `bce`.
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
    loss: Literal["ce", "bce"] = "ce"
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run; stepped at every update.

    Attributes:
        name: timm scheduler name: cosine, wsd, step, poly, constant, ...
        epochs: passes over the training split, warm-up included.
        warmup_epochs: epochs of linear warm-up.
        warmup_lr: learning rate at the first update.
        min_lr: learning rate at the end.
        decay_epochs: length of the decay phase (wsd) or of a step (step), in epochs; None is timm's default.
    """

    name: str = "cosine"
    epochs: int = 300
    warmup_epochs: float = 5
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    decay_epochs: float | None = None


@dataclass(frozen=True)
class EmaConfig:
    """Exponential moving average of the weights; it is evaluated beside the raw weights and is what a run delivers.

    Attributes:
        decay: in [0, 1); 0 is off.
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
        checkpoint_every: updates between checkpoints; 0: only at the end of each epoch.
        keep_checkpoints: newest checkpoints that are kept.
        max_skipped: consecutive updates without a finite gradient before the run stops.
        trackers: accelerate's, as tensorboard or wandb; the JSONL log is always written.
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


@dataclass(frozen=True)
class Recipe:
    """A whole training run.

    Attributes:
        output: run folder; it is made, and must not hold another run.
        seed: of the initial weights, the data order, the augmentation and the regularisation.
    """

    output: str
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    system: SystemConfig = field(default_factory=SystemConfig)

    def __post_init__(self) -> None:
        """Refuse values that no later stage would name as clearly.

        Raises:
            ValueError: naming the key, its value and what is right.
        """
        rules = [
            ("data.holdout", self.data.holdout, 0 <= self.data.holdout < 1, "in [0, 1)"),
            ("data.batch_size", self.data.batch_size, self.data.batch_size >= 1, "at least 1"),
            ("data.workers", self.data.workers, self.data.workers >= 0, "at least 0"),
            ("augment.smoothing", self.augment.smoothing, 0 <= self.augment.smoothing < 1, "in [0, 1)"),
            ("augment.repeats", self.augment.repeats, self.augment.repeats >= 1, "at least 1"),
            ("optimizer.lr", self.optimizer.lr, self.optimizer.lr > 0, "positive"),
            ("optimizer.grad_accum", self.optimizer.grad_accum, self.optimizer.grad_accum >= 1, "at least 1"),
            ("schedule.epochs", self.schedule.epochs, self.schedule.epochs >= 1, "at least 1"),
            ("schedule.name", self.schedule.name, self.schedule.name != "plateau", "a schedule known in advance"),
            ("ema.decay", self.ema.decay, 0 <= self.ema.decay < 1, "in [0, 1)"),
            ("system.log_every", self.system.log_every, self.system.log_every >= 1, "at least 1"),
            ("system.eval_every", self.system.eval_every, self.system.eval_every >= 1, "at least 1"),
            ("system.keep_checkpoints", self.system.keep_checkpoints, self.system.keep_checkpoints >= 1, "at least 1"),
        ]
        for key, value, ok, expected in rules:
            if not ok:
                raise ValueError(f"{key} is {value!r}; it must be {expected}")
        if self.data.batch_size % self.optimizer.grad_accum:
            raise ValueError(
                f"data.batch_size {self.data.batch_size} is not a multiple of optimizer.grad_accum {self.optimizer.grad_accum}"
            )
        if (self.augment.mixup or self.augment.cutmix) and (self.data.batch_size // self.optimizer.grad_accum) % 2:
            raise ValueError(f"data.batch_size {self.data.batch_size} must be even: mixup and cutmix pair images")


def parse(cls: type, argv: Sequence[str], prog: str, **flags: dict[str, Any]) -> tuple[Any, argparse.Namespace]:
    """Read a dataclass from `--config FILE` and `--nested.key value` overrides.

    Args:
        cls: the dataclass to fill.
        argv: command-line arguments.
        prog: name of the command, for its help.
        **flags: further `--flag` options of the command, name -> arguments of `add_argument`.

    Returns:
        (the dataclass, a namespace with the further flags).

    Raises:
        ValueError: unknown key, wrong type, or a missing required value.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=prog, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file, or the name of a packaged recipe")
    for name, options in flags.items():
        parser.add_argument("--" + name.replace("_", "-"), **options)
    parser.add_class_arguments(cls)
    try:
        parsed = parser.parse_args(_find_configs(argv))
        instantiate = getattr(parser, "instantiate", parser.instantiate_classes)  # renamed in 4.49
        extra = argparse.Namespace(**{name: parsed.pop(name) for name in flags})
        parsed.pop("config", None)
        return cls(**instantiate(parsed).as_dict()), extra
    except argparse.ArgumentError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _find_configs(argv: Sequence[str]) -> list[str]:
    """Let `--config` also name a packaged recipe, or give its path in the repository from anywhere."""
    found = list(argv)
    for i, argument in enumerate(found):
        value = argument.removeprefix("--config=") if argument.startswith("--config=") else None
        if value is None and i and found[i - 1] == "--config":
            value = argument
        if value is None or Path(value).exists():
            continue
        packaged = RECIPES / f"{Path(value).name.removesuffix('.yaml')}.yaml"
        if not packaged.exists():
            names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
            raise FileNotFoundError(f"--config {value}: no such file, and no packaged recipe of that name ({names})")
        found[i] = argument.replace(value, str(packaged))
    return found


def to_yaml(recipe: Any) -> str:
    """The recipe as YAML that `parse` reads back to an equal object."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return yaml.safe_dump(plain(dataclasses.asdict(recipe)), sort_keys=False)
