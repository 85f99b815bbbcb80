import pickle
import re

import numpy as np
import pytest
import sympy
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from kat_zoo.kan import KAN, KANClassifier, KANRegressor
from kat_zoo.kan.sklearn.rows import split

SMALL = {"hidden": (2,), "grid_schedule": (3,), "steps": 3}


conversions = pytest.mark.filterwarnings("ignore::UserWarning")  # the checks themselves provoke conversions


@conversions
@parametrize_with_checks([KANRegressor(**SMALL), KANClassifier(**SMALL | {"steps": 1})])
def test_scikit_learn_contract_of_small_networks(estimator, check):
    check(estimator)


@pytest.mark.slow
@conversions
@parametrize_with_checks([KANRegressor(), KANClassifier()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def table(n=300, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.uniform(-1, 1, (n, 3))
    return X, np.sin(3 * X[:, 0]) + X[:, 1] ** 2


def test_regression_importances_and_pickle():
    X, y = table()
    model = KANRegressor(grid_schedule=(3, 6)).fit(X[:200], y[:200])
    assert model.score(X[200:], y[200:]) > 0.999
    assert model.feature_importances_.shape == (3,) and model.feature_importances_.sum() == pytest.approx(1)
    assert model.feature_importances_[2] < 0.1 * model.feature_importances_[:2].min()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    assert not hasattr(model, "formula_")
    with pytest.raises(ValueError, match="symbolic=True"):
        model.latex()


def test_several_outputs_and_weights():
    X, y = table()
    both = np.column_stack([y, X[:, 2]])
    model = KANRegressor(steps=8).fit(X, both)
    assert model.predict(X).shape == (300, 2) and model.score(X, both) > 0.99
    wrong = y.copy()
    wrong[:150] += 5
    weight = np.r_[np.zeros(150), np.ones(150)]
    assert KANRegressor(steps=8).fit(X, wrong, weight).score(X, y) > 0.99


@pytest.mark.parametrize("weight", [1e-12, 1e-6])
def test_rows_of_little_weight_do_not_choose(weight):
    """Held-out rows and scales are weighted, too."""
    X, truth = table(400)
    wrong, weights = truth.copy(), np.r_[np.full(50, weight), np.ones(350)]
    wrong[:50] += 100 * np.random.default_rng(1).standard_normal(50)
    assert KANRegressor().fit(X, wrong, weights).score(X, truth) > 0.999
    label = truth > 0.3
    flipped = np.r_[~label[:200], label[200:]]
    assert KANClassifier().fit(X, flipped, np.r_[np.full(200, weight), np.ones(200)]).score(X, label) > 0.95


def test_weights_of_held_out_rows_are_checked():
    X, y = table(30)
    val = {"X_val": X, "y_val": y[:, None]}
    for options, message in (
        ({"sample_weight_val": np.ones(30)}, "sample_weight_val without X_val"),
        (val | {"sample_weight_val": np.ones(29)}, r"sample_weight_val of shape \(29,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            KAN([3, 1]).fit(X, y[:, None], **options)


@pytest.mark.parametrize("estimator", [KANRegressor, KANClassifier])
@pytest.mark.parametrize("name, value", [("hidden", 5), ("hidden", (2.5,)), ("random_state", -1), ("random_state", "a")])
def test_wrong_types_are_refused_by_name(estimator, name, value):
    X, y = table(30)
    with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}: expected")):
        estimator(**{name: value}).fit(X, y > 0)


def noisy(rows, seed=0):
    """One useful input of eight, noise as large as the signal; the target comes without noise for the test."""
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(rows, 8))
    return X, X[:, 0] + generator.normal(size=rows), X[:, 0]


@pytest.mark.parametrize("seed", range(2))
def test_noise_is_not_learned(seed):
    X, y, _ = noisy(120, seed)
    X_new, _, truth = noisy(500, seed + 100)
    assert KANRegressor().fit(X, y).score(X_new, truth) > 0.85  # ridge regression: 0.85 and 0.97


def test_an_additive_table_with_noise_ends_as_an_additive_model_of_all_rows():
    X, y, _ = noisy(150)
    X_new, _, truth = noisy(500, 100)
    model = KANRegressor().fit(X, y)
    assert model.network_.nodes == [8, 1] and model.feature_importances_.argmax() == 0
    assert model.score(X_new, truth) > RidgeCV(np.logspace(-3, 3, 13)).fit(X, y).score(X_new, truth)
    y[-1] += 100  # whichever part a row is in, it counts in the end
    assert np.abs(KANRegressor().fit(X, y).predict(X_new) - model.predict(X_new)).max() > 1e-3


def test_few_rows_are_fitted_smoothly():
    X = np.linspace(-1, 1, 12)[:, None]
    noise = 0.3 * np.random.default_rng(0).standard_normal(12)
    dense = np.linspace(-1, 1, 100)[:, None]
    assert np.abs(KANRegressor().fit(X, X[:, 0] + noise).predict(dense) - dense[:, 0]).max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diabetes", "friedman1"])
def test_beats_forests_on_small_tables(name):
    """Small tables are where splines should shine; a linear model is the bar on diabetes."""
    if name == "diabetes":
        X, y = load_diabetes(return_X_y=True)
        truth = y
    else:
        X, y = make_friedman1(400, noise=1.0, random_state=0)
        truth = make_friedman1(400, noise=0.0, random_state=0)[1]
    scores = {}
    for model in (KANRegressor(), RidgeCV(np.logspace(-3, 3, 13)), RandomForestRegressor(random_state=0)):
        folds = KFold(5, shuffle=True, random_state=0).split(X)
        scores[type(model).__name__] = np.mean([clone(model).fit(X[a], y[a]).score(X[b], truth[b]) for a, b in folds])
    assert scores["KANRegressor"] > scores["RandomForestRegressor"], scores
    assert scores["KANRegressor"] > scores["RidgeCV"] - 0.03, scores


def test_pipelines_and_grid_search():
    X, y = table(120)
    pipeline = make_pipeline(StandardScaler(), KANRegressor(**SMALL))
    search = GridSearchCV(pipeline, {"kanregressor__hidden": [(1,), (3,)]}, cv=2).fit(X, y)
    assert set(search.best_params_) == {"kanregressor__hidden"}


def test_classifier_two_and_three_classes():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 2))
    ring = np.where((X**2).sum(1) > 1.4, "out", "in")
    model = KANClassifier(steps=8).fit(X, ring)
    assert model.score(X, ring) > 0.95 and set(model.predict(X)) == {"in", "out"}
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    three = np.digitize(X[:, 0], [-0.5, 0.5])
    assert KANClassifier().fit(X, three).score(X, three) > 0.9


def test_classifier_writes_its_logits_as_formulas():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(300, 2))
    ring = (X**2).sum(1) > 1.4
    model = KANClassifier(symbolic=True).fit(X, ring)
    symbols = sorted(model.formula_.free_symbols, key=str)
    squares = sympy.Poly(model.formula_, *symbols)
    assert len(symbols) == 2 and squares.total_degree() == 2 and model.score(X, ring) > 0.97
    at = [float(model.formula_.subs(dict(zip(symbols, row, strict=True)))) for row in X[:50]]
    np.testing.assert_allclose(at, model.decision_function(X[:50]), rtol=1e-2, atol=1e-2)

    noisy = generator.uniform(size=300) < 1 / (1 + np.exp(1 - 2 * X[:, 0]))  # the second input says nothing
    line, judge = KANClassifier(symbolic=True).fit(X, noisy), LogisticRegression(C=1e6).fit(X, noisy)
    (x,) = line.formula_.free_symbols
    assert str(x) == "x_1" and line.formula_.diff(x).is_number
    assert abs(line.decision_function(X) - judge.decision_function(X)).max() < 1.5
    assert len(KANClassifier(symbolic=True).fit(X, np.digitize(X[:, 0], [-0.5, 0.5])).formula_) == 3
    assert not hasattr(line.set_params(symbolic=False).fit(X, noisy), "formula_")


def test_a_class_of_held_out_rows_alone_is_trained_on():
    X = np.random.default_rng(1).normal(size=(40, 1))
    for row in range(40):
        rare = np.arange(40) == row
        if row in split(np.column_stack([X, rare]), 0.2, 0)[1]:
            break
    model = KANClassifier(symbolic=True, library=["x"], steps=1).fit(X, rare)
    assert model.held_out_ == 0 and model.predict_proba(X)[:, 1].mean() == pytest.approx(1 / 40, rel=0.2)


def test_a_fit_with_a_formula_keeps_nothing_of_one_without():
    X = np.random.default_rng(0).normal(size=(100, 2))
    model = KANClassifier(hidden=(), steps=1).fit(X[:50], X[:50, 0] > 0)
    assert model.held_out_ == 10
    model.set_params(symbolic=True, library=["x"]).fit(X, X[:, 0] > 0)
    assert model.held_out_ == 20 and not {"pairs_", "_judged", "_bands"} & set(vars(model))


def test_without_interactions_no_network_with_hidden_layers_is_tried():
    X = np.random.default_rng(0).uniform(-1, 1, (150, 3))
    model = KANRegressor(interactions=False, steps=2, grid_schedule=(3,)).fit(X, 2 * X[:, 0] * X[:, 1] + X[:, 2])
    assert model.network_.nodes == [3, 1] and model.pairs_ == [] and model.plot_shapes().axes


def test_formula_of_a_dataframe_like_table():
    generator = np.random.default_rng(1)
    X = generator.uniform(-1, 1, (500, 2))
    model = KANRegressor(symbolic=True, widths=[[2, 1, 1]], restarts=4).fit(X, np.exp(np.sin(np.pi * X[:, 0]) + X[:, 1] ** 2))
    assert str(model.formula_) == "exp(x_2**2 + sin(pi*x_1))" and model.exact_
    assert np.abs(model.predict(X) - np.exp(np.sin(np.pi * X[:, 0]) + X[:, 1] ** 2)).max() < 1e-9
    complexities = list(model.table_["complexity"])
    assert complexities == sorted(complexities) and min(model.table_["loss"]) < 1e-9
    assert "e^{" in model.latex()


def test_what_no_formula_fits_is_said_to_be_numeric():
    X = np.linspace(-1, 1, 600)[:, None]
    y = np.floor(2.5 * X[:, 0]) * np.cos(9 * X[:, 0])
    model = KANRegressor(symbolic=True, widths=[[1, 1]], restarts=1).fit(X, y)
    assert not model.exact_ and "phi_0_0_0" in str(model.formula_)
