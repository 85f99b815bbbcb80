"""Searches of several outputs, each on its own, one after another or in processes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from .stop import Stop, interruptible


def fit_outputs(estimators: Sequence[Any], X: Any, y: np.ndarray, sample_weight: Any, stop: Stop, jobs: int) -> list[Any]:
    """Fit an estimator to each output.

    Args:
        estimators: a `KANRegressor` for each output.
        X: (N, features) samples.
        y: (N, outputs) targets.
        sample_weight: (N,) weights, or None.
        stop: end of all searches.
        jobs: number of processes; 1 for this one.
    """
    if jobs == 1:
        return [one._fit(X, column, sample_weight, stop) for one, column in zip(estimators, y.T, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        stop.path = Path(folder) / "stop"  # an interrupt of this process alone reaches the others by it
        alone = delayed(_fit_alone)
        tasks = [alone(one, X, column, sample_weight, str(stop.path)) for one, column in zip(estimators, y.T, strict=True)]
        fitted: list[Any] = Parallel(n_jobs=jobs)(tasks)
        stop.path = None
    return fitted


def _fit_alone(estimator: Any, X: Any, y: np.ndarray, sample_weight: Any, path: str) -> Any:
    """Fit in a process of its own, in silence, until a file is there or Ctrl-C comes."""
    stop = Stop(path)
    verbose = estimator.verbose
    with interruptible(stop):
        estimator.set_params(verbose=False)._fit(X, y, sample_weight, stop)
    return estimator.set_params(verbose=verbose)
