"""Where the time of the data loader goes, and whether its processes keep the cores busy.

    .venv/bin/python benchmarks/loader.py           # benchmarks/results/loader.{csv,png}

ImageNet's training transform of the KAT recipes (random resized crop to 224, flip, RandAugment, erasing) on 256 JPEG files of 500 x 375,
mosaics of Fashion-MNIST. Left: CPU time per image by stage, in one process. Right: how many cores the workers used, and how many they
asked for: time on a core plus time waiting for one, of /proc/PID/schedstat (Linux), per second of wall time. On a quiet machine both
are the same; workers that waited for anything but a core would ask for less than their number.
"""

import argparse
import csv
import multiprocessing
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from kat_zoo.train.classification.datasets import open_dataset
from kat_zoo.train.classification.loader import train_loader, train_transform
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig
from kat_zoo.train.core.sampling import seeded

HERE = Path(__file__).parent
RESOLVED = {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": "bicubic", "crop_pct": 0.875}
IMAGES, BATCH = 256, 32


def write_mosaics(root: Path) -> None:
    """JPEG files of the size and weight of ImageNet's: 14 x 19 items, colored, with noise."""
    items = open_dataset("fashion_mnist").train
    random = np.random.default_rng(0)
    for split, count in (("train", IMAGES), ("val", 2)):
        for number in range(count):
            rows = [np.hstack([np.asarray(items[int(i)][0]) for i in row]) for row in random.integers(0, 60_000, (14, 19))]
            gray = np.asarray(Image.fromarray(np.vstack(rows)).resize((500, 375)), np.float64)[..., None]
            pixels = np.clip(gray * random.uniform(0.3, 1, 3) + random.normal(0, 12, gray.shape), 0, 255).astype(np.uint8)
            folder = root / split / str(number % 2)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)


def stages(root: Path) -> dict[str, float]:
    """Milliseconds of CPU per image and stage, in this process."""
    images, transform = open_dataset("folder", str(root)).train, train_transform(AugmentConfig(), RESOLVED)
    spent: dict[str, float] = defaultdict(float)
    for index in tqdm(range(len(images)), desc="stages", unit="image"):
        with seeded(index):
            start = time.process_time()
            x: Any = images[index][0].convert("RGB")
            names = ["decode"] + [type(step).__name__ for step in transform.transforms]  # type: ignore[attr-defined]
            for name, step in zip(names, [None, *transform.transforms], strict=True):  # type: ignore[attr-defined]
                x = x if step is None else step(x)
                now = time.process_time()
                spent[name] += 1e3 * (now - start) / len(images)
                start = now
    return dict(spent)


def scheduled() -> np.ndarray:
    """Seconds on a core, and waiting for one, of all loader processes so far."""
    total = np.zeros(2)
    for process in multiprocessing.active_children():
        for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            total += np.array(path.read_text().split()[:2], np.float64) / 1e9
    return total


def throughput(root: Path, workers: int, passes: int) -> dict[str, float]:
    """Images per second and cores of a loader that nobody makes wait, after one pass to start it."""
    images = open_dataset("folder", str(root)).train
    config = DataConfig(batch_size=BATCH, workers=workers)
    loader, sampler, _ = train_loader(images, config, AugmentConfig(), RESOLVED, 0, 1)
    for epoch in range(passes + 1):
        if epoch == 1:
            start, before = time.perf_counter(), scheduled()
        sampler.seek(epoch)
        for _ in loader:
            pass
    wall = time.perf_counter() - start
    used, waited = (scheduled() - before) / wall
    return {"workers": workers, "images_per_s": passes * IMAGES / wall, "cores_used": float(used), "cores_asked_for": float(used + waited)}


def plot(spent: dict[str, float], rows: list[dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.barh(list(spent)[::-1], list(spent.values())[::-1])
    left.set(xlabel="CPU time per image (ms)", ylabel="stage", title=f"{sum(spent.values()):.1f} ms per image in one process")
    positions = np.arange(len(rows))
    for shift, key, label in ((-0.2, "cores_used", "used"), (0.2, "cores_asked_for", "asked for")):
        bars = right.bar(positions + shift, [row[key] for row in rows], 0.4, label=label)
        right.bar_label(bars, fmt="%.2f")
    right.set_xticks(positions, [f"{row['workers']:.0f}\n{row['images_per_s']:.0f} images/s" for row in rows])
    right.margins(y=0.15)  # room for the labels
    right.set(xlabel="loader processes", ylabel="cores", title="Cores that the loader keeps busy")
    right.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--passes", type=int, default=10, help="over the 256 images, timed")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_mosaics(Path(folder))
        spent = stages(Path(folder))
        rows = [throughput(Path(folder), workers, options.passes) for workers in options.workers]
    with (options.out / "loader.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "value", "unit"])
        writer.writerows((f"stage {name}", f"{value:.3f}", "ms CPU per image") for name, value in spent.items())
        writer.writerows((f"{key}, {row['workers']} workers", f"{row[key]:.2f}", "") for row in rows for key in row if key != "workers")
    plot(spent, rows, options.out / "loader.png")
    for row in rows:
        print({key: round(value, 2) for key, value in row.items()})


if __name__ == "__main__":
    main()
