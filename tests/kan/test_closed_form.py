"""Laws that come out of a table, and how the search for them behaves."""

import math
import time

import numpy as np
import pytest
import sympy
from threadpoolctl import threadpool_limits

from kat_zoo.kan import KANRegressor
from kat_zoo.kan.search.closed_form import find_closed_forms
from kat_zoo.kan.search.judge import Clock, Data, Judge
from kat_zoo.kan.search.rounding import round_numbers
from kat_zoo.kan.search.sums import pursue
from kat_zoo.kan.search.tree import (
    FUNCTIONS,
    constants,
    evaluate,
    from_sympy,
    gathered,
    power,
    product,
    size,
    to_sympy,
    total,
    with_constants,
)
from kat_zoo.kan.search.useful import useful_inputs

C = 2.998e8
LAWS = {
    "x + sin(x)": [(-3, 3)],
    "x*sin(x)": [(-3, 3)],
    "x*exp(-x)": [(-1, 4)],
    "x**3 + x**2 + x": [(-3, 3)],
    "(x + 1)/(x**2 + 1)": [(-3, 3)],
    "x + y*z": [(-1, 1)] * 3,
    "x*y + z*u": [(-1, 1)] * 4,
    "x*y + y*z + x*z": [(-1, 1)] * 3,
    "8.99e9*x*y/z**2": [(1e-6, 1e-5), (1e-6, 1e-5), (0.01, 1)],
    "x*y": [(100, 101)] * 2,
    "3.2*((1.1/x)**12 - (1.1/x)**6)": [(1, 3)],
    "x**3/(exp(x) - 1)": [(0.1, 8)],
    "exp(-x**2/(2*y**2))/(sqrt(2*pi)*y)": [(-3, 3), (0.5, 2)],
    "sin(x**2)*cos(x) - 1": [(-3, 3)],
    "x**4 - x**3 + y**2/2 - y": [(-2, 2)] * 2,
    "x*y + z*u + v*w": [(-1, 1)] * 6,
    "2*pi*sqrt(x**3/(6.674e-11*y))": [(1e10, 1e12), (1e29, 1e31)],
    "70*x**(3/4)": [(0.02, 4000)],
    "3.2*x/(x + 1.7*(1 + y/0.8))": [(0.1, 10), (0, 3)],
    "sqrt(x**2 + y**2 - 2*x*y*cos(z))": [(0.5, 5), (0.5, 5), (0, 3)],
    "x/(8.854e-12*(1 + y))": [(0.001, 0.1), (1, 100)],
    "1e10*exp(-x/(8.314*y))": [(4e4, 9e4), (280, 400)],
    "8.314*x/(y - 4.27e-5) - 0.364/y**2": [(250, 400), (6e-5, 1e-3)],
    "x*2.998e8**2*(1/sqrt(1 - y**2/2.998e8**2) - 1)": [(1, 10), (1e7, 2.4e8)],
    "cosh(3*x**2 + 2*x + y)": [(0, 1)] * 2,
    "x + 8.314*y/(96485*z)*log(u/v)": [(-1, 1), (280, 350), (1, 3), (0.01, 1), (0.01, 1)],
    "x*exp(y/8.314*(1/z - 1/u))": [(1e3, 1e5), (2e4, 5e4), (280, 320), (280, 320)],
    "x/y*(1 - exp(-y*z/u))": [(1, 100), (1, 100), (0.001, 0.1), (0.01, 1)],
}
SLOW = {
    "exp(-0.3*x)*cos(2*x + 0.5)": [(0, 10)],
    "x*y + sin((x - 1)*(y - 1))": [(-3, 3)] * 2,
    "sqrt((x - y)**2 + (z - u)**2)": [(-1, 1)] * 4,
    "(x + y)/(1 + x*y)": [(-0.9, 0.9)] * 2,
}
NAMES = "xyzuvw"


def table(law, box, n=500, seed=0):
    generator = np.random.default_rng(seed)
    X = np.column_stack([generator.uniform(low, high, n) for low, high in box])
    return X, sympy.lambdify(sympy.symbols(list(NAMES[: len(box)])), sympy.sympify(law), "numpy")(*X.T)


def check(law, box):
    X, y = table(law, box)
    model = KANRegressor(symbolic=True).fit(X, y)
    X_new, y_new = table(law, box, 2000, 1)
    exact = sympy.lambdify(sympy.symbols(f"x_1:{len(box) + 1}"), model.formula(round=None), "numpy")(*X_new.T)
    assert model.exact_ and np.mean((exact - y_new) ** 2) < 1.2e-7 * y_new.var(), model.formula_
    np.testing.assert_allclose(model.predict(X_new), exact, rtol=1e-9, atol=1e-9 * np.abs(y_new).max())
    return model


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_tree_becomes_sympy_and_comes_back(name):
    a, b = sympy.symbols("a b")
    tree = ("+", ("s", 0.5, sympy.Rational(1, 2)), ("*", (name, ("*", ("s", 0.25, sympy.Float(0.25)), ("x", 0))), ("^", ("x", 1), -1.0)))
    back = from_sympy(to_sympy(tree, [a, b]), [a, b])
    X = np.random.default_rng(0).uniform(0.2, 2, (20, 2))
    np.testing.assert_allclose(evaluate(back, X), evaluate(tree, X), rtol=1e-12)
    exact = to_sympy(tree, [a, b]).subs({a: sympy.Rational(7, 5), b: 2}).evalf()
    np.testing.assert_allclose(evaluate(tree, np.array([[1.4, 2.0]]))[0], float(exact), rtol=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_finds_the_law(law):
    model = check(law, LAWS[law])
    truth = sympy.sympify(law)
    nodes = [sum(1 for _ in sympy.preorder_traversal(e)) for e in (model.formula_, truth)]
    assert nodes[0] <= 1.7 * nodes[1] + 2, model.formula_


@pytest.mark.slow
@pytest.mark.parametrize("law", SLOW)
def test_finds_the_law_in_longer(law):
    check(law, SLOW[law])


PRINTED = {
    "x*y": ([(1e12, 1e13), (1, 10)], "x_1*x_2"),
    "1/x": ([(1e24, 1e25)], "1/x_1"),
    "exp(-x**2/2)": ([(-3, 3)], "exp(-x_1**2/2)"),
    "exp(sin(pi*x) + y**2)": ([(-1, 1)] * 2, "exp(x_2**2 + sin(pi*x_1))"),
    "x + y*z": ([(1, 5)] * 3, "x_1 + x_2*x_3"),
}


@pytest.mark.parametrize("law", PRINTED)
def test_prints_the_law_as_it_is_written(law):
    box, text = PRINTED[law]
    assert str(KANRegressor(symbolic=True).fit(*table(law, box)).formula_) == text


MESSY = {  # law, box, rows, relative noise, decimals of a number in a file, largest relative error against the truth
    "decay": ("1000*exp(-x/3.2)", [(0, 15)], 60, 0.01, 6, 0.01),
    "power": ("x**2/y", [(1, 20), (10, 1000)], 60, 0.01, 6, 0.01),
    "projectile": ("x**2*sin(2*y*pi/180)/9.81", [(5, 50), (5, 85)], 200, 0.01, 6, 0.01),
    "Coulomb": ("8.99e9*x*y/z**2", [(1e-6, 1e-5), (1e-6, 1e-5), (0.01, 1)], 60, 0.0, 6, 1e-4),
    "enzyme": ("3.2*x/(1.7*(1 + y/0.8) + x)", [(0.1, 10), (0, 3)], 200, 0.02, 6, 0.02),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MESSY)
def test_a_table_of_a_scientist_gives_the_law(name):
    law, box, rows, noise, digits, most = MESSY[name]
    X, y = table(law, box, rows)
    y = y * (1 + noise * np.random.default_rng(1).standard_normal(rows))
    X, y = (np.array([float(f"{v:.{digits - 1}e}") for v in a.ravel()]).reshape(a.shape) for a in (X, y))
    model = KANRegressor(symbolic=True, max_seconds=60).fit(X, y)
    X_new, y_new = table(law, box, 1000, 2)
    assert "phi_" not in str(model.formula_)
    assert np.sqrt(np.mean((model.predict(X_new) - y_new) ** 2)) < most * y_new.std(), model.formula_


def test_eight_planets_give_keplers_law():
    a = np.array([0.387, 0.723, 1.0, 1.524, 5.203, 9.537, 19.191, 30.069])
    T = np.array([0.2408, 0.6152, 1.0, 1.8808, 11.862, 29.447, 84.017, 164.79])
    model = KANRegressor(symbolic=True, max_seconds=20).fit(a[:, None], T)
    assert str(model.formula_) == "x_1**(3/2)" and not model.exact_ and model.held_out_ == 0


@pytest.mark.slow
def test_noise_does_not_change_the_law_and_numbers_are_round():
    X, y = table("1/x + 1/y", [(0.5, 3)] * 2)
    y = y + 0.01 * y.std() * np.random.default_rng(1).standard_normal(len(y))
    model = KANRegressor(symbolic=True, max_seconds=20).fit(X, y)
    assert sympy.simplify(model.formula_ - sympy.sympify("1/x_1 + 1/x_2")) == 0 and not model.exact_


NOISY = {  # law and its box of exponents of ten: y spans decades, so few rows rise above the noise
    "x*y/z**2": [(-1, 1), (-1, 1), (-2, 1)],
    "exp(-x**2/(2*y**2))/y": [(-1, 1), (-1, 1)],
}


def forms_of(X, y, seconds=20):
    names = sympy.symbols(f"x_1:{X.shape[1] + 1}")
    held = np.arange(len(y)) % 5 == 0
    data = Data(X[~held], y[~held], X[held], y[held], Clock(time.process_time() + seconds, time.process_time))
    with threadpool_limits(1):
        return [(form, to_sympy(form.tree, names)) for form in find_closed_forms(data)[:1]]


@pytest.mark.parametrize("law", NOISY)
def test_noise_of_one_size_does_not_hide_a_law_over_decades(law):
    X = 10 ** table("0", NOISY[law], 1000)[0]
    y = sympy.lambdify(sympy.symbols(list(NAMES[: X.shape[1]])), sympy.sympify(law), "numpy")(*X.T)
    noisy = y + 0.01 * y.std() * np.random.default_rng(1).standard_normal(len(y))
    form, _ = forms_of(X, noisy)[0]
    assert np.mean((evaluate(form.tree, X) - y) ** 2) < (0.01 / 5) ** 2 * y.var()


def test_a_law_is_not_refused_for_a_place_that_the_table_avoids():
    X, _ = table("x*y", [(1, 5)] * 2, 2000)
    X = X[X[:, 0] > X[:, 1]]
    y = np.sqrt(X[:, 0] - X[:, 1])
    y = y + 0.01 * y.std() * np.random.default_rng(1).standard_normal(len(y))
    assert str(sympy.nsimplify(forms_of(X, y)[0][1])) == "sqrt(x_1 - x_2)"


def test_the_search_ends_where_only_noise_is_left(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a network is trained, though only noise is left")

    monkeypatch.setattr("kat_zoo.kan.search.closed_form.guided", refuse)
    X, y = table("x*y/z", [(1, 5)] * 3, 1000)
    y = y + 0.01 * y.std() * np.random.default_rng(1).standard_normal(len(y))
    assert str(sympy.nsimplify(forms_of(X, y, np.inf)[0][1])) == "x_1*x_2/x_3"


def test_residuals_are_told_from_noise():
    X, y = table("x*y", [(1, 5)] * 2, 600)
    noise = 0.05 * np.random.default_rng(1).standard_normal(len(y))
    cubic = np.polynomial.legendre.legval((X[:, 0] - 3) / 2, [0, 0, 0, 1])  # too weak to be seen in neighbors
    for extra, only in ((0, True), (0.05 * np.sin(3 * X[:, 0]), False), (0.03 * X[:, 0] * X[:, 1], False), (0.04 * cubic, False)):
        judge = Judge(Data(X[::2], y[::2], X[1::2], y[1::2]))
        judge.adopt(("*", ("x", 0), ("x", 1)))
        judge.y = np.concatenate([(y + noise + extra)[::2], (y + noise + extra)[1::2]])
        assert judge.only_noise() is only


def test_few_rows_are_not_overfitted():
    x = np.linspace(1, 10, 10)[:, None]
    random = np.random.default_rng(0)
    for law, text in ((3 * x[:, 0] + 1 + 0.05 * random.standard_normal(10), "3*x_1 + 1"), (12 / x[:, 0], "12/x_1")):
        y = np.array([float(f"{v:.3e}") for v in law])
        assert str(sympy.nsimplify(forms_of(x, y)[0][1])) == text
    form, expression = forms_of(x, random.standard_normal(10))[0]
    assert expression.is_number and not form.exact


def test_useful_inputs_are_found():
    X, y = table("x*sin(y)", [(0.5, 5), (0, 3)])
    X = np.column_stack([X, np.random.default_rng(3).normal(size=(len(y), 3))])
    assert useful_inputs(X, y + 0.01 * np.random.default_rng(1).standard_normal(len(y))) == [0, 1]
    X, y = table("x*y + z + u", [(1, 5)] * 4)
    assert useful_inputs(X, y) == [0, 1, 2, 3]


@pytest.mark.parametrize("noise", [0, 0.01])
def test_useless_inputs_cost_little(noise):
    X, y = table("x + y*z", [(1, 5)] * 3)
    y = y + noise * y.std() * np.random.default_rng(1).standard_normal(len(y))
    seconds = []
    for useless in (0, 3):
        began = time.process_time()
        columns = np.random.default_rng(3).normal(size=(len(y), useless))
        assert sympy.simplify(forms_of(np.column_stack([X, columns]), y)[0][1] - sympy.sympify("x_1 + x_2*x_3")) == 0
        seconds.append(time.process_time() - began)
    assert seconds[1] < 2 * seconds[0] + 1


def test_useless_inputs_change_nothing():
    X, y = table("x*sin(y)", [(0.5, 5), (0, 3)])
    X = np.column_stack([X, np.random.default_rng(3).normal(size=(len(y), 2))])
    model = KANRegressor(symbolic=True).fit(X, y)
    assert str(model.formula_) == "x_1*sin(x_2)" and model.feature_importances_[2:].max() == 0


def test_nothing_found_is_a_closed_form_all_the_same():
    X = np.linspace(-1, 1, 200)[:, None]
    y = np.floor(2.5 * X[:, 0]) * np.cos(9 * X[:, 0])
    model = KANRegressor(symbolic=True, max_seconds=6).fit(X, y)
    assert not model.exact_ and "phi_" not in str(model.formula_) and len(model.table_) > 1
    assert not any("phi_" in str(equation) for equation in model.table_["equation"])


def test_ctrl_c_returns_the_best_so_far(monkeypatch):
    X, y = table("x*y + sin((x - 1)*(y - 1))", [(-3, 3)] * 2)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kat_zoo.kan.search.closed_form.Sums.run", interrupt)
    monkeypatch.setattr("kat_zoo.kan.search.problem.Problem.train", interrupt)
    assert KANRegressor(symbolic=True).fit(X, y).predict(X).shape == (500,)


@pytest.mark.slow
def test_the_number_of_threads_changes_nothing():
    import torch

    X, y = table("exp(x)*y", [(-1, 1)] * 2, 120)
    y = y + 0.05 * np.random.default_rng(0).standard_normal(120)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(KANRegressor(symbolic=True).fit(X, y).predict(X))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(*found)


def test_a_library_bounds_the_functions():
    X, y = table("x*sin(y)", [(0.5, 5), (0, 3)], 200)
    data = Data(X[:150], y[:150], X[150:], y[150:], Clock(time.monotonic() + 3), library=("x", "x^2", "1/x"))
    forms = find_closed_forms(data)
    assert forms and not any(set(map(str, ("sin", "cos", "exp"))) & {part[0] for part in _parts(form.tree)} for form in forms)


def _parts(tree):
    yield tree
    for child in tree[1:]:
        if isinstance(child, tuple):
            yield from _parts(child)


def test_constants_are_read_and_replaced_in_order():
    tree = ("+", ("*", ("c", 2.0), ("x", 0)), ("sin", ("*", ("c", 3.0), ("x", 1))), ("n", 1))
    assert constants(tree) == [2.0, 3.0] and constants(with_constants(tree, [5.0, 7.0])) == [5.0, 7.0] and size(tree) == 10
    X = np.array([[1.0, 2.0]])
    assert evaluate(tree, X)[0] == pytest.approx(2 + np.sin(6) + 1)
    assert str(to_sympy(tree, sympy.symbols("a b"))) == "2.0*a + sin(3.0*b) + 1"


def test_sums_and_products_are_flat():
    x, y, one, zero = ("x", 0), ("x", 1), ("n", 1), ("n", 0)
    assert product(product(x, y), one, product(y, x)) == ("*", x, y, y, x) and product(x, one) == x and product(one) == one
    assert product(x, total(y, x)) == ("*", x, ("+", y, x))
    assert total(total(x, y), zero, x) == ("+", x, y, x) and total(x, zero) == x and total(zero) == zero
    assert power(power(x, 0.5), 2) == x and power(power(x, 2), 0.5) == ("^", ("^", x, 2), 0.5) and power(x, 0) == one


def test_numbers_are_gathered():
    x, y = ("x", 0), ("x", 1)
    inner = ("+", ("*", ("c", 2.0), x), ("*", ("c", 4.0), y))
    found = gathered(("*", ("c", 3.0), ("^", inner, 2)))
    assert constants(found) == [12.0, 2.0]
    X = np.random.default_rng(0).uniform(1, 2, (5, 2))
    np.testing.assert_allclose(evaluate(found, X), 3 * (2 * X[:, 0] + 4 * X[:, 1]) ** 2)


def test_round_numbers_are_near_and_cheap_ones_first():
    found = [tree for _, tree in round_numbers(3.1416, 1e-5)]
    assert found[0][0] == "s" and found[0][2] == sympy.pi
    assert round_numbers(1 / math.sqrt(2 * math.pi), 1e-6)[0][1][2] == 1 / sympy.sqrt(2 * sympy.pi)  # the normal distribution's
    assert round_numbers(0.50001, 1e-3)[0][1] == ("n", 0.5) and not round_numbers(0.7234567, 1e-6)


def test_pursuit_finds_the_terms_of_a_sum():
    A = np.random.default_rng(0).normal(size=(100, 400))
    rest, support = min(pursue(A, 2 * A[:, 7] - 3 * A[:, 300] + 0.1 * A[:, 12]))
    assert rest < 1e-7 and support == (7, 12, 300)


def test_no_network_is_trained_where_a_closed_form_leaves_only_noise(monkeypatch):
    from kat_zoo.kan.sklearn import symbolic

    generator = np.random.default_rng(0)
    X = generator.uniform(1, 3, (500, 2))
    y = X[:, 0] * X[:, 1] ** 2
    noisy = y + 0.01 * y.std() * generator.normal(size=500)
    trained = []
    monkeypatch.setattr(symbolic, "find_formulas", lambda *args, **kwargs: trained.append(1) or 1 / 0)
    model = KANRegressor(symbolic=True, random_state=0).fit(X, noisy)
    assert str(model.formula_) == "x_1*x_2**2" and not model.exact_ and not trained
    with pytest.raises(ZeroDivisionError):  # a step is not noise
        KANRegressor(symbolic=True, random_state=0, max_seconds=3).fit(X, np.floor(3 * X[:, 0]) * np.sin(9 * X[:, 1] ** 2))


def test_rows_for_a_regression_go_by_their_weights():
    x, weight = np.random.default_rng(0).uniform(-2, 2, (5000, 1)), np.ones(5000)
    weight[::2] = 1e-9
    y = np.where(weight < 1, 100.0, x[:, 0] ** 2)
    judge = Judge(Data(x, y, x[:10], y[:10], weight=weight, weight_val=weight[:10]))
    assert (weight[judge.some_rows(400)] == 1).all() and len(judge.some_rows(400)) == 400
