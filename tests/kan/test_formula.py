"""Formulas say what the network computes, whatever the units."""

import ctypes
import subprocess

import numpy as np
import pandas
import pytest
import sympy
import torch

from kat_zoo.kan import KAN, KANClassifier, KANRegressor
from kat_zoo.kan.formula import export


def uniform(low, high, n=120, seed=0):
    return np.random.default_rng(seed).uniform(low, high, n)


UNIT, LARGE, TINY, YEAR = uniform(0, 1), uniform(0, 1e6, seed=1), uniform(1e-9, 9e-9), uniform(2000, 2020)


def test_a_variable_may_be_called_pi():
    expression = sympy.pi * sympy.Symbol("pi") + sympy.E
    for function, value in ((export.to_numpy, 2.0), (export.to_torch, torch.tensor(2.0, dtype=torch.float64))):
        assert float(function(expression, ["pi"])(value)) == pytest.approx(2 * np.pi + np.e)
    X = uniform(1, 3, (100, 2))
    model = KANRegressor(symbolic=True).fit(pandas.DataFrame(X, columns=["pi", "b"]), np.pi * X[:, 0])
    assert model.exact_ and model.predict(pandas.DataFrame(X, columns=["pi", "b"])) == pytest.approx(np.pi * X[:, 0])


TABLES = {
    "large and small": (np.c_[UNIT, LARGE], UNIT + 1e-6 * LARGE, "x_1 + 1.0e-6*x_2"),
    "an offset": (LARGE[:, None], 300 + 1e-5 * LARGE, "1.0e-5*x_1 + 300"),
    "a large argument": (LARGE[:, None], np.tanh(1e-5 * LARGE - 2), "tanh(1.0e-5*x_1 - 2)"),
    "a tiny shift": (TINY[:, None], (TINY - 2e-9) ** 2, "(x_1 - 2.0e-9)**2"),
    "a tiny pole": (TINY[:, None], 1 / (TINY + 1e-9) ** 2, "1/(x_1 + 1.0e-9)**2"),
    "years": (YEAR[:, None], 3 * np.exp(-0.5 * (YEAR - 2000)), None),
    "growing years": (YEAR[:, None], 3 * np.exp(0.0512345 * (YEAR - 2000)), None),
}


@pytest.mark.parametrize("name", TABLES)
def test_no_unit_makes_a_term_vanish(name):
    x, y, expected = TABLES[name]
    model = KANRegressor(symbolic=True).fit(x, y)
    assert model.exact_
    if expected is not None:
        assert sympy.simplify(model.formula_ - sympy.sympify(expected)) == 0
    variables = [f"x_{i + 1}" for i in range(x.shape[1])]
    for formula, error in ((model.formula_, 1e-3), (model.formula(round=None), 1e-6)):
        np.testing.assert_allclose(export.to_numpy(formula, variables)(*x.T), y, rtol=0, atol=error * y.std())


@pytest.mark.parametrize(
    ("text", "variables", "round", "expected"),
    [
        ("a*(b+1e-9)", "ab", None, "a*(b + 1.0e-9)"),
        ("tan(1e-5*x+1)", "x", 4, "tan(1.0e-5*x + 1)"),
        ("log(x+1e-13)", "x", None, "log(x + 1.0e-13)"),
        ("exp(1000-x/2)", "x", 4, "exp(1000 - 0.5*x)"),
        ("exp(x/2-1000)", "x", 4, "exp(0.5*x - 1000)"),
        ("3*exp(x+1)", "x", 4, "8.1548*exp(x)"),
        ("8990000000.0004*x*y", "xy", 4, "8990000000*x*y"),
        ("1/(x+0.00001)", "x", 4, "1/(x + 1.0e-5)"),
    ],
)
def test_numbers_that_matter_stay(text, variables, round, expected):
    samples = None if "0.00001" not in text else [[1e-5]]  # of one sample there is no spread
    assert str(KAN.from_formula(text, list(variables)).formula(list(variables), round, samples)[0]) == expected


@pytest.mark.parametrize("round", [4, None])
@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("log(1+exp(x))", -50, 50),
        ("1/(1+exp(x))", -40, 40),
        ("1/(x**4+1)", 0, 1e4),
        ("sqrt(x**4+1)", -1e4, 1e4),
        ("log(x+0.00001)", 0, 1),
        ("log(1+1000000*exp(x))", -30, 30),
    ],
)
def test_constants_inside_functions_of_a_wide_range_stay(text, low, high, round):
    model, x = KAN.from_formula(text), torch.linspace(low, high, 201, dtype=torch.float64)[:, None]
    y = model(x)[:, 0].numpy(force=True)
    found = export.to_numpy(model.formula(["x"], round, x)[0], ["x"])(x[:, 0].numpy())
    np.testing.assert_allclose(found, y, rtol=1e-3 if round else 1e-9, atol=(1e-3 if round else 1e-9) * y.std())


def test_formulas_of_nothing():
    """A function of a constant is a number; what is undefined says so."""
    model = KAN([2, 1])
    model.fix_symbolic(0, 0, 0, "x^2", affine=(0, 1, 1, 0))
    model.fix_symbolic(0, 1, 0, "log", affine=(0, 1, 1, 3))
    assert model.formula() == [4]
    model.fix_symbolic(0, 1, 0, "log", affine=(0, -1, 1, 0))
    assert model.formula() == [sympy.nan]
    constant = KANRegressor(symbolic=True).fit(UNIT[:, None], np.full(len(UNIT), 0.0491666337533864))
    assert float(constant.formula_) == 0.04917


def test_formulas_belong_to_the_fit_not_to_the_parameters():
    model = KANRegressor(symbolic=True).fit(UNIT[:, None], UNIT)
    assert model.set_params(symbolic=False).latex() == "x_{1}"
    other = KANClassifier(steps=1).fit(UNIT[:, None], UNIT > 0.5).set_params(symbolic=True)
    with pytest.raises(ValueError, match="there is no formula"):
        other.formula()


def test_samples_say_how_many_decimals_matter():
    model = KAN.from_formula("sin(0.123456789*x)")
    assert str(model.formula(["x"])[0]) == "sin(0.12346*x)"
    assert str(model.formula(["x"], X=[[1000.0], [1001.0]])[0]) == "sin(0.12345679*x)"
    with pytest.raises(ValueError, match="expected finite samples of 1 inputs"):
        model.formula(["x"], X=[[1.0, 2.0]])


def test_logits_of_a_classifier_keep_inputs_of_every_size():
    x = np.c_[TINY, LARGE]
    noise = np.random.default_rng(2).standard_normal(len(x))
    labels = np.where(1e9 * x[:, 0] + 1e-5 * x[:, 1] + noise > 10, "hot", "cold")
    model = KANClassifier(symbolic=True, library=["x"]).fit(x, labels)
    assert model.formula_.free_symbols == set(sympy.symbols("x_1 x_2"))
    logits = export.to_numpy(model.formula_, ["x_1", "x_2"])(*x.T)
    np.testing.assert_allclose(logits, model.decision_function(x), atol=1e-3 * logits.std())
    assert "x_{1}" in model.latex() and model.formula(round=0).free_symbols == model.formula_.free_symbols
    with pytest.raises(ValueError, match="expected KANClassifier"):
        KANClassifier().fit(x, labels).formula()


def test_names_are_no_functions_and_no_mathematics(tmp_path):
    table = pandas.DataFrame({"exp": UNIT, "$x_$": uniform(0, 1, seed=2)})
    model = KANRegressor(symbolic=True).fit(table, np.sin(UNIT) + table["$x_$"])
    for make, convert in ((export.to_numpy, np.asarray), (export.to_torch, torch.tensor)):
        values = make(model.formula_, list(table))(*(convert(column) for column in table.to_numpy().T.copy()))
        np.testing.assert_allclose(np.asarray(values), model.predict(table), atol=1e-3)
    model.plot().savefig(tmp_path / "network.png")
    assert (tmp_path / "network.png").stat().st_size > 1000


@pytest.mark.parametrize("make, convert", [(export.to_numpy, np.asarray), (export.to_torch, torch.tensor)])
def test_integers_do_not_overflow(make, convert):
    x = np.array([1, 1000, 100_000])
    for text in ("x**4", "x**(-2)"):
        formula = sympy.sympify(text)
        np.testing.assert_allclose(make(formula, ["x"])(convert(x)), x.astype(float) ** int(formula.exp), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "text"),
    [("rmag", r"\mathrm{rmag}"), ("local", r"\mathrm{local}"), ("v_smag", r"\mathrm{v\_smag}"), ("v_max", "v_{max}"), ("Gamma", r"\Gamma"),
     ("Alpha", r"\mathrm{A}"), ("hbar", r"\hbar"), ("mass", "mass"), ("x1", "x_{1}")],
)  # fmt: skip
def test_names_are_no_accents(name, text):
    assert export.to_latex(sympy.Symbol(name)) == text


@pytest.mark.parametrize(
    ("expression", "variables", "name", "head"),
    [
        ("2*a", ["int"], "formula", "/* int_0: int */\ndouble formula(double int_0)"),
        ("exp(a)", ["exp"], "formula", "/* exp_0: exp */\ndouble formula(double exp_0)"),
        ("a", ["a"], "a", "/* a_0: a */\ndouble a(double a_0)"),
        ("a", ["a"], "f", "double f(double a)"),
    ],
)
def test_c_renames_variables_whose_names_are_taken(expression, variables, name, head):
    formula = sympy.sympify(expression).subs("a", sympy.Symbol(variables[0]))
    assert export.to_c(formula, variables, name).startswith(head)


def test_c_refuses_a_function_whose_name_is_taken():
    with pytest.raises(ValueError, match="name='sin': expected a name that is free in C"):
        export.to_c(sympy.sympify("sin(a)"), ["a"], "sin")
    with pytest.raises(ValueError, match="expected distinct names"):
        export.to_c(sympy.Symbol("a"), ["a", "a"])


@pytest.mark.parametrize(
    ("text", "lacks"), [("besselj(2, x)", r"besselj\(2, x\)"), ("airyai(x)", "airyai"), ("besselj(y, x)", r"besselj\(y")]
)
def test_functions_that_c_lacks_are_told(text, lacks):
    with pytest.raises(ValueError, match=lacks):
        export.to_c(sympy.sympify(text), ["x", "y"])


def test_c_sign_of_nan_is_nan_as_numpys(tmp_path):
    formula = sympy.sympify("3*sign(2*x + 1)*exp(x)")
    (tmp_path / "f.c").write_text(f"#include <math.h>\n{export.to_c(formula, ['x'])}")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "f.c", "-o", "f.so", "-lm"], cwd=tmp_path, check=True)
    function = ctypes.CDLL(str(tmp_path / "f.so")).formula
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
    x = np.array([-2.0, -0.5, 0.3, np.nan])
    np.testing.assert_allclose([function(value) for value in x], export.to_numpy(formula, ["x"])(x), rtol=1e-15)


def test_constants_of_bessel_functions_as_torch():
    value = export.to_torch(sympy.sympify("besselj(0, 2) + x"), ["x"])(torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(value, torch.full((2,), float(sympy.besselj(0, 2)), dtype=torch.float64))
