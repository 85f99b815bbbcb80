"""The recipe of an image classifier."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from ..core.config import RANGES, RunRecipe, require, require_batch

NUMBER = r"\d+(?:\.\d+)?"
POLICY = re.compile(  # timm's strings, of which it passes over the parts that it does not know
    rf"rand(?:-(?:(?:m|n|mmax|inc)\d+|(?:p|mstd){NUMBER}|t(?:weights|3aw?)))*|augmix(?:-(?:[mwdb]\d+|(?:a|mstd){NUMBER}))*"
    rf"|(?:original|originalr|v0|v0r|3a)(?:-mstd{NUMBER})?"
)


@dataclass(frozen=True)
class ModelConfig:
    """The model to train.

    Attributes:
        name: timm model name; every kat_zoo model is registered.
        kwargs: further arguments of `timm.create_model` (drop_path_rate, ...); num_classes is the data's.
        pretrained: start from the model's published weights.
        checkpoint: start from this file (.safetensors, .pth, .npz).
        init_from: start a KAT from a ViT, transferred by `vit_to_kat`: a timm name, for its published weights, or NAME@FILE.
        new_head: begin with an untrained classifier; one for another number of classes is replaced in any case.
        train_only: parameters to train in mode finetune: `all`, `last:N` (the last N blocks and the rest), or comma-separated `head`,
            `rationals` (a few thousand coefficients) and patterns of parameter names, as `blocks.11.*,head`.
    """

    name: str = "kat_tiny_patch16_224"
    kwargs: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    checkpoint: str | None = None
    init_from: str | None = None
    new_head: bool = False
    train_only: str = "all"


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are shaped; None takes the value from the model's own `pretrained_cfg`.

    Attributes:
        dataset: one of the names of `kat_zoo.train.classification.datasets.DATASETS`.
        root: folder of the data; None looks in the usual places, then on the Hub.
        holdout: fraction of the training split, in [0, 1), kept out of training and evaluated instead of the test
            split: for choosing hyper-parameters.
        train_images: how many images of the training split are trained on, chosen by the seed; a smaller number gives a
            subset. None: all.
        batch_size: images per update over all processes and accumulation steps.
        workers: loader processes per training process.
        input_size: (channels, height, width).
        mean: mean of each channel, of images scaled to [0, 1].
        std: standard deviation of each channel, of images scaled to [0, 1].
        interpolation: interpolation of resizing.
        crop_pct: part of the resized image that evaluation crops, in (0, 1].
        sizes: progressive resolution, as `{0: 128, 100: 224}`: first epoch -> side of the training images from then on, in
            pixels; empty: the input size throughout. Evaluation is at the input size.
        streaming: read a dataset of the Hub, or local parquet, as a stream instead of copying it; webdatasets always are.
        samples: images of a training epoch of a stream; None takes the number that the dataset states.
        shuffle_buffer: images among which a stream is shuffled, beyond the order of its shards.
        num_classes: number of classes, for labels that are plain integers, as those of webdatasets.
        label: column of the labels; None takes the first ClassLabel, or an integer column label, labels or cls.
        max_unreadable: different training images that one process may find damaged; another image takes the place of
            each. One more is an error, as is a single one in the evaluation split.
    """

    dataset: str = "fashion_mnist"
    root: str | None = None
    holdout: float = 0.0
    train_images: int | None = None
    batch_size: int = 1024
    workers: int = 2
    input_size: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"] | None = None
    crop_pct: float | None = None
    sizes: dict[int, int] = field(default_factory=dict)
    streaming: bool = False
    samples: int | None = None
    shuffle_buffer: int = 1000
    num_classes: int | None = None
    label: str | None = None
    max_unreadable: int = 0


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; defaults are the recipe of DeiT and KAT (arXiv 2409.10594, section 5.1).

    Attributes:
        crop: `rrc` random resized crop; `pad` random crop after padding by `pad` pixels; `none` resize and center crop.
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
class ProbeConfig:
    """The linear probe of modes linear_probe and lp_ft: logistic regression on the frozen network's features.

    Attributes:
        holdout: fraction of the training split, in (0, 1), on which the strength of the regularization is chosen.
        max_iter: iterations of L-BFGS.
    """

    holdout: float = 0.1
    max_iter: int = 1000


@dataclass(frozen=True)
class DistillConfig:
    """Distillation from a frozen teacher (timm.task).

    Attributes:
        teacher: a timm name, for its published weights, NAME@FILE, or the folder of a run; None is off.
        kwargs: further arguments of `timm.create_model` for the teacher, as img_size.
        input_size: (channels, height, width) of the images that the teacher sees, resized from the student's; None: the student's.
        kind: `soft`: the student's logits learn the teacher's distribution; `token_soft`, `token_hard`: those of the
            distillation token of a DeiT do, from the distribution or from the likeliest class (arXiv 2012.12877).
        weight: weight of the distillation loss, in [0, 1]; the loss against the labels has the rest.
        temperature: temperature of the softmax of both.
    """

    teacher: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    input_size: tuple[int, int, int] | None = None
    kind: Literal["soft", "token_soft", "token_hard"] = "soft"
    weight: float = 0.5
    temperature: float = 1.0


@dataclass(frozen=True)
class Recipe(RunRecipe):
    """A whole training run of a classifier.

    Attributes:
        task: name of the task, which `kat-zoo` commands tell recipes apart by.
        mode: `pretrain`: everything is trained. `finetune`: from given weights, of which a head for other classes is
            replaced, `model.train_only` what it says. `linear_probe`: only the head is fitted. `lp_ft`: everything is
            fine-tuned from the head of the linear probe (arXiv 2202.10054).
        model: model to train.
        data: source of the images.
        augment: training augmentation.
        loss: `ce` or `bce`.
        probe: settings of modes linear_probe and lp_ft.
        distill: teacher.
        auto_batch_size: try before training how many images at a time fit into memory, and raise
            `optimizer.grad_accum` accordingly; the global batch stays.
    """

    ranges: ClassVar[Mapping[str, str]] = (
        RANGES
        | {
            "data.holdout": "[0, 1)",
            "data.train_images": "[1, 1e12]",
            "data.input_size": "[1, 65536]",
            "data.mean": "[0, 1]",
            "data.std": "(0, inf)",
            "data.crop_pct": "(0, 1]",
            "data.samples": "[1, 1e12]",
            "data.shuffle_buffer": "[1, 1e9]",
            "data.num_classes": "[1, 1e7]",
            "data.max_unreadable": "[0, 1e6]",
            "augment.scale": "(0, 1]",
            "augment.ratio": "(0, inf)",
            "augment.smoothing": "[0, 1)",
            "augment.repeats": "[1, 1e6]",
            "probe.holdout": "(0, 1)",
            "probe.max_iter": "[1, 1e9]",
            "distill.input_size": "[1, 65536]",
            "distill.weight": "[0, 1]",
            "distill.temperature": "(0, inf)",
        }
        | {f"augment.{name}": "[0, 1]" for name in ("hflip", "vflip", "random_erasing", "mixup_prob", "mixup_switch_prob")}
        | {f"augment.{name}": "[0, 1e6]" for name in ("pad", "color_jitter", "mixup", "cutmix")}
    )

    task: Literal["classification"] = "classification"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: Literal["ce", "bce"] = "ce"
    mode: Literal["pretrain", "finetune", "linear_probe", "lp_ft"] = "pretrain"
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    auto_batch_size: bool = False

    @property
    def probes(self) -> bool:
        """Whether the run begins with a linear probe."""
        return self.mode in ("linear_probe", "lp_ft")

    @property
    def trains(self) -> bool:
        """Whether anything but the head of a linear probe is trained."""
        return self.mode != "linear_probe"

    @property
    def images_together(self) -> int:
        """Two where mixup or cutmix pair images."""
        return 2 if self.augment.mixup or self.augment.cutmix else 1

    @property
    def after_probe(self) -> "Recipe":
        """Recipe of the training that is left after the probe. In mode linear_probe it has no updates, schedule or average."""
        if self.trains:
            return self
        return replace(self, schedule=replace(self.schedule, epochs=0), ema=replace(self.ema, decay=0.0))

    def __post_init__(self) -> None:
        """Refuse values that no later stage would name as clearly.

        Raises:
            ValueError: naming the key, its value and what is right.
        """
        super().__post_init__()
        sizes, scale, ratio, policy = self.data.sizes, self.augment.scale, self.augment.ratio, self.augment.auto_augment
        require(
            ("data.sizes", sizes, not sizes or 0 in sizes, "empty, or begin at epoch 0"),
            ("data.sizes", sizes, all(e >= 0 and 1 <= s <= 65536 for e, s in sizes.items()), "epoch: side in pixels"),
            ("augment.scale", scale, scale[0] <= scale[1], "two numbers in rising order"),
            ("augment.ratio", ratio, ratio[0] <= ratio[1], "two numbers in rising order"),
            (
                "augment.auto_augment",
                policy,
                policy is None or POLICY.fullmatch(policy) is not None,
                "a policy of timm, as rand-m9-mstd0.5-inc1, augmix-m3-w3, original-mstd0.5 or 3a",
            ),
        )
        given = [key for key in ("pretrained", "checkpoint", "init_from") if getattr(self.model, key)]
        if len(given) > 1:
            raise ValueError(f"model.{' and model.'.join(given)} all name the weights to start from; give one")
        if self.mode != "pretrain" and not given:
            raise ValueError(f"mode {self.mode} needs weights to start from: model.pretrained, model.checkpoint or model.init_from")
        if self.mode != "finetune" and self.model.train_only != "all":
            raise ValueError(f"model.train_only is {self.model.train_only!r}, which mode finetune takes; mode is {self.mode}")
        if not self.trains:
            return
        accum = self.optimizer.grad_accum
        require_batch(self.data.batch_size, accum)
        if (self.augment.mixup or self.augment.cutmix) and (self.data.batch_size // accum) % 2:
            raise ValueError(f"data.batch_size={self.data.batch_size}: expected an even number, for mixup and cutmix pair images")
