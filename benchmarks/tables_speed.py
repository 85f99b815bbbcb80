"""CPU seconds and memory of a fit on large tables, for `tables.py --speed`."""

import csv
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np

FIELDS = ("rows", "columns", "model", "score", "cpu_seconds", "table_mb", "peak_mb_over_table")
SIZES = ((20_000, 5, 3.0), (1_000, 100, 3.0), (50_000, 20, 60.0), (200_000, 20, 60.0))  # rows, columns, CPU seconds that are the goal
MODELS = ("KAN", "boosted trees")


def table(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, noisy y and y without noise: curves of two columns and a product of two."""
    generator = np.random.default_rng(0)
    X = generator.uniform(-1, 1, (rows, columns))
    truth = np.sin(3 * X[:, 0]) + X[:, 1] * X[:, 2] + np.abs(X[:, 3])
    return X, truth + 0.5 * generator.normal(size=rows), truth


def fit(rows: int, columns: int, name: str, path: Path) -> None:
    """Fit a model in this process, and write a row."""
    import torch
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    from kat_zoo.kan import KANRegressor

    torch.set_num_threads(1)
    kind = {"KAN": KANRegressor, "boosted trees": HistGradientBoostingRegressor}[name]
    with threadpool_limits(1):
        small = table(500, columns)
        kind(random_state=0).fit(*small[:2]).predict(small[0])  # what is loaded by a first fit is no memory of the table
        X, y, truth = table(rows, columns)
        before, began = peak(), time.process_time()
        model = kind(random_state=0).fit(X, y)
        seconds, grown = time.process_time() - began, peak() - before
        score = model.score(X[:10_000], truth[:10_000])
    row = (rows, columns, name, f"{score:.4f}", f"{seconds:.2f}", f"{X.nbytes / 1e6:.1f}", f"{grown:.0f}")
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(row)
    print(*(f"{key} {value}" for key, value in zip(FIELDS, row, strict=True)), sep=", ")


def peak() -> float:
    """Largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(path: Path) -> None:
    """Write a row for each size and model, each of a process of its own; then say which goals are missed."""
    path.write_text(",".join(FIELDS) + "\n")
    for rows, columns, _ in SIZES:
        for name in MODELS:
            process = multiprocessing.get_context("spawn").Process(target=fit, args=(rows, columns, name, path))
            process.start()
            process.join()
            if process.exitcode:
                raise RuntimeError(f"{rows} x {columns}, {name}: the process ended with {process.exitcode}")
    with path.open(newline="") as file:
        own = {(int(row["rows"]), int(row["columns"])): float(row["cpu_seconds"]) for row in csv.DictReader(file) if row["model"] == "KAN"}
    missed = [
        f"{rows} x {columns}: {own[rows, columns]:.1f} CPU s, goal {goal:g}" for rows, columns, goal in SIZES if own[rows, columns] > goal
    ]
    print(f"Goals missed: {'; '.join(missed) or 'none'}")
