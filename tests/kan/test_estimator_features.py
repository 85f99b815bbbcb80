"""What users of a formula search expect around the formula: its table, its page, warm starts, jobs, progress, clear refusals."""

import io
import re

import numpy as np
import pandas as pd
import pytest
import sympy

from kat_zoo.kan import KANClassifier, KANRegressor
from kat_zoo.kan.search.closed_form import find_closed_forms
from kat_zoo.kan.search.judge import Form
from kat_zoo.kan.sklearn import closed, explain, formulas, progress, symbolic, table
from kat_zoo.kan.sklearn.rows import split
from kat_zoo.kan.sklearn.scales import Scales


def noisy(n=200, seed=0):
    generator = np.random.default_rng(seed)
    X = pd.DataFrame({"mass": generator.uniform(1, 10, n), "r": generator.uniform(1, 10, n)})
    return X, 2 * X["mass"] ** 2 / X["r"] + 0.05 * generator.normal(size=n)


@pytest.fixture(scope="module")
def fitted():
    X, y = noisy()
    return KANRegressor(symbolic=True, max_seconds=3).fit(X, y), X, y


def test_the_table_is_a_frame_whose_rows_predict(fitted):
    model, X, y = fitted
    found = model.table_
    assert list(found.columns) == ["complexity", "loss", "score", "equation"] and list(found.index) == list(range(len(found)))
    assert found["complexity"].is_monotonic_increasing and len(found) >= 2 and found["score"][0] == 0
    drops = -np.diff(np.log(found["loss"])) / np.diff(found["complexity"])
    np.testing.assert_allclose(found["score"][1:], drops)
    for index, equation in enumerate(found["equation"]):
        at = sympy.lambdify(sympy.symbols("mass r"), equation, "numpy")(*X.to_numpy().T) + np.zeros(len(X))
        np.testing.assert_allclose(model.predict(X, index=index), at, atol=2e-3 * y.std())
    chosen = list(found["equation"]).index(model.formula_)
    np.testing.assert_array_equal(model.predict(X), model.predict(X, index=chosen))
    assert not model.exact_ and model.summary_.endswith(f"table_ has {len(found)} formulas, of other lengths and errors.")
    assert KANRegressor(symbolic=True).fit(X[:10], np.ones(10)).summary_.endswith("table_ has no other formula.")
    with pytest.raises(ValueError, match=f"index={len(found)}: expected an integer of at least 0 and at most {len(found) - 1}"):
        model.predict(X, index=len(found))
    with pytest.raises(ValueError, match="index=0 with symbolic=False"):
        KANRegressor(steps=1).fit(X, y).predict(X, index=0)


def test_without_pandas_the_table_is_a_list(fitted, monkeypatch):
    model, *_ = fitted
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None)
    rows = table.table_of(model._findings.rows)
    assert isinstance(rows, list) and [row.loss for row in rows] == list(model.table_["loss"])
    assert rows[-1]._fields == ("complexity", "loss", "score", "equation")


def test_an_exact_formula_says_so():
    X, _ = noisy()
    model = KANRegressor(symbolic=True).fit(X, X["mass"] ** 2)
    assert model.summary_ == "Exact: right to 1e-6 of y's standard deviation on 40 held-out rows."
    few = KANRegressor(symbolic=True).fit(X[:8], X["mass"][:8] ** 2)
    assert few.summary_.startswith("Not verified") and not few.exact_


def test_the_page_has_numbers_as_the_rows_and_as_the_formula_say(fitted, tmp_path):
    model, X, y = fitted
    page = model.explain()
    assert not list(tmp_path.iterdir()) and str(page) == page.text
    assert f"y = {model.formula_}" in page.text and model.summary_ in page.text
    number, doubt = re.search(r"([\d.]+) \+- ([\d.e-]+) -> 2: [\d.]+ standard errors apart", page.text).groups()
    monomial = (X["mass"] ** 2 / X["r"]).to_numpy()
    assert float(number) == pytest.approx(float(monomial @ y / (monomial @ monomial)), rel=1e-5)
    left = y - float(number) * monomial
    assert float(doubt) == pytest.approx(float(np.sqrt(left @ left / (len(y) - 1) / (monomial @ monomial))), rel=0.5)
    titles = [axes.get_xlabel() for axes in page.figure.axes]
    assert titles == ["length (nodes)", "predicted", "mass", "r"]
    model.explain(tmp_path / "new" / "page")
    assert {file.name for file in (tmp_path / "new" / "page").iterdir()} == {"explanation.txt", "explanation.png"}
    with pytest.raises(ValueError, match="symbolic=False"):
        KANRegressor(steps=1).fit(X, y).explain()


def test_the_page_is_about_all_rows_by_their_weights():
    x, weight = np.random.default_rng(0).uniform(1, 3, (5000, 1)), np.ones(5000)
    y = 2 * x[:, 0] + 0.5
    y[::2], weight[::2] = -y[::2], 1e-20
    page = KANRegressor(symbolic=True, max_seconds=10).fit(x, y, sample_weight=weight).explain()
    assert re.search(r"Rows: 5000, weighted. Residuals: root mean square [\d.]+e-\d+, largest 13, R\^2 1\.", page.text)
    assert page.text.count("the rows say the same to rounding") == 2
    drawn = page.figure.axes[1].lines[1].get_ydata()
    assert len(drawn) == 2000 and np.abs(drawn).max() < 1e-6
    y[1::2] += np.random.default_rng(1).normal(size=2500)
    (number,), _ = explain._numbers(sympy.sympify("2.1*x"), ["x"], x, y, weight / weight.sum())
    (alone,), _ = explain._numbers(sympy.sympify("2.1*x"), ["x"], x[1::2], y[1::2], np.full(2500, 1 / 2500))
    assert (number.fitted, number.deviation) == pytest.approx((alone.fitted, alone.deviation))


def test_a_model_holds_some_rows_of_a_large_table(monkeypatch):
    monkeypatch.setattr(formulas, "REMEMBERED", 100)
    x = np.random.default_rng(0).uniform(1, 3, (300, 1))
    model = KANRegressor(symbolic=True).fit(x, 2 * x[:, 0])
    assert "Rows: 100 of 300. Residuals: " in model.explain().text and len(model._rows[0]) == 100


def test_the_page_of_a_network_and_of_several_outputs(fitted):
    _, X, _ = fitted
    model = KANRegressor(symbolic=True, widths=[[2, 1]], restarts=1, max_seconds=10).fit(X, np.exp(X["mass"] / 5) + X["r"])
    assert "standard error" in model.explain().text or "to rounding" in model.explain().text
    both = KANRegressor(symbolic=True).fit(X, np.column_stack([X["mass"] * 2, X["r"] ** 2]))
    assert "y = r**2" in both.explain(output=1).text and "y = 2*mass" in both.explain().text


def test_a_warm_start_goes_on_from_the_former_forms(monkeypatch):
    X, _ = noisy()
    model = KANRegressor(symbolic=True, warm_start=True).fit(X, 3 * X["mass"] / (X["r"] + 2))

    def search(data):
        pytest.fail("a search was begun")

    monkeypatch.setattr(closed, "find_closed_forms", search)
    X_new, _ = noisy(seed=1)
    model.fit(X_new, 5 * X_new["mass"] / (X_new["r"] + 4))
    assert model.exact_ and sympy.simplify(model.formula_ - sympy.sympify("5*mass/(r + 4)")) == 0
    with pytest.raises(ValueError, match="X with a, b: expected mass, r as in the former fit"):
        model.fit(X_new.rename(columns={"mass": "a", "r": "b"}), X_new["mass"])
    begun = []
    monkeypatch.setattr(closed, "find_closed_forms", lambda data: begun.append(1) or find_closed_forms(data))
    model.set_params(warm_start=False).fit(X_new, 5 * X_new["mass"] / (X_new["r"] + 4))
    assert begun


def test_a_warm_start_leaves_out_what_is_not_allowed_any_more():
    X, _ = noisy(60)
    y = np.sin(X["mass"]) * X["r"]
    model = KANRegressor(symbolic=True, warm_start=True).fit(X, y)
    assert "sin" in str(model.formula_)
    model.set_params(library=["x", "x^2"], restarts=1, max_seconds=3).fit(X, y)
    assert "sin" not in str(list(model.table_["equation"]))
    model = KANRegressor(symbolic=True, warm_start=True).fit(X, X["mass"] + X["r"])
    model.set_params(units={"mass": "kg", "r": "m"}, target_units="kg", max_seconds=3).fit(X, X["mass"] + X["r"])
    assert str(model.formula_) != "mass + r"


def test_losses_are_of_the_held_out_rows_and_in_units_of_y():
    """Held-out rows may vary less, or more, than all of them do: here y spans four decades."""
    generator = np.random.default_rng(5)
    X = generator.uniform(1, 3, (300, 2))
    y = np.exp(3 * X[:, 0]) * X[:, 1] * (1 + 0.1 * generator.normal(size=300))
    model = KANRegressor(symbolic=True, restarts=1, max_seconds=4, random_state=4).fit(X, y)
    _, held = split(np.column_stack([X, y]), model.validation_fraction, 4)
    assert len(held) == 60 and abs(np.std(y[held]) / np.std(y) - 1) > 0.2
    for index, loss in enumerate(model.table_["loss"]):
        assert loss == pytest.approx(np.sqrt(np.mean((model.predict(X[held], index=index) - y[held]) ** 2)))


def test_a_network_is_compared_with_a_closed_form_on_the_same_rows():
    """A third of y's spread is in a few rows that are not held out; a network is judged by the held-out ones alone."""
    generator = np.random.default_rng(13)
    X = generator.uniform(0, 1, (300, 1))
    y = np.exp(1.5 * generator.normal(size=300)) + 20 * X[:, 0]
    model = KANRegressor(symbolic=True, restarts=1, max_seconds=8).fit(X, y)
    assert hasattr(model, "law_")


def test_one_column_of_targets_has_the_formula_of_a_vector():
    generator = np.random.default_rng(0)
    X = generator.uniform(0, 1, (12, 1))
    # Four rows get their formula from a network, for no closed form is searched.
    flat, column = (KANRegressor(symbolic=True, restarts=1).fit(X[:4], y) for y in (X[:4, 0] ** 2, X[:4] ** 2))
    assert str(column.formula_) == "x_1**2" and column.formula(None) == flat.formula(None)
    assert list(column.table_["equation"]) == list(flat.table_["equation"]) and column.latex() == flat.latex()
    assert column.explain().text == flat.explain().text and column.predict(X).shape == (12, 1)
    # Few rows with noise have closed forms and networks, which are compared.
    noisy = KANRegressor(symbolic=True, restarts=1, max_seconds=4).fit(X, 3 * X + generator.normal(0, 0.3, (12, 1)))
    assert isinstance(noisy.formula_, sympy.Expr) and hasattr(noisy, "search_")


def test_a_library_takes_the_names_of_functions_under_their_aliases():
    X = np.random.default_rng(0).uniform(1, 5, (200, 3))
    y = X[:, 0] * np.sqrt(X[:, 1] + 1) / X[:, 2]
    model = KANRegressor(symbolic=True, library=["linear", "x^0.5", "1/x"], restarts=1, max_seconds=30).fit(X, y)
    assert model.exact_ and "sqrt" in str(model.formula_)


@pytest.mark.parametrize("name, inputs, outputs", [("y", 1, 1e-162), ("x_1", 1e160, 1), ("x_2", 1e-160, 1)])
def test_columns_whose_squares_do_not_fit_are_refused(name, inputs, outputs):
    """An underflow was "exact"."""
    X = np.random.default_rng(0).uniform(1, 3, (60, 2))
    y, X[:, int(name == "x_2")] = outputs * X[:, 0] * X[:, 1], inputs * X[:, int(name == "x_2")]
    with pytest.raises(ValueError, match=f"{name} of .* with symbolic=True: expected 1e-150 to 1e.150"):
        KANRegressor(symbolic=True).fit(X, y)
    assert KANRegressor().fit(X, y).score(X, y) > 0.99


def test_the_page_explains_numbers_of_columns_whose_names_have_spaces():
    X, y = noisy(100)
    model = KANRegressor(symbolic=True, max_seconds=3).fit(X.rename(columns={"mass": "mass, total (kg)"}), y)
    assert "Numbers" in model.explain().text and "mass, total (kg)" in model.explain().text


def test_the_answer_does_not_depend_on_the_number_of_jobs():
    X, y = noisy(80)
    targets = np.column_stack([X["mass"] * X["r"], 3 * X["r"] ** 2 + 1])
    one, two = (KANRegressor(symbolic=True, n_jobs=jobs).fit(X, targets) for jobs in (None, 2))
    assert one.formula_ == two.formula_ and one.exact_ and two.exact_
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    np.testing.assert_array_equal(one.predict(X, index=0), two.predict(X, index=0))
    assert len(one.fit(X, np.column_stack([targets, X["r"]])).formula_) == 3
    with pytest.raises(ValueError, match="y of 2 outputs: expected 3 as in the former fit"):
        one.set_params(warm_start=True).fit(X, targets)
    again = one.fit(X, np.column_stack([2 * targets, X["r"]]))
    assert again.exact_ and [str(found) for found in again.formula_] == ["2*mass*r", "6*r**2 + 2", "r"]
    with pytest.raises(ValueError, match="n_jobs=0: expected an integer other than 0, or None"):
        KANRegressor(n_jobs=0).fit(X, y)


def test_several_formulas_have_neither_intervals_nor_shapes_nor_pairs():
    X = np.random.default_rng(0).uniform(1, 2, (40, 2))
    model = KANRegressor().fit(X, X)
    model.set_params(symbolic=True).fit(X, X * 2)
    assert not hasattr(model, "pairs_")
    for look in (model.predict_interval, model.explain_row, lambda X: model.plot_shapes()):
        with pytest.raises(ValueError, match="symbolic=True: expected symbolic=False"):
            look(X[:1])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_live_table_is_for_terminals(monkeypatch):
    X, y = noisy()
    for stream, verbose, shown in ((Terminal(), True, True), (io.StringIO(), True, False), (Terminal(), False, False)):
        monkeypatch.setattr(progress.sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        KANRegressor(symbolic=True, verbose=verbose, max_seconds=1).fit(X, y)
        assert ("least relative error" in stream.getvalue() and "left at most" in stream.getvalue()) == shown
        assert shown or not stream.getvalue()


@pytest.mark.parametrize("estimator", [KANRegressor, KANClassifier])
def test_rows_that_are_not_finite_are_counted_and_their_columns_named(estimator):
    X, y = noisy()
    label = y > y.median()
    bad = X.copy()
    bad.loc[[3, *range(30, 40)], "mass"] = np.nan
    bad.loc[7, "r"] = np.inf
    with pytest.raises(ValueError, match=r"infinity in 1 of 200 rows \(7; the first row is 0\) in column 'r': expected finite numbers"):
        estimator(steps=1).fit(bad, label)
    message = r"NaN in 11 of 200 rows \(3, 30, 31, 32, 33, ...; the first row is 0\) in column 'mass' and infinity in 1 of 200 rows \(7; "
    with pytest.raises(ValueError, match=message):
        estimator(symbolic=True).fit(bad, label)
    with pytest.raises(ValueError, match=r"infinity in 1 of 200 rows \(7; the first row is 0\) in column 1: expected finite"):
        estimator(steps=1).fit(bad.to_numpy(), label)
    model = estimator(steps=1).fit(X, label)
    with pytest.raises(ValueError, match="infinity in 1 of 200 rows"):
        model.predict(bad.fillna(0))
    with pytest.raises(ValueError, match=r"Input y contains NaN. y with NaN in 2 of 200 rows \(0, 9; the first row is 0\)"):
        estimator(steps=1).fit(X, np.where(np.isin(np.arange(200), [0, 9]), np.nan, label))


def test_a_network_that_prints_like_the_chosen_form_does_not_take_its_row():
    X = np.random.default_rng(0).uniform(1, 2, (50, 1))
    law = closed.Law(Form(("x", 0), 1e-9, -1.0), ["x_1"], X)
    twin = symbolic.Row(1, 1e-9, law.expression, None)
    rows = symbolic.Table(X, X, (None, None), None, np.arange(40), np.arange(40, 50), True, ["x_1"], Scales.of(X))
    found = symbolic._of_laws(rows, [law], symbolic.Findings([twin], twin, True, None))
    assert found.rows == [found.chosen] and found.chosen.answer is law


def test_an_output_that_is_not_there_is_named():
    X = np.random.default_rng(0).uniform(1, 2, (40, 1))
    several = KANRegressor(symbolic=True).fit(X, np.c_[2 * X[:, 0], 3 * X[:, 0]])
    for call in (several.explain, several.plot):
        with pytest.raises(ValueError, match="output=5: expected an integer of at least 0 and at most 1"):
            call(output=5)
    with pytest.raises(ValueError, match="output=3: expected an integer of at least 0 and at most 0"):
        KANRegressor().fit(X, X[:, 0]).plot(output=3)
