"""Tables as strangers have them: counts of any spread, outliers, offsets, columns of another kind, and an interrupted fit."""

import signal

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import d2_tweedie_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from kat_zoo.kan import KANClassifier, KANRegressor
from kat_zoo.kan.sklearn.rows import ranks


@pytest.mark.parametrize("counts", [True, False])
def test_counts_of_any_spread_are_fitted(counts):
    """As well as scikit-learn's generalized additive model of the same functions, where rates differ a hundredfold."""
    generator = np.random.default_rng(1)
    X, far = (generator.normal(size=(1000, 1)) for _ in range(2))
    y, truth = np.exp(1.5 * np.abs(X[:, 0])), np.exp(1.5 * np.abs(far[:, 0]))
    y = generator.poisson(y).astype(float) if counts else y
    model = KANRegressor(loss="poisson").fit(X, y)
    peer = make_pipeline(SplineTransformer(12), PoissonRegressor(alpha=1e-3, max_iter=1000)).fit(X, y)
    ours, theirs = (d2_tweedie_score(truth, one.predict(far), power=1) for one in (model, peer))
    assert ours > 0.97 and ours > theirs - 0.01


def test_counts_of_two_columns_are_fitted():
    generator = np.random.default_rng(3)
    X = generator.normal(size=(2000, 2))
    y = generator.poisson(np.exp(np.sin(3 * X[:, 0]) + 0.3 * X[:, 0] + 0.5 * X[:, 1] ** 2))
    model = KANRegressor(loss="poisson").fit(X[:1000], y[:1000])
    assert d2_tweedie_score(y[1000:], model.predict(X[1000:]), power=1) > 0.8


def test_importances_are_of_the_models_own_loss():
    generator = np.random.default_rng(0)
    common = generator.normal(size=500)
    X = np.c_[common + 0.5 * generator.normal(size=500), common + 0.5 * generator.normal(size=500), generator.normal(size=500)]
    y = generator.random(500) < 1 / (1 + np.exp(-(4 * X[:, 0] + 4 * X[:, 1] + 0.5 * X[:, 2])))
    importances = KANClassifier().fit(X, y).feature_importances_
    assert importances[:2].min() > 0.25 and importances[2] < 0.05
    X = generator.normal(size=(800, 3))
    importances = KANRegressor(loss="poisson").fit(X, generator.poisson(np.exp(X[:, 0] + X[:, 1]))).feature_importances_
    assert importances[:2].min() > 0.25 and importances[2] < 0.01
    importances = KANClassifier().fit(X, np.digitize(X[:, 1], [-0.5, 0.5])).feature_importances_
    assert importances.argmax() == 1 and importances[1] > 0.99


@pytest.mark.parametrize("far", [1e4, 1e6, 1e9, 1e12, 1e20])
def test_an_outlier_in_x_leaves_the_other_rows_apart(far, caplog):
    generator = np.random.default_rng(0)
    X, new = generator.normal(size=(400, 1)), generator.normal(size=(400, 1))
    X[0] = far
    assert ranks(X, 0)[1] > 390
    assert KANClassifier().fit(X, np.sin(4 * X[:, 0]) > 0).score(new, np.sin(4 * new[:, 0]) > 0) > 0.9
    y = np.sin(4 * X[:, 0])
    assert KANRegressor().fit(X, y).score(new, np.sin(4 * new[:, 0])) > 0.85  # all but the end of the bulk, which is a line now
    assert ("column 'x_1' has values more than 1e+06 times as far away" in caplog.text) == (far > 1e7)


def test_an_offset_leaves_the_rows_apart():
    x = 1.7e9 + np.random.default_rng(0).uniform(0, 1000, 200)
    table = np.c_[x, x - 1.6e9]
    assert ranks(table, 0)[1] == 200
    twice = np.tile(table, (2, 1))
    assert ranks(twice, 0)[1] == 200 and np.array_equal(ranks(twice, 0)[0][:200], ranks(table, 0)[0])


@pytest.mark.parametrize("size", [1e4, 1e8, 1e12, 1e18, -1e200])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_one_outlier_in_y_of_any_size_leaves_the_model(loss, size):
    generator = np.random.default_rng(0)
    X = generator.normal(size=(150, 3))
    y = X[:, 0] ** 2 + X[:, 1] + 0.1 * generator.normal(size=150)
    clean = KANRegressor(loss=loss).fit(X, y).predict(X)
    y[0] = size
    error = KANRegressor(loss=loss).fit(X, y).predict(X) - clean
    assert np.abs(error[1:]).max() < 0.5


def test_a_missing_category_does_not_depend_on_the_rows_beside_it():
    column = pd.Series(np.random.default_rng(0).choice(["u", "v", None], 500), dtype=object)
    missing = column.isna()
    model = KANRegressor().fit(pd.DataFrame({"o": column}), np.where(missing, 10.0, 0.0))
    assert model.predict(pd.DataFrame({"o": column[missing]})) == pytest.approx(10, abs=0.01)


def test_a_column_of_another_kind_than_in_fit_is_refused():
    table = pd.DataFrame({"a": np.arange(30.0), "k": ["0", "1", "2"] * 10})
    model = KANRegressor().fit(table, table["a"])
    with pytest.raises(ValueError, match="column 'a' of text or categories: expected numbers, as in fit"):
        model.predict(table.assign(a="x"))
    with pytest.raises(ValueError, match="column 'k' of numbers: expected text or categories, as in fit, '0' for example"):
        model.predict(table.assign(k=table["k"].astype(int)))
    with pytest.raises(ValueError, match="column 'a' of lists or the like"):
        KANRegressor().fit(pd.DataFrame({"a": [[1, 2]] * 30}), np.arange(30))
    with pytest.raises(ValueError, match="minimum of 1"):
        KANRegressor().fit(pd.DataFrame(index=range(30)), np.arange(30))


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ([*map(str, range(99)), "n/a"], "100 different values as text, of which 64 count; nearly all are numbers, but 'n/a' is not"),
        ([*range(49), "n/a"] * 2, "50 different values as text, of which 50 count; nearly all are numbers, but 'n/a' is not"),
        ([f"id {n}" for n in range(100)], "100 different values as text, of which 64 count"),
        ([*"0123456789"] * 10, None),
        ([*"abcde"] * 20, None),
    ],
)
def test_a_column_whose_numbers_became_text_is_told(column, told, caplog):
    KANRegressor(hidden=()).fit(pd.DataFrame({"a": pd.Series(column, dtype=object)}), np.arange(100.0))
    assert caplog.messages == ([f"column 'a' has {told}"] if told else [])


def test_an_interrupt_ends_a_fit_that_has_no_search():
    X = np.random.default_rng(0).normal(size=(20_000, 10))
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            KANRegressor(hidden=()).fit(X, np.sin(X[:, 0]) * X[:, 1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, interrupt)
