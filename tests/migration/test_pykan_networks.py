"""Claims of pykan's page: networks and their training."""

import contextlib
import inspect
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from kat_zoo.kan import KAN

from .pages import X, Y, holds, same, trained, values


@holds("pykan", "`KAN(width, grid_size=3, spline_order=3, seed=0)`")
def _():
    parameters = inspect.signature(KAN).parameters
    assert [parameters[name].default for name in ("grid_size", "spline_order", "seed")] == [3, 3, 0] and next(iter(parameters)) == "width"
    same(KAN([2, 1]), KAN([2, 1], grid_size=3, spline_order=3, seed=0))


@holds("pykan", "`mult_arity`, `base`, `grid_range`, `noise_scale`")
def _():
    model = KAN([2, [1, 1], 1], mult_arity=3, base="identity", grid_range=(0, 2), noise_scale=0)
    assert model.layers[0].spline.out_features == 4 and model.edge(0, 0, 0)[1] == (0, 2)
    assert model.layers[0].spline.base == "identity" and not model.layers[0].spline.coef.any()


@holds("pykan", "none: base weights start as those of `nn.Linear`")
def _():
    ours, theirs = KAN([4, 500]).layers[0].spline.base_weight, torch.nn.Linear(4, 500).weight
    for weight in (ours, theirs):
        assert 0.49 < weight.abs().max() <= 0.5 and abs(weight.std() - 1 / 12**0.5) < 0.02


@holds("pykan", "`device`; none of the others")
def _():
    assert KAN([1, 1], device="meta").layers[0].spline.coef.is_meta


@holds("pykan", "none: `update_grid` has an argument `adapt`")
def _():
    steps = {}
    for adapt in (0, 0.9):
        model = KAN([2, 1])
        model.update_grid(X**3, adapt=adapt)
        steps[adapt] = model.layers[0].spline.knots[0, 3:-3].diff()
    assert steps[0].std() < 1e-9 < steps[0.9].std()


@holds(
    "pykan",
    'none; parameters with `requires_grad = False` stay as they are, with `"lm"` the splines and the base of a layer together',
)
def _():
    for optimizer in ("lm", "lbfgs", "adam"):
        model = KAN([2, 2, 1])
        frozen = {name: p for name, p in model.named_parameters() if name.startswith("layers.1.spline")}
        for parameter in frozen.values():
            parameter.requires_grad = False
        before, free = {name: p.clone() for name, p in frozen.items()}, model.layers[0].spline.coef.clone()
        model.fit(X, Y, optimizer=optimizer, steps=3)
        assert all(torch.equal(p, before[name]) for name, p in frozen.items())
        assert not torch.equal(model.layers[0].spline.coef, free)
        alone = KAN([2, 1])
        alone.layers[0].spline.base_weight.requires_grad = False
        before = alone.layers[0].spline.base_weight.clone()
        with pytest.raises(ValueError, match="both or neither") if optimizer == "lm" else contextlib.nullcontext():
            alone.fit(X, Y, optimizer=optimizer, steps=3)
        assert torch.equal(before, alone.layers[0].spline.base_weight)


@holds(
    "pykan",
    "none: there are no caches to turn off, and only symbolic edges cost anything; `torch.compile` works",  # tests/kan/test_network.py
)
def _():
    model = KAN([2, 2, 1])
    before = set(vars(model)) | set(vars(model.layers[0]))
    model(X)
    assert set(vars(model)) | set(vars(model.layers[0])) == before
    assert list(model.layers[0].symbolic_edges(X)) == []
    model.fix_symbolic(0, 0, 0, "sin")
    assert len(list(model.layers[0].symbolic_edges(X))) == 1


@holds("pykan", "none: nothing is written by itself")
def _():
    trained().prune(X).fit(X, Y, steps=2)
    assert list(Path().iterdir()) == []


@holds("pykan", "any leading dimensions")
def _():
    assert KAN([2, 3])(X.view(4, 5, 4, 2)).shape == (4, 5, 4, 3) and KAN([2, 3])(X[0]).shape == (3,)


@holds(
    "pykan",
    "none: `fit` and the other methods refuse samples for which the network has no value, and the message names the edge; "
    "`kan(X)` is NaN there",
)
def _():
    model = KAN([2, 1])
    model.fix_symbolic(0, 1, 0, "log", affine=(1, 0, 1, 0))
    for call in (lambda: model.fit(X, Y), lambda: model.prune(X), lambda: model.attribute(X), lambda: model.plot(X)):
        with pytest.raises(ValueError, match=r"edge \(0, 1, 0\), log has no finite value"):
            call()
    assert torch.equal(values(model).isnan()[:, 0], X[:, 1] < 0)


@holds("pykan", "`to`, of torch; state lies in buffers")
def _():
    model = trained().to(torch.float32)
    assert model(X.float()).dtype == torch.float32
    assert {"function", "spline.knots", "spline.mask"} <= {name for name, _ in model.layers[0].named_buffers()}


@holds("pykan", '`KAN.fit` with `optimizer="lbfgs"`, `steps`, `l1`, `entropy`; `"lm"` is the default and more exact')
def _():
    assert inspect.signature(KAN.fit).parameters["optimizer"].default == "lm"
    assert KAN([2, 2, 1]).fit(X, Y, steps=20).best < KAN([2, 2, 1]).fit(X, Y, optimizer="lbfgs", steps=20).best
    KAN([2, 1]).fit(X, Y, optimizer="lbfgs", steps=2, l1=1e-3, entropy=1e-3)


@holds("pykan", "`coef_smoothness`, on second differences")
def _():
    rough = {}
    for penalty in (0.0, 1.0):
        model = KAN([2, 1], grid_size=10)
        model.fit(X, Y, coef_smoothness=penalty, steps=10)
        rough[penalty] = model.layers[0].spline.coef.diff(n=2, dim=1).square().sum()
    assert rough[1.0] < rough[0.0] / 2


@holds("pykan", "`update_grid=False`, `batch_size`, `loss`, `lr`")
def _():
    model = KAN([2, 1])
    before, seen = model.layers[0].spline.knots.clone(), []

    def loss(prediction, y):
        seen.append(len(y))
        return (prediction - y).abs().mean(1)

    model.fit(3 * X, Y, optimizer="adam", update_grid=False, batch_size=16, loss=loss, lr=1e-2, steps=3)
    assert 16 in seen and torch.equal(before, model.layers[0].spline.knots)


@holds("pykan", "none: call `fit` with few steps in a loop, and measure or draw between")
def _():
    model = KAN([2, 2, 1])
    errors = []
    for _ in range(3):
        model.fit(X, Y, steps=2)
        errors.append(float((values(model) - Y).square().mean()))
    assert errors == sorted(errors, reverse=True) and errors[2] < errors[0]


@holds("pykan", "none: `l1` and `entropy` of `fit`; `parameters()`")
def _():
    sizes = []
    for l1 in (0.0, 1.0):
        model = KAN([2, 1])
        model.fit(X, Y, optimizer="lbfgs", steps=5, l1=l1, entropy=l1)
        sizes.append(model.layers[0].edges(X).std(0).sum())
    assert sizes[1] < sizes[0] and len(list(model.parameters())) > 0


@holds("pykan", "`kan(X)` and a line; the history of `fit` has the errors")
def _():
    model = KAN([2, 2, 1])
    history = model.fit(X, Y, X[:20], Y[:20], steps=10)
    assert abs(float((values(model)[:20] - Y[:20]).square().mean().sqrt()) - min(history.val)) < 1e-6 and len(history.train) > 1


@holds("pykan", "`KAN.update_grid`")
def _():
    model = KAN([2, 1])
    model.update_grid(9 * X)
    low, high = model.edge(0, 0, 0)[1]
    assert low < 9 * float(X[:, 0].min()) and high > 9 * float(X[:, 0].max())


@holds(
    "pykan",
    "`KAN.refine`, in place, and exact for a finer grid; `grid_schedule` of `fit`",
    "`copy.deepcopy`, then `KAN.refine`",
)
def _():
    model, other = trained(), trained()
    for size in (4, 10):
        assert other.refine(size) < 1e-10 and other.grid_size == size
        torch.testing.assert_close(values(other), values(model), rtol=1e-9, atol=1e-9)
    assert model.grid_size == 3
    other.fit(X, Y, grid_schedule=(12, 15), steps=1, early_stopping=False)
    assert other.grid_size == 15


def test_four_habits_of_a_network(tmp_path, monkeypatch, capsys, threads):
    """float64, samples as an argument, arrays or tensors, and no side effects."""
    threads(1)
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    model = KAN([2, 2, 1])
    assert {p.dtype for p in model.parameters()} == {torch.float64} and KAN([2, 1], dtype=torch.float32).dtype == torch.float32
    state = {name: set(vars(module)) for name, module in model.named_modules()}
    model.fit(X.numpy(), Y.numpy(), optimizer="lbfgs", steps=2)
    model.fit(X, Y, steps=2)
    model.attribute(X)
    model.plot(X)
    model.suggest_symbolic(0, 0, 0, X)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == state
    for method in (model.plot, model.attribute, model.prune, model.update_grid, model.auto_symbolic):
        with pytest.raises(TypeError, match="X"):
            method()
    with pytest.raises(TypeError, match="X is a dict"):
        model.fit({"train_input": X})
    model.prune(X).expand_width(1).expand_depth().formula()
    assert torch.equal(before[0], torch.get_rng_state()) and random.getstate() == before[2]
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []
