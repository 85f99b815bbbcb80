"""Claim: KANLinear is faster than pykan's speed() and inkan's compiled layer, with no compilation at the first call.

    python benchmarks/kan_speed.py                  # one thread; -> benchmarks/results/kan_speed.csv and .png
    pip install "kat_zoo[bench]"                    # the peers; those that are missing are left out

Forward + backward of a mean square, batch 1024, cubic splines, float32. The contestants take turns within each round
of one process, so a noisy machine hits all alike; the table has the least and the median time.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from kat_zoo.layers import KANLinear

SHAPES = ([2, 5, 1], [64, 64, 10], [784, 64, 10])
HERE = Path(__file__).parent


def ours(width: list[int], grid: int) -> nn.Module:
    return nn.Sequential(*(KANLinear(a, b, grid) for a, b in zip(width, width[1:], strict=False)))


def mlp(width: list[int], grid: int) -> nn.Module:
    layers = [m for a, b in zip(width, width[1:], strict=False) for m in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers[:-1])


def pykan_speed(width: list[int], grid: int) -> nn.Module:
    from kan import KAN

    model = KAN(width, grid=grid, k=3, auto_save=False)
    model.speed()
    return model


def inkan(width: list[int], grid: int) -> nn.Module:
    import inkan as package

    return package.KANNetwork(width, grid_size=grid)  # compiles its basis by default


CONTESTANTS: dict[str, Callable[[list[int], int], nn.Module]] = {
    "kat_zoo": ours,
    "pykan speed()": pykan_speed,
    "inkan": inkan,
    "MLP": mlp,
}


def step(model: nn.Module, x: torch.Tensor) -> float:
    begin = time.perf_counter()
    model(x).square().mean().backward()
    elapsed = time.perf_counter() - begin
    model.zero_grad()
    return elapsed


def measure(width: list[int], grid: int, rounds: int) -> list[dict]:
    x, models, first = torch.rand(1024, width[0]) * 2 - 1, {}, {}
    for name, make in CONTESTANTS.items():
        if grid != 5 and name != "kat_zoo":
            continue
        try:
            models[name] = make(list(width), grid)  # pykan rewrites the list it is given
            first[name] = step(models[name], x)
        except ImportError as error:
            models.pop(name, None)
            print(f"{name} left out: {error}")
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            times[name].append(step(model, x))
    return [
        {
            "shape": "-".join(map(str, width)),
            "grid_size": grid,
            "model": name,
            "first_call_ms": round(1e3 * first[name], 2),
            "min_ms": round(1e3 * min(values), 3),
            "median_ms": round(1e3 * statistics.median(values), 3),
        }
        for name, values in times.items()
    ]


def picture(rows: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    rows = [row for row in rows if row["grid_size"] == 5]
    shapes, names = list(dict.fromkeys(r["shape"] for r in rows)), list(dict.fromkeys(r["model"] for r in rows))
    for n, name in enumerate(names):
        values = {r["shape"]: r["min_ms"] for r in rows if r["model"] == name}
        at = [s + (n - (len(names) - 1) / 2) * 0.8 / len(names) for s in range(len(shapes)) if shapes[s] in values]
        bars = axes.bar(at, [values[s] for s in shapes if s in values], 0.8 / len(names), label=name)
        axes.bar_label(bars, fmt="%.3g", size=7)
    axes.set(
        yscale="log",
        ylabel="forward + backward, ms",
        xticks=range(len(shapes)),
        xticklabels=[f"[{s.replace('-', ', ')}]" for s in shapes],
    )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for width in SHAPES for grid in (5, 50) for row in measure(width, grid, options.rounds)]
    for row in rows:
        print(row)
    with (HERE / "results" / "kan_speed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    picture(rows, HERE / "results" / "kan_speed.png")


if __name__ == "__main__":
    main()
