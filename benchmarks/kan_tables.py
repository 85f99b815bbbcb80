"""Claim: KANRegressor() and KANClassifier() are sensible on small noisy tables, untuned, beside scikit-learn's usual choices.

    python benchmarks/kan_tables.py     # -> benchmarks/results/kan_tables.csv; one thread

Five-fold cross-validated R^2: "one of eight" (150 rows, y = x_1 + noise as large as the signal), diabetes (442 rows) and
friedman1 (500 rows, noise 1); accuracy: wine (178 rows) and breast cancer (569 rows). Where the data is made here, the
test target has no noise.
"""

import argparse
import csv
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine, make_friedman1
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kat_zoo.kan import KANClassifier, KANRegressor

REGRESSORS = {
    "KANRegressor()": KANRegressor(),
    "RidgeCV": RidgeCV(np.logspace(-3, 3, 13)),
    "RandomForestRegressor()": RandomForestRegressor(random_state=0),
    "HistGradientBoostingRegressor()": HistGradientBoostingRegressor(random_state=0),
    "scaled MLPRegressor()": make_pipeline(StandardScaler(), MLPRegressor(max_iter=1000, random_state=0)),
}
CLASSIFIERS = {
    "KANClassifier()": KANClassifier(),
    "scaled LogisticRegression()": make_pipeline(StandardScaler(), LogisticRegression()),
    "RandomForestClassifier()": RandomForestClassifier(random_state=0),
    "HistGradientBoostingClassifier()": HistGradientBoostingClassifier(random_state=0),
    "scaled MLPClassifier()": make_pipeline(StandardScaler(), MLPClassifier(max_iter=1000, random_state=0)),
}


def one_of_eight() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(150, 8))
    return X, X[:, 0] + generator.normal(size=150), X[:, 0]


def tables() -> Iterator[tuple[str, dict, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, models, X, y, y without noise where it is known."""
    yield "one of eight", REGRESSORS, *one_of_eight()
    X, y = load_diabetes(return_X_y=True)
    yield "diabetes", REGRESSORS, X, y, y
    X, y = make_friedman1(500, noise=1.0, random_state=0)
    yield "friedman1", REGRESSORS, X, y, make_friedman1(500, noise=0.0, random_state=0)[1]
    for name, load in (("wine", load_wine), ("breast cancer", load_breast_cancer)):
        X, y = load(return_X_y=True)
        yield name, CLASSIFIERS, X, y, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kan_tables.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # convergence of the baselines
    rows = []
    for name, models, X, y, truth in tables():
        for label, model in models.items():
            began, scores = time.process_time(), []
            for train, test in KFold(5, shuffle=True, random_state=0).split(X):
                scores.append(clone(model).fit(X[train], y[train]).score(X[test], truth[test]))
            rows.append(
                {"table": name, "rows": len(X), "model": label, "score": f"{np.mean(scores):.3f}", "sd_of_folds": f"{np.std(scores):.3f}",
                 "cpu_seconds_a_fit": f"{(time.process_time() - began) / 5:.2f}"}
            )  # fmt: skip
            print(rows[-1], flush=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
