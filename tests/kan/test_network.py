import copy
import inspect

import numpy as np
import pytest
import torch

from kat_zoo.kan import KAN

from .networks import data, number, symbolic_mix


@pytest.mark.parametrize("base", ["silu", "zero", "sin"])
@pytest.mark.parametrize("width", [[2, 1], [2, 3, 1], [2, [1, 2], 2], [2, 2, [0, 1], 1]])
def test_outputs_are_sums_and_products_of_edges(width, base):
    model = KAN(width, 4, base=base, seed=1)
    x, _ = data(20)
    for layer, h, after in zip(model.layers, model.activations(x), model.activations(x)[1:], strict=False):
        sums = layer.edges(h).sum(-1)
        products = sums[:, layer.n_sum :].reshape(20, layer.n_mult, layer.arity).prod(-1)
        torch.testing.assert_close(after, torch.cat([sums[:, : layer.n_sum], products], 1))


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


def test_help_and_editors_show_every_argument():
    assert list(inspect.signature(KAN).parameters)[:3] == ["width", "grid_size", "spline_order"]
    for name in ("fit", "update_grid", "prune", "expand_width", "suggest_symbolic", "auto_symbolic", "plot", "formula", "save"):
        parameters = inspect.signature(getattr(KAN([2, 1]), name)).parameters.values()
        named = [p for p in parameters if p.name != "unknown"]  # which is refused
        assert named and all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in named)
    assert {"l1", "coef_smoothness", "sample_weight_val", "progress"} <= set(inspect.signature(KAN.fit).parameters)


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


def test_refused_weights_leave_the_network_of_its_size():
    x, _ = data(20)
    model = KAN([2, 3, 1], 5)
    shapes = [value.shape for value in model.state_dict().values()]
    for other in (KAN([2, 4, 1], 5), KAN([2, 4, 1], 7), KAN([2, 3, 1], 5, 2), KAN([2, 3, 1], 8, 2)):
        with pytest.raises(RuntimeError, match="size mismatch"):
            model.load_state_dict(other.state_dict())
        assert [value.shape for value in model.state_dict().values()] == shapes and model(x).shape == (20, 1)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("grid_size", [6, 7, 11])
def test_finer_grids_keep_splines_that_end_beyond_the_grid(grid_size, order):
    model = KAN([1, 1], 3, order, extrapolate="zero", base="zero", noise_scale=1.0)
    x = torch.linspace(-4, 4, 200, dtype=torch.float64)[:, None]
    before = model(x)
    model.refine(grid_size)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-10)


def test_options_may_be_numpy_scalars(tmp_path):
    model = KAN([2, 3, 1], np.int64(4), np.int64(2), mult_arity=np.int64(2), noise_scale=np.float32(0.1), grid_range=np.array([0.0, 1.0]))
    model.save(tmp_path / "kan.safetensors")
    x, _ = data(20)
    assert torch.equal(KAN.load(tmp_path / "kan.safetensors")(x), model(x))
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        KAN.load(tmp_path / "text")
