"""Sparse additive models against closed forms and a general optimizer."""

import pytest
import torch
from scipy.optimize import minimize

from kat_zoo.kan import KAN
from kat_zoo.kan.sklearn.additive import PENALTIES, fit_additive


def data(n=60, inputs=3, outputs=2):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, inputs, dtype=torch.float64, generator=generator) * 2 - 1
    noise = torch.randn(n, outputs, dtype=torch.float64, generator=generator)
    weight = torch.rand(n, dtype=torch.float64, generator=generator) + 0.5
    return x, torch.stack([torch.sin(3 * x[:, 0]), x[:, 1]], 1)[:, :outputs] + 0.3 * noise, weight


def test_much_smoothness_is_weighted_linear_regression():
    x, y, w = data()
    model = KAN([3, 2], 3, base="zero")
    fit_additive(model, x, y, w, (1e5, 0))
    table, root = torch.cat([x, torch.ones_like(x[:, :1])], 1), w.sqrt()[:, None]
    expected = table @ torch.linalg.lstsq(table * root, y * root).solution
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("number", [0, 2, 4])
def test_the_minimum_of_the_penalized_objective_is_found(number):
    x, y, w = data(outputs=1)
    model, smoothness = KAN([3, 1], 3, base="zero"), 0.01
    fit_additive(model, x, y, w, (smoothness, number))
    basis, share = model.layers[0].spline.basis(x), w / w.sum()

    def objective(coef):
        coef = coef.reshape(3, -1)
        edges = (basis * coef).sum(-1)
        centered = edges - (share[:, None] * edges).sum(0)
        std = ((share[:, None] * centered.square()).sum(0) + 1e-14).sqrt()
        penalties = PENALTIES[number] * std.sum() + smoothness / 2 * coef.diff(n=2, dim=1).square().sum()
        return 0.5 * (share * (edges.sum(1) - y[:, 0]).square()).sum() + penalties

    def with_slope(coef):
        coef = torch.tensor(coef, requires_grad=True)
        value = objective(coef)
        value.backward()
        return float(value.detach()), coef.grad.numpy()

    found = float(objective(model.layers[0].spline.coef[:, :, 0].detach()))
    best = minimize(with_slope, torch.zeros(basis[0].numel()).numpy(), jac=True, method="L-BFGS-B", options={"maxiter": 5000}).fun
    assert found <= best * (1 + 1e-3)


def test_the_group_penalty_drops_the_idle_input_and_keeps_the_curve():
    x, y, _ = data(200, outputs=1)
    model = KAN([3, 1], 3, base="zero")
    fit_additive(model, x, y, None, (0.01, 4))
    edges = model.layers[0].edges(x)[:, 0].std(0)
    assert edges[0] > 0.3 and edges[2] < 1e-3


def test_cross_validation_tells_a_curve_from_noise():
    x, y, _ = data(200, outputs=1)
    model = KAN([3, 1], 3, base="zero")
    smoothness, _ = fit_additive(model, x, y)
    truth = torch.sin(3 * x[:, :1])
    assert smoothness < 1 and (model(x) - truth).square().mean() < 0.05 * truth.square().mean()
    smoothness, number = fit_additive(model, x, torch.randn(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    assert PENALTIES[number] > 0 and model(x).std() < 0.1


def test_only_networks_without_hidden_layer():
    x, y, _ = data()
    for model in (KAN([3, 2, 2], base="zero"), KAN([3, 2])):
        with pytest.raises(ValueError, match="width="):
            fit_additive(model, x, y)
