"""Formulas that are consistent with the units of a table."""

import sys
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import sympy

from kat_zoo.kan import KANRegressor
from kat_zoo.kan.search.dimensions import Checker, InconsistentError, minimal_products, prefactors
from kat_zoo.kan.search.in_units import WITH_UNIT, Quantities, _Search, choose_groups
from kat_zoo.kan.search.judge import Data
from kat_zoo.kan.search.tree import constants, to_sympy
from kat_zoo.kan.sklearn.units import read_units

GRAVITY = {"G": "6.674e-11 m^3/kg/s^2"}
LIGHT = {"c": "2.99792458e8 m/s"}
CASES = {  # formula: inputs (unit, low, high), unit of y, constants, printed formula
    "gravity": ("G*m*M/r**2", {"m": ("kg", 1, 10), "M": ("kg", 1e3, 1e4), "r": ("m", 1, 10)}, "N", GRAVITY, "G*M*m/r**2"),
    "momentum": ("m*v/sqrt(1 - v**2/c**2)", {"m": ("kg", 1, 9), "v": ("m/s", 1e7, 2.5e8)}, "kg*m/s", LIGHT, "m*v/sqrt(1 - v**2/c**2)"),
    "speed": ("x/t/3.6", {"x": ("km", 1, 9), "t": ("h", 1, 9)}, "m/s", {}, "0.27778*x/t"),
    "oscillator": (
        "hbar*w/(exp(hbar*w/(k*T)) - 1)",
        {"w": ("1/s", 1e13, 1e14), "T": ("K", 100, 1000)},
        "J",
        {"hbar": "1.0545718e-34 J*s", "k": "1.380649e-23 J/K"},
        "hbar*w/(exp(hbar*w/(T*k)) - 1)",
    ),
    "Coulomb": (
        "q*Q/(4*3.14159265358979*eps0*r**2)",
        {"q": ("C", 1e-9, 1e-8), "Q": ("C", 1e-9, 1e-8), "r": ("m", 0.1, 1)},
        "N",
        {"eps0": "8.854e-12 F/m"},
        "Q*q/(4*pi*eps0*r**2)",
    ),
    "mixed": (
        "a*9.81*h/1000 + b*v**2/2",
        {"a": ("g", 1, 5), "h": ("m", 0.1, 9), "b": ("kg", 1, 5), "v": ("m/s", 0.1, 9)},
        "J",
        {"g": "9.81 m/s^2"},
        None,
    ),
}


def table(name, n=300, seed=0):
    formula, inputs, target, constants, printed = CASES[name]
    generator = np.random.default_rng(seed)
    X = pd.DataFrame({symbol: generator.uniform(low, high, n) for symbol, (_, low, high) in inputs.items()})
    values = {symbol: X[symbol].to_numpy() for symbol in X} | {n: float(text.split()[0]) for n, text in constants.items()}
    y = eval(formula, {"sqrt": np.sqrt, "exp": np.exp}, values)
    given = {"units": {symbol: unit for symbol, (unit, *_) in inputs.items()}, "target_units": target, "constants": constants}
    return X, y, given, printed


@pytest.mark.parametrize("name", CASES)
def test_the_law_is_found_with_its_constants_as_symbols(name):
    X, y, given, printed = table(name)
    model = KANRegressor(symbolic=True, **given, max_seconds=60).fit(X, y)
    assert model.exact_ and model.constant_units_ == [], model.formula_
    if printed:
        assert sympy.simplify(model.formula_ - sympy.sympify(printed, locals={n: sympy.Symbol(n) for n in [*X, *given["constants"]]})) == 0
    X_new, y_new, _, _ = table(name, 100, 1)
    np.testing.assert_allclose(model.predict(X_new), y_new, rtol=1e-6)
    at = model.formula(round=None).subs(model.constants_)
    symbols = [sympy.Symbol(n) for n in X]
    np.testing.assert_allclose(sympy.lambdify(symbols, at)(*X_new.to_numpy().T), y_new, rtol=1e-6)


def test_a_number_with_a_unit_is_reported():
    X, y, given, _ = table("gravity")
    model = KANRegressor(symbolic=True, **given | {"constants": None}, max_seconds=60).fit(X, y)
    ((value, unit),) = model.constant_units_
    assert value == pytest.approx(6.674e-11) and model.exact_ and model.constants_ == {}
    import pint

    assert pint.Unit(unit) == pint.Unit("N") * pint.Unit("m**2/kg**2")


def test_only_consistent_formulas_are_in_the_table():
    """y = m + t says the table, but a mass and a time are not added: the number beside one of them has a unit."""
    generator = np.random.default_rng(0)
    X = generator.uniform(1, 5, (200, 2))
    options = {"units": {"x_1": "kg", "x_2": "s"}, "target_units": "kg", "max_seconds": 4}
    model = KANRegressor(symbolic=True, **options).fit(X, X.sum(1) + 1e-3 * generator.normal(size=200))
    x, t = sympy.symbols("x_1 x_2")
    assert model.formula_ != x + t
    units = read_units(["x_1", "x_2"], options["units"], "kg", None)
    for row in model._findings.rows:
        Checker(units.dimensions, units.target).check(row.answer.form.tree)


WRONG = {
    r"units\['a'\]='foo'": {"units": {"a": "foo", "b": "m"}},
    r"units\['a'\]='degC': expected a unit whose zero is zero": {"units": {"a": "degC", "b": "m"}},
    r"units\['a'\]='2 m': expected a unit without a number": {"units": {"a": "2 m", "b": "m"}},
    r"units\['a'\]=3": {"units": {"a": 3, "b": "m"}},
    "units without 'b': expected one for each input": {"units": {"a": "m"}},
    "units of 'z': expected names of inputs, a, b": {"units": {"a": "m", "b": "m", "z": "m"}},
    "target_units='x/'": {"target_units": "x/"},
    "target_units=None: expected the unit of y": {"target_units": None},
    r"constants\['G'\]='big'": {"constants": {"G": "big"}},
    r"constants\['G'\]='0 m': expected a number and a unit": {"constants": {"G": "0 m"}},
    r"constants\['a'\]: expected a name": {"constants": {"a": "1 m"}},
    r"constants=\['G'\]: expected a dict": {"constants": ["G"]},
    "units='m': expected a dict": {"units": "m"},
    "expected symbolic=True": {"symbolic": False},
    "target_units='m': expected units of the inputs": {"units": None},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_unit_is_named(message):
    X = pd.DataFrame({"a": np.linspace(1, 2, 30), "b": np.linspace(3, 5, 30) ** 2})
    options = {"symbolic": True, "units": {"a": "m", "b": "m"}, "target_units": "m"} | WRONG[message]
    with pytest.raises(ValueError, match=message):
        KANRegressor(**options).fit(X, X["a"])


def test_tables_without_a_formula_in_units_have_a_constant_or_are_refused():
    """Networks know no units, so they are not asked."""
    X = pd.DataFrame({"a": np.linspace(1, 2, 30), "b": np.linspace(3, 5, 30) ** 2})
    options = {"symbolic": True, "units": {"a": "kg", "b": "m"}, "target_units": "N"}
    with pytest.raises(ValueError, match=r"X of 5 rows with units=.*: expected at least 6"):
        KANRegressor(**options).fit(X[:5], X["a"][:5])
    constant = KANRegressor(**options).fit(X, np.full(30, 3.0))
    assert constant.formula_ == 3 and constant.constant_units_ == [(3.0, "N")] and (constant.predict(X) == 3).all()
    nothing = KANRegressor(max_seconds=1e-9, **options).fit(X, X["a"] * X["b"])
    assert nothing.formula_.is_Float and nothing.constant_units_[0][1] == "N"


def test_a_missing_pint_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pint", None)
    with pytest.raises(ModuleNotFoundError, match=r"kat_zoo\[formula\]"):
        read_units(["a"], {"a": "m"}, "m", None)


def dimension(*exponents):
    return tuple(map(Fraction, exponents))


def test_groups_of_the_pendulum():
    """Length, time, acceleration and mass over (m, s, kg): one group, T^2 g / l, and the mass is in none."""
    quantities = [dimension(1, 0, 0), dimension(0, 1, 0), dimension(1, -2, 0), dimension(0, 0, 1)]
    assert [[abs(n) for n in row] for row in minimal_products(quantities)] == [[1, 2, 1, 0]]
    period = prefactors([quantities[0], quantities[2]], quantities[1])
    assert period == [(Fraction(1, 2), Fraction(-1, 2))]
    assert prefactors([quantities[0]], quantities[1]) == [] and prefactors(quantities, dimension(0, 0, 0))[0] == (0,) * 4


def test_groups_are_finite_and_vary():
    """A column of zeros is not divided by, and a group of constants alone is none."""
    generator = np.random.default_rng(0)
    zeros = np.r_[0.0, generator.uniform(1, 2, 49)]
    table = np.column_stack([zeros, generator.uniform(1, 2, 50), np.full(50, 3.0), np.full(50, 4.0)])
    length = (Fraction(1),)
    quantities = Quantities(2, [length] * 4, length, np.ones(4), 1.0, [3.0, 4.0])
    groups = choose_groups(table, quantities)
    assert len(groups) == 3 and all(row[0] >= 0 and any(row[:2]) for row in groups)


X, T, Y = ("x", 0), ("x", 1), ("x", 2)
CONSISTENT = {  # x and y are lengths, t a time, the value is a length: number of numbers with a unit, None for inconsistent
    ("+", X, Y): 0,
    ("+", X, T): None,
    ("+", X, ("*", ("c", 2.0), T)): 1,
    ("+", X, ("*", ("n", -1), T)): None,
    ("*", X, ("sin", T)): None,
    ("*", X, ("sin", ("*", ("c", 3.0), T))): 1,
    ("*", X, ("sin", ("*", X, ("^", Y, -1)))): 0,
    ("^", ("+", ("^", X, 2), ("^", Y, 2)), 0.5): 0,
    ("^", ("+", ("^", X, 2), Y), 0.5): None,
    ("abs", X): 0,
    ("*", X, ("^", T, -1)): 1,
    ("*", ("c", 2.0), X): 0,
    ("+", ("c", 2.0), X): 1,
    ("*", X, ("+", ("n", 1), ("*", X, ("^", Y, -1)))): 0,
    ("*", X, ("^", ("+", X, ("c", 3.0)), -1)): 2,
    ("exp", ("*", ("c", 2.0), X)): 2,
}


@pytest.mark.parametrize("tree", CONSISTENT)
def test_the_checker_walks_trees(tree):
    length, time = dimension(1, 0), dimension(0, 1)
    checker = Checker([length, time, length], length)
    if CONSISTENT[tree] is None:
        with pytest.raises(InconsistentError):
            checker.check(tree)
    else:
        checker.check(tree)
        assert len(checker.numbers) == CONSISTENT[tree]


def test_a_form_of_groups_is_finite_between_the_rows():
    """x sqrt((x/t)^2 - 0.04), of noisy rows with |x/t| >= 0.3, is not; the rows alone do not show it."""
    generator = np.random.default_rng(0)
    x = np.where(np.arange(300) % 2, 1, -1) * generator.uniform(0.3, 1, 300)
    table = np.column_stack([x, np.ones(300)])
    length = (Fraction(1),)
    quantities = Quantities(2, [length, length], length, np.ones(2), 1.0, [])
    y = x * np.sqrt(x**2 - 0.04) + 0.01 * generator.normal(size=300)
    search = _Search(Data(table[:240], y[:240], table[240:], y[240:]), quantities)
    ratio = ("*", ("x", 0), ("^", ("x", 1), -1))
    search.keep(("*", ("x", 0), ("^", ("+", ("^", ratio, 2), ("c", -0.04)), 0.5)))
    assert not search.forms
    search.keep(("*", ("x", 0), ("^", ratio, 2)))
    assert len(search.forms) == 1


def lengths_and_time(y):
    """A search of y against a length x and a time t, and the constant c, a speed."""
    length, time, speed = (tuple(map(Fraction, pair)) for pair in ((1, 0), (0, 1), (1, -1)))
    table = np.column_stack([np.random.default_rng(0).uniform(1, 2, (100, 2)), np.full(100, 3e8)])
    y = y(*table.T)
    quantities = Quantities(2, [length, time, speed], length, np.ones(3), 1.0, [3e8])
    return _Search(Data(table[:60], y[:60], table[60:], y[60:]), quantities)


def test_a_number_with_a_unit_becomes_the_constant_or_costs_more():
    x, t, c = ("x", 0), ("x", 1), ("x", 2)
    search = lengths_and_time(lambda x, t, c: x + c * t / (4 * np.pi))
    search.add(("+", x, ("*", ("c", 3e8 / (4 * np.pi)), t)))
    ((form, (cost, _)),) = search.forms.items()
    assert str(to_sympy(form, sympy.symbols("x t c"))) == "c*t/(4*pi) + x" and cost == search.forms[form][1].cost
    search.quantities.values, search.quantities.dimensions = [], search.quantities.dimensions[:2]
    search.forms, search._products = {}, {}
    search.add(("+", x, ("*", ("c", 3e8 / (4 * np.pi)), t)))
    ((cost, form),) = search.forms.values()
    assert cost == form.cost + WITH_UNIT
    assert c not in form.tree[1:]


def test_numbers_of_groups_are_as_round_as_they_are():
    search = lengths_and_time(lambda x, t, c: x * (1 + x / (c * t) / (4 * np.pi)))
    group = ("*", ("x", 0), ("^", ("x", 1), -1), ("^", ("x", 2), -1))
    search.keep(("*", ("x", 0), ("+", ("n", 1), ("*", ("c", 1 / (4 * np.pi)), group))))
    (tree,) = search.forms
    assert not constants(tree) and to_sympy(tree, sympy.symbols("x t c")).has(sympy.pi)


def test_a_factor_of_one_may_have_a_unit():
    X = pd.DataFrame(np.random.default_rng(0).uniform(1, 3, (200, 2)), columns=["a", "b"])
    model = KANRegressor(symbolic=True, units={"a": "m", "b": "s"}, target_units="kg", max_seconds=20).fit(X, X["a"] * X["b"] ** 2)
    assert str(model.formula_) == "a*b**2" and model.constant_units_ == [(1.0, "kg/m/s**2")]


def test_powers_with_fitted_exponents_may_have_a_unit():
    """The surface of a body, 0.007184 w^0.425 h^0.725 (Du Bois, 1916)."""
    X = pd.DataFrame(np.random.default_rng(0).uniform([40, 140], [120, 200], (300, 2)), columns=["w", "h"])
    y = 0.007184 * X["w"] ** 0.425 * X["h"] ** 0.725
    model = KANRegressor(symbolic=True, units={"w": "kg", "h": "cm"}, target_units="m^2", max_seconds=20).fit(X, y)
    assert model.exact_ and str(model.formula_) == "0.007184*h**0.725*w**0.425"
    ((value, _),) = model.constant_units_
    assert value == pytest.approx(0.007184)
