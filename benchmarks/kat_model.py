"""A whole model with GR-KAN against the same model with GELU on the CPU: deit_tiny at 224, batch 8.

    .venv/bin/python benchmarks/kat_model.py           # benchmarks/kat_model.csv

The models run in one process in turns; times are medians, and the ratio is the median of the turns' ratios to GELU, eager.
`GR-KAN, torch.compile` is the model compiled by inductor (its first call is not counted). Peak memory is that of a fresh
process during a training step, above what it held before.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import nn

import kat_zoo  # noqa: F401  (registers kat_tiny_patch16_224)

HERE = Path(__file__).parent
MODELS = {"GELU": "deit_tiny_patch16_224", "GR-KAN": "kat_tiny_patch16_224"}
BATCH, TURNS = 8, 11


def step(model: nn.Module, images: torch.Tensor) -> None:
    model.zero_grad(set_to_none=True)
    model(images).square().mean().backward()


def forward(model: nn.Module, images: torch.Tensor) -> None:
    with torch.inference_mode():
        model(images)


def in_turns(run: Callable[[nn.Module, torch.Tensor], None], models: dict[str, nn.Module]) -> list[tuple[str, float, float]]:
    """(name, median milliseconds, median ratio to GELU) of each model."""
    images = torch.randn(BATCH, 3, 224, 224)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(TURNS + 2):
        for name, model in models.items():
            start = time.perf_counter()
            run(model, images)
            seconds[name].append(time.perf_counter() - start)
    return [
        (name, 1e3 * statistics.median(times[2:]), statistics.median(t / g for t, g in zip(times[2:], seconds["GELU"][2:], strict=True)))
        for name, times in seconds.items()
    ]


def peak_megabytes(name: str) -> float:
    command = [sys.executable, __file__, "--peak-of", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory(field: str) -> float:
    """A line of /proc/self/status in MiB: VmRSS, resident now; VmHWM, the largest since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def print_peak(name: str) -> None:
    model, images = timm.create_model(name).train(), torch.randn(BATCH, 3, 224, 224)
    step(model, images[:1])  # libraries and thread pools are loaded before the count begins
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    step(model, images)
    print(memory("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    peak_of = parser.parse_args().peak_of
    if peak_of:
        print_peak(peak_of)
        return
    torch.manual_seed(0)
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        models: dict[str, nn.Module] = {label: timm.create_model(name) for label, name in MODELS.items()}
        if threads == 2:
            models["GR-KAN, torch.compile"] = torch.compile(models["GR-KAN"])
        for what, run in (("forward", forward), ("training step", step)):
            for model in models.values():
                model.train(what == "training step")
            rows += [(what, threads, label, round(t, 1), round(ratio, 3)) for label, t, ratio in in_turns(run, models)]
    peaks = {label: peak_megabytes(name) for label, name in MODELS.items()}
    rows += [("peak memory, MiB", 2, label, round(p, 1), round(p / peaks["GELU"], 3)) for label, p in peaks.items()]
    with open(HERE / "kat_model.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "threads", "model", "milliseconds", "ratio_to_gelu"])
        writer.writerows(rows)
    for row in rows:
        print(*(f"{value!s:<18}" for value in row))


if __name__ == "__main__":
    main()
