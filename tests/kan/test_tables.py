"""Additive models with pairs on tables as they are: against least squares and generators, not against the code under test."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import RidgeCV

from kat_zoo.kan import KANClassifier, KANRegressor
from kat_zoo.kan.gam.basis import Basis, roughness
from kat_zoo.kan.gam.reml import Moments, solve
from kat_zoo.kan.sklearn import columns as columns_of
from kat_zoo.kan.sklearn.rows import split


def curve(n=200, seed=0, columns=3):
    generator = np.random.default_rng(seed)
    X = generator.uniform(-1, 1, (n, columns))
    truth = np.sin(3 * X[:, 0]) + X[:, 1]
    return X, truth + 0.2 * generator.normal(size=n), truth


def test_straight_lines_are_free_and_curves_are_centered():
    x = np.random.default_rng(0).lognormal(size=(300, 1))
    basis = Basis.of(x, np.ones(300), 6)
    greville = np.array([basis.knots[0, n + 1 : n + 4].mean() for n in range(9)])
    np.testing.assert_allclose(roughness(basis.knots[0]) @ (2 * greville + 1), 0, atol=1e-12)
    values = basis.values(x)[:, 0]
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(values[:, 1:].T @ values[:, 0], 0, atol=1e-8)
    np.testing.assert_allclose(np.corrcoef(values[:, 0], np.clip(x[:, 0], *basis.knots[0][[3, -4]]))[0, 1], 1, atol=0.2)


def test_penalties_have_the_largest_marginal_likelihood():
    """The fixed point is the maximum that a general optimizer finds of the mixed model's restricted likelihood."""
    generator = np.random.default_rng(0)
    Z, n = generator.normal(size=(80, 6)), 80
    y = Z @ np.r_[generator.normal(size=3), 0.2 * generator.normal(size=3)] + generator.normal(size=n)
    design = np.c_[np.ones(n), Z]
    blocks = np.array([-1, 0, 0, 0, 1, 1, 1])
    found = solve(Moments(design.T @ design, design.T @ y, float(y @ y), n), blocks, steps=2000)

    def minus_likelihood(log):
        V = np.exp(log[0]) * np.eye(n) + sum(np.exp(log[1 + b]) * Z[:, blocks[1:] == b] @ Z[:, blocks[1:] == b].T for b in (0, 1))
        inverse, one = np.linalg.inv(V), np.ones((n, 1))
        middle = one.T @ inverse @ one
        residual = y - (one @ np.linalg.solve(middle, one.T @ inverse @ y[:, None]))[:, 0]
        return np.linalg.slogdet(V)[1] + np.linalg.slogdet(middle)[1] + residual @ inverse @ residual

    best = minimize(minus_likelihood, np.zeros(3), method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-8, "fatol": 1e-10})
    own = np.log(np.r_[found.scale, found.scale / found.penalties])
    assert minus_likelihood(own) <= best.fun + 0.02


def test_a_block_without_influence_has_no_coefficients():
    Z = np.random.default_rng(0).normal(size=(80, 3))
    design = np.c_[np.ones(80), Z, np.zeros((80, 2))]
    y = Z @ [1.0, -2.0, 0.5] + 3
    found = solve(Moments(design.T @ design, design.T @ y, float(y @ y), 80), np.array([-1, 0, 0, 0, 1, 1]))
    assert np.isfinite(found.penalties).tolist() == [True, False] and found.parameters < 4.01
    np.testing.assert_allclose(found.coefficients, [3, 1, -2, 0.5, 0, 0], atol=1e-4)


def hostile(kind, n=200):
    generator = np.random.default_rng(1)
    X = generator.uniform(-1, 1, (n, 3))
    y = X[:, 0] + 0.5 * X[:, 1] + 0.1 * generator.normal(size=n)
    if kind == "outlier in X":
        X[0] = 1e3
    elif kind == "outlier in y":
        y[0] = 1e4
    elif kind == "constant":
        X[:, 2] = 7.0
    elif kind == "duplicated":
        X = np.c_[X, X]
    elif kind == "collinear":
        X = np.c_[X, X @ [1.0, 2.0, 3.0]]
    elif kind == "scaled":
        X = X * [1e12, 1e-12, 1.0]
    elif kind == "heavy tails in X":
        X = generator.standard_cauchy((n, 3))
        y = X[:, 0] + 0.5 * X[:, 1] + 0.1 * generator.normal(size=n)
    elif kind == "heavy tails in y":
        y = X[:, 0] + 0.5 * X[:, 1] + 0.3 * generator.standard_cauchy(n)
    elif kind == "unseen":
        X = np.c_[X, np.arange(n) >= 150]
    return X, y


HOSTILE = (
    *("outlier in X", "outlier in y", "heavy tails in X", "heavy tails in y"),
    *("constant", "unseen", "duplicated", "collinear", "scaled"),
)


@pytest.mark.parametrize("kind", HOSTILE)
def test_never_much_worse_than_ridge(kind):
    """R^2 on 50 new rows, whose y is without noise where its tails are heavy."""
    X, y = hostile(kind)
    train, test = np.arange(150), np.arange(150, 200)
    truth = X[test, 0] + 0.5 * X[test, 1] if kind == "heavy tails in y" else y[test]
    scale = X[train].std(0) + (X[train].std(0) == 0)
    ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(X[train] / scale, y[train])
    own = KANRegressor().fit(X[train], y[train]).score(X[test], truth)
    assert own > ridge.score(X[test] / scale, truth) - 0.05
    assert own > (0.5 if kind == "heavy tails in y" else 0.9)


@pytest.mark.parametrize("size", [20.0, 1e3, 1e6])
def test_one_outlier_in_y_moves_squared_error_by_a_standard_error(size, caplog):
    X, y, _ = curve(300)
    clean = KANRegressor().fit(X, y).predict(X)
    assert not caplog.messages
    y[0] = size
    model = KANRegressor().fit(X, y)
    assert caplog.messages == ["1 of 300 rows are outliers in y and count as nearer ones, see KANRegressor's loss"]
    assert np.sqrt(np.mean((model.predict(X) - clean) ** 2)) < 0.1
    weight = np.ones(300)
    weight[5] = 2.0
    twice = np.r_[np.arange(300), 5]
    np.testing.assert_allclose(
        KANRegressor().fit(X, y, weight).predict(X), KANRegressor().fit(X[twice], y[twice]).predict(X), rtol=1e-5, atol=1e-5
    )


def test_rare_events_are_no_outliers():
    """Squared error means the mean: what happens in a hundredth of many rows is predicted in its share."""
    X = np.random.default_rng(0).normal(size=(3000, 3))
    y = np.zeros(3000)
    y[::100] = 50.0
    assert KANRegressor().fit(X, y).predict(X).mean() == pytest.approx(0.5)


def test_far_rows_in_line_with_the_inputs_are_no_outliers(caplog):
    X = np.exp(2 * np.random.default_rng(0).normal(size=(200, 2)))
    y = X[:, 0] + 0.5 * X[:, 1]
    y_wild = np.r_[-1e5, y[1:]]
    assert KANRegressor().fit(X, y).score(X, y) > 0.9999 and not caplog.messages
    assert KANRegressor().fit(X, y_wild).score(X[1:], y[1:]) > 0.99


def test_one_outlier_in_x_does_not_ruin_a_curve():
    X, y, truth = curve(300)
    X[0], y[0] = 1e3, 0.0
    assert KANRegressor().fit(X, y).score(X[1:], truth[1:]) > 0.95


def test_a_column_that_was_constant_has_no_influence():
    X, y, _ = curve()
    X[:, 2] = 7.0
    model = KANRegressor().fit(X, y)
    moved = X.copy()
    moved[:, 2] = 20.0
    np.testing.assert_array_equal(model.predict(X), model.predict(moved))
    assert model.feature_importances_[2] == 0


def test_a_column_that_was_constant_has_no_influence_on_a_trained_network():
    """A product of three columns is more than pairs hold."""
    X = np.c_[np.random.default_rng(0).uniform(-1, 1, (300, 3)), np.full(300, 7.0)]
    y = np.exp(X[:, 0]) * X[:, 1] * np.sin(2 * X[:, 2])
    model = KANRegressor(grid_schedule=(3,), steps=5).fit(X, y)
    assert model.history_ is not None
    np.testing.assert_array_equal(model.predict(X), model.predict(np.c_[X[:, :3], np.full(300, 20.0)]))


@pytest.mark.filterwarnings("ignore:.* in reduce:RuntimeWarning")  # scikit-learn adds up all numbers to see whether they are finite
def test_columns_of_the_largest_numbers():
    X, y, truth = curve()
    huge = KANRegressor().fit(X[:, :2] * 1e308, y)
    assert huge.score(X[:, :2] * 1e308, truth) > 0.95


@pytest.mark.parametrize("reach", [0.0, 0.25])
def test_a_curve_stops_outside_the_training_range(reach):
    X, y, _ = curve()
    model = KANRegressor(reach=reach).fit(X, y)
    width = np.ptp(X[:, 0])
    far = np.tile(np.median(X, 0), (4, 1))
    far[:, 0] = X[:, 0].max() + np.array([0.0, reach * width / 2, reach * width, 1e6])
    values = model.predict(far)
    assert values[2] == pytest.approx(values[3], abs=1e-9)
    assert values[1] - values[0] == pytest.approx((values[2] - values[0]) / 2, abs=1e-6)  # straight until there


@pytest.mark.parametrize("size", [1e-300, 1e-100, 1e100, 1e300])
def test_targets_of_any_size(size):
    X, y, _ = curve()
    plain = KANRegressor().fit(X, y).predict(X)
    np.testing.assert_allclose(KANRegressor().fit(X, y * size).predict(X) / size, plain, rtol=1e-5, atol=1e-5)


def test_losses():
    generator = np.random.default_rng(0)
    X = generator.uniform(-1, 1, (400, 2))
    truth = np.sin(3 * X[:, 0])
    y = truth + 0.1 * generator.normal(size=400)
    wild = y.copy()
    wild[::10] += 50
    error = {loss: np.sqrt(np.mean((KANRegressor(loss=loss).fit(X, wild).predict(X) - truth) ** 2)) for loss in ("squared", "huber")}
    assert error["huber"] < 0.1 < error["squared"]
    upper = KANRegressor(loss="quantile", quantile=0.9).fit(X, y)
    assert np.mean(y < upper.predict(X)) == pytest.approx(0.9, abs=0.03)
    rate = np.exp(1 + truth)
    model = KANRegressor(loss="poisson").fit(X, generator.poisson(rate))
    assert np.corrcoef(np.log(model.predict(X)), truth)[0, 1] > 0.98 and (model.predict(X * 100) > 0).all()
    with pytest.raises(ValueError, match="loss='poisson' with y of -1: expected no negative value"):
        KANRegressor(loss="poisson").fit(X, np.r_[-1.0, y[1:] ** 2])


def test_monotone_effects():
    X, y, _ = curve(150)
    for direction in (1, -1):
        model = KANRegressor(monotonic_cst=[direction, 0, 0]).fit(X, y)
        line = np.tile(X[0], (300, 1))
        line[:, 0] = np.linspace(-2, 2, 300)
        assert (direction * np.diff(model.predict(line)) >= -1e-9).all()
    counts = np.random.default_rng(0).poisson(np.exp(y))
    falling = KANRegressor(loss="poisson", monotonic_cst=[-1, -1, -1]).fit(X, counts)
    assert falling.predict(X).sum() == pytest.approx(counts.sum(), rel=1e-5)  # so at the optimum, whose constant is free
    rising = KANRegressor(monotonic_cst={"x_2": 1}).fit(X, y)
    assert rising.score(X, y) > 0.9
    with pytest.raises(ValueError, match="monotonic_cst={'z': 1}: expected names of columns"):
        KANRegressor(monotonic_cst={"z": 1}).fit(X, y)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_an_even_function_without_a_line_is_monotone_too(direction, noise):
    x, generator = np.linspace(-1, 1, 200)[:, None], np.random.default_rng(1)
    even = x[:, 0] ** 2 + noise * generator.normal(size=200)
    label = (np.abs(x[:, 0]) > 0.5) ^ (generator.random(200) < noise)
    regressor = KANRegressor(hidden=(), monotonic_cst=[direction]).fit(x, even)
    classifier = KANClassifier(hidden=(), monotonic_cst=[direction]).fit(x, label)
    for effect in (regressor.predict(2 * x), classifier.decision_function(2 * x)):
        assert (direction * np.diff(effect)).min() >= -1e-9 and (noise or np.ptp(effect) > 1e-3)


def test_a_curve_whose_line_is_not_among_the_strongest_is_monotone_too(monkeypatch):
    monkeypatch.setattr("kat_zoo.kan.gam.model.LINES", 1)
    X = np.random.default_rng(0).uniform(-1, 1, (200, 2))
    model = KANRegressor(hidden=(), monotonic_cst=[0, 1], interactions=False).fit(X, X[:, 0] + X[:, 1] ** 2)
    line = np.column_stack([np.zeros(100), np.linspace(-1, 1, 100)])
    assert np.diff(model.predict(line)).min() >= -1e-9


def test_a_column_named_like_a_missing_one_may_be_monotone():
    X, y, _ = curve(150)
    frame = pd.DataFrame(X, columns=["a", "dose=missing", "c"])
    frame["a"], frame["dose=missing"] = X[:, 1], X[:, 0]
    frame.loc[::9, "a"] = np.nan
    model = KANRegressor(monotonic_cst={"a": 1, "dose=missing": -1}).fit(frame, y)
    np.testing.assert_array_equal(model._directions(model._columns.owners), [1, 0, -1, 0])


def test_a_table_sorted_by_a_column_has_its_curve_all_the_same():
    x = np.repeat(np.arange(5.0), 600)[:, None]
    assert KANRegressor(hidden=()).fit(x, (x[:, 0] - 2) ** 2).score(x, (x[:, 0] - 2) ** 2) > 0.99


def test_the_answer_is_the_same_on_any_number_of_threads_and_in_single_precision():
    X, y, _ = curve()
    threads, answers = torch.get_num_threads(), []
    for number in (1, 2):
        torch.set_num_threads(number)
        answers.append(KANRegressor().fit(X, y).predict(X))
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(*answers)
    single = KANRegressor().fit(X.astype(np.float32), y.astype(np.float32)).predict(X.astype(np.float32))
    np.testing.assert_allclose(single, answers[0], atol=1e-4)


def test_a_row_of_weight_two_is_two_rows_in_the_split_too():
    X, y, _ = curve(60)
    twice = np.r_[np.arange(60), np.arange(0, 60, 3)]
    weight = np.bincount(twice).astype(float)
    one, two = KANRegressor().fit(X, y, weight), KANRegressor().fit(X[twice], y[twice])
    np.testing.assert_allclose(one.predict(X), two.predict(X), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(one.predict_interval(X, 0.8), two.predict_interval(X, 0.8), rtol=1e-5, atol=1e-6)
    table = np.c_[X, y]
    held, held_twice = (set(map(bytes, rows[split(rows, 0.2, 0)[1]])) for rows in (table, table[twice]))
    assert held == held_twice and len(held) == 12


def test_categories_and_missing_values():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"kind": generator.choice(["a", "b", "c"], 300), "x": generator.normal(size=300)})
    y = frame["kind"].map({"a": 0.0, "b": 3.0, "c": -2.0}) + frame["x"]
    frame.loc[::9, "x"] = np.nan
    y[::9] = frame["kind"].map({"a": 0.0, "b": 3.0, "c": -2.0})[::9] + 5.0
    frame["kind"] = frame["kind"].astype("category")
    model = KANRegressor(interactions=False).fit(frame, y)
    assert model.score(frame, y) > 0.99 and list(model._columns.names) == ["kind=a", "kind=b", "kind=c", "x", "x=missing"]
    new = pd.DataFrame({"kind": ["b", "d", None], "x": [0.0, 0.0, np.nan]})
    values = model.predict(new)
    assert values[0] == pytest.approx(3, abs=0.3) and np.isfinite(values).all()
    assert model.feature_importances_.shape == (2,)
    with pytest.raises(ValueError, match="column 'when' of type datetime64"):
        KANRegressor().fit(frame.assign(when=pd.Timestamp("2020-01-01")), y)
    assert [part.dtype.kind for part in (columns_of.read_column("x", frame["x"]), columns_of.read_column("k", frame["kind"]))] == ["f", "O"]


def test_text_is_refused_with_its_columns():
    X, y, _ = curve(60)
    table = X.astype(object)
    table[3, 1] = "two"
    with pytest.raises(ValueError, match="X with text in column 1: expected numbers, or a data frame for columns of categories"):
        KANRegressor().fit(table, y)
    with pytest.raises(ValueError, match="X with text in column 'b': expected numbers$"):
        KANRegressor(symbolic=True).fit(pd.DataFrame(table, columns=["a", "b", "c"]), y)


def test_a_frame_of_polars_is_a_frame_of_pandas():
    polars = pytest.importorskip("polars", reason="the extra `test` is older than this test")
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"kind": generator.choice(["a", "b"], 200), "x": generator.normal(size=200), "n": generator.integers(0, 9, 200)})
    y = frame["x"] + 2 * (frame["kind"] == "a") + frame["n"]
    frame.loc[::7, "x"], frame.loc[::11, "kind"] = np.nan, None
    other = polars.DataFrame({name: frame[name].where(frame[name].notna(), None).tolist() for name in frame}, strict=False)
    other = other.with_columns(polars.col("kind").cast(polars.Categorical), polars.col("n").cast(polars.UInt8))
    one, two = KANRegressor().fit(frame, y), KANRegressor().fit(other, polars.Series(y))
    np.testing.assert_allclose(two.predict(other), one.predict(frame), rtol=1e-12)
    assert two.feature_names_in_.tolist() == ["kind", "x", "n"]
    with pytest.raises(ValueError, match="X of type LazyFrame: expected a table in memory, X.collect"):
        two.predict(other.lazy())
    with pytest.raises(ValueError, match=r"column 'n' of type List\(Int64\): expected numbers or categories"):
        two.predict(other.with_columns(polars.lit([1, 2]).alias("n")))


def test_pairs_are_found_and_the_network_holds_them():
    generator = np.random.default_rng(0)
    X = generator.uniform(-1, 1, (300, 5))
    y = X[:, 1] * X[:, 3] + X[:, 0] + 0.05 * generator.normal(size=300)
    model = KANRegressor().fit(X, y)
    assert model.pairs_ == [("x_2", "x_4")] and model.network_.width[1][1] >= 1
    assert model.score(X, X[:, 1] * X[:, 3] + X[:, 0]) > 0.99
    told = model.explain_row(X[3])
    np.testing.assert_allclose(told.baseline + sum(told.contributions.values()), told.prediction)
    assert told.prediction[0] == pytest.approx(model.predict(X[3:4])[0])
    titles = {axes.get_xlabel() for axes in model.plot_shapes().axes}
    assert {"x_1", "x_2"} <= titles
    assert KANRegressor(interactions=False).fit(X, y).pairs_ == []


def test_intervals_hold_their_share_of_new_rows():
    X, y, _ = curve(400)
    X_new, y_new, _ = curve(1000, 1)
    low, high = KANRegressor().fit(X, y).predict_interval(X_new, 0.9).T
    assert np.mean((low <= y_new) & (y_new <= high)) == pytest.approx(0.9, abs=0.05)
    with pytest.raises(ValueError, match="coverage=0.999 with 80 held-out rows: expected at least 999 of them"):
        KANRegressor().fit(X, y).predict_interval(X_new, 0.999)


@pytest.mark.parametrize("rare", [0, 1])
def test_nothing_is_held_out_where_it_would_take_all_rows_of_a_class(rare):
    X = np.random.default_rng(0).normal(size=(25, 2))
    label = np.full(25, 1 - rare)
    label[0] = rare
    held_out = {KANClassifier(random_state=seed, interactions=False).fit(X, label).held_out_ for seed in range(20)}
    assert held_out == {0, 5}  # a fifth of the seeds draws the only row of the class


def test_categories_are_labelled_without_the_name_of_their_column():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"a=b": generator.choice(["u", "v=w"], 200)})
    axes, *_ = KANRegressor().fit(frame, (frame["a=b"] == "u") * 1.0).plot_shapes().axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["u", "v=w"]


def test_classes_that_a_pair_tells_apart():
    """Neither column says anything alone."""
    X = np.random.default_rng(0).uniform(-1, 1, (100, 2))
    model = KANClassifier().fit(X, X[:, 0] * X[:, 1] > 0)
    assert model.pairs_ == [("x_1", "x_2")] and model.score(X, X[:, 0] * X[:, 1] > 0) > 0.9


def test_logits_of_several_classes_stay_finite_where_rows_tell_them_apart():
    X = np.random.default_rng(0).uniform(-1, 1, (1300, 4))
    label = np.digitize(np.exp(X[:, 0]) * X[:, 1] * np.sin(2 * X[:, 2]), [-0.2, 0.0, 0.2])
    model = KANClassifier().fit(X[:300], label[:300])
    assert np.abs(model.decision_function(X)).max() < 300  # 1e6 once
    assert model.score(X[300:], label[300:]) > 0.85


def test_classes_with_categories():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"kind": generator.choice(["a", "b"], 200), "x": generator.normal(size=200)})
    label = np.where(frame["kind"] == "a", frame["x"] > 0, frame["x"] < 0)
    model = KANClassifier().fit(frame, label)
    assert model.score(frame, label) > 0.95 and model.pairs_
    (maps,) = [axes for axes in model.plot_shapes().axes if axes.get_xlabel() == "kind=a" and axes.get_ylabel() == "x"]
    assert [label.get_text() for label in maps.get_xticklabels()] == ["no", "yes"]
