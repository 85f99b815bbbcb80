"""Training pykan 0.2.8 (extra `bench`) along the same grids; without it the column is left out and the log says so."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def pykan_path(
    width: list[int], grids: Sequence[int], data: tuple[Tensor, Tensor, Tensor, Tensor], steps: int, seed: int
) -> Iterator[tuple[int, float]]:
    """Yield (parameters, test RMSE) after each grid of pykan's own L-BFGS, in float64.

    Parameters are counted as ours are: G + k coefficients and one base weight per edge.
    """
    try:
        import kan
    except ImportError as error:
        print(f"pykan left out: {error}")
        return
    names = ("train_input", "train_label", "test_input", "test_label")
    before, default = os.getcwd(), torch.get_default_dtype()
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
        try:
            os.chdir(folder)  # pykan writes three files a step into ./model
            torch.set_default_dtype(torch.float64)
            model = kan.KAN(width=list(width), grid=grids[0], k=3, seed=seed, grid_range=[0, 1])
            results = []
            for grid in grids:
                if grid != grids[0]:
                    model = model.refine(grid)
                history = model.fit(dict(zip(names, data, strict=True)), opt="LBFGS", steps=steps)
                edges = sum(a * b for a, b in zip(width, width[1:], strict=False))
                results.append((edges * (grid + 4), float(history["test_loss"][-1])))
        finally:
            os.chdir(before)
            torch.set_default_dtype(default)
    yield from results
