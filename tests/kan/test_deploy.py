"""Exports against the network that they come from: C compiled by the system's compiler, NumPy, torch, ONNX Runtime."""

import ctypes
import pickle
import pickletools
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch

from kat_zoo.kan import KAN, KANClassifier, KANRegressor
from kat_zoo.kan.deploy import to_c, to_int8, to_numpy, to_onnx, to_torch


def compiled(source, folder, outputs, name="predict"):
    (folder / "model.c").write_text(source)
    command = ["cc", "-std=c99", "-O2", "-Wall", "-Werror", "-D_XOPEN_SOURCE=700", "-shared", "-fPIC", "model.c", "-o", "model.so", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    function = getattr(ctypes.CDLL(str(folder / "model.so")), name)
    pointer = ctypes.POINTER(ctypes.c_double)

    def predict(X):
        X, y = np.ascontiguousarray(X, dtype=np.float64), np.empty((len(X), outputs))
        for row, result in zip(X, y, strict=True):
            function(row.ctypes.data_as(pointer), result.ctypes.data_as(pointer))
        return y

    return predict


def messy(n=150, seed=0):
    generator = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "size (cm) */": generator.lognormal(0, 1, n),
            "color": generator.choice(["red", "green", "gr\\ay"], n),
            "weight": generator.normal(size=n),
        }
    )
    y = np.log(X["size (cm) */"]) + (X["color"] == "red") * X["weight"] + 0.1 * generator.normal(size=n)
    X.loc[::7, "weight"] = np.nan
    X.loc[::11, "color"] = None
    return X, y.to_numpy()


def estimators():
    X, y = messy()
    yield KANRegressor().fit(X, y), X, lambda model, X: model.predict(X)[:, None]
    yield KANRegressor(loss="poisson").fit(X, np.round(np.exp(y / 2))), X, lambda model, X: model.predict(X)[:, None]
    yield KANClassifier().fit(X, y > 0), X, lambda model, X: model.predict_proba(X)
    yield KANClassifier().fit(X, np.digitize(y, [-1, 1])), X, lambda model, X: model.predict_proba(X)


@pytest.mark.parametrize("number", range(4))
def test_estimators_with_categories_and_missing_values(number, tmp_path):
    model, X, predict = list(estimators())[number]
    X = X.copy()
    X.loc[3, "color"] = "unseen"
    X.loc[5, "weight"] = 1e6  # outside of the training box
    expected = predict(model, X)
    program = to_numpy(model)
    np.testing.assert_allclose(program(X), expected, rtol=1e-12, atol=1e-12)
    rows = program.codes(X)
    assert set(rows[:, 1]) == {-1.0, 0.0, 1.0, 2.0, 3.0} and np.isnan(rows[0, 2])
    np.testing.assert_allclose(pickle.loads(pickle.dumps(program))(rows), expected, rtol=1e-12, atol=1e-12)
    found = compiled(to_c(model), tmp_path, expected.shape[1])(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        np.testing.assert_allclose(to_torch(model)(torch.from_numpy(rows)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"extrapolate": "zero"},
        {"base": "zero"},
        {"spline_order": 1},
        {"spline_order": 0, "base": "sin"},
        {"spline_order": 0, "extrapolate": "zero"},
        {"base": "identity"},
    ],
)
def test_networks_with_products_and_functions(options, tmp_path):
    network = KAN([3, [2, 2], 2], grid_size=4, mult_arity=3, **options)
    network.fix_symbolic(0, 1, 0, "sin", affine=(2.0, 0.1, 0.5, -0.2))
    network.fix_symbolic(1, 2, 1, "gaussian", affine=(1.0, 0.3, 2.0, 0.0))
    network.remove_edge(0, 0, 1)
    x = np.random.default_rng(0).uniform(-2, 2, (200, 3))
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
    for found in (to_numpy(network)(x), compiled(to_c(network), tmp_path, 2)(x), to_torch(network)(torch.from_numpy(x)).detach()):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_formula_in_units_is_exported_too(tmp_path):
    generator = np.random.default_rng(0)
    X = generator.uniform(1, 3, (100, 2))
    model = KANRegressor(symbolic=True).fit(X, X[:, 0] ** 2 / X[:, 1])
    np.testing.assert_allclose(to_numpy(model)(X)[:, 0], model.predict(X), rtol=1e-10)
    with pytest.raises(ValueError, match="expected one of model.estimators_"):
        to_numpy(KANRegressor(symbolic=True).fit(X, X))


def test_onnx_runtime_gives_the_same(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    X, y = messy()
    for model in (KANRegressor().fit(X, y), KANClassifier().fit(X, np.digitize(y, [-1, 1]))):
        to_onnx(model, tmp_path / "model.onnx")
        program = to_numpy(model)
        session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
        rows = program.codes(X)
        np.testing.assert_allclose(session.run(None, {"x": rows})[0], program(X), rtol=1e-12, atol=1e-12)


def test_the_program_holds_nothing_of_torch():
    X, y = messy()
    for program in (to_numpy(KANRegressor().fit(X, y)), to_numpy(KAN([2, 2, 1]))):
        assert not [name for _, name, _ in pickletools.genops(pickle.dumps(program)) if isinstance(name, str) and "torch" in name]


def test_probabilities_far_from_the_border():
    network = KAN([1, 1], base="identity")
    network.fix_symbolic(0, 0, 0, "x", affine=(1e4, 0.0, 1.0, 0.0))
    program = to_numpy(network)
    program.link = "sigmoid"
    np.testing.assert_array_equal(program([[-1.0], [1.0]]), [[1.0, 0.0], [0.0, 1.0]])


TAKEN = ["2x", "sin", "a b", "for", "M_PI", "nan", "NAN", "isnan", "fma", "log1pf", "fabsl", "_Bool", "main", "FP_NAN"]


@pytest.mark.parametrize("name", TAKEN)
def test_names_that_c_does_not_allow(name):
    for source, taken in ((lambda name: to_c(KAN([1, 1]), name), "pieces0"), (to_int8(KAN([1, 1], base="zero")).to_c, "table")):
        for wrong in (name, taken):
            with pytest.raises(ValueError, match="expected a name that is free in C"):
                source(wrong)


def test_a_missing_number_of_a_network_is_missing_in_int8_tables_too(tmp_path):
    tables = to_int8(KAN([2, 1], base="zero"))
    X = np.array([[0.1, np.nan], [0.1, 0.2]])
    for found in (tables(X), compiled(tables.to_c(), tmp_path, 1)(X)):
        assert np.isnan(found[0, 0]) and np.isfinite(found[1, 0])


def test_models_without_a_network():
    with pytest.raises(ValueError, match="without network_: expected a fitted estimator"):
        to_numpy(KANRegressor())
    with pytest.raises(ValueError, match="expected one of silu, identity, sin, zero"):
        to_numpy(KAN([1, 1], base=torch.nn.Softplus()))


@pytest.mark.parametrize("entries", [16, 64])
def test_the_bound_of_int8_tables_holds_for_every_row(entries, tmp_path):
    X, y = messy()
    for model in (KANRegressor().fit(X, y), KANClassifier().fit(X, y > 0), KANRegressor(loss="poisson").fit(X, np.exp(y / 3))):
        tables, program = to_int8(model, entries), to_numpy(model)
        rows = program.codes(X)
        rows[:40, 0] = np.linspace(-5, 60, 40)  # outside of the training box, too
        exact, bound = program.outputs_of(rows), tables.bound(rows)
        error = np.abs(tables.outputs_of(rows) - exact)
        assert (error <= bound + 1e-12).all()
        assert error.max() > 0.01 * bound.max()  # the bound is of the size of the error
        np.testing.assert_allclose(tables(rows), program.linked(tables.outputs_of(rows)))
        for call in (tables, tables.outputs_of, tables.bound):
            np.testing.assert_array_equal(call(X), call(program.codes(X)))
            with pytest.raises(ValueError, match=rf"X of shape .*: expected \(N, {len(program.columns)}\)"):
                call(rows[:, 1:])
        folder = tmp_path / str(program.link) / type(model).__name__
        folder.mkdir(parents=True)
        found = compiled(tables.to_c(), folder, tables(rows).shape[1])(rows)
        np.testing.assert_allclose(found, tables(rows), rtol=1e-9, atol=1e-9)
    assert to_int8(model, 64).bytes < to_int8(model, 128).bytes


def test_bytes_of_int8_tables_are_those_of_the_constants_in_c():
    tables = to_int8(KANRegressor().fit(*messy()), 32)
    sizes = {"signed char": 1, "unsigned short": 2, "float": 4}
    found = re.findall(r"static const ([a-z ]+) \w+\[(\d+)\]", tables.to_c())
    assert tables.bytes == sum(sizes[kind] * int(count) for kind, count in found)


def test_functions_are_compiled_once(monkeypatch):
    network = KAN([1, 1])
    network.fix_symbolic(0, 0, 0, "sin", affine=(1.0, 0.0, 1.0, 0.0))
    program = to_numpy(network)
    expected = program([[0.5]])
    monkeypatch.setattr("kat_zoo.kan.formula.export.to_numpy", None)
    np.testing.assert_array_equal(program([[0.5]]), expected)


def test_int8_tables_of_other_networks_are_refused():
    with pytest.raises(ValueError, match="expected splines without a base"):
        to_int8(KAN([2, 1]))


def network_of_tables(order, nodes, extrapolate):
    network = KAN(nodes, 5, order, base="zero", extrapolate=extrapolate, noise_scale=1.0)
    for node in range(2 * (len(nodes) - 2)):  # sums and products alone behind the splines
        network.fix_symbolic(1, node, 0, "x", affine=(1.0, 0.0, 1.0, 0.0))
    return network


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("nodes", [[2, 1], [2, [1, 1], 1]])
@pytest.mark.parametrize("extrapolate", ["linear", "zero"])
def test_the_bound_of_int8_tables_holds_for_kinks_and_outside_of_grids(order, nodes, extrapolate):
    network = network_of_tables(order, nodes, extrapolate)
    X = np.random.default_rng(0).uniform(-3, 3, (1000, 2))
    for entries in (2, 40):
        tables = to_int8(network, entries)
        error, bound = np.abs(tables(X) - to_numpy(network)(X)), tables.bound(X)
        assert (error <= bound + 1e-12).all()
    assert error.max() > 0.01 * bound.max()


def test_codes_do_not_depend_on_the_rows_beside_them():
    X, y = messy()
    X["color"] = X["color"].astype(object).where(X["color"].notna(), None)  # a column of None alone has no type
    model, lost = KANRegressor().fit(X, y), X["color"].isna()
    for call in (to_numpy(model), to_int8(model, 16)):
        np.testing.assert_array_equal(call(X[lost]), call(X)[lost])
    np.testing.assert_allclose(to_numpy(model)(X[lost])[:, 0], model.predict(X[lost]), rtol=1e-12)


def test_columns_of_a_frame_without_names_are_taken_by_their_order():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)))
    model = KANRegressor().fit(X, X[0] + X[1])
    np.testing.assert_allclose(to_numpy(model)(X)[:, 0], model.predict(X), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X.drop(columns="weight"), "X without column 'weight': expected size"),
        (lambda X: X.assign(weight="heavy"), "column 'weight' of text or categories: expected numbers, as in fit"),
        (lambda X: X.assign(color=1.0), "column 'color' of numbers: expected text or categories, as in fit, 'gr"),
    ],
)
def test_a_frame_that_is_not_that_of_the_training_is_refused(change, message):
    X, y = messy()
    with pytest.raises(ValueError, match=message):
        to_numpy(KANRegressor().fit(X, y))(change(X))


def test_gamma_is_the_same_everywhere(tmp_path):
    network = KAN.from_formula("gamma(x)")
    X = np.array([[-5.0000001], [-2.5], [-0.5], [1e-9], [0.5], [7.5]])
    with torch.no_grad():
        expected = network(torch.from_numpy(X)).numpy()
    assert expected[2] == pytest.approx(-2 * np.sqrt(np.pi))
    for found in (to_numpy(network)(X), compiled(to_c(network), tmp_path, 1)(X)):
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert torch.autograd.gradcheck(network, torch.from_numpy(X[1:3]).requires_grad_())
