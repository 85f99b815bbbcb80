import copy
import ctypes
import math
import shutil
import subprocess

import numpy as np
import pytest
import sympy
import torch

from kat_zoo.kan import KAN, library, register_function
from kat_zoo.kan.formula import export
from kat_zoo.kan.formula.expression import complexity, formula
from kat_zoo.kan.library import DEFAULT_LIBRARY, function_names, get_function
from kat_zoo.kan.operations.fitting import fit_function, fit_library

X1, X2 = sympy.symbols("x_1 x_2")
RANGES = {"sqrt": (0, 2), "x^1.5": (0, 2), "log": (0.1, 3), "1/x": (0.3, 2), "1/x^2": (0.3, 2), "1/sqrt(x)": (0.2, 2)}
INTERVAL = {"arcsin", "arctanh", "arccos", "tan"}


@pytest.mark.parametrize("name", [n for n in function_names() if n not in ("0", "sgn")])
def test_every_function_is_found_again_with_another_scale(name):
    function = get_function(name)
    low, high = (-0.95, 0.95) if name in INTERVAL else RANGES.get(name, (0.3, 2.5))
    if name in ("sin", "cos", "J0", "J1"):
        low, high = -9.0, 11.0
    u = torch.linspace(low, high, 300, dtype=torch.float64)
    x = (u - 0.7) / 3.1 * 100  # the data's own scale must not matter
    fit = fit_function(name, x, 5 * function.torch(u) - 2)
    assert fit is not None and 1 - fit.r2 < 1e-8
    a, b, c, d = fit.affine
    torch.testing.assert_close(c * function.torch(a * x + b) + d, 5 * function.torch(u) - 2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["x", "x^2", "sin", "exp", "log", "sqrt", "tanh", "1/x", "J0", "gaussian", "arctanh"])
def test_the_right_function_ranks_first(name):
    low, high = (-0.95, 0.95) if name in INTERVAL else RANGES.get(name, (-3.0, 3.0))
    if name == "J0":
        low, high = -20.0, 20.0
    u = torch.linspace(low, high, 400, dtype=torch.float64)
    assert fit_library(u, 2 * get_function(name).torch(u) + 1)[0].name == name


def test_constant_is_constant():
    x = torch.linspace(-1, 1, 50, dtype=torch.float64)
    assert fit_library(x, torch.full_like(x, 3.0))[0].name == "0"


@pytest.mark.parametrize("name", function_names())
def test_torch_and_sympy_agree_and_derivatives_are_right(name):
    function = get_function(name)
    x = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64, requires_grad=True)
    expected = [float(function.expression(sympy.Float(v)).evalf()) for v in x.tolist()]
    np.testing.assert_allclose(function.torch(x).detach(), expected, rtol=1e-9, atol=1e-12)
    if function.torch(x).requires_grad and name not in ("sgn", "abs"):
        assert torch.autograd.gradcheck(function.torch, (x,))


def toy():
    """exp(sin(pi x) + y^2) with clumsy but equivalent parameters."""
    model = KAN([2, 1, 1], 3)
    model.fix_symbolic(0, 0, 0, "sin", affine=(-math.pi, math.pi, 2.0, 0.7))
    model.fix_symbolic(0, 1, 0, "x^2", affine=(-math.sqrt(2), 0.0, 1.0, -0.2))
    model.fix_symbolic(1, 0, 0, "exp", affine=(0.5, 1.0, math.exp(-1.25), 0.0))
    return model


def test_formula_gathers_constants():
    (expression,) = toy().formula()
    assert expression == sympy.exp(sympy.sin(sympy.pi * X1) + X2**2)
    assert complexity([expression]) == 9
    assert "\\sin" in toy().latex()[0]


def test_only_a_number_that_is_a_multiple_of_pi_prints_as_one():
    model = KAN([1, 1, 1], 3)
    printed = []
    for rate in (-math.pi / 2, 2 * math.pi * (1 + 5e-6), 3.1417):
        model.fix_symbolic(0, 0, 0, "sin", affine=(rate, 0.0, 1.0, 0.0))
        model.fix_symbolic(1, 0, 0, "exp", affine=(1.0, 0.0, 1.0, 0.0))
        printed.append(str(model.formula()[0]))
    assert printed == ["exp(-sin(pi*x_1/2))", "exp(sin(2*pi*x_1))", "exp(sin(3.1417*x_1))"]
    model.fix_symbolic(0, 0, 0, "sin", affine=(math.pi + 1e-6, 0.0, 1.0, 0.0))  # as near as the digits that are asked for
    assert [str(model.formula(round=digits)[0]) for digits in (4, 8)] == ["exp(sin(pi*x_1))", "exp(sin(3.14159365*x_1))"]


def test_formula_equals_the_network():
    model, x = toy(), torch.rand(50, 2, dtype=torch.float64)
    (exact,) = model.formula(["a", "b"], round=None)
    function = export.to_numpy(exact, ["a", "b"])
    np.testing.assert_allclose(function(x[:, 0].numpy(), x[:, 1].numpy()), model(x).detach()[:, 0].numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match="distinct names"):
        model.formula(["a", "a"])


@pytest.mark.parametrize(
    "text",
    [
        "x_1*x_2",
        "sqrt((x_1 - 2)**2 + 3*x_2**2)",
        "exp(-x_1**2)/(x_2 + 2)",
        "besselj(0, 20*x_1) + erf(x_2)",
        "log(x_1 + 3)*tanh(x_2)**2",
        "x_1 + 1",
        "sin(pi*x_1) + x_2*pi + 2*x_2",
        "exp(sin(x_1)) + sin(x_1) + x_1 + log(2)",
        "x_1 + x_1**2 + sin(3*x_1) - 4",
        "exp(x_1*x_2 + x_1) - x_2*(x_1 + x_1**3) + 2**x_2",
    ],
)
def test_compiler_formula_and_exports_agree(text):
    expression = sympy.sympify(text)
    model = KAN.from_formula(expression, ["x_1", "x_2"])
    x = torch.rand(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    columns = x.T
    expected = export.to_numpy(expression, ["x_1", "x_2"])(*columns.numpy())
    np.testing.assert_allclose(model(x).detach()[:, 0], expected, rtol=1e-12, atol=1e-12)
    (back,) = model.formula(round=None)
    np.testing.assert_allclose(export.to_numpy(back, ["x_1", "x_2"])(*columns.numpy()), expected, rtol=1e-10, atol=1e-12)
    ours = export.to_torch(back, ["x_1", "x_2"])(*columns)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_compiler_with_several_outputs_and_bad_input():
    model = KAN.from_formula(["x*y", "x + sin(y)", "3"], ["x", "y"])
    x = torch.rand(9, 2, dtype=torch.float64)
    expected = torch.stack([x[:, 0] * x[:, 1], x[:, 0] + torch.sin(x[:, 1]), torch.full((9,), 3.0, dtype=x.dtype)], 1)
    torch.testing.assert_close(model(x), expected)
    with pytest.raises(ValueError, match="is not a function of the library"):
        KAN.from_formula("zeta(x)")
    with pytest.raises(ValueError, match="expected all of"):
        KAN.from_formula("x + y", ["x"])


def test_every_function_exports_to_numpy_torch_and_c(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "the package itself is built with a C compiler"
    t = sympy.Symbol("t")
    expressions = {f"f{n}": get_function(name).expression(2 * t / 3) for n, name in enumerate(function_names())}
    source = "".join(export.to_c(expression, ["t"], name) for name, expression in expressions.items())
    (tmp_path / "f.c").write_text("#define _GNU_SOURCE\n#include <math.h>\n" + source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "f.so", tmp_path / "f.c", "-lm"], check=True)
    compiled = ctypes.CDLL(str(tmp_path / "f.so"))
    points = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    for (name, expression), known in zip(expressions.items(), function_names(), strict=True):
        expected = get_function(known).torch(points * 2 / 3)
        ours = torch.as_tensor(export.to_torch(expression, ["t"])(points), dtype=torch.float64)
        torch.testing.assert_close(ours.expand(3), expected, rtol=1e-9, atol=1e-12, msg=lambda text, known=known: f"{known}: {text}")
        array = np.broadcast_to(export.to_numpy(expression, ["t"])(points.numpy()), 3)
        np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12, err_msg=known)
        function = compiled[name]
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
        np.testing.assert_allclose([function(v) for v in points.tolist()], expected, rtol=1e-9, atol=1e-12, err_msg=known)


def test_numeric_edges_stay_in_the_formula_and_out_of_code():
    model = KAN([1, 1, 1])
    model.fix_symbolic(1, 0, 0, "exp", affine=(1, 0, 1, 0))
    (expression,) = model.formula(["t"])
    assert str(expression) == "exp(phi_0_0_0(t))"
    with pytest.raises(ValueError, match="numeric edges"):
        export.to_c(expression, ["t"])


def test_fix_and_unfix():
    model = KAN([2, 2, 1], 8)
    x = torch.rand(100, 2, dtype=torch.float64) * 2 - 1
    model.fix_symbolic(0, 1, 0, "sin", affine=(2.0, 0.0, 1.0, 0.0))
    before = model(x)
    model.unfix(0, 1, 0)
    assert model.edge_kind(0, 1, 0) == "numeric"
    assert (model(x) - before).abs().max().item() < 5e-3
    with pytest.raises(ValueError, match="expected a symbolic edge"):
        model.unfix(0, 1, 0)
    with pytest.raises(ValueError, match="function='nothing': expected one of"):
        model.fix_symbolic(0, 0, 0, "nothing")
    with pytest.raises(ValueError, match="four finite numbers"):
        model.fix_symbolic(0, 0, 0, "sin", affine=(1.0,))


def test_auto_symbolic_leaves_unknown_edges_numeric():
    x = torch.linspace(-1, 1, 400, dtype=torch.float64)[:, None]
    y = torch.floor(2.5 * x) * torch.cos(9 * x)  # no function of the library
    model = KAN([1, 1], 40)
    model.fit(x, y, steps=5)
    assert model.auto_symbolic(x) == {(0, 0, 0): None} and model.edge_kind(0, 0, 0) == "numeric"
    model = KAN([1, 1], 10)
    model.fit(x, torch.exp(x), steps=10)
    assert model.auto_symbolic(x, torch.exp(x))[0, 0, 0].name == "exp"
    assert (model(x) - torch.exp(x)).abs().max().item() < 1e-9


def test_registered_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "_FUNCTIONS", list(library._FUNCTIONS))
    monkeypatch.setattr(library, "_INDEX", dict(library._INDEX))
    register_function("sinc2", lambda x: torch.sinc(x / math.pi) ** 2, "(sin(x)/x)**2", complexity=4)
    x = torch.linspace(-6, 7, 300, dtype=torch.float64)
    y = 3 * torch.sinc(x / math.pi) ** 2
    assert fit_library(x, y, [*DEFAULT_LIBRARY, "sinc2"])[0].name == "sinc2"
    model = KAN([1, 1])
    model.fix_symbolic(0, 0, 0, "sinc2", affine=(1, 0, 1, 0))
    model.save(tmp_path / "m.safetensors")
    assert KAN.load(tmp_path / "m.safetensors").edge_kind(0, 0, 0) == "sinc2"
    with pytest.raises(ValueError, match="name='sin': expected a name that no"):
        register_function("sin", torch.sin, "sin(x)")
    with pytest.raises(ValueError, match="in x alone"):
        register_function("f", torch.sin, "sin(y)")


def test_memory_does_not_grow_with_the_number_of_samples():
    """pykan asked for 102 GB here (its issue 550)."""
    import resource

    x = torch.linspace(-1, 1, 1_000_000, dtype=torch.float64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert fit_library(x, torch.sin(3 * x), ["sin", "tanh"])[0].name == "sin"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_formula_of_scaled_data():
    model = copy.deepcopy(toy())
    (expression,) = formula(model, None, 4, input_affine=[(1.0, 0.0), (2.0, 0.0)], output_affine=[(3.0, 1.0)])
    assert expression == 3 * sympy.exp(sympy.sin(sympy.pi * X1) + 4 * X2**2) + 1


def test_unfix_moves_the_grid_to_the_samples():
    model = KAN.from_formula("x**2 + sin(y)", ["x", "y"])
    X = torch.rand(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 10 - 5
    before = model(X).detach()
    far, near = copy.deepcopy(model), model
    for edge in list(model.edges()):
        if model.edge_kind(*edge) != "numeric":
            far.unfix(*edge)
            near.unfix(*edge, X)
    assert (near(X) - before).abs().max() < 0.01 * before.std() < before.std() < (far(X) - before).abs().max()


def test_unfix_leaves_other_inputs_alone():
    model = KAN([2, 2], seed=1)
    model.fix_symbolic(0, 0, 0, "sin")
    X = torch.rand(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    spline = model.layers[0].spline
    knots, coef = spline.knots[1].clone(), spline.coef[1].clone()
    model.unfix(0, 0, 0, X)
    assert torch.equal(spline.knots[1], knots) and torch.equal(spline.coef[1], coef)
    assert spline.knots[0, 3] <= X[:, 0].min() and spline.knots[0, -4] >= X[:, 0].max()


def test_memory_of_suggestions_is_bounded(monkeypatch):
    """However many samples there are, an edge is looked at on at most 20,000."""
    model, seen = KAN([2, 3, 1]), []
    monkeypatch.setattr(type(model.layers[0]), "edges", lambda layer, x: seen.append(len(x)) or torch.zeros(len(x), 3, 2).double())
    model.suggest_symbolic(0, 0, 0, torch.rand(100_001, 2, dtype=torch.float64))
    assert seen == [16_667]


def test_auto_symbolic_of_some_edges_leaves_the_others():
    x = torch.stack([torch.linspace(-1, 1, 200, dtype=torch.float64), torch.linspace(-1, 1, 200, dtype=torch.float64).roll(67)], 1)
    model = KAN([2, 1], 10)
    model.fit(x, torch.exp(x[:, :1]) + x[:, 1:] ** 2)
    assert set(model.auto_symbolic(x, edges=[(0, 1, 0)])) == {(0, 1, 0)}
    assert model.edge_kind(0, 0, 0) == "numeric" and model.edge_kind(0, 1, 0) == "x^2"
    assert model.auto_symbolic(x, edges=[]) == {}
    with pytest.raises(ValueError, match="edge"):
        model.auto_symbolic(x, edges=[(0, 9, 0)])
