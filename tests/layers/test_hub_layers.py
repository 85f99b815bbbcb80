"""The layers of the Kernel Hub compute what ours do, from the same parameters."""

import itertools

import pytest
import torch

from kat_zoo.kernels import hub_layers
from kat_zoo.layers import FourierHeads, GroupRational


@pytest.mark.parametrize("edge_scale, w_bias", itertools.product([False, True], repeat=2))
def test_fourier_heads(edge_scale, w_bias, generator):
    ours = FourierHeads(2, 5, 3, 4, edge_scale=edge_scale, w_bias=w_bias, dtype=torch.float64)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(generator=generator)
    q, k, v = torch.randn(3, 2, 2, 5, 6, dtype=torch.float64, generator=generator)
    assert torch.equal(hub_layers.FourierHeads.forward(ours, q, k, v), ours(q, k, v))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dim", [-1, 1])
def test_group_rational(dim, scaled, generator):
    ours, x = GroupRational(4, channel_dim=dim, scaled=scaled, share_numerator=False), torch.randn(2, 8, 8, generator=generator)
    if scaled:
        ours.set_coefficients(torch.randn(4, 6, generator=generator), torch.rand(4, 4, generator=generator), torch.tensor([1.0, 2, 4, 8]))
    assert torch.equal(hub_layers.GroupRational.forward(ours, x), ours(x))
