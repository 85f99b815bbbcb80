"""A module that a user puts in front of fc1 may work in place: the gradients are those without recomputation all the same."""

import pytest
import torch
from torch import nn

from kat_zoo.layers import GRKAN


class Add(nn.Module):
    def forward(self, x):
        return x.add_(0.5)


@pytest.mark.parametrize("module", [nn.ReLU(inplace=True), Add(), nn.Hardtanh(-0.5, 0.5, inplace=True), nn.Identity()])
@pytest.mark.parametrize("place", ["fc1", "drop1"])
def test_gradients_after_a_change_in_place(module, place, generator):
    layer = GRKAN(16, 16, num_groups=4)
    setattr(layer, place, nn.Sequential(module, layer.fc1) if place == "fc1" else module)
    x = torch.randn(3, 16, generator=generator)

    def gradients():
        layer.zero_grad()
        layer(x).square().sum().backward()
        return [parameter.grad.clone() for parameter in layer.parameters()]

    with torch.autograd.graph.disable_saved_tensors_hooks("keeps what it is given"):
        expected = gradients()
    for got, right in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(got, right)
