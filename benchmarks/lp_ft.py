"""Linear probing, fine-tuning, both (LP-FT, arXiv 2202.10054) and rationals only, from one pretrained KAT, in and out of distribution.

    .venv/bin/python benchmarks/lp_ft.py            # benchmarks/results/lp_ft.{csv,png}; --resume after an interruption

Pretraining: classes 0-4 of Fashion-MNIST, 2,000 images each, with RandAugment. Adaptation: classes 5-9, 200 images each, no
augmentation. In distribution (ID): the 5,000 test images of classes 5-9; out of distribution: the same images with noise, at
low contrast, inverted, shifted. The model is a `kat_pico_patch4_28` made narrower (patches of 7, embed_dim 64, depth 2). Learning rate and
epoch are chosen on 1,000 ID validation images. Runs take about 6 minutes of one core and stay in runs/lp_ft.
"""

import argparse
import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import kat_zoo  # noqa: F401  (registers the models)
from kat_zoo.train.checkpoint import save_weights
from kat_zoo.train.classification import train
from kat_zoo.train.config import AugmentConfig, DataConfig, EmaConfig, ModelConfig, OptimizerConfig, Recipe, ScheduleConfig, SystemConfig
from kat_zoo.train.data import ArrayImages, Part, open_dataset

HERE = Path(__file__).parent
MODEL, KWARGS = "kat_pico_patch4_28", {"patch_size": 7, "embed_dim": 64, "num_heads": 4, "depth": 2}
MEAN, STD = 0.2860, 0.3530
PLAIN = AugmentConfig(
    crop="none", hflip=0.0, color_jitter=0.0, auto_augment=None, random_erasing=0.0, mixup=0.0, cutmix=0.0, smoothing=0.0
)  # fmt: skip
STRONG = replace(PLAIN, crop="pad", pad=4, hflip=0.5, auto_augment="rand-m9-mstd0.5", random_erasing=0.25)


def write_images(folder: Path, images: Part | ArrayImages, labels: np.ndarray, classes: range, per_class: slice, seed: int) -> None:
    """Some images of some classes as folder/CLASS/NUMBER.png, the layout of `data.dataset: folder`."""
    for label in classes:
        chosen = np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))[per_class]
        (folder / str(label)).mkdir(parents=True)
        for index in chosen:
            images[int(index)][0].save(folder / str(label) / f"{index:05d}.png")


def write_data(folder: Path, seed: int) -> None:
    """The images that a seed pretrains on, adapts to and validates with; all from the training split."""
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    images = open_dataset("fashion_mnist").train
    labels = np.array([images[i][1] for i in range(len(images))])
    for task, classes, count in (("pretrain", range(5), 2000), ("adapt", range(5, 10), 200)):
        write_images(folder / task / "train", images, labels, classes, slice(0, count), seed)
        write_images(folder / task / "val", images, labels, classes, slice(count, count + 200), seed)
    (folder / "complete").touch()


def recipe(run: Path, data: Path, seed: int, model: ModelConfig, augment: AugmentConfig, lr: float, epochs: int) -> Recipe:
    return Recipe(
        output=str(run),
        seed=seed,
        model=replace(model, name=MODEL, kwargs=KWARGS),
        data=DataConfig(dataset="folder", root=str(data), batch_size=64, workers=0, input_size=(1, 28, 28), mean=(MEAN,), std=(STD,)),
        augment=augment,
        optimizer=OptimizerConfig(lr=lr, clip_grad=1.0),
        schedule=ScheduleConfig(epochs=epochs, warmup_epochs=1),
        ema=EmaConfig(decay=0.0),
        system=SystemConfig(log_every=10, checkpoint_every=50, eval_every=1, trackers=()),
    )


def run_once(plan: Recipe) -> Path:
    """Train unless that is done; continue what was interrupted. Returns the run folder."""
    run = Path(plan.output)
    if not (run / "result.json").exists() and train(plan, resume="auto") is None:
        raise SystemExit("stopped; go on with --resume")
    return run
