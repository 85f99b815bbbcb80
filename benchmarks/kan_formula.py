"""Claim: KANRegressor(symbolic=True) finds the formula behind 1000 samples, for nearly every seed, in seconds.

    python benchmarks/kan_formula.py --seeds 20 --targets toy     # exp(sin(pi x) + y^2): >= 19 of 20
    python benchmarks/kan_formula.py --seeds 5                    # all targets
    python benchmarks/kan_formula.py --seeds 5 --noise 0.01       # Gaussian, 1 % of the target's standard deviation

Each call measures all that it is asked for, a row a run (half a minute at most), in runs/kan_formula.csv (--runs); --resume goes on
after an interruption. At the end the rows take the place of those of the same target, noise and seed in
benchmarks/results/kan_formula.csv (--out); rates and medians of the whole file are written beside it (kan_formula_summary.csv), those of
this call are printed. One thread. The first command takes a minute, the second ten.

A run counts as right when all edges are symbolic and the root mean square error against the true function on 1000 fresh
samples is below 1e-6 (without noise), or below a fifth of the noise: five times closer to the truth than the data.
"""

import argparse
import csv
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from scipy.special import j0

from kat_zoo.kan import KANRegressor

TARGETS = {
    "toy": ("exp(sin(pi x1) + x2^2)", lambda x: np.exp(np.sin(np.pi * x[0]) + x[1] ** 2), 2, (-1, 1)),
    "product": ("x1 x2", lambda x: x[0] * x[1], 2, (-1, 1)),
    "quotient": ("x1 / x2", lambda x: x[0] / x[1], 2, (0.5, 2)),
    "bessel": ("exp(J0(20 x1) + x2^2)", lambda x: np.exp(j0(20 * x[0]) + x[1] ** 2), 2, (-1, 1)),
    "velocities": ("(x1 + x2) / (1 + x1 x2)", lambda x: (x[0] + x[1]) / (1 + x[0] * x[1]), 2, (-0.9, 0.9)),
    "tanh": ("tanh(5 (x1^4 + x2^4 + x3^4 - 1))", lambda x: np.tanh(5 * ((x**4).sum(0) - 1)), 3, (-1, 1)),
    "distance": ("sqrt((x1-x2)^2 + (x3-x4)^2)", lambda x: np.hypot(x[0] - x[1], x[2] - x[3]), 4, (-1, 1)),
}


def run(name: str, seed: int, noise: float) -> dict:
    _, function, inputs, (low, high) = TARGETS[name]
    generator = np.random.default_rng(seed)
    X, X_new = (generator.uniform(low, high, (1000, inputs)) for _ in range(2))
    y, y_new = function(X.T), function(X_new.T)
    sigma = noise * y.std()
    model = KANRegressor(symbolic=True, random_state=seed)
    began = time.process_time()
    model.fit(X, y + sigma * generator.standard_normal(len(y)))
    seconds = time.process_time() - began
    error = float(np.nan_to_num(np.sqrt(np.mean((model.predict(X_new) - y_new) ** 2)), nan=np.inf))
    right = "phi_" not in str(model.formula_) and error < (0.2 * sigma if noise else 1e-6)
    return {
        "target": name, "noise": noise, "seed": seed, "right": int(right), "rmse": f"{error:.2e}",
        "cpu_seconds": round(seconds, 1), "formula": str(model.formula_)[:160],
    }  # fmt: skip


def read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{**row, "noise": float(row["noise"]), "seed": int(row["seed"])} for row in csv.DictReader(file)]


def key(row: dict) -> tuple[str, float, int]:
    return row["target"], row["noise"], row["seed"]


def summary(rows: list[dict]) -> list[dict]:
    """Rates and medians, by noise and target, and over all targets (each counts alike)."""
    table = []
    for noise in sorted({row["noise"] for row in rows}):
        parts = []
        for name in TARGETS:
            part = [row for row in rows if row["target"] == name and row["noise"] == noise]
            if part:
                right = sum(int(row["right"]) for row in part)
                parts.append(right / len(part))
                table.append(
                    {"target": TARGETS[name][0], "noise": noise, "right": right, "seeds": len(part), "rate": f"{right / len(part):.2f}",
                     "median_rmse": f"{statistics.median(float(row['rmse']) for row in part):.1e}",
                     "median_cpu_seconds": f"{statistics.median(float(row['cpu_seconds']) for row in part):.1f}"}
                )  # fmt: skip
        table.append({"target": "all", "noise": noise, "rate": f"{statistics.mean(parts):.2f}"})
    return table


def write(path: Path, rows: list[dict], names: list[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kan_formula.csv")
    parser.add_argument("--runs", type=Path, default=Path("runs/kan_formula.csv"), help="runs of this call so far")
    parser.add_argument("--resume", action="store_true", help="go on with the runs of a call that was interrupted")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = read(options.runs) if options.resume else []
    done = {key(row) for row in rows}
    wanted = [(name, options.noise, seed) for name in options.targets for seed in range(options.seeds)]
    for name, noise, seed in wanted:
        if (name, noise, seed) not in done:
            rows.append(run(name, seed, noise))
            print(rows[-1], flush=True)
            write(options.runs, rows, list(rows[-1]))
    new = {key(row): row for row in rows if key(row) in set(wanted)}
    kept = {key(row): row for row in read(options.out)} | new
    write(options.out, list(kept.values()), list(rows[-1]))
    write(options.out.with_name(options.out.stem + "_summary.csv"), table := summary(list(kept.values())), list(table[0]))
    for row in summary(list(new.values())):
        print(row)


if __name__ == "__main__":
    main()
