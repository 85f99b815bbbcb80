import copy
import logging

import pytest
import torch

from kat_zoo.kan import KAN
from kat_zoo.kan.lm import LeastSquares
from kat_zoo.kan.normal import Dual, Primal


def number(value):
    return value.detach().item()


def data(n=200, inputs=2, seed=0):
    x = torch.rand(n, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    return x, torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2)


def symbolic_mix():
    model = KAN([2, [2, 1], 1], 4, seed=3)
    model.fix_symbolic(0, 0, 1, "sin", affine=(2.0, 0.3, 1.5, -0.2))
    model.fix_symbolic(1, 2, 0, "x^2", affine=(0.5, 0.1, 1.0, 0.0))
    model.remove_edge(0, 1, 0)
    return model


@pytest.mark.parametrize("base", ["silu", "zero", "sin"])
@pytest.mark.parametrize("width", [[2, 1], [2, 3, 1], [2, [1, 2], 2], [2, 2, [0, 1], 1]])
def test_outputs_are_sums_and_products_of_edges(width, base):
    model = KAN(width, 4, base=base, seed=1)
    x, _ = data(20)
    for layer, h, after in zip(model.layers, model.activations(x), model.activations(x)[1:], strict=False):
        sums = layer.edges(h).sum(-1)
        products = sums[:, layer.n_sum :].reshape(20, layer.n_mult, layer.arity).prod(-1)
        torch.testing.assert_close(after, torch.cat([sums[:, : layer.n_sum], products], 1))


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
    after = LeastSquares(model, x, y).minimise(60)
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


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("grid_size", [4, 5, 8, 11, 12])
def test_finer_grids_keep_the_function(grid_size, order):
    x, y = data()
    model = KAN([2, 3, 1], 4, order)
    model.fit(x, y, steps=10)
    model.update_grid(x, adapt=0.5)
    wide = 1.5 * x  # beyond the grid, too
    before = model(wide)
    assert model.refine(grid_size) < 1e-10 and model.grid_size == grid_size
    torch.testing.assert_close(model(wide), before, rtol=0, atol=1e-10)


def test_coarser_grids_report_their_change():
    x, y = data()
    model = KAN([2, 3, 1], 12)
    model.fit(x, y, steps=20, coef_smoothness=1e-3)
    before = model(x)
    assert 1e-6 < model.refine(9) < 0.1
    assert 1e-6 < number((model(x) - before).square().mean().sqrt() / before.std()) < 0.1


def test_update_grid_covers_the_data_and_respects_its_bound():
    x, y = data()
    model = KAN([2, 3, 1], 5)
    model.fit(x, y, steps=20)
    shifted = 3 * x + 1
    other = copy.deepcopy(model)
    assert other.update_grid(shifted, adapt=0.0) >= 0
    low, high = other.edge(0, 0, 0)[1]
    assert low <= number(shifted[:, 0].min()) and high >= number(shifted[:, 0].max())
    before = model(x)
    change = model.update_grid(x, adapt=0.9, max_change=1e-4)
    assert change <= 1e-4
    assert number((model(x) - before).square().mean().sqrt() / before.std()) <= 1e-4


def test_update_grid_with_discrete_and_constant_inputs():
    g = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randint(0, 2, (80, 1), generator=g).double(), torch.ones(80, 1, dtype=torch.float64)], 1)
    model = KAN([2, 2, 1], 5)
    model.fit(x, 3 * x[:, :1], steps=60)
    assert number((model(x) - 3 * x[:, :1]).abs().max()) < 1e-2
    assert model.update_grid(x, adapt=0.9, max_change=0.01) <= 0.01
    assert number((model(x) - 3 * x[:, :1]).abs().max()) < 0.1


def test_attribution_and_pruning_find_the_inputs_that_matter():
    x, _ = data(400, inputs=4)
    y = torch.sin(3 * x[:, :1]) + x[:, 2:3] ** 2
    model = KAN([4, 4, 1], 5, seed=1)
    model.fit(x, y, steps=40, l1=1e-2)
    scores = model.attribute(x)
    assert number(scores.inputs[[0, 2]].min()) > 10 * number(scores.inputs[[1, 3]].max())
    smaller, kept = model.prune_inputs(x, 0.05)
    assert kept == [0, 2] and smaller.nodes[0] == 2
    pruned = model.prune(x)
    assert pruned.num_edges() < model.num_edges()
    assert number((pruned(x) - model(x)).abs().max()) < 0.2
    with pytest.raises(ValueError, match="node_threshold"):
        model.prune(x, -1)


def test_removing_nodes_and_edges():
    x, _ = data(50)
    model = KAN([2, [2, 1], 1], seed=2)
    model.remove_edge(1, 2, 0)
    smaller = model.remove_node(1, 2)
    torch.testing.assert_close(smaller(x), model(x))
    assert smaller.nodes == [2, 2, 1]
    for layer, node in ((0, 0), (2, 0), (1, 9)):
        with pytest.raises(ValueError, match="hidden node"):
            model.remove_node(layer, node)
    with pytest.raises(ValueError, match="edge"):
        model.remove_edge(0, 5, 0)


@pytest.mark.parametrize("make", [lambda: KAN([2, 3, 1], 4), symbolic_mix])
def test_expansions_keep_the_function(make):
    model, (x, y) = make(), data(50)
    model.refine(8)
    wider = model.expand_width(1, 2, 1)
    torch.testing.assert_close(wider(x), model(x))
    assert wider.width[1] == (model.width[1][0] + 2, model.width[1][1] + 1)
    deeper = model.expand_depth()
    torch.testing.assert_close(deeper(x), model(x))
    assert LeastSquares(wider, x, y).minimise(5) < number((model(x) - y).detach().square().mean())


@pytest.mark.parametrize("make", [lambda: KAN([2, 3, 1], 4), symbolic_mix])
def test_files_and_copies(make, tmp_path):
    model, (x, _) = make(), data(10)
    model.refine(8)
    model.save(tmp_path / "kan.safetensors")
    torch.save(model, tmp_path / "kan.pt")
    fresh = KAN(model.width, 4)
    fresh.load_state_dict(model.state_dict())
    loaded = torch.load(tmp_path / "kan.pt", weights_only=False)
    for other in (KAN.load(tmp_path / "kan.safetensors"), loaded, fresh, copy.deepcopy(model)):
        assert torch.equal(other(x), model(x))
        assert [other.edge_kind(*e) for e in other.edges()] == [model.edge_kind(*e) for e in model.edges()]
    with pytest.raises(ValueError, match="was not written"):
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
        KAN.load(tmp_path / "other.safetensors")


def test_compiles():
    model, (x, _) = symbolic_mix(), data(10)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(x), model(x))


def test_edge_is_callable():
    model, (x, _) = symbolic_mix(), data(20)
    function, (low, high) = model.edge(0, 0, 1)
    torch.testing.assert_close(function(x[:, 0]), (1.5 * torch.sin(2 * x[:, 0] + 0.3) - 0.2).detach())
    assert low < high
    with pytest.raises(ValueError, match="edge"):
        model.edge(0, 0, 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": [2]}, "width"),
        ({"width": [2, 0, 1]}, "width"),
        ({"width": [[1, 1], 1]}, "width"),
        ({"width": [2, 1], "mult_arity": 1}, "mult_arity=1"),
    ],
)
def test_bad_networks(options, message):
    with pytest.raises(ValueError, match=message):
        KAN(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd'"),
        ({"steps": 0}, "steps=0"),
        ({"entropy": 1.0}, "'lm'"),
        ({"X": torch.full((5, 2), torch.nan), "y": torch.zeros(5, 1)}, "NaN"),
        ({"y": torch.zeros(4, 1)}, "samples"),
        ({"y": torch.zeros(5, 2)}, "columns"),
        ({"X_val": torch.zeros(5, 2)}, "both or neither"),
        ({"X_val": torch.zeros(5, 2), "y_val": torch.full((5, 1), torch.nan)}, "X_val"),
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
    from kat_zoo.kan import lm

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
    assert LeastSquares(KAN([2, 5, 1], 5), x, y).minimise(60) < 1e-24


def test_l1_reaches_the_base():
    """An edge without use must vanish, its SiLU included."""
    x, _ = data(200)
    model = KAN([2, 1], 3, base="silu", seed=1)
    model.fit(x, torch.sin(3 * x[:, :1]), steps=30, l1=0.01, update_grid=False)
    sizes = model.layers[0].edges(x).std(0)[0]
    assert sizes[1] < 1e-3 * sizes[0]


def test_wholly_symbolic_layers_leave_no_gradient_open():
    """DDP waits for every parameter that asks for a gradient."""
    model, (x, _) = KAN([2, 1, 1]), data(9)
    for i in range(2):
        model.fix_symbolic(0, i, 0, "sin", affine=(1, 0, 1, 0))
    model(x).sum().backward()
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {n for n, p in model.named_parameters() if p.grad is not None}
    model.unfix(0, 0, 0)
    assert model.layers[0].spline.coef.requires_grad


def test_forward_checks_the_inputs():
    with pytest.raises(ValueError, match="expected 2 values"):
        KAN([2, 1])(torch.zeros(3, 3, dtype=torch.float64))
    assert KAN([2, 1])(torch.zeros(4, 3, 2, dtype=torch.float64)).shape == (4, 3, 1)


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


def test_pruning_copies_a_base_that_is_a_module():
    model = KAN([2, 2, 1], base=torch.nn.PReLU(dtype=torch.float64))
    x = torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    pruned, before = model.prune(x, 0, 0), model(x).detach()
    with torch.no_grad():
        pruned.layers[0].spline.base.weight.fill_(9.0)
    assert torch.equal(model(x), before) and not torch.equal(pruned(x), before)


def test_tables_of_pandas():
    pandas = pytest.importorskip("pandas")
    x = torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).numpy()
    table = pandas.DataFrame(x, columns=["a", "b"])
    assert KAN([2, 1]).fit(table, table[["a"]], steps=3).best == KAN([2, 1]).fit(x, x[:, :1], steps=3).best
