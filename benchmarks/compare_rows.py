"""What `compare.py` compares: the rows, the budgets, and the recipe of a run."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kat_zoo.train.classification.recipe import ModelConfig, Recipe
from kat_zoo.train.core.config import EmaConfig, parse


@dataclass(frozen=True)
class Row:
    """A model of the comparison; all have four blocks of width 96 with 3 heads on 49 tokens, but for the last three.

    Attributes:
        label: as shown.
        model: name for `timm.create_model`.
        family: key of the row it is compared with and, unless it has a sweep of its own, whose learning rate it takes.
        kwargs: of the model.
        own_sweep: whether it has a learning-rate sweep of its own, as the first row of each family has.
    """

    label: str
    model: str
    family: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    own_sweep: bool = False


VIT, KAT, KAN, KARAT = "vit_mlp_pico_patch4_28", "kat_pico_patch4_28", "vit_kan_pico_patch4_28", "karat_pico_patch4_28"
EIGHT: dict[str, Any] = {"mixer_kwargs": {"num_bases": 8}}  # bases, as the larger ViT + KAN have; the pico model has 7
MAIN = {
    "vit": Row("ViT (GELU)", VIT, "vit"),
    "swiglu": Row("ViT (SwiGLU)", "vit_swiglu_pico_patch4_28", "swiglu"),
    "kat": Row("KAT", KAT, "kat"),
    "vit_kan": Row("ViT + KAN", KAN, "vit_kan", EIGHT),
    "karat": Row("KArAt G3B", KARAT, "karat", {"depth": 4}),
    "karat_kat": Row("KAT + KArAt G3B", "karat_kat_pico_patch4_28", "karat_kat"),
}
EXTRA = {
    "vit_wide": Row("ViT (GELU), size of ViT + KAN", VIT, "vit", {"mlp_ratio": 8.0}),
    "vit_kan_small": Row("ViT + KAN, size of ViT", KAN, "vit_kan", {"mlp_ratio": 0.5, **EIGHT}),
    "vit_relu": Row("ViT (ReLU)", VIT, "vit", {"act_layer": "relu"}),
    "vit_silu": Row("ViT (SiLU)", VIT, "vit", {"act_layer": "silu"}),
    "vit_prelu": Row("ViT (PReLU per node)", "vit_lan_pico_patch4_28", "vit", {"mixer_kwargs": {"activation": "prelu"}}, True),
    "vit_lan": Row("ViT (rational per node)", "vit_lan_pico_patch4_28", "vit", own_sweep=True),
    "kat_identity": Row("KAT, identity-identity", KAT, "kat", {"act_init": "identity-identity"}),
    "kat_swish": Row("KAT, swish-swish", KAT, "kat", {"act_init": "swish-swish"}),
    "kat_gelu": Row("KAT, identity-gelu", KAT, "kat", {"act_init": "identity-gelu"}),
    "kat_g1": Row("KAT, 1 group", KAT, "kat", {"num_groups": 1}),
    "kat_g2": Row("KAT, 2 groups", KAT, "kat", {"num_groups": 2}),
    "kat_g4": Row("KAT, 4 groups", KAT, "kat", {"num_groups": 4}),
    "kat_g16": Row("KAT, 16 groups", KAT, "kat", {"num_groups": 16}),
    "kat_32": Row("KAT, order (3, 2)", KAT, "kat", {"order": [3, 2]}),
    "kat_76": Row("KAT, order (7, 6)", KAT, "kat", {"order": [7, 6]}),
    "karat_g1b": Row("KArAt G1B", KARAT, "karat", {"depth": 4, "grid_size": 1}),
    "karat_g3u": Row("KArAt G3U", KARAT, "karat", {"depth": 4, "mode": "universal"}),
    "fourier": Row("ViT + Fourier-KAN", "vit_fourier_pico_patch4_28", "fourier"),
    "mixer": Row("MLP-Mixer + GR-KAN", "kat_mixer_pico_patch4_28", "mixer"),
    "kan_mlp": Row("KAN on pixels", "kan_mlp_pico_28", "kan_mlp"),
    "mlp": Row("MLP on pixels", "mlp_pico_28", "mlp"),
}
ROWS = MAIN | EXTRA
SWEEP_OF = {key: key if row.own_sweep else row.family for key, row in ROWS.items()}  # row -> row that was swept for it
RATES = (1.3e-4, 4e-4, 1.2e-3, 3.6e-3, 1.08e-2)


@dataclass(frozen=True)
class Scale:
    """A budget, the same for every row.

    Attributes:
        images: of the training split, drawn by the seed.
        epochs: passes over them.
        sweep_images: images of a run of the learning-rate sweep, which has as many epochs.
        seeds: runs of a main row; other rows have one.
        holdout: part of the training split that the sweep is judged on; it never sees the test split.
        batch_size: images per update.
    """

    images: int
    epochs: int
    sweep_images: int
    seeds: int = 3
    holdout: float = 1 / 12
    batch_size: int = 64


SCALES = {
    "toy": Scale(images=64, epochs=1, sweep_images=48, seeds=2, holdout=0.25, batch_size=16),  # for tests
    "small": Scale(images=12_000, epochs=3, sweep_images=4_000),
    "full": Scale(images=60_000, epochs=3, sweep_images=12_000),
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        kind: "sweep" or "main".
        row: key of `ROWS`.
        seed: of everything random; equal seeds share images, order and augmentation.
        lr: peak learning rate.
    """

    kind: str
    row: str
    seed: int
    lr: float

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return f"{self.kind}-{self.row}-seed{self.seed}-lr{self.lr:g}"


def sweep_rates(scores: Mapping[float, Any]) -> list[float]:
    """The three rates of every sweep and, where the best of them stands at an edge, the next one beyond it.

    Args:
        scores: rate -> what is to be large, of the runs that are finished.
    """
    rates = list(RATES[1:-1])
    if all(rate in scores for rate in rates):
        best = max(rates, key=lambda rate: scores[rate])
        if best == rates[0]:
            return [RATES[0], *rates]
        if best == rates[-1]:
            return [*rates, RATES[-1]]
    return rates


def chosen_rate(scores: Mapping[float, Any]) -> float | None:
    """The rate with the best score, of two alike the larger; None while the sweep is not complete."""
    rates = sweep_rates(scores)
    return max(rates, key=lambda rate: (scores[rate], rate)) if all(rate in scores for rate in rates) else None


def sweep_run(row: str, lr: float) -> Run:
    """A run of a learning-rate sweep, with a seed of its own."""
    return Run("sweep", row, 1000, lr)


def recipe(run: Run, scale: Scale, folder: Path, root: str | None) -> Recipe:
    """The recipe of a run: kat_pico_fmnist at another length, without averaging of weights."""
    base: Recipe = parse(Recipe, ["--config", "kat_pico_fmnist"], "compare")[0]
    row, sweep = ROWS[run.row], run.kind == "sweep"
    images = scale.sweep_images if sweep else scale.images
    updates = images // scale.batch_size
    return replace(
        base,
        output=str(folder / run.name),
        seed=run.seed,
        model=ModelConfig(name=row.model, kwargs=row.kwargs),
        data=replace(
            base.data,
            root=root,
            train_images=images,
            holdout=scale.holdout if sweep else 0.0,
            batch_size=scale.batch_size,
            workers=0,
        ),
        optimizer=replace(base.optimizer, lr=run.lr),
        schedule=replace(base.schedule, name="cosine", epochs=scale.epochs, warmup_epochs=0.3, decay_epochs=None),
        ema=EmaConfig(decay=0.0),
        system=replace(
            base.system, eval_every=scale.epochs, log_every=max(1, updates // 8), checkpoint_every=100, keep_checkpoints=1, trackers=()
        ),
    )


def write_csv(path: Path, rows: Sequence[dict[str, Any]], fields: Sequence[str]) -> None:
    """Write a table whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
