"""The values that layers start from: those of the papers, whatever the sizes."""

import math

import pytest
import torch

from kat_zoo.layers import GRKAN, FourierHeads, GeneralHeads, GroupRational, KANLinear
from kat_zoo.layers.learned_attention.edges import Edges


def assert_uniform(values, bound):
    """Thousands of values, uniform on [-bound, bound]."""
    assert values.abs().max() <= bound
    torch.testing.assert_close(values.std().item(), bound / math.sqrt(3), rtol=0.05, atol=0)
    assert values.mean().abs() < 0.05 * bound


def assert_normal(values, deviation):
    torch.testing.assert_close(values.std().item(), deviation, rtol=0.05, atol=0)
    assert values.mean().abs() < 0.05 * deviation


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_splines():
    layer = KANLinear(50, 40, noise_scale=0.3)
    assert_normal(layer.coef, 0.3 / math.sqrt(50))
    assert_uniform(layer.base_weight, 1 / math.sqrt(50))
    assert (layer.grid_size, layer.spline_order, layer.base) == (5, 3, "silu")
    torch.testing.assert_close(layer.knots[7], torch.arange(-3, 9, dtype=torch.float64) * 0.4 - 1)


@pytest.mark.parametrize("init, deviation", [("scaled", 1 / math.sqrt(60 * 5)), ("normal", 1.0)])
def test_fourier_heads(init, deviation):
    heads = FourierHeads(3, 60, 5, 7, init=init, edge_scale=True, w_bias=True)
    assert_normal(heads.a, deviation)
    assert_normal(heads.b, deviation)
    assert_uniform(heads.w, 7**-0.5)
    assert (heads.cos_scale == 1).all() and (heads.sin_scale == 1).all() and not heads.bias.any()
    assert_uniform(GeneralHeads(3, 60, 5, 7).w, 7**-0.5)


@pytest.mark.parametrize("basis, terms", [("fourier", 4), ("rational", 6), ("dog", 1)])
def test_edges(basis, terms):
    edges = Edges(4, 30, 50, basis, num_harmonics=4)
    weights = {"fourier": 8, "rational": 6, "dog": 1}[basis]
    assert_normal(edges.coefficients[:weights], (30 * terms) ** -0.5)
    rest = edges.coefficients[weights:]
    if basis == "rational":
        assert_normal(rest, 1.0)
    else:
        assert not rest.any()
    assert_normal(Edges(4, 30, 50, basis, init="normal").coefficients[0], 1.0)


def test_gr_kan():
    layer = GRKAN(16)
    assert layer.act1.order == layer.act2.order == (5, 4) and layer.act1.num_groups == layer.act2.num_groups == 8
    assert (layer.act1.init, layer.act2.init) == ("identity", "swish")
    assert (layer.fc1.in_features, layer.fc1.out_features, layer.fc2.out_features) == (16, 16, 16)
    assert layer.fc1.bias is not None and layer.drop1.p == layer.drop2.p == 0
    activation = GroupRational()
    assert activation.weight_numerator.shape == (1, 6) and activation.weight_denominator.shape == (8, 4)
