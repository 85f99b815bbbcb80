"""Claim: KANLinear is faster than pykan's speed() and inkan's compiled layer, and hardly slower on a ten times finer grid.

    python benchmarks/kan_speed.py                  # one thread; -> benchmarks/results/kan_speed.csv and .png
    pip install "kat_zoo[bench]"                    # the peers; those that are missing are left out

Forward + backward of a mean square, batch 1024, cubic splines, float32. The contestants, our two grid sizes among them,
take turns within each round of one process, so a noisy machine hits all alike; the table has the least and the median
time. A contestant sits out once it has had --seconds of its own, but runs three times at least. With one thread the time
is the processor's, not the wall clock's, which counts whoever else uses the machine; the first call's includes compilers.
"""

import argparse
import csv
import itertools
import os
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
    return nn.Sequential(*(KANLinear(a, b, grid) for a, b in itertools.pairwise(width)))


def mlp(width: list[int], grid: int) -> nn.Module:
    layers = [m for a, b in itertools.pairwise(width) for m in (nn.Linear(a, b), nn.SiLU())]
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


def clock() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def with_children() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def step(model: nn.Module, x: torch.Tensor, now: Callable[[], float] = clock) -> float:
    begin = now()
    model(x).square().mean().backward()
    elapsed = now() - begin
    model.zero_grad()
    return elapsed


def measure(width: list[int], rounds: int, seconds: float) -> list[dict]:
    x = torch.rand(1024, width[0], generator=torch.Generator().manual_seed(0)) * 2 - 1
    models: dict[tuple[str, int], nn.Module] = {}
    first: dict[tuple[str, int], float] = {}
    for name, grid in [*((name, 5) for name in CONTESTANTS), ("kat_zoo", 50)]:
        try:
            model = CONTESTANTS[name](list(width), grid)  # pykan rewrites the list it is given
        except ImportError as error:
            print(f"{name} left out: {error}")
            continue
        models[name, grid], first[name, grid] = model, step(model, x, with_children)
    times: dict[tuple[str, int], list[float]] = {key: [] for key in models}
    for _ in range(rounds):
        for key, model in models.items():
            if len(times[key]) < 3 or sum(times[key]) < seconds:
                times[key].append(step(model, x))
    return [
        {
            "shape": "-".join(map(str, width)),
            "grid_size": grid,
            "model": name,
            "runs": len(values),
            "first_call_ms": round(1e3 * first[name, grid], 2),
            "min_ms": round(1e3 * min(values), 3),
            "median_ms": round(1e3 * statistics.median(values), 3),
        }
        for (name, grid), values in times.items()
    ]


def picture(rows: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    rows = [row | {"model": f"{row['model']}, G = 50" if row["grid_size"] == 50 else row["model"]} for row in rows]
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
    axes.legend(frameon=False, ncols=2)
    axes.set_title("batch 1024, k = 3, G = 5 unless said; least of the runs", size=9)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row for width in SHAPES for row in measure(width, options.rounds, options.seconds)]
    for row in rows:
        print(row)
    for width in SHAPES:
        least = {row["grid_size"]: row["min_ms"] for row in rows if row["model"] == "kat_zoo" and row["shape"] == "-".join(map(str, width))}
        print(f"{width}: G = 50 costs {least[50] / least[5]:.2f} times G = 5")
    with (HERE / "results" / "kan_speed.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    picture(rows, HERE / "results" / "kan_speed.png")


if __name__ == "__main__":
    main()
