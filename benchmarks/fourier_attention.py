"""Fourier-KArAt attention against softmax: models, the operator, and growth with the number of tokens.

Claim: a KArAt model trains at close to the cost of the same ViT with fused softmax attention, and the operator's memory
grows as N, not N^2. Three parts: `models`, ViT-Tiny at 224 pixels; `operator`, attention alone at its size; `tokens`, the
same from 197 to 1025 tokens. Functions are called in turn in one process, and a ratio is the median over the rounds of the
quotient within a round, with the quartiles beside it, so that a busy machine slows both sides; --clock cpu counts the CPU
time of all threads instead of the wall's. Peak memory is what a step adds to the resident set of a fresh process (Linux).

    python benchmarks/fourier_attention.py            # all parts, six minutes at most
    python benchmarks/fourier_attention.py --only models --clock cpu --threads 1

Writes benchmarks/results/fourier_attention.csv and .png, and prints the goals.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from kat_model import memory
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import kat_zoo.models  # noqa: F401
from kat_zoo.kernels import fourier_attention, fourier_attention_reference

HERE = Path(__file__).parent
MODELS = {
    "vit": ("vit_tiny_patch16_224", {}),
    "karat_g1": ("karat_tiny_g3b_patch16_224", {"grid_size": 1}),
    "karat_g3": ("karat_tiny_g3b_patch16_224", {}),
}
TOKENS = (197, 325, 577, 785, 1025)
HEADS, DIM, RANK, ORDER = 3, 64, 12, 3
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SECONDS = 25.0  # for one comparison, after which no further round begins
FIELDS = [
    *("part", "what", "pass", "clock", "threads", "batch", "tokens", "rounds", "min_ms", "median_ms"),
    *("ratio_median", "ratio_low", "ratio_high", "peak_mb", "ratio_peak"),
]
# part, what, pass -> (column, the largest value that meets the goal); for the einsum, the smallest
GOALS = {
    ("models", "karat_g3", "training step"): (("ratio_median", 1.35), ("ratio_peak", 1.05)),
    ("models", "karat_g3", "forward"): (("ratio_median", 1.2),),
    ("models", "karat_g1", "training step"): (("ratio_median", 1.2),),
    ("operator", "karat_einsum", "forward + backward"): (("ratio_median", 4.0),),
}


def interleaved(functions: dict[str, Callable[[], object]], clock: str, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each function, called in turn: `repeats` rounds, or as many as fit into `SECONDS`, but 3 at least."""
    now = CLOCKS[clock]
    times: dict[str, list[float]] = {name: [] for name in functions}
    began = time.perf_counter()
    for i in range(repeats + 1):
        if i > 3 and time.perf_counter() - began > SECONDS:
            break
        for name, function in functions.items():
            start = now()
            function()
            if i:  # the first round warms up
                times[name].append((now() - start) * 1e3)
    return times


def literal_einsum(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """The paper's formula as one writes it down: all harmonics of all logits, contracted, mapped to N x N, times v."""
    logits = torch.einsum("bhkd,bhqd->bhkq", q, k) * q.shape[-1] ** -0.5
    angles = logits.unsqueeze(-1) * torch.arange(1, a.shape[-1] + 1)
    z = torch.einsum("bhkqm,hpqm->bhkp", angles.cos(), a) + torch.einsum("bhkqm,hpqm->bhkp", angles.sin(), b)
    return torch.einsum("bhkp,hnp,bhnd->bhkd", z, w, v)


def train_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def model_steps(name: str, batch: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """(training step, forward without gradients) of one model on random images."""
    arch, arguments = MODELS[name]
    model = timm.create_model(arch, num_classes=10, **arguments)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    images, labels = torch.randn(batch, 3, 224, 224), torch.randint(10, (batch,))
    return lambda: train_step(model, optimizer, images, labels), torch.no_grad()(lambda: model(images))


def operator_step(name: str, batch: int, tokens: int) -> Callable[[], object]:
    """Forward and backward of one attention operator on q, k, v as timm's attention has them."""
    qkv = torch.randn(batch, tokens, 3, HEADS, DIM, requires_grad=True)
    a, b = (torch.randn(HEADS, RANK, tokens, ORDER, requires_grad=True) for _ in range(2))
    w = torch.randn(HEADS, tokens, RANK, requires_grad=True)
    grad = torch.randn(batch, HEADS, tokens, DIM)
    operators = {
        "karat": lambda q, k, v: fourier_attention(q, k, v, a, b, w),
        "karat_einsum": lambda q, k, v: literal_einsum(q, k, v, a, b, w),
        "karat_matmul": lambda q, k, v: fourier_attention_reference(q, k, v, a, b, w),
        "softmax": scaled_dot_product_attention,
    }
    return lambda: operators[name](*qkv.permute(2, 0, 3, 1, 4).unbind(0)).backward(grad)


def peak(kind: str, name: str, batch: int, tokens: int) -> float:
    """Peak memory of a training step in MiB, above what the process holds before it, in a process of its own."""
    threads = str(torch.get_num_threads())
    command = [sys.executable, __file__, "--threads", threads, "--peak-of", json.dumps([kind, name, batch, tokens])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_here(kind: str, name: str, batch: int, tokens: int) -> float:
    if kind == "model":
        model_steps(name, 1)[0]()  # libraries and thread pools are loaded before the count begins
        step = model_steps(name, batch)[0]
    else:
        operator_step(name, 1, 64)()
        step = operator_step(name, batch, tokens)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory("VmRSS")
    step()
    return max(memory("VmHWM") - before, 0.1)


def rows_of(what: str, times: dict[str, list[float]], base: str, peaks: dict[str, float], **shared: object) -> list[dict]:
    """Rows of the table; ratios are to the function named `base`."""
    rows = []
    for name, t in times.items():
        low, middle, high = statistics.quantiles([x / y for x, y in zip(t, times[base], strict=True)], n=4, method="inclusive")
        rows.append(
            {
                "what": name,
                "pass": what,
                "threads": torch.get_num_threads(),
                **shared,
                "rounds": len(t),
                "min_ms": round(min(t), 2),
                "median_ms": round(statistics.median(t), 2),
                "ratio_median": round(middle, 3),
                "ratio_low": round(low, 3),
                "ratio_high": round(high, 3),
                "peak_mb": round(peaks[name], 1) if peaks else "",
                "ratio_peak": round(peaks[name] / peaks[base], 3) if peaks else "",
            }
        )
    return rows


def measure_models(batch: int, clock: str, repeats: int) -> list[dict]:
    steps = {name: model_steps(name, batch) for name in MODELS}
    peaks = {name: peak("model", name, batch, 197) for name in MODELS}
    rows = []
    for i, what in enumerate(("training step", "forward")):
        times = interleaved({name: step[i] for name, step in steps.items()}, clock, repeats)
        shared = {"part": "models", "clock": clock, "batch": batch, "tokens": 197}
        rows += rows_of(what, times, "vit", {} if i else peaks, **shared)
    return rows


def measure_operator(batch: int, clock: str, repeats: int) -> list[dict]:
    names = ["karat", "softmax", "karat_matmul", "karat_einsum"]
    times = interleaved({name: operator_step(name, batch, 197) for name in names}, clock, repeats)
    peaks = {name: peak("operator", name, batch, 197) for name in names}
    return rows_of("forward + backward", times, "karat", peaks, part="operator", clock=clock, batch=batch, tokens=197)


def measure_tokens(batch: int, clock: str, repeats: int) -> list[dict]:
    rows, names = [], ["softmax", "karat", "karat_matmul"]
    for tokens in TOKENS:
        times = interleaved({name: operator_step(name, batch, tokens) for name in names}, clock, repeats)
        peaks = {name: peak("operator", name, batch, tokens) for name in names}
        rows += rows_of("forward + backward", times, "softmax", peaks, part="tokens", clock=clock, batch=batch, tokens=tokens)
    return rows


def print_goals(rows: list[dict]) -> None:
    """Say of each goal what was measured."""
    for row in rows:
        for column, limit in GOALS.get((row["part"], row["what"], row["pass"]), ()):
            value, least = float(row[column]), row["what"] == "karat_einsum"
            met = value >= limit if least else value <= limit
            goal = f"{'>=' if least else '<='} {limit}"
            print(f"{row['part']}, {row['what']}, {row['pass']}: {column} {value} (goal {goal}): {'met' if met else 'MISSED'}")


PARTS = {"models": measure_models, "operator": measure_operator, "tokens": measure_tokens}


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    clock = next(r["clock"] for r in rows if r["part"] == "tokens")
    labels = {"softmax": "softmax (fused)", "karat": "Fourier-KArAt (ours)", "karat_matmul": "Fourier-KArAt (matrix products)"}
    for name, label in labels.items():
        series = [r for r in rows if r["part"] == "tokens" and r["what"] == name]
        for axis, key in zip(axes, ("median_ms", "peak_mb"), strict=True):
            axis.plot([int(r["tokens"]) for r in series], [float(r[key]) for r in series], marker="o", label=label)
    axes[0].set(xlabel="tokens N", ylabel=f"forward + backward ({clock} ms, median)", yscale="log", xscale="log", title="Time")
    axes[1].set(xlabel="tokens N", ylabel="peak memory of a step (MiB)", yscale="log", xscale="log", title="Memory")
    for axis in axes:
        axis.set_xticks(TOKENS, [str(t) for t in TOKENS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts to measure; the others keep their rows")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of a comparison, as far as its seconds allow")
    parser.add_argument("--batch", type=int, default=16, help="images per step of the models and the operator")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "fourier_attention.csv")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        print(peak_here(*json.loads(arguments.peak_of)))
        return
    only = arguments.only.split(",")
    if unknown := [part for part in only if part not in PARTS]:
        parser.error(f"--only {unknown[0]!r}: expected some of {', '.join(PARTS)}")
    rows: list[dict] = []
    if arguments.out.exists():
        with arguments.out.open() as file:
            rows = [row for row in csv.DictReader(file) if row["part"] not in only]
    for part in only:
        rows += PARTS[part](4 if part == "tokens" else arguments.batch, arguments.clock, arguments.repeats)
        rows.sort(key=lambda row: list(PARTS).index(row["part"]))
        with arguments.out.open("w", newline="") as file:  # after every part: a killed call loses one at most
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)
    if any(row["part"] == "tokens" for row in rows):
        plot(rows, arguments.out.with_suffix(".png"))
    print_goals(rows)


if __name__ == "__main__":
    main()
