import copy
import pickle

import pytest
import torch
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel

from kat_zoo.layers import KANLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_is_base_plus_spline(dtype):
    layer = KANLinear(3, 4, dtype=dtype)
    x = (torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1).to(dtype)
    y = layer(x)
    assert y.shape == (2, 5, 4) and y.dtype == dtype
    exact = copy.deepcopy(layer).double()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 3e-2}[dtype]
    expected = exact.edges(x.double().reshape(-1, 3)).sum(-1).reshape(2, 5, 4)
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)


def test_masked_edges_neither_contribute_nor_learn():
    layer = KANLinear(3, 2, dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1], [0, 1, 1]], dtype=torch.float64)
    layer.set_mask(mask)
    x = torch.rand(6, 3, dtype=torch.float64, requires_grad=True)
    layer(x)[:, 0].sum().backward()
    assert x.grad[:, 1].abs().max() == 0 and x.grad[:, 0].abs().max() > 0
    assert layer.coef.grad[1, :, 0].abs().max() == 0 and layer.base_weight.grad[0, 1] == 0


def test_state_survives_copies_files_and_other_grids():
    layer = KANLinear(3, 2, grid_size=7)
    layer.set_mask(torch.tensor([[1.0, 0, 1], [1, 1, 1]]))
    x = torch.rand(4, 3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), layer(x))
    other = KANLinear(3, 2, grid_size=5)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), layer(x))
    assert other.grid_size == 7


def test_dtype_changes_keep_exact_knots():
    layer = KANLinear(2, 2, dtype=torch.float64)
    knots = layer.knots.clone()
    assert torch.equal(layer.to(torch.bfloat16).knots, knots) and layer.coef.dtype == torch.bfloat16


def test_constructor_leaves_the_global_generator_alone_when_given_one():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a = KANLinear(3, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    b = KANLinear(3, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(a.coef, b.coef)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_features": 0}, "in_features=0"),
        ({"grid_size": 0}, "grid_size=0"),
        ({"spline_order": 9}, "spline_order=9"),
        ({"base": "tanh"}, "base='tanh'"),
        ({"grid_range": (1, 1)}, "grid_range"),
        ({"extrapolate": "x"}, "extrapolate"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        KANLinear(**({"in_features": 2, "out_features": 2} | options))


def test_compiles_without_graph_breaks():
    layer = KANLinear(3, 2)
    x = torch.rand(5, 3)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_autocast_keeps_the_splines_precision():
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), KANLinear(6, 3, grid_range=(-4, 4)))
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        h = net[0](x)
        y = net(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), net[1](h.float()), rtol=2e-2, atol=2e-2)
    y.sum().backward()
    assert net[1].coef.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="coef of dtype torch.float32 .*: expected those of x"):
        net[1](h)  # without autocast a layer refuses another type, as nn.Linear does


def test_a_grid_may_repeat_knots_outside_alone():
    layer = KANLinear(1, 2, grid_size=2, spline_order=2)
    coef = torch.rand(1, 4, 2)
    layer.set_grid(torch.tensor([[-1.0, -1, -1, 0.2, 1, 1, 1]]), coef)
    torch.testing.assert_close(layer(torch.tensor([[-1.0], [1.0]])), torch.stack([coef[0, 0], coef[0, 3]]) + layer_base(layer))
    for knots in ([-3.0, -2, -1, -1, 1, 2, 3], [-3.0, -2, -1, 0, 1, 3, 2], [-3.0, -2, -1, 2, 1, 2, 3]):
        with pytest.raises(ValueError, match="knots decrease, or repeat inside the grid"):
            layer.set_grid(torch.tensor([knots]), coef)


def layer_base(layer):
    return torch.nn.functional.silu(torch.tensor([[-1.0], [1.0]])) @ layer.base_weight.T


def test_a_layer_from_the_meta_device_is_as_new():
    layer = KANLinear(4, 3, 6, grid_range=(-2, 3), device="meta").to_empty(device="cpu")
    for buffer in (layer.knots, layer.mask):
        buffer.fill_(7)
    layer.reset_parameters(torch.Generator().manual_seed(0))
    expected = KANLinear(4, 3, 6, grid_range=(-2, 3), generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in layer.state_dict().items())
    x = torch.randn(5, 4)
    assert torch.equal(layer(x), expected(x))


def averaged_by_timm(layer, mask):
    average = ModelEmaV3(layer, decay=0.0)
    layer.set_mask(mask)
    average.update(layer)
    average.update(layer)
    return average.module


def averaged_by_torch(layer, mask):
    average = AveragedModel(layer, use_buffers=True)
    layer.set_mask(mask)
    average.update_parameters(layer)
    return average.module


def written(layer, mask):
    layer.mask.copy_(mask)
    return layer


def replaced(layer, mask):
    """A copy whose mask is written once has the version that the first one was seen with."""
    other = copy.deepcopy(layer)
    while other.mask._version < layer.mask._version:
        other.mask.copy_(mask)
    other.mask.copy_(mask)
    return other


@pytest.mark.parametrize("copied", [averaged_by_timm, averaged_by_torch, written, replaced])
def test_an_edge_stays_pruned_where_the_mask_was_copied(copied):
    layer = KANLinear(2, 2)
    x = torch.rand(4, 2)
    layer(x)
    other = copied(layer, torch.tensor([[0.0, 1], [1, 1]]))
    assert not other.mask.all()
    torch.testing.assert_close(other(x), other.edges(x).sum(-1))


def test_a_layer_that_moves_does_not_multiply_by_a_mask_of_ones():
    layer = KANLinear(2, 2)
    for moved in (layer.double(), copy.deepcopy(layer).float()):
        moved(torch.rand(4, 2, dtype=moved.coef.dtype))
        assert not moved._masked


def test_a_finer_grid_is_learned_by_the_optimizer_that_there_is():
    layer = KANLinear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer.load_state_dict(KANLinear(2, 2, grid_size=9).state_dict())
    before = layer.coef.detach().clone()
    layer(torch.rand(4, 2)).sum().backward()
    optimizer.step()
    assert before.shape == (2, 12, 2) and not torch.equal(layer.coef, before)


def test_slopes_of_the_base_have_a_graph():
    layer = KANLinear(2, 2, dtype=torch.float64)
    x = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer.basis(x, 1), x)
    constant = KANLinear(2, 2, base=torch.ones_like).basis(torch.rand(3, 2), 1)
    assert not constant[..., -1].any()
    with pytest.raises(ValueError, match="derivative=2: expected 0 or 1"):
        KANLinear(2, 2, base="zero").basis(x, 2)


@pytest.mark.parametrize("shapes", [((1, 12), (1, 8, 5)), ((12,), (1, 8, 2)), ((1, 12), (8, 2)), ((1, 5), (1, 1, 2))])
def test_grids_that_do_not_fit_are_refused(shapes):
    knots, coef = (torch.linspace(0, 1, shape[-1]).expand(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"expected \(1, G \+ 7\) and \(1, G \+ 3, 2\)"):
        KANLinear(1, 2).set_grid(knots, coef)
