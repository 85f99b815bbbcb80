import copy

import pytest
import torch
from torch import nn

from kat_zoo.kan import KAN, LAN


def test_starts_as_the_mlp_it_was_made_from():
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 1))
    lan, x = LAN.from_mlp(mlp, nn.functional.silu), torch.rand(10, 2)
    torch.testing.assert_close(lan(x), mlp(x))
    with pytest.raises(ValueError, match="no nn.Linear"):
        LAN.from_mlp(nn.Sequential(nn.ReLU()), torch.relu)
    double = copy.deepcopy(mlp).double()
    torch.testing.assert_close(LAN.from_mlp(double, nn.functional.silu)(x.double()), double(x.double()), rtol=1e-13, atol=1e-13)
    with pytest.raises(ValueError, match="expected the same function"):
        LAN.from_mlp(nn.Sequential(*mlp, nn.Tanh()), nn.functional.silu)


def test_learned_activations_beat_fixed_ones():
    x = torch.linspace(-1, 1, 128)[:, None]
    y = torch.sin(8 * x) * x
    losses = []
    for learn in (False, True):
        lan = LAN([1, 16, 16, 1], grid_size=8)
        for activation in lan.activations:
            activation.coef.requires_grad_(learn)
        optimizer = torch.optim.Adam(lan.parameters(), 1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            loss = (lan(x) - y).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] < 0.5 * losses[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    lan, x = LAN([2, 8, 1], seed=1), torch.rand(6, 2)
    nn.init.normal_(lan.activations[0].coef)
    expected = lan(x)
    y = lan.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


def test_activation_is_one_spline_per_channel():
    lan = LAN([2, 3, 1], base="sin")
    activation = lan.activations[0]
    nn.init.normal_(activation.coef)
    x = torch.rand(5, 3)
    moved = x.clone()
    moved[:, 1] += 0.5
    changed = (activation(moved) - activation(x)).abs().max(0).values > 0
    assert changed.tolist() == [False, True, False]


def test_a_network_with_activations_on_nodes_fits_a_function():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(300, 2, generator=generator, dtype=torch.float64) * 2 - 1
    y = (torch.sin(3 * x[:, :1]) * x[:, 1:]).numpy()
    lan = LAN([2, 8, 8, 1], grid_size=8, seed=1, dtype=torch.float64)
    history = lan.fit(x[:200].numpy(), y[:200], x[200:].numpy(), y[200:], steps=15)
    assert history.best < 0.05 * history.val[0]
    with torch.no_grad():
        error = (lan(x[200:]) - lan.tensor(y[200:])).square().mean().sqrt()
    torch.testing.assert_close(error.item(), history.best)
    copied = copy.deepcopy(lan)
    assert torch.equal(copied(x), lan(x))


def test_a_class_is_what_its_constructor_says():
    with pytest.raises(TypeError, match="activation_on"):
        KAN([2, 1], activation_on="nodes")


def test_bad_arguments_of_networks_on_nodes_are_named():
    lan = LAN([2, 4, 1], dtype=torch.float64)
    with pytest.raises(ValueError, match="optimizer='lm': expected 'lbfgs' or 'adam'"):
        lan.fit([[0.0, 1.0]], [[1.0]], optimizer="lm")
    with pytest.raises(ValueError, match="y of 2 columns: expected 1"):
        lan.fit([[0.0, 1.0]], [[1.0, 2.0]])
