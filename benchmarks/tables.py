"""Claim: KANRegressor() and KANClassifier(), untuned, are within 0.01 of the best of the usual choices on most tables.

    python benchmarks/tables.py                 # goes on where it was interrupted; some hours of one core, most of them EBM's
    python benchmarks/tables.py --only wine     # some tables
    python benchmarks/tables.py --summary       # what the rows say, without measuring
    python benchmarks/tables.py --speed         # CPU seconds and memory on large tables, in minutes; -> results/tables_speed.csv

19 tables, 5 folds twice: R^2 of regressors, accuracy of classifiers. Tables come from scikit-learn, from statsmodels (in the extra
`bench`) and from generators; where data is made here, the test target has no noise. Peers: ridge or logistic regression (penalty by
cross-validation, scaled), random forest, boosted trees and a scaled MLP of scikit-learn, and interpret's explainable boosting machine
(extra `bench`). A process for each table, on one thread. Rows go to benchmarks/results/tables.csv, the picture beside it. CPU seconds
are those of the process, upper readings where other work shares the core.
"""

import argparse
import csv
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tables_speed
from tables_of_data import TABLES

HERE = Path(__file__).parent / "results"
FIELDS = ("table", "task", "rows", "columns", "model", "repeat", "score", "sd_of_folds", "cpu_seconds_a_fit")
MODELS = ("KAN", "ridge / logistic", "random forest", "boosted trees", "MLP", "EBM")
REPEATS, FOLDS = 2, 5
Scores = dict[str, dict[str, tuple[float, float]]]
CLOSE = 0.01  # of the best score
OURS = MODELS[0]


def models(task: str) -> dict[str, Callable[[], Any]]:
    """Constructors of the models by name."""
    from sklearn import ensemble, linear_model, neural_network
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from kat_zoo.kan import KANClassifier, KANRegressor

    if task == "regression":
        return {
            OURS: KANRegressor,
            "ridge / logistic": lambda: make_pipeline(StandardScaler(), linear_model.RidgeCV(np.logspace(-3, 3, 13))),
            "random forest": lambda: ensemble.RandomForestRegressor(random_state=0),
            "boosted trees": lambda: ensemble.HistGradientBoostingRegressor(random_state=0),
            "MLP": lambda: make_pipeline(StandardScaler(), neural_network.MLPRegressor(max_iter=1000, random_state=0)),
            "EBM": lambda: _boosting("Regressor"),
        }
    return {
        OURS: KANClassifier,
        "ridge / logistic": lambda: make_pipeline(StandardScaler(), linear_model.LogisticRegressionCV(Cs=5, l1_ratios=(0,), max_iter=1000)),
        "random forest": lambda: ensemble.RandomForestClassifier(random_state=0),
        "boosted trees": lambda: ensemble.HistGradientBoostingClassifier(random_state=0),
        "MLP": lambda: make_pipeline(StandardScaler(), neural_network.MLPClassifier(max_iter=1000, random_state=0)),
        "EBM": lambda: _boosting("Classifier"),
    }


def _boosting(kind: str) -> Any:
    from interpret import glassbox

    return getattr(glassbox, f"ExplainableBoosting{kind}")(random_state=0, n_jobs=1)


def measure(name: str, path: Path, done: set[tuple[str, str, str]], chosen: list[str]) -> None:
    """Score models on a table, and write a row for each repeat."""
    import torch
    from sklearn.model_selection import KFold, StratifiedKFold
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # convergence of the peers
    task, make = TABLES[name]
    X, y, truth = make()
    with threadpool_limits(1):
        for model, new in models(task).items():
            for repeat in range(REPEATS):
                if model not in chosen or (name, model, str(repeat)) in done:
                    continue
                kind = KFold if task == "regression" else StratifiedKFold
                scores, began = [], time.process_time()
                for train, test in kind(FOLDS, shuffle=True, random_state=repeat).split(X, y if task == "classification" else None):
                    scores.append(new().fit(X[train], y[train]).score(X[test], truth[test]))
                seconds = (time.process_time() - began) / FOLDS
                row = (name, task, *X.shape, model, repeat, f"{np.mean(scores):.4f}", f"{np.std(scores):.4f}", f"{seconds:.3f}")
                with path.open("a", newline="") as file:
                    csv.writer(file).writerow(row)


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scores(rows: list[dict[str, str]]) -> Scores:
    """Mean score and seconds of each model on each table, of all repeats."""
    found: Scores = {}
    for table in TABLES:
        parts = {name: [row for row in rows if row["table"] == table and row["model"] == name] for name in MODELS}
        means = {
            name: (statistics.fmean(float(row["score"]) for row in part), statistics.fmean(float(row["cpu_seconds_a_fit"]) for row in part))
            for name, part in parts.items()
            if len(part) == REPEATS
        }
        if OURS in means and len(means) > 1:
            found[table] = means
    return found


def ranks(table: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Rank of each model, 1 for the best; equal ones share the mean."""
    values = [score for score, _ in table.values()]
    return {name: 1 + sum(v > own for v in values) + (values.count(own) - 1) / 2 for name, (own, _) in table.items()}


def overview(found: Scores) -> list[tuple[str, float, int, int, float]]:
    """Mean rank, tables within `CLOSE` of the best, tables, and median seconds of each model."""
    lines = []
    for name in MODELS:
        own = [table for table in found.values() if name in table]
        if own:
            rank = statistics.fmean(ranks(table)[name] for table in own)
            close = sum(table[name][0] >= max(score for score, _ in table.values()) - CLOSE for table in own)
            lines.append((name, rank, close, len(own), statistics.median(table[name][1] for table in own)))
    return lines


def losses(found: Scores) -> list[str]:
    """Tables on which another model is better by more than `CLOSE`."""
    lost = []
    for table, values in found.items():
        name, (best, _) = max(values.items(), key=lambda item: item[1][0])
        if best > values[OURS][0] + CLOSE:
            lost.append(f"{table} ({values[OURS][0]:.3f}; {name} {best:.3f})")
    return lost


def summary(found: Scores) -> str:
    lines = [f"{'':18}{'mean rank':>10}{'within .01':>14}{'median CPU s':>14}"]
    lines += [f"{name:18}{rank:>10.2f}{close:>8} of {tables}{seconds:>12.2f}" for name, rank, close, tables, seconds in overview(found)]
    return "\n".join([*lines, f"Lost by more than {CLOSE}: {', '.join(losses(found)) or 'none'}"])


def draw(found: Scores, path: Path) -> None:
    """Distance of each model from the best of its table."""
    from matplotlib.figure import Figure

    tables = list(found)
    figure = Figure(figsize=(8.5, 0.32 * len(tables) + 1.4), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(MODELS):
        own = [(place, found[table]) for place, table in enumerate(tables) if name in found[table]]
        below = [max(max(score for score, _ in values.values()) - values[name][0], 1e-4) for _, values in own]
        places = [place + 0.1 * (number - (len(MODELS) - 1) / 2) for place, _ in own]
        axes.plot(below, places, "o" if name == OURS else "x", ms=7 if name == OURS else 5, label=name)
    axes.axvline(CLOSE, color="0.6", lw=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(tables)), tables)
    axes.invert_yaxis()
    axes.set_xlabel("R² or accuracy below the best of the table; 0.0001 stands for less")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, 1.14), ncols=3, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    from rich.progress import Progress

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--out", type=Path, default=HERE / "tables.csv")
    parser.add_argument("--summary", action="store_true", help="measure nothing")
    parser.add_argument("--speed", action="store_true", help="large tables alone")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"  # of the processes below
    if options.speed:
        tables_speed.measure(HERE / "tables_speed.csv")
        return
    if not options.summary:
        if not options.out.exists():
            options.out.write_text(",".join(FIELDS) + "\n")
        done = {(row["table"], row["model"], row["repeat"]) for row in read(options.out)}
        with Progress() as progress:
            task = progress.add_task("tables", total=len(options.only))
            for name in options.only:
                progress.update(task, description=name)
                process = multiprocessing.get_context("spawn").Process(target=measure, args=(name, options.out, done, options.models))
                process.start()
                process.join()
                if process.exitcode:
                    raise RuntimeError(f"{name}: the process ended with {process.exitcode}")
                progress.advance(task)
    found = scores(read(options.out))
    print(summary(found))
    draw(found, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
