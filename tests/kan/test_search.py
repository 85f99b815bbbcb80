import copy

import numpy as np
import pytest
import sympy
import torch
from scipy.special import j0

from kat_zoo.kan import KAN, KANRegressor
from kat_zoo.kan.operations.fitting import fit_library
from kat_zoo.kan.search import search
from kat_zoo.kan.search.judge import Data
from kat_zoo.kan.search.outer import OUTERS, outer_starts
from kat_zoo.kan.search.problem import Candidate, Problem
from kat_zoo.kan.search.shapes import GOOD, linear_groups, structure
from kat_zoo.kan.sklearn.closed import law_of

TARGETS = {
    "toy": (lambda x: np.exp(np.sin(np.pi * x[0]) + x[1] ** 2), 2, (-1, 1), [2, 1, 1]),
    "product": (lambda x: x[0] * x[1], 2, (-1, 1), [2, [0, 1]]),
    "quotient": (lambda x: x[0] / x[1], 2, (0.5, 2), [2, 1, 1]),
    "bessel": (lambda x: np.exp(j0(20 * x[0]) + x[1] ** 2), 2, (-1, 1), [2, 1, 1]),
    "tanh": (lambda x: np.tanh(5 * ((x**4).sum(0) - 1)), 3, (-1, 1), [3, 1, 1]),
    "velocities": (lambda x: (x[0] + x[1]) / (1 + x[0] * x[1]), 2, (-0.9, 0.9), [2, 1, 1]),
    "distance": (lambda x: np.hypot(x[0] - x[1], x[2] - x[3]), 4, (-1, 1), [4, 2, 1, 1]),
}


def sample(name, n=1000, seed=0):
    function, inputs, (low, high), width = TARGETS[name]
    X = np.random.default_rng(seed).uniform(low, high, (n, inputs))
    return X, function(X.T), width


@pytest.mark.parametrize("name", ["product", "velocities"])
def test_finds_the_formula_when_given_the_shape(name):
    X, y, width = sample(name, 400)
    model = KANRegressor(symbolic=True, widths=[width]).fit(X, y)
    X_new, y_new, _ = sample(name, 200, 1)
    assert model.exact_ and np.abs(model.predict(X_new) - y_new).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TARGETS)
def test_finds_the_formula_on_its_own(name, seed):
    X, y, _ = sample(name, seed=seed)
    assert KANRegressor(symbolic=True, random_state=seed).fit(X, y).exact_


BACK = {"exp": np.exp, "sqrt": np.sqrt, "x^2": np.square, "1/x": np.reciprocal}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", [outer.name for outer in OUTERS])
def test_a_known_function_of_a_sum_of_waves_needs_no_luck(name, sign):
    """Random starts of this shape miss a wave of six turns more often than not."""
    X = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    y = 3 * sign * BACK[name](j0(20 * X[:, 0]) + X[:, 1] ** 2 + 1)
    x, shift, spread = torch.tensor(X), y.mean() if name == "exp" else 0.0, y.std()
    scaled = torch.tensor((y - shift) / spread)[:, None]
    problem = Problem(x[:800], scaled[:800], x[800:], scaled[800:], zero=-shift / spread)
    starts = outer_starts(problem)
    assert starts[0].edge_kind(1, 0, 0) == name
    model, error = structure(problem, [2, 1, 1], [], first=starts)
    assert error < GOOD and model.edge_kind(1, 0, 0) == name


def test_values_of_both_signs_have_no_such_start():
    x = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None]
    assert outer_starts(Problem(x[::2], x[::2], x[1::2], x[1::2])) == []


def test_constants_of_a_network_are_rounded_like_those_of_closed_forms():
    generator = np.random.default_rng(0)
    X = generator.uniform(-1, 1, (1000, 2))
    y = np.exp(j0(20 * X[:, 0]) + X[:, 1] ** 2)
    noisy = y + 0.01 * y.std() * generator.standard_normal(1000)
    a, b = sympy.symbols("a b")
    found = 0.998 * sympy.exp(1.001 * (b + 0.0003) ** 2 + 1.0008 * sympy.besselj(0, 19.9996 * a + 0.0004)) + 0.0021
    data = Data(X[:800], noisy[:800], X[800:], noisy[800:])
    assert law_of(found, data, ["a", "b"]).expression == sympy.exp(b**2 + sympy.besselj(0, 20 * a))
    assert law_of(sympy.Function("phi_0_0_0")(a) + b, data, ["a", "b"]) is None


def test_inputs_that_enter_as_a_sum_are_found():
    x = torch.rand(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = KAN.from_formula("sqrt((x_1 - x_2)**2 + (2*x_3 + x_4)**2 + 1)", ["x_1", "x_2", "x_3", "x_4"])
    groups = linear_groups(model, x)
    expected = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, 0.5]], dtype=x.dtype)
    assert groups.shape == (2, 4)
    signs = (groups * expected).sum(1, keepdim=True).sign()  # a direction has no sign
    torch.testing.assert_close(signs * groups, expected)
    apart = KAN.from_formula("x_1*x_2 + sin(x_3) + exp(x_4)", ["x_1", "x_2", "x_3", "x_4"])
    assert linear_groups(apart, x) is None


def test_noise_keeps_the_structure():
    X, y, width = sample("toy", 600)
    noisy = y + 0.01 * y.std() * np.random.default_rng(0).standard_normal(len(y))
    model = KANRegressor(symbolic=True, widths=[width]).fit(X, noisy)
    text = str(model.formula_)
    assert "exp(" in text and "sin(" in text and (")**2" in text or "x_2**2" in text), text
    assert "phi" not in text


@pytest.mark.parametrize("copies", [1, 10])
def test_noise_is_never_exact(copies):
    generator = np.random.default_rng(0)
    X, y = (np.repeat(table, copies, 0) for table in (generator.normal(size=(6, 2)), generator.normal(size=6)))
    model = KANRegressor(symbolic=True).fit(X, y)
    assert not model.exact_ and not model.search_.best.exact and model.held_out_ == 0


def test_the_error_of_a_candidate_counts_rows_by_their_weight():
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None]
    y, weight = x.clone(), torch.ones(50, dtype=torch.float64)
    y[:10], weight[:10] = 9, 1e-20
    assert Problem(x, y, x, y, weight, weight).error(KAN.from_formula("x_1")) < 1e-8


def test_a_formula_is_finite_between_the_rows(monkeypatch):
    """The best one is not: sqrt(x^2 - 0.04), of noisy rows with |x| >= 0.3."""

    def train(problem, numeric, tolerance):
        model = copy.deepcopy(numeric.model)
        return Candidate(model, problem.train(model, 50), True, numeric.width)

    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(0.3, 1, 100, dtype=torch.float64)[:, None]
    x = torch.cat([x, -x])
    y = (x.square() - 0.04).sqrt() + 0.01 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
    problem, start = Problem(x, y, x, y), Candidate(KAN.from_formula("sqrt(x_1**2 + 0.01)"), 0.1, False, [1, 1])
    monkeypatch.setattr(search, "symbolize", train)
    (found,) = search.formulas(problem, start)
    assert found.error < 0.05 and not len(problem.undefined(found.model))
    assert len(problem.undefined(train(problem, start, 1.5).model)) > 0


def test_formulas_of_several_outputs_are_searched_one_by_one():
    X = np.random.default_rng(1).uniform(-1, 1, (400, 2))
    y = np.column_stack([2 * X[:, 0] + X[:, 1], X[:, 0] ** 2 + np.sin(3 * X[:, 1]), X[:, 1] ** 2])
    model = KANRegressor(symbolic=True).fit(X, y)
    assert [str(found) for found in model.formula_] == ["2*x_1 + x_2", "x_1**2 + sin(3*x_2)", "x_2**2"] and model.exact_
    assert model.score(X, y) > 1 - 1e-12 and model.feature_importances_.sum() == pytest.approx(1)
    assert len(model.table_) == 3 and "x_{2}^{2}" in model.latex() and len(model.plot(output=2).axes) > 0


def test_constants_that_cancel_are_extreme():
    names = ["x_1", "x_2"]
    sound, canceling = KAN.from_formula("x_1*x_2 + 3", names), KAN.from_formula("1e-13*(x_1 + 1e13)*x_2 + 3", names)
    assert [Candidate(model, 0.0, True, [2, 1]).extreme() for model in (sound, canceling)] == [False, True]


def test_the_table_has_simple_candidates_and_each_row_beats_the_simpler_ones():
    X = np.random.default_rng(0).uniform(-1, 1, (300, 2))
    model = KANRegressor(symbolic=True, widths=[[2, 1]]).fit(X, 3.1 * np.exp(2.3 * X[:, 0]) + np.sin(4.2 * X[:, 1] + 0.3))
    sizes, losses, equations = (list(model.table_[name]) for name in ("complexity", "loss", "equation"))
    assert sorted(set(sizes)) == list(sizes) and sorted(set(losses), reverse=True) == list(losses)
    symbols = [{str(symbol) for symbol in equation.free_symbols} for equation in equations]
    assert symbols[0] == set() and {"x_1"} in symbols and equations[-1] == model.formula_ and len(equations) >= 3
    assert model.exact_


def test_what_explains_nothing_is_not_suggested():
    x = torch.linspace(-1, 1, 100, dtype=torch.float64)
    found = fit_library(x, torch.exp(-9 * x.square()), worth=0.5)
    assert all(suggestion.r2 >= 0.5 for suggestion in found) and "0" not in [suggestion.name for suggestion in found]
