import pytest
import torch

from kat_zoo.kan import KAN
from kat_zoo.kan.operations.lm import LeastSquares
from kat_zoo.kan.operations.pruning import drop_dead_nodes

from .networks import data, number, symbolic_mix


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
    assert LeastSquares(wider, x, y).minimize(5) < number((model(x) - y).detach().square().mean())


def test_pruning_copies_a_base_that_is_a_module():
    model = KAN([2, 2, 1], base=torch.nn.PReLU(dtype=torch.float64))
    x = torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    pruned, before = model.prune(x, 0, 0), model(x).detach()
    with torch.no_grad():
        pruned.layers[0].spline.base.weight.fill_(9.0)
    assert torch.equal(model(x), before) and not torch.equal(pruned(x), before)


def test_removed_inputs_leave_the_mean_of_their_functions():
    x, _ = data(300)
    model = KAN([2, 1])
    model.fit(x, x[:, 1:] ** 2 + 5)
    smaller, kept = model.prune_inputs(x)
    assert kept == [1]
    torch.testing.assert_close(smaller(x[:, kept]), model(x))


def test_weak_edges_into_one_node_leave_all_their_means():
    """Also where the one that took over a mean goes, too, or none is left."""
    x = torch.rand(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = KAN([5, 2, 1])
    for i in range(4):
        model.fix_symbolic(0, i, 0, "x", affine=(1, 0, 1, 3))
        model.remove_edge(0, i, 1)
    model.remove_edge(0, 4, 0)
    model.fix_symbolic(0, 4, 1, "x", affine=(1, 0, 1, 0))
    model.fix_symbolic(1, 0, 0, "x^2", affine=(1, 0, 0.001, 7))
    model.fix_symbolic(1, 1, 0, "x", affine=(1, 0, 1, 0))
    pruned = model.prune(x, node_threshold=0)
    assert pruned.nodes == [5, 1, 1]
    assert abs(number((pruned(x) - model(x)).mean())) < 1e-3


@pytest.mark.parametrize("factors", [1, 2])
def test_nodes_that_nothing_enters_go_without_a_trace(factors):
    x, _ = data(30)
    model = KAN([2, [3, 2], 2], noise_scale=1.0, seed=4)
    for i in (0, 1):
        model.remove_edge(0, i, 1)  # a sum
        for factor in range(factors):
            model.remove_edge(0, i, 3 + factor)  # of the first product
    pruned = model.prune(x, 0, 0)
    assert pruned.width[1] == (2, 1)
    torch.testing.assert_close(pruned(x), model(x))


def test_a_network_of_which_only_a_constant_is_left_keeps_it():
    x, _ = data(30)
    model = KAN([2, 2, 1], noise_scale=1.0)
    for i in (0, 1):
        for j in (0, 1):
            model.remove_edge(0, i, j)
    pruned = model.prune(x, 0, 0)
    assert pruned.nodes == [2, 1, 1]
    torch.testing.assert_close(pruned(x), model(x))
    model = KAN([2, 1])
    model.remove_edge(0, 0, 0)
    model.remove_edge(0, 1, 0, mean=2.5)
    assert model.formula() == [2.5] and bool((model(x) == 2.5).all())


def test_changed_networks_keep_what_is_frozen_and_learned():
    x, y = data(50)
    model = KAN([2, 2, 1], base=torch.nn.PReLU())
    model.fix_symbolic(0, 0, 0, "sin", affine=(1, 0, 1, 0))
    model.layers[0].affine.requires_grad_(False)
    with torch.no_grad():
        model.layers[1].spline.base.weight.fill_(0.75)
    for changed in (model.prune(x, 0, 0), model.expand_width(1), model.expand_depth()):
        torch.testing.assert_close(changed(x), model(x))
        changed.fit(x, y, steps=5)
        assert changed.layers[0].affine[0, 0].tolist() == [1, 0, 1, 0]
    assert not model.eval().expand_width(1).training


def test_each_layer_has_a_base_of_its_own():
    model = KAN([2, 2, 1], base=torch.nn.PReLU())
    for i in (0, 1):
        for j in (0, 1):
            model.fix_symbolic(0, i, j, "sin", affine=(1, 0, 1, 0))
    assert model.layers[1].spline.base.weight.requires_grad and not model.layers[0].spline.base.weight.requires_grad
    assert model.layers[1].spline.base.weight.dtype == model.dtype


@pytest.mark.parametrize("inputs", [1, 2])
def test_splines_that_end_outside_their_grid_take_no_constants(inputs):
    model = KAN([inputs, 2, 1], extrapolate="zero", base="zero", noise_scale=1.0)
    for i in range(inputs):
        model.fix_symbolic(0, i, 0, "x", affine=(3, 0, 1, 0))
        model.fix_symbolic(0, i, 1, "0", affine=(0, 0, 0, 0.5))
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None].expand(-1, inputs)
    torch.testing.assert_close(model.prune(x, 0, 0)(x), model(x))


def test_what_is_undefined_stays_undefined():
    x, _ = data(30)
    model = KAN([2, 2, 1])
    for i in (0, 1):
        model.fix_symbolic(0, i, 0, "0", affine=(0, 0, 0, -1.0))
    model.fix_symbolic(1, 0, 0, "log", affine=(1, 0, 1, 0))
    assert bool(drop_dead_nodes(model)(x).isnan().all())


def test_changed_networks_are_of_their_own_class(tmp_path):
    class Named(KAN):
        name = "one"

    class Small(Named):
        def __init__(self):
            super().__init__([2, 3, 1], 3)

    x, _ = data(30)
    for network in (Named([2, 3, 1], 3), Small()):  # of a Small, which takes no width, the nearest class that does
        network.save(tmp_path / "kan.safetensors")
        loaded = type(network).load(tmp_path / "kan.safetensors")
        for changed in (network.prune(x), network.expand_width(1), network.expand_depth(), network.remove_node(1, 0), loaded):
            assert type(changed) is Named
        assert type(type(network).from_formula("x + y")) is Named


def test_a_restored_edge_has_its_old_function_without_its_mean():
    x, _ = data(50)
    model = KAN([2, 3, 1], seed=2)
    before = model(x).detach()
    h = model.activations(x)[1]
    mean = number(model.layers[1].edges(h)[:, 0, 1].mean())
    model.remove_edge(1, 1, 0, mean=mean)
    assert model.edge_kind(1, 1, 0) == "pruned" and not torch.allclose(model(x), before)
    model.restore_edge(1, 1, 0, x)
    assert model.edge_kind(1, 1, 0) == "numeric"
    torch.testing.assert_close(model(x).detach(), before)
    model.restore_edge(1, 1, 0, x)  # twice changes nothing
    torch.testing.assert_close(model(x).detach(), before)
    model.remove_edge(1, 1, 0)
    model.restore_edge(1, 1, 0)
    torch.testing.assert_close(model.edge(1, 1, 0)[0](h[:, 1]).mean(), torch.zeros((), dtype=torch.float64), atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="edge"):
        model.restore_edge(1, 9, 0)
