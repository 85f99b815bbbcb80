"""A run that was killed, then stopped, and continued each time, against one that was left alone: the same curve, bit by bit.

    .venv/bin/python benchmarks/resume.py           # benchmarks/results/resume.{csv,png}

KAT on 640 Fashion-MNIST images, 4 epochs of 20 updates, with RandAugment, random erasing, mixup, drop-path, two loader processes and
averaged weights; a checkpoint every 7 updates. `kat-zoo train` gets SIGKILL after update 25 and, continued with `--resume auto`, SIGTERM
after update 50. Fails unless every logged figure and every weight is equal. About one minute of one core.
"""

import argparse
import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lp_ft import MEAN, STD, write_images
from matplotlib.figure import Figure
from safetensors.torch import load_file

from kat_zoo.train.classification.datasets import open_dataset
from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig, ModelConfig, Recipe
from kat_zoo.train.core.config import EmaConfig, OptimizerConfig, ScheduleConfig, SystemConfig, to_yaml
from kat_zoo.train.core.log import read_log

HERE = Path(__file__).parent
STOPS = ((25, signal.SIGKILL), (50, signal.SIGTERM))


def write_data(folder: Path) -> None:
    images = open_dataset("fashion_mnist").train
    labels = np.array([images[i][1] for i in range(5000)])
    write_images(folder / "train", images, labels, range(10), slice(0, 64), seed=0)
    write_images(folder / "val", images, labels, range(10), slice(64, 84), seed=0)


def recipe(run: Path, data: Path) -> Recipe:
    kwargs = {"patch_size": 7, "embed_dim": 64, "num_heads": 4, "depth": 2, "drop_path_rate": 0.2}
    return Recipe(
        output=str(run),
        model=ModelConfig(name="kat_pico_patch4_28", kwargs=kwargs),
        data=DataConfig(
            dataset="folder", root=str(data), batch_size=32, workers=2, input_size=(1, 28, 28), mean=(MEAN,), std=(STD,)
        ),
        augment=AugmentConfig(crop="pad"),
        optimizer=OptimizerConfig(lr=2e-3, clip_grad=1.0),
        schedule=ScheduleConfig(epochs=4, warmup_epochs=1),
        ema=EmaConfig(decay=0.9),
        system=SystemConfig(log_every=1, checkpoint_every=7, trackers=()),
    )  # fmt: skip


def start_and_stop(plan: Recipe, config: Path, update: int, number: signal.Signals) -> int:
    """Train in a process of its own until its log reaches `update`, then send it a signal; returns its last logged update."""
    config.write_text(to_yaml(plan))
    log = Path(plan.output) / "metrics.jsonl"
    command = "import sys; from kat_zoo.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", command, "train", "--config", str(config), "--resume", "auto"])
    while process.poll() is None and not (log.exists() and read_log(log) and read_log(log)[-1]["update"] >= update):
        time.sleep(0.02)
    process.send_signal(number)
    code = process.wait()
    if code != (0 if number == signal.SIGTERM else -number):
        raise SystemExit(f"the process ended with {code} before {number.name} could reach it")
    return read_log(log)[-1]["update"]


def figures(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in record.items() if k != "images_per_second"} for record in read_log(run / "metrics.jsonl")]


def plot(whole: list[dict[str, float]], parts: list[dict[str, float]], stops: list[int], path: Path) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for records, label, style in ((whole, "left alone", {"linewidth": 4, "color": "C1"}), (parts, "interrupted", {"color": "C0"})):
        points = [(r["update"], r["loss"]) for r in records if "loss" in r]
        axis.plot(*zip(*points, strict=True), label=label, **style)
    for stop, (_, number) in zip(stops, STOPS, strict=True):
        axis.axvline(stop, color="gray", linestyle=":")
        axis.annotate(number.name, (stop, 1), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", fontsize="small")
    axis.set(xlabel="update", ylabel="training loss", title="An interrupted run and the same run left alone")
    axis.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/resume"), help="folder of the runs; made anew")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(options.runs, ignore_errors=True)
    write_data(options.runs / "data")
    whole, parts = (recipe(options.runs / name, options.runs / "data") for name in ("whole", "interrupted"))
    train(whole)
    stops = [start_and_stop(parts, options.runs / "recipe.yaml", update, number) for update, number in STOPS]
    train(parts, resume="auto")

    left, right = figures(Path(whole.output)), figures(Path(parts.output))
    if left != right:
        raise SystemExit("the logs differ")
    weights = [load_file(Path(plan.output) / "model.safetensors") for plan in (whole, parts)]
    if not all(torch.equal(value, weights[1][name]) for name, value in weights[0].items()):
        raise SystemExit("the weights differ")
    with (options.out / "resume.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["update", "loss_left_alone", "loss_interrupted"])
        writer.writerows((a["update"], a["loss"], b["loss"]) for a, b in zip(left, right, strict=True) if "loss" in a)
    plot(left, right, stops, options.out / "resume.png")
    print(f"stopped after updates {stops}; {len(left)} records and all weights are equal")


if __name__ == "__main__":
    main()
