"""Claims of the page of timm's train.py."""

import functools
import re

import yaml

from .pages import configuration, holds, rows

VALUES = {
    "--model.name": "kat_pico_patch4_28",
    "--model.kwargs": "{drop_rate: 0.1}",
    "--model.checkpoint": "file.pth",
    "--data.root": "folder",
    "--data.dataset": "folder",
    "--data.batch_size": "64",
    "--data.workers": "1",
    "--data.crop_pct": "0.8",
    "--optimizer.lr": "0.002",
    "--optimizer.weight_decay": "0.1",
    "--optimizer.layer_decay": "0.7",
    "--optimizer.clip_grad": "1.0",
    "--optimizer.grad_accum": "2",
    "--schedule.epochs": "7",
    "--schedule.warmup_epochs": "2.0",
    "--schedule.min_lr": "0.0001",
    "--augment.auto_augment": "rand-m7",
    "--augment.mixup": "0.3",
    "--augment.cutmix": "0.3",
    "--augment.random_erasing": "0.2",
    "--augment.smoothing": "0.2",
    "--augment.repeats": "3",
    "--ema.decay": "0.0",
    "--distill.teacher": "vit_tiny_patch16_224",
    "--output": "folder",
}


def check_options(claim):
    """A command line of the row's options is understood, each with its value."""
    pairs = [(name, value or VALUES.get(name)) for name, value in re.findall(r"`(--[\w.]+)(?: ([^`]+))?`", claim)]
    pairs = [(name, VALUES[name] if re.fullmatch(r"[A-Z]+", value) else value) for name, value in pairs]
    found = configuration(["train", *(word for pair in pairs for word in pair)])
    for name, value in pairs:
        node = functools.reduce(lambda tree, key: tree[key], name[2:].split("."), found)
        assert node == yaml.safe_load(value), name


for row in rows("timm"):
    if row[-1].startswith("`--"):
        holds("timm", row[-1])(functools.partial(check_options, row[-1]))


def test_weights_are_averaged_by_default():
    assert configuration(["train"])["ema"]["decay"] > 0
