"""A whole model with GR-KAN against the same model with GELU on the CPU: deit_tiny at 224, batch 8.

    .venv/bin/python benchmarks/kat_model.py           # benchmarks/kat_model.csv

In each of three processes the models run in turns, each turn in another order, for what ran before counts. Times are medians of
all turns; the ratio is the median of the turns' ratios to GELU, eager, with their quartiles. Freed memory is kept (mallopt): as
glibc comes, it gives some of it back after each step, and luck decides which model pays 9,000 page faults a step, 3 % of one.
`GR-KAN, torch.compile` is the model compiled by inductor (its first calls are not counted). Peak memory is that of a fresh
process during a training step, above what it held before: the median of three, with blocks of 1 MiB and more mapped one by
one, for holes in the heap differ by more than the models do.
"""

import argparse
import csv
import ctypes
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import timm
import torch
from torch import nn

import kat_zoo  # noqa: F401  (registers kat_tiny_patch16_224)

HERE = Path(__file__).parent
MODELS = {"GELU": "deit_tiny_patch16_224", "GR-KAN": "kat_tiny_patch16_224"}
BATCH, PROCESSES, TURNS = 8, 3, {"forward": 20, "training step": 12}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def step(model: nn.Module, images: torch.Tensor) -> None:
    model.zero_grad(set_to_none=True)
    model(images).square().mean().backward()


def forward(model: nn.Module, images: torch.Tensor) -> None:
    with torch.inference_mode():
        model(images)


def in_turns(what: str, threads: int, seed: int) -> dict[str, list[float]]:
    """Seconds of each model in each turn."""
    libc = ctypes.CDLL(None)
    libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    libc.mallopt(M_MMAP_THRESHOLD, 1 << 25)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {label: timm.create_model(name) for label, name in MODELS.items()}
    if threads == 2:
        models["GR-KAN, torch.compile"] = torch.compile(models["GR-KAN"])
    run = {"forward": forward, "training step": step}[what]
    for model in models.values():
        model.train(what == "training step")
    images, order = torch.randn(BATCH, 3, 224, 224), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(TURNS[what] + 2):
        for name in order.sample(list(models), len(models)):
            start = time.perf_counter()
            run(models[name], images)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Of each model, its median milliseconds and the quartiles of its ratio to GELU: the median, the first, the third."""
    rows = {}
    for name, times in seconds.items():
        first, median, third = statistics.quantiles((t / g for t, g in zip(times, seconds["GELU"], strict=True)), n=4)
        rows[name] = [round(1e3 * statistics.median(times), 1), *(round(ratio, 3) for ratio in (median, first, third))]
    return rows


def child(*arguments: str) -> str:
    """What this script prints when it is called with the arguments in a process of its own."""
    return subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True).stdout


def memory(field: str) -> float:
    """A line of /proc/self/status in MiB: VmRSS, resident now; VmHWM, the largest since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def print_peak(name: str) -> None:
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)
    model, images = timm.create_model(name).train(), torch.randn(BATCH, 3, 224, 224)
    step(model, images[:1])  # libraries and thread pools are loaded before the count begins
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    step(model, images)
    print(memory("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    parser.add_argument("--turns-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print_peak(options.peak_of)
        return
    if options.turns_of:
        what, threads, seed = options.turns_of
        print(json.dumps(in_turns(what, int(threads), int(seed))))
        return
    rows: list[list] = []
    for threads in (1, 2):
        for what in TURNS:
            pooled: dict[str, list[float]] = {}
            for seed in range(PROCESSES):
                for name, times in json.loads(child("--turns-of", what, str(threads), str(seed))).items():
                    pooled.setdefault(name, []).extend(times)
            rows += [[what, threads, label, *values] for label, values in summary(pooled).items()]
    peaks = {label: statistics.median(float(child("--peak-of", name)) for _ in range(PROCESSES)) for label, name in MODELS.items()}
    rows += [["peak memory, MiB", 2, label, round(p, 1), round(p / peaks["GELU"], 3), "", ""] for label, p in peaks.items()]
    with (HERE / "kat_model.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "threads", "model", "milliseconds", "ratio_to_gelu", "first_quartile", "third_quartile"])
        writer.writerows(rows)
    for row in rows:
        print(*(f"{value!s:<18}" for value in row))


if __name__ == "__main__":
    main()
