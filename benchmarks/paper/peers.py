"""Training pykan 0.2.8 (extra `bench`) along the same grids; without it its rows are left out and the log says so."""

import contextlib
import importlib.util
import io
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


def pykan_found() -> bool:
    """Whether pykan is installed; says so where it is not."""
    found = importlib.util.find_spec("kan") is not None
    if not found:
        print("pykan is not installed (extra `bench`): its rows are left out")
    return found


def pykan_path(
    width: list[int],
    grids: Sequence[int],
    data: tuple[Tensor, Tensor, Tensor, Tensor],
    steps: int,
    seed: int,
    grid_range: tuple[float, float] = (0, 1),
) -> list[tuple[int, float]]:
    """(parameters, test RMSE) after each grid of pykan's own L-BFGS, in float64; `data` is x, y, x_test, y_test.

    Parameters are counted as ours are: G + k coefficients and one base weight per edge.
    """
    import kan

    names = ("train_input", "train_label", "test_input", "test_label")
    before, default, silent = Path.cwd(), torch.get_default_dtype(), io.StringIO()
    results = []
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(silent))
        stack.enter_context(contextlib.redirect_stderr(silent))
        try:
            os.chdir(folder)  # pykan writes three files a step into ./model
            torch.set_default_dtype(torch.float64)
            model = kan.KAN(width=list(width), grid=grids[0], k=3, seed=seed, grid_range=list(grid_range))
            for grid in grids:
                if grid != grids[0]:
                    model = model.refine(grid)
                history = model.fit(dict(zip(names, data, strict=True)), opt="LBFGS", steps=steps)
                edges = sum(a * b for a, b in itertools.pairwise(width))
                results.append((edges * (grid + 4), float(history["test_loss"][-1])))
        finally:
            os.chdir(before)
            torch.set_default_dtype(default)
    return results
