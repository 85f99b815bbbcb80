import copy
import logging

import numpy as np
import pytest
import torch

from kat_zoo.kan import KAN, KANRegressor
from kat_zoo.kan.operations.lm import LeastSquares
from kat_zoo.kan.operations.normal import Dual, Primal

from .networks import data, number, symbolic_mix


def test_jacobian_of_least_squares_is_that_of_autograd():
    model = symbolic_mix()
    x, y = data(30)
    problem = LeastSquares(model, x, y)
    with torch.no_grad():
        system = problem.system(Primal)
        matrix, gradient = system.matrix, system.gradient
        start = problem.get()

    def residual(parameters):
        problem.set(parameters)
        return (model(x) - y)[:, 0] / 30**0.5

    step = 1e-6
    with torch.no_grad():
        columns = []
        for n in range(len(start)):
            shift = torch.zeros_like(start)
            shift[n] = step
            columns.append((residual(start + shift) - residual(start - shift)) / (2 * step))
        problem.set(start)
        jacobian = torch.stack(columns, 1)
        torch.testing.assert_close(matrix, jacobian.T @ jacobian, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(gradient, jacobian.T @ residual(start), rtol=1e-5, atol=1e-7)


def test_levenberg_marquardt_never_gets_worse_and_fits():
    x, y = data()
    model = KAN([2, 5, 1], 5, seed=0)
    before = (model(x) - y).square().mean().item()
    after = LeastSquares(model, x, y).minimize(60)
    assert after < 1e-4 * before


@pytest.mark.parametrize("optimizer", ["lm", "lbfgs", "adam"])
def test_fit_keeps_the_best_stage(optimizer):
    x, y = data(300)
    model = KAN([2, 3, 1], 3)
    history = model.fit(x[:200], y[:200], x[200:], y[200:], optimizer=optimizer, steps=6, grid_schedule=(3, 6), l1=1e-5)
    final = number((model(x[200:]) - y[200:]).detach().square().mean().sqrt())
    assert final == pytest.approx(min(history.val)) and final < (0.95 if optimizer == "adam" else 0.5) * history.val[0]
    assert history.best_step == history.step[history.val.index(min(history.val))]


def test_divergence_is_caught_and_announced(caplog):
    x, y = data(50)
    model = KAN([2, 2, 1], 3)

    def explosive(prediction, target):
        return torch.where(prediction.abs() > 1e3, torch.nan, (prediction - target) ** 2)[:, 0]

    with caplog.at_level(logging.WARNING, "kat_zoo"):
        model.fit(x, y, optimizer="adam", lr=1e6, steps=5, loss=explosive)
    assert "diverged" in caplog.text
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters()) and bool(torch.isfinite(model(x)).all())


def test_networks_that_are_nowhere_finite_are_refused_or_announced(caplog):
    x, y = data(20)
    model = KAN([2, 1])
    model.fix_symbolic(0, 0, 0, "log", affine=(1.0, -5.0, 1.0, 0.0))
    with pytest.raises(ValueError, match=r"edge \(0, 0, 0\), log has no finite value for 20 of 20 samples"):
        model.fit(x, y, steps=2)
    with caplog.at_level(logging.WARNING, "kat_zoo"):
        model.fit(x, y, steps=2, update_grid=False)
    assert "no step gave a finite error" in caplog.text
    model.layers[0].spline.coef.data[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"layers.0.spline.coef holds NaN"):
        model.fit(x, y)


def test_fit_is_reproducible_and_leaves_global_state_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = data(60)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    predictions = []
    for _ in range(2):
        model = KAN([2, 2, 1])
        model.fit(x, y, optimizer="adam", steps=3, batch_size=16)
        predictions.append(model(x))
    assert torch.equal(*predictions) and torch.equal(torch.get_rng_state(), before)
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_each_pass_over_batches_sees_every_sample_once_and_is_measured_once(caplog):
    x, _ = data(50)
    rows, seen = torch.arange(50.0)[:, None], []

    def loss(prediction, target):
        if prediction.requires_grad:
            seen.append(target[:, 0])
        return (prediction - target / 50).square()[:, 0]

    weight = (torch.arange(50) == 7).double()  # of most batches the weights are all zero
    with caplog.at_level(logging.WARNING, "kat_zoo"):
        history = KAN([2, 1]).fit(x, rows, optimizer="adam", batch_size=16, steps=9, loss=loss, sample_weight=weight)
    assert history.step == [0, 4, 8, 9] and [len(part) for part in seen] == [16, 16, 16, 2] * 2 + [16]
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:8])
    assert torch.equal(first.sort().values, rows[:, 0]) and torch.equal(second.sort().values, rows[:, 0])
    assert not torch.equal(first, second) and "diverged" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd'"),
        ({"steps": 0}, "steps=0"),
        ({"entropy": 1.0}, "'lm'"),
        ({"X": torch.full((5, 2), torch.nan), "y": torch.zeros(5, 1)}, "NaN"),
        ({"y": torch.zeros(4, 1)}, "samples"),
        ({"y": torch.zeros(5, 2)}, "y of 2 columns: expected 1"),
        ({"X_val": torch.zeros(5, 2)}, "both or neither"),
        ({"X_val": torch.zeros(5, 2), "y_val": torch.full((5, 1), torch.nan)}, "y_val holds NaN"),
        ({"sample_weight": -torch.ones(5)}, "sample_weight"),
        ({"sample_weight": torch.ones(4)}, "sample_weight"),
    ],
)
def test_bad_fits(options, message):
    with pytest.raises(ValueError, match=message):
        KAN([2, 1]).fit(**({"X": torch.zeros(5, 2), "y": torch.zeros(5, 1)} | options))


def test_least_squares_refuses_half_precision():
    with pytest.raises(ValueError, match="bfloat16"):
        KAN([2, 1], dtype=torch.bfloat16).fit(torch.zeros(5, 2), torch.zeros(5, 1))


def test_an_interrupt_leaves_the_best_stage():
    x, y = data(60)
    model, calls = KAN([2, 2, 1]), []

    def loss(prediction, target):
        calls.append(1)
        if len(calls) > 150:
            raise KeyboardInterrupt
        return (prediction - target).square()[:, 0]

    before = (model(x) - y).square().mean().item()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, optimizer="lbfgs", steps=50, loss=loss)
    assert 0 < (model(x) - y).square().mean().item() < 0.5 * before


def test_memory_of_least_squares_is_bounded(monkeypatch):
    from kat_zoo.kan.operations import lm

    x, y = data(50)
    systems = []
    for numbers in (1 << 25, 1):  # all samples at once, one at a time
        monkeypatch.setattr(lm, "JACOBIAN_NUMBERS", numbers)
        with torch.no_grad():
            systems.append(LeastSquares(symbolic_mix(), x, y, l1=0.1, smoothness=0.1).system(Primal))
    for name in ("matrix", "gradient"):
        torch.testing.assert_close(*(getattr(system, name) for system in systems))


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("penalties", [{}, {"l1": 0.1, "smoothness": 0.01}])
@pytest.mark.parametrize("damping", [1e-6, 1e-2, 10.0])
def test_rows_by_rows_gives_the_step_of_parameters_by_parameters(outputs, penalties, damping):
    x, y = data(20)
    model = KAN([2, [2, 1], outputs], 4, seed=3)
    model.fix_symbolic(0, 0, 1, "sin", affine=(2.0, 0.3, 1.5, -0.2))
    weight = torch.rand(20, generator=torch.Generator().manual_seed(0))
    problem = LeastSquares(model, x, torch.cat([y, y.square()], 1)[:, :outputs], weight=weight, **penalties)
    with torch.no_grad():
        (step, predicted), (expected, expected_predicted) = (problem.system(kind).step(damping) for kind in (Dual, Primal))
        assert isinstance(problem.system(), Dual)
    torch.testing.assert_close(step, expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())
    assert predicted == pytest.approx(expected_predicted, rel=1e-6)


def test_fewer_rows_than_parameters_are_met_exactly():
    x, y = data(20)
    assert LeastSquares(KAN([2, 5, 1], 5), x, y).minimize(60) < 1e-24


def test_l1_reaches_the_base():
    """An edge without use must vanish, its SiLU included."""
    x, _ = data(200)
    model = KAN([2, 1], 3, base="silu", seed=1)
    model.fit(x, torch.sin(3 * x[:, :1]), steps=30, l1=0.01, update_grid=False)
    sizes = model.layers[0].edges(x).std(0)[0]
    assert sizes[1] < 1e-3 * sizes[0]


@pytest.mark.parametrize("optimizer", ["lm", "lbfgs"])
def test_a_row_of_weight_two_is_two_rows_in_the_penalties_too(optimizer):
    x, y = data(40)
    repeats = torch.arange(40) % 3
    twice = torch.repeat_interleave(torch.arange(40), repeats)
    one, two = KAN([2, 2, 1], 3, seed=1), KAN([2, 2, 1], 3, seed=1)
    options = {"optimizer": optimizer, "steps": 3, "l1": 0.05, "entropy": 0.0 if optimizer == "lm" else 0.01, "update_grid": False}
    one.fit(x, y, sample_weight=repeats, **options)
    two.fit(x[twice], y[twice], **options)
    torch.testing.assert_close(one(x), two(x), rtol=1e-6, atol=1e-7)


def test_frozen_splines_stay():
    """By whichever optimizer, and whatever becomes symbolic or numeric meanwhile."""
    x = torch.rand(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = x[:, :1] * x[:, 1:]
    for optimizer in ("lm", "lbfgs", "adam"):
        model = KAN([2, 2, 1])
        model.layers[0].spline.requires_grad_(False)
        for edge in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)):
            model.fix_symbolic(*edge, "x^2")
        model.unfix(0, 0, 0)
        before = copy.deepcopy(model.layers[0].spline.state_dict())
        model.fit(x, y, optimizer=optimizer, steps=3, update_grid=False)
        assert all(torch.equal(value, before[name]) for name, value in model.layers[0].spline.state_dict().items())
    model.layers[0].spline.coef.requires_grad_()
    with pytest.raises(ValueError, match="layer 0 has either its splines or its base's weights frozen"):
        model.fit(x, y)


def test_tables_of_pandas():
    import pandas

    x = torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).numpy()
    table = pandas.DataFrame(x, columns=["a", "b"])
    assert KAN([2, 1]).fit(table, table[["a"]], steps=3).best == KAN([2, 1]).fit(x, x[:, :1], steps=3).best


def test_weights_count_whatever_shape_a_loss_returns():
    x, weight = torch.rand(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(50.0) ** 4

    def fitted(loss):
        return KAN([1, 1]).fit(x, x.sin(), optimizer="lbfgs", steps=5, loss=loss, sample_weight=weight).best

    flat = fitted(lambda p, t: ((p - t) ** 2)[:, 0])
    assert fitted(lambda p, t: (p - t) ** 2) == pytest.approx(flat)
    with pytest.raises(ValueError, match=r"loss returned shape \(\): expected a value for each of 50 samples"):
        fitted(torch.nn.functional.mse_loss)


def test_early_stopping_knows_gains_of_negative_losses():
    x = torch.rand(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    history = KAN([1, 1]).fit(x, 0 * x, optimizer="adam", steps=500, loss=lambda p, t: ((p - t) ** 2).mean() - 10)
    assert history.best < -9.99 and history.step[-1] < 300


def test_one_sample_with_an_infinite_slope_does_not_stop_the_others():
    x = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    for formula, y in (("2*sqrt(x)", 3 * x.sqrt()), ("2*x**(3/2)", 3 * x**1.5)):
        history = KAN.from_formula(formula).fit(x, y, steps=20)
        assert history.best < 0.1 * history.train[0]


def test_errors_above_the_spread_are_announced(caplog):
    x, y = data(50)
    with caplog.at_level(logging.WARNING, "kat_zoo"):
        KAN([2, 1]).fit(x, y, steps=5)
        KAN([2, 1]).fit(x, torch.ones_like(y), steps=5)
        KANRegressor(steps=3).fit(x.numpy(), np.random.default_rng(0).standard_normal(50))
        assert "standard deviation" not in caplog.text
        KAN([2, 2, 1]).fit(x, y * 1e-9, optimizer="adam", steps=1, update_grid=False)
    assert "more than twice the targets' standard deviation" in caplog.text


def test_held_out_rows_outside_the_domain_do_not_lower_the_rate(caplog):
    model = KAN.from_formula("log(x)")
    x = torch.linspace(0.5, 1, 20, dtype=torch.float64)[:, None]
    with caplog.at_level(logging.WARNING, "kat_zoo"):
        model.fit(x, x.log() + 1, -x, x, optimizer="adam", steps=3)
    assert "diverged" not in caplog.text and "undefined on X or X_val" in caplog.text


def test_fit_leaves_frozen_splines_where_they_are():
    x, y = data(60)
    model = KAN([2, 3, 1])
    model.layers[0].spline.requires_grad_(False)
    before = copy.deepcopy(model.layers[0].spline.state_dict())
    model.fit(x, y, steps=12)
    assert all(torch.equal(value, before[name]) for name, value in model.layers[0].spline.state_dict().items())
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad=False for every parameter"):
        model.fit(x, y)


def test_a_series_is_one_column_and_tensors_may_have_gradients():
    pandas = pytest.importorskip("pandas", reason="the extra `formula` is not installed")
    X = np.random.default_rng(0).uniform(-1, 1, (60, 2))
    y = np.sin(X[:, 0]) + X[:, 1]
    one, two = (
        KAN([2, 1], seed=0).fit(table, target, steps=2) for table, target in ((X, y[:, None]), (pandas.DataFrame(X), pandas.Series(y)))
    )
    assert one.train == two.train
    inputs = torch.tensor(X, requires_grad=True)
    model = KANRegressor().fit(inputs, torch.tensor(y, requires_grad=True))
    np.testing.assert_array_equal(model.predict(inputs), KANRegressor().fit(X, y).predict(X))
