"""Time and memory of a training step of every row of `compare.py`: run it on a quiet machine.

One thread, bfloat16 autocast, as the runs; times are medians of steps of all models in turns, peak memory is that of a fresh
process during a step, above what it held before.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import timm
import torch
from compare_rows import ROWS, write_csv
from kat_model import memory
from timm.layers import set_fused_attn
from torch import Tensor, nn

from kat_zoo.hub.registry import measure

TURNS = 11
MEASURE_FIELDS = ["row", "ms_per_image", "peak_mb"]
SIZE_FIELDS = ["row", "params", "mmacs"]


def create(key: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(ROWS[key].model, num_classes=10, **ROWS[key].kwargs).train()


def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    nn.functional.cross_entropy(logits.float(), labels).backward()


def batch(size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 1, 28, 28), torch.randint(10, (size,))


def print_peak(key: str, batch_size: int) -> None:
    """The child process: print the peak in MiB."""
    torch.set_num_threads(1)
    set_fused_attn(False)
    model, (images, labels) = create(key), batch(batch_size)
    step(model, images[:1], labels[:1])  # libraries are loaded before the count begins
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    step(model, images, labels)
    print(memory("VmHWM") - before)


def sizes() -> list[dict[str, object]]:
    """Parameters, and multiply-adds of one image in millions, those inside attention included."""
    rows = []
    for key, row in ROWS.items():
        size = measure(timm.create_model(row.model, num_classes=10, device="meta", **row.kwargs), (1, 28, 28))
        rows.append({"row": key, "params": size.params, "mmacs": round(1e3 * (size.gmacs + size.attention_gmacs), 3)})
    return rows


def measure_all(path: Path, batch_size: int) -> None:
    """Write measure.csv."""
    torch.set_num_threads(1)
    set_fused_attn(False)
    models, data = {key: create(key) for key in ROWS}, batch(batch_size)
    seconds: dict[str, list[float]] = {key: [] for key in ROWS}
    for turn in range(TURNS + 2):
        print(f"turn {turn + 1} of {TURNS + 2}", flush=True)
        for key, model in models.items():
            start = time.perf_counter()
            step(model, *data)
            seconds[key].append(time.perf_counter() - start)
    rows = []
    for key in ROWS:
        command = [sys.executable, __file__, key, str(batch_size)]
        peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        time_per_image = statistics.median(seconds[key][2:]) * 1e3 / batch_size
        rows.append({"row": key, "ms_per_image": round(time_per_image, 3), "peak_mb": round(peak, 1)})
    write_csv(path, rows, MEASURE_FIELDS)


if __name__ == "__main__":
    print_peak(sys.argv[1], int(sys.argv[2]))
