"""Claims of the page of PySR and gplearn."""

import inspect

import numpy as np
import pytest
import sympy
import torch

from kat_zoo.kan import KANRegressor
from kat_zoo.kan.deploy import to_c, to_int8, to_numpy, to_torch

from .pages import PAGES, RESULTS, TABLE, holds, quotient, read


def formula(X=TABLE, y=None, weight=None, **options):
    y = X[:, 0] * X[:, 1] if y is None else y
    return KANRegressor(symbolic=True, max_seconds=30, random_state=0, **options).fit(X, y, sample_weight=weight)


@holds("symbolic_regression", "`KANRegressor(symbolic=True)`", "`KANRegressor.fit`, `sample_weight`")
def _():
    y = TABLE[:, 0] * TABLE[:, 1]
    spoiled = np.where(np.arange(len(y)) < 5, 100, y)
    assert formula(y=spoiled, weight=np.arange(len(y)) >= 5).formula_ == sympy.sympify("x_1*x_2")


@holds("symbolic_regression", "`table_`: complexity, loss, score, equation")
def _():
    assert list(quotient().table_.columns) == ["complexity", "loss", "score", "equation"]


@holds("symbolic_regression", "`formula_`, a SymPy expression")
def _():
    assert isinstance(quotient().formula_, sympy.Expr)


@holds(
    "symbolic_regression",
    "`kat_zoo.kan.deploy.to_c`, `kat_zoo.kan.deploy.to_numpy`, `kat_zoo.kan.deploy.to_torch`, `kat_zoo.kan.deploy.to_onnx`; `table_` is a "
    "DataFrame",
)
def _():
    model = quotient()
    expected = model.predict(TABLE)
    np.testing.assert_allclose(np.asarray(to_numpy(model)(TABLE)).reshape(-1), expected)
    np.testing.assert_allclose(to_torch(model)(torch.from_numpy(TABLE)).detach().reshape(-1), expected)
    assert "predict(" in to_c(model) and type(model.table_).__name__ == "DataFrame"


@holds(
    "symbolic_regression",
    "`kat_zoo.kan.deploy.to_int8`, tables of an additive model; [`kat-zoo explore`](../explore.md), the search by clicks",
)
def _():
    model = KANRegressor(hidden=(), interactions=False).fit(TABLE, np.sin(TABLE[:, 0]) + TABLE[:, 1])
    tables = to_int8(model)
    assert np.abs(np.asarray(tables(TABLE)).reshape(-1) - model.predict(TABLE)).max() < 0.3


@holds("symbolic_regression", "`KANRegressor.predict` with `index`")
def _():
    model = quotient()
    last = len(model.table_) - 1
    np.testing.assert_allclose(model.predict(TABLE, index=last), model.predict(TABLE))
    assert np.ptp(model.predict(TABLE, index=0)) == 0  # a constant
    with pytest.raises(ValueError, match=f"index={last + 1}"):
        model.predict(TABLE, index=last + 1)


@holds("symbolic_regression", "`library`, of functions; sums and products are always there")
def _():
    assert formula(y=TABLE[:, 0] * TABLE[:, 1] + TABLE[:, 0], library=["x"]).exact_
    with pytest.raises(ValueError, match="function='nope'"):
        formula(library=["nope"])


@holds(
    "symbolic_regression",
    "none: the search ends by itself; `restarts`, `max_seconds`",
    "`max_seconds`",
)
def _():
    parameters = inspect.signature(KANRegressor).parameters
    assert parameters["max_seconds"].default is None and "restarts" in parameters
    assert KANRegressor(symbolic=True).fit(TABLE, TABLE.sum(1)).exact_  # without a limit
    noise = np.random.default_rng(1).normal(size=len(TABLE))
    assert "cut short" in KANRegressor(symbolic=True, max_seconds=0.2).fit(TABLE, noise * TABLE[:, 0]).summary_


@holds("symbolic_regression", "none: description length on all rows")
def _():
    noise = np.random.default_rng(2).normal(scale=0.3, size=len(TABLE))
    found = formula(y=TABLE[:, 0] * TABLE[:, 1] + noise).formula_  # more terms would lie closer to these rows
    assert found.free_symbols == {*sympy.symbols("x_1 x_2")} and sympy.count_ops(found) <= 4
    assert not {"parsimony", "model_selection"} & {*inspect.signature(KANRegressor).parameters}


@holds("symbolic_regression", "`units`, `target_units`, `constants`")
def _():
    units = {"units": {"x_1": "m", "x_2": "s"}, "target_units": "m/s", "constants": {"c": "2 m/s"}}
    found = formula(y=2 + TABLE[:, 0] / TABLE[:, 1], **units).formula_
    assert found == sympy.sympify("c + x_1/x_2")


@holds("symbolic_regression", "`n_jobs`, for several outputs")  # as many processes: tests/kan/test_regressor.py
def _():
    found = formula(y=np.stack([TABLE[:, 0] * TABLE[:, 1], TABLE.sum(1)], 1), n_jobs=1).formula_
    assert found == [sympy.sympify("x_1*x_2"), sympy.sympify("x_1 + x_2")]


@holds("symbolic_regression", "`random_state`; the answer depends neither on threads nor on processes")  # processes: test_regressor.py
def _():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        other = KANRegressor(symbolic=True, max_seconds=30, random_state=0).fit(TABLE, TABLE[:, 0] / TABLE.sum(1))
    finally:
        torch.set_num_threads(before)
    assert other.formula(round=None) == quotient().formula(round=None)


@holds("symbolic_regression", "`warm_start`")
def _():
    model = formula(warm_start=True)
    assert model.fit(TABLE, 3 * TABLE[:, 0] * TABLE[:, 1]).exact_


@holds("symbolic_regression", "squared error; `kat_zoo.kan.register_function`")
def _():
    for loss in ("huber", "quantile", "poisson"):
        with pytest.raises(ValueError, match="with symbolic=True: expected 'squared'"):
            formula(loss=loss)


def test_laws_of_fastsrb_are_counted():
    laws = {row["law"] for row in read(RESULTS / "kan_laws_catalogue.csv")}
    assert f"On {len(laws)} laws of FastSRB" in (PAGES / "symbolic_regression.md").read_text()
    assert {row["method"] for row in read(RESULTS / "kan_laws.csv")} >= {"operon", "gplearn"}
