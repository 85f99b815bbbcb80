"""Minimax fits: optimal, without poles, and the table of named inits is what the fit gives."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog

from kat_zoo.kernels import rational_reference
from kat_zoo.layers.init import _TABLE, FIT_RANGE, FUNCTIONS, rational_coefficients, variance_gain
from kat_zoo.layers.rational_fit import fit_rational, fit_rational_to_samples

# Largest error on [-6, 6] of the best (5, 4) rational under the kernel's formula.
BEST_ERROR = {
    "relu": 2.6e-2,
    "leaky_relu": 2.6e-2,
    "gelu": 3.1e-3,
    "quick_gelu": 1.1e-3,
    "silu": 9.0e-5,
    "tanh": 8.4e-5,
    "sigmoid": 7.0e-7,
    "mish": 2.2e-3,
}


def error(function, numerator, denominator, low=-6.0, high=6.0):
    x = torch.linspace(low, high, 20001, dtype=torch.float64)
    y = rational_reference(x[:, None], numerator[None], denominator[None])[:, 0]
    return (y - function(x)).abs().max().item()


@pytest.mark.parametrize("init", FUNCTIONS)
def test_named_init_approximates_its_function(init):
    bound = {"identity": 0.0, "swish": 7.8e-3, **BEST_ERROR}[init]
    assert error(FUNCTIONS[init], *rational_coefficients(init)) <= bound


@pytest.mark.parametrize("init", sorted(set(_TABLE) - {"swish"}))
def test_table_is_the_fit(init):
    numerator, denominator, largest = fit_rational(FUNCTIONS[init], FIT_RANGE)
    table = rational_coefficients(init)
    torch.testing.assert_close(error(FUNCTIONS[init], *table), largest, rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(table[0], numerator, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(table[1], denominator, rtol=1e-3, atol=1e-6)


def zigzag(x):
    return torch.minimum((x - 1).abs(), (x + 2).abs())


@pytest.mark.parametrize("function", [F.gelu, zigzag, torch.sin])
@pytest.mark.parametrize("low, high", [(-3.0, 5.0), (-8.0, 0.5), (0.5, 4.0)])
def test_no_rational_is_better(function, low, high):
    # Whether any (a, b >= 0) stays within t is a linear feasibility problem: no solution 2 % below the error found.
    numerator, denominator, largest = fit_rational(function, (low, high))
    assert (denominator >= 0).all()
    assert error(function, numerator, denominator, low, high) == pytest.approx(largest, rel=2e-2)
    x = np.linspace(low, high, 1 + 32 * int(2 * (high - low)))  # holds every kink
    y = function(torch.from_numpy(x)).numpy()
    scaled = x / max(-low, high)
    powers, magnitudes = scaled[:, None] ** np.arange(6), np.abs(scaled)[:, None] ** np.arange(1, 5)
    feasible = {}
    for t in (1.01 * largest, 0.98 * largest):
        rows = [np.hstack([s * powers, (-s * y - t)[:, None] * magnitudes]) for s in (1.0, -1.0)]
        bounds = np.concatenate([s * y + t for s in (1.0, -1.0)])
        limits = [(None, None)] * 6 + [(0, None)] * 4
        feasible[t] = linprog(np.zeros(10), np.vstack(rows), bounds, bounds=limits).status == 0
    assert list(feasible.values()) == [True, False]


def test_a_rational_function_is_recovered():
    a, b = torch.tensor([0.3, -1.0, 0.5, 0.2, 0.0, 0.01]).double(), torch.tensor([0.2, 0.1, 0.0, 0.05]).double()
    *_, largest = fit_rational(lambda x: rational_reference(x[:, None], a[None], b[None])[:, 0], (-4, 4))
    assert largest < 1e-6


@pytest.mark.parametrize("size", [1e-6, 1e-12])
def test_a_small_function_is_fitted_as_its_multiple(size):
    """The solvers' tolerances are absolute: 0 was close enough."""
    numerator, denominator, largest = fit_rational(lambda x: size * F.gelu(x), (-6, 6))
    assert largest / size == pytest.approx(BEST_ERROR["gelu"], rel=0.05)
    assert error(F.gelu, numerator / size, denominator) == pytest.approx(largest / size, rel=0.01)
    samples = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    (*small, rms_small), (*fit, rms_fit) = (fit_rational_to_samples(lambda x, s=s: s * F.gelu(x), samples) for s in (size, 1.0))
    assert rms_small / size == pytest.approx(rms_fit, rel=0.01)
    assert error(F.gelu, small[0] / size, small[1], -3, 3) == pytest.approx(error(F.gelu, *fit, -3, 3), rel=0.2)


@pytest.mark.parametrize("order", [(1, 1), (3, 2), (8, 8), (0, 4), (5, 1)])
def test_any_order(order):
    numerator, denominator, largest = fit_rational(torch.tanh, (-3, 3), order)
    assert (len(numerator), len(denominator)) == (order[0] + 1, order[1])
    assert largest < 1.01


def test_fit_to_samples_is_better_where_the_samples_are():
    samples = 1.5 * torch.randn(50_000, generator=torch.Generator().manual_seed(0)) - 0.5
    low, high = samples.min().item(), samples.max().item()
    *best, rms = fit_rational_to_samples(F.gelu, samples)
    *minimax, largest = fit_rational(F.gelu, (low, high))
    residuals = []
    for a, b in (best, minimax):
        y = rational_reference(samples[:, None].double(), a[None], b[None])[:, 0]
        residuals.append((y - F.gelu(samples.double())).square().mean().sqrt().item())
    assert residuals[0] == pytest.approx(rms, rel=0.05)
    assert residuals[0] < 0.8 * residuals[1]
    assert error(F.gelu, *best, low, high) < 20 * largest  # the tails are not given up


def rms(fit, samples):
    y = rational_reference(samples[:, None], fit[0][None], fit[1][None])[:, 0]
    return (y - F.gelu(samples)).square().mean().sqrt().item()


@pytest.mark.parametrize("order, most", [((5, 4), 3.5e-3), ((8, 7), 2e-4)])
def test_a_few_outliers_do_not_spoil_the_bulk(order, most):
    # The minimax fit on [-6, 6] is off by 2.2e-3 there, that of order (5, 4) up to the outliers by 9e-3.
    bulk = 1.5 * torch.randn(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fit = fit_rational_to_samples(F.gelu, torch.cat([bulk, torch.full((1,), 30.0, dtype=torch.float64)]), order)
    assert rms(fit, bulk) < most
    outlier = rational_reference(torch.tensor([[30.0]], dtype=torch.float64), fit[0][None], fit[1][None])
    assert outlier.item() == pytest.approx(30, abs=0.2)


def test_no_neighbor_of_a_fit_to_samples_is_better():
    # The objective written out: histogram and a thousandth of it spread over the range, on a finer grid and without its code.
    samples = 2 * torch.randn(50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b, _ = fit_rational_to_samples(F.gelu, samples)
    points = torch.linspace(samples.min().item(), samples.max().item(), 1001, dtype=torch.float64)

    def objective(a, b):
        return rms((a, b), samples) ** 2 + 1e-3 * rms((a, b), points) ** 2

    least = objective(a, b)
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-2, 1e-3, 1e-4):
        for _ in range(100):
            near = [c * (1 + scale * torch.randn(c.shape, generator=generator, dtype=torch.float64)) for c in (a, b)]
            assert objective(*near) > 0.98 * least


def test_weights_of_samples_count_like_repetitions():
    samples = torch.randn(2_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.arange(2_000) % 3
    weighted = fit_rational_to_samples(F.gelu, samples, weights=weights.double())
    repeated = fit_rational_to_samples(F.gelu, samples.repeat_interleave(weights), range=(samples.min().item(), samples.max().item()))
    x = torch.linspace(-2.5, 2.5, 101, dtype=torch.float64)[:, None]
    values = [rational_reference(x, a[None], b[None]) for a, b, _ in (weighted, repeated)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-3)


@pytest.mark.parametrize("weights", [torch.ones(3), torch.zeros(4), -torch.ones(4)], ids=str)
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="weights of shape .*: expected"):
        fit_rational_to_samples(F.gelu, torch.arange(4.0), weights=weights)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"range": (1, 1)}, "range"),
        ({"range": (0, float("inf"))}, "range"),
        ({"range": (-1, 1), "order": (9, 4)}, "order"),
        ({"range": (-1, 1), "order": (5, 0)}, "order"),
        ({"range": (-1, 1), "order": (5,)}, "order"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_rational(torch.tanh, **arguments)


def test_function_must_be_finite():
    with pytest.raises(ValueError, match="finite"):
        fit_rational(torch.log, (-1, 1))


def test_without_scipy_named_inits_work_and_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    for init in FUNCTIONS:
        rational_coefficients(init)
    with pytest.raises(ModuleNotFoundError, match=r"kat_zoo\[kan\]"):
        fit_rational(torch.tanh, (-1, 1))


@pytest.mark.parametrize("init, gain", [("identity", 1.0), ("relu", 2.0), ("gelu", 2.3568), ("silu", 2.8178)])
def test_variance_gain(init, gain):
    assert variance_gain(init) == pytest.approx(gain, rel=2e-2 if init == "relu" else 5e-3)
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    numerator, denominator = rational_coefficients(init)
    y = rational_reference(x[:, None], numerator[None], denominator[None])
    assert y.square().mean().item() * variance_gain(init) == pytest.approx(1, rel=1e-2)


def test_unknown_init_lists_the_known_ones():
    with pytest.raises(ValueError, match="'sinus'.*identity, relu"):
        rational_coefficients("sinus")


def test_the_default_order_is_that_of_the_published_models():
    for fit in (fit_rational(torch.tanh, (-2, 2)), fit_rational_to_samples(torch.tanh, torch.linspace(-2, 2, 101))):
        assert [len(coefficients) for coefficients in fit[:2]] == [6, 4]
