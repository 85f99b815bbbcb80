"""Claim: KANRegressor(symbolic=True) finds the formula behind 1000 samples, for nearly every seed, in seconds.

    python benchmarks/kan_formula.py --seeds 20 --targets toy     # exp(sin(pi x) + y^2): >= 19 of 20
    python benchmarks/kan_formula.py --seeds 5                    # all targets -> kan_formula.csv beside this file
    python benchmarks/kan_formula.py --seeds 5 --noise 0.01

A run counts as right when all edges are symbolic and the root mean square error on 1000 fresh samples is below 1e-6
(without noise), or below a tenth of the noise (with noise).
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
    error = float(np.sqrt(np.mean((model.predict(X_new) - y_new) ** 2)))
    right = model.search_.best.symbolic and error < (0.1 * sigma if noise else 1e-6)
    return {
        "target": name, "noise": noise, "seed": seed, "right": int(right), "rmse": f"{error:.2e}",
        "cpu_seconds": round(seconds, 1), "formula": str(model.formula_)[:160],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--out", type=Path, help="CSV file; rows are added")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.targets:
        found = []
        for seed in range(options.seeds):
            found.append(run(name, seed, options.noise))
            print(found[-1], flush=True)
        rows += found
        median = statistics.median(row["cpu_seconds"] for row in found)
        print(
            f"{TARGETS[name][0]}: {sum(row['right'] for row in found)} of {len(found)}, median {median} s", flush=True
        )
        if options.out:
            new = not options.out.exists()
            with options.out.open("a", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                if new:
                    writer.writeheader()
                writer.writerows(found)
    print(f"all: {sum(row['right'] for row in rows)} of {len(rows)}")


if __name__ == "__main__":
    main()
