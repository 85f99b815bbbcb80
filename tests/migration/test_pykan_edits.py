"""Claims of pykan's page: pruning, symbols, formulas, pictures."""

import copy
from pathlib import Path

import numpy as np
import pytest
import sympy
import torch
from sklearn.model_selection import train_test_split

from kat_zoo.kan import KAN, LAN, KANClassifier, KANRegressor, library, register_function
from kat_zoo.kan.deploy import to_c, to_int8, to_numpy, to_onnx
from kat_zoo.kan.formula import export
from kat_zoo.kan.operations import structure
from kat_zoo.kernels import bspline_basis
from kat_zoo.layers import KANLinear

from .pages import GENERATOR, TABLE, X, Y, holds, quotient, same, trained, values


@holds("pykan", "`KAN.prune` with `node_threshold` and `edge_threshold`")
def _():
    assert trained().prune(X, node_threshold=0, edge_threshold=10).num_edges() < 6
    assert trained().prune(X, node_threshold=10, edge_threshold=0).nodes == [2, 1, 1]


@holds("pykan", "`KAN.prune_inputs`")
def _():
    model = KAN([2, 1])
    model.fit(X, X[:, :1] ** 2, steps=10)
    pruned, kept = model.prune_inputs(X)
    assert kept == [0] and pruned.nodes == [1, 1]


@holds("pykan", "`KAN.remove_edge`, `KAN.remove_node`; `KAN.restore_edge` takes an edge back")
def _():
    model = trained()
    before = values(model)
    model.remove_edge(0, 1, 0)
    assert model.num_edges() == 5 and not torch.equal(values(model), before)
    model.restore_edge(0, 1, 0)
    assert torch.equal(values(model), before)
    assert model.remove_node(1, 0).nodes == [2, 1, 1]


@holds("pykan", "`KAN.attribute`: `edges` and `nodes`; those of the inputs are `nodes[0]`")
def _():
    scores = trained().attribute(X)
    assert [tuple(edges.shape) for edges in scores.edges] == [(2, 2), (1, 2)]
    assert [len(nodes) for nodes in scores.nodes] == [2, 2, 1] and torch.equal(scores.nodes[0], scores.inputs)


@holds(
    "pykan",
    "none: `kat_zoo.kan.operations.structure.detect_separability` answers the question",
    "`kat_zoo.kan.operations.structure.detect_separability`, `kat_zoo.kan.operations.structure.test_symmetry`",
)
def _():
    assert structure.detect_separability(trained(), X).groups == [[0], [1]]
    assert structure.detect_separability(lambda x: x[:, :1] * x[:, 1:], X).groups == [[0, 1]]
    Z = torch.rand(50, 3, generator=GENERATOR, dtype=torch.float64)
    assert structure.test_symmetry(lambda z: (z[:, :1] + z[:, 1:2]) * z[:, 2:], Z, [0, 1])[0]
    assert not structure.test_symmetry(lambda z: z[:, :1] + z[:, 1:2] * z[:, 2:], Z, [0, 1])[0]


@holds("pykan", "`KAN.plot` with `beta`, `variables`, `outputs`, `title`; returns a figure")
def _():
    figure = trained().plot(X, beta=5, variables=["a", "b"], outputs=["c"], title="Title")
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert {"a", "b", "c"} <= set(shown) and figure.axes[0].get_title() == "Title"


@holds("pykan", "`KAN.edge`: the function and the range of its grid", "`KAN.activations`: the values of all nodes")
def _():
    model = trained()
    function, (low, high) = model.edge(0, 1, 0)
    torch.testing.assert_close(function(X[:, 1]), model.layers[0].edges(X)[:, 0, 1].detach())
    assert (low, high) == (model.layers[0].spline.knots[1, 3], model.layers[0].spline.knots[1, -4])
    nodes = model.activations(X)
    assert [h.shape[1] for h in nodes] == [2, 2, 1] and torch.equal(nodes[-1], model(X))


@holds("pykan", "`KAN.num_edges`", "`KAN.nodes`, `KAN.width` and the layers")
def _():
    model = KAN([2, [1, 2], 1])
    model.remove_edge(0, 0, 0)
    assert model.num_edges() == 2 * 5 + 3 - 1
    assert model.width == [(2, 0), (1, 2), (1, 0)] and model.nodes == [2, 3, 1]
    assert (model.layers[0].n_sum, model.layers[0].n_mult, model.layers[0].spline.out_features) == (1, 2, 5)


@holds("pykan", "`KAN.fix_symbolic`; there are no ranges to guess")
def _():
    model = KAN([1, 1], grid_size=30)
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
    model.fit(x, torch.sin(15 * x + 1), steps=10)
    assert model.fix_symbolic(0, 0, 0, "sin", x) > 0.9999  # pykan's ranges end at 10


@holds("pykan", "`KAN.unfix`, for one edge")
def _():
    model = trained()
    model.fix_symbolic(0, 0, 0, "x", X)
    model.fix_symbolic(0, 1, 0, "x^2", X)
    model.unfix(0, 0, 0, X)
    assert (model.edge_kind(0, 0, 0), model.edge_kind(0, 1, 0)) == ("numeric", "x^2")


@holds("pykan", "`KAN.suggest_symbolic`: functions with their constants and R²")
def _():
    model = KAN([2, 1])
    model.fit(X, Y, steps=10)
    best = model.suggest_symbolic(0, 1, 0, X)[0]
    assert best.name == "x^2" and len(best.affine) == 4 and best.r2 > 0.999


@holds("pykan", "`KAN.auto_symbolic` with `library`, `r2_threshold`; given `y`, each choice is checked by training on")
def _():
    for y, moves in ((None, False), (Y, True)):
        model = KAN([2, 1])
        model.fit(X, torch.sin(4 * X[:, :1]) + X[:, 1:] ** 2, steps=10)
        before = model.layers[0].spline.coef[0].clone()
        found = model.auto_symbolic(X, y, library=["x^2"], r2_threshold=0.98)
        assert found[0, 0, 0] is None and found[0, 1, 0].name == "x^2"
        assert torch.equal(before, model.layers[0].spline.coef[0]) is not moves


@holds("pykan", "`KAN.formula` with `variables`, `round`; `KAN.latex`")
def _():
    model = KAN.from_formula("1.23456*sin(a) + b**2")
    a, b = sympy.symbols("u v")
    assert sympy.expand(model.formula(variables=["u", "v"], round=2)[0] - (1.23 * sympy.sin(a) + b**2)) == 0
    assert r"\sin" in model.latex(variables=["u", "v"])[0]


@holds(
    "pykan",
    "`kat_zoo.kan.formula.export.to_numpy`, `kat_zoo.kan.formula.export.to_torch`, `kat_zoo.kan.formula.export.to_c`",
)
def _():
    formula = KAN.from_formula("sin(a) + b**2").formula(["a", "b"])[0]
    np.testing.assert_allclose(export.to_numpy(formula, ["a", "b"])(*X.T.numpy()), Y[:, 0])
    torch.testing.assert_close(export.to_torch(formula, ["a", "b"])(*X.T), Y[:, 0])
    assert "double formula(double a, double b)" in export.to_c(formula, ["a", "b"])


@holds("pykan", "`kat_zoo.kan.register_function`")
def _():
    functions, index = list(library._FUNCTIONS), dict(library._INDEX)
    try:
        register_function("sinc of a row", lambda x: torch.sinc(x / torch.pi), "sin(x)/x")
        model = KAN([2, 1])
        model.fix_symbolic(0, 0, 0, "sinc of a row", affine=(1, 0, 1, 0))
        assert model.edge_kind(0, 0, 0) == "sinc of a row" and "sin" in str(model.formula()[0])
    finally:
        library._FUNCTIONS[:] = functions
        library._INDEX.clear()
        library._INDEX.update(index)


@holds("pykan", "`KAN.expand_depth`, `KAN.expand_width`")
def _():
    deeper, wider = trained().expand_depth(), trained().expand_width(1, 2)
    assert (deeper.nodes, wider.nodes) == ([2, 2, 1, 1], [2, 4, 1])
    same(deeper, trained())
    same(wider, trained())


@holds("pykan", "none: new nodes of `KAN.expand_width`, and an edge of `KAN.restore_edge`, are trained at once")
def _():
    model = trained().expand_width(1, 1)
    model.remove_edge(0, 0, 0)
    model.restore_edge(0, 0, 0)
    before = copy.deepcopy(model)
    model.fit(X, torch.exp(X[:, :1] * X[:, 1:]), steps=3, update_grid=False)
    for layer, i, j in ((0, 0, 0), (0, 0, 2), (1, 2, 0)):
        assert not torch.equal(before.layers[layer].spline.coef[i, :, j], model.layers[layer].spline.coef[i, :, j])


@holds("pykan", "none: `KAN.remove_edge` cuts the edges between modules")
def _():
    model = KAN([2, 2, 1])
    for i, j in ((0, 1), (1, 0)):
        model.remove_edge(0, i, j)
    model.fit(X, Y, steps=3)
    assert structure.detect_separability(lambda x: model.layers[0](x)[:, :1], X).interactions[0, 1] == 0
    assert sorted(model.edges()) == [(0, 0, 0), (0, 1, 1), (1, 0, 0), (1, 1, 0)]


@holds("pykan", "`KAN.save`, `KAN.load`: one safetensors file")
def _():
    model = trained()
    model.save("kan.safetensors")
    assert [path.name for path in Path().iterdir()] == ["kan.safetensors"]
    assert torch.equal(values(KAN.load("kan.safetensors")), values(model))


@holds("pykan", "`copy.deepcopy`", "none: keep a deepcopy")
def _():
    model = trained()
    kept = copy.deepcopy(model)
    before = values(model)
    model.fit(X, -Y, steps=3)
    assert torch.equal(values(kept), before) and not torch.equal(values(model), before)


@holds("pykan", "none: arrays, and scikit-learn's `train_test_split`")
def _():
    x, x_val, y, y_val = train_test_split(X.numpy(), Y.numpy(), random_state=0)
    assert len(KAN([2, 1]).fit(x, y, x_val, y_val, steps=2).val) > 1


@holds("pykan", "`KAN.from_formula`")
def _():
    torch.testing.assert_close(values(KAN.from_formula("sin(a) + b**2")), Y)


@holds("pykan", "`kat_zoo.kan.operations.structure.jacobian`, `kat_zoo.kan.operations.structure.hessian`")
def _():
    model = KAN.from_formula("sin(a) + b**2")
    torch.testing.assert_close(structure.jacobian(model, X)[:, 0], torch.stack([torch.cos(X[:, 0]), 2 * X[:, 1]], 1))
    torch.testing.assert_close(structure.hessian(model, X)[:, 0, 1, 1], torch.full_like(X[:, 0], 2))


@holds("pykan", "`kat_zoo.layers.KANLinear`; a symbolic edge is a property of the network")
def _():
    layer = KANLinear(2, 3, dtype=torch.float64)
    assert layer(X).shape == (80, 3) and isinstance(KAN([2, 1]).layers[0].spline, KANLinear)


@holds("pykan", "`kat_zoo.kernels.bspline_basis`; `KANLinear.edges` gives the curves")
def _():
    layer = KANLinear(2, 3, grid_size=4, spline_order=2, base="zero", dtype=torch.float64)
    basis = bspline_basis(X, layer.knots, 2)
    assert basis.shape == (80, 2, 6)
    torch.testing.assert_close(torch.einsum("nij,ijo->noi", basis, layer.coef), layer.edges(X))


@holds("pykan", "none: add columns to `X`")
def _():
    wide = torch.cat([X, X[:, :1] * X[:, 1:]], 1)
    assert KAN([3, 1]).fit(wide, wide[:, 2:], steps=5).best < 1e-3


@holds("pykan", "`KANRegressor.table_` of `KANRegressor(symbolic=True)`")
def _():
    table = quotient().table_
    assert list(table.complexity) == sorted(table.complexity) and list(table.loss) == sorted(table.loss, reverse=True)


@holds("pykan", "`kat_zoo.kan.LAN`, `kat_zoo.kan.KANRegressor`, `kat_zoo.kan.KANClassifier`")
def _():
    assert LAN([2, 3, 1])(X.float()).shape == (80, 1)
    assert KANClassifier(hidden=()).fit(TABLE, TABLE[:, 0] > 3).score(TABLE, TABLE[:, 0] > 3) > 0.9


@holds(
    "pykan",
    "`kat_zoo.kan.deploy.to_c`, `kat_zoo.kan.deploy.to_numpy`, `kat_zoo.kan.deploy.to_onnx`; `kat_zoo.kan.deploy.to_int8` for "
    "additive models",
)
def _():
    model = trained()
    program = to_numpy(model)
    np.testing.assert_allclose(np.asarray(program(X.numpy())).reshape(-1), values(model)[:, 0], rtol=1e-6, atol=1e-8)
    assert "torch" not in to_c(model) and "predict(" in to_c(model) and callable(to_onnx)  # ONNX: tests/kan/test_deploy.py
    with pytest.raises(ValueError, match="expected splines without a base"):
        to_int8(model)


@holds("pykan", "`KANRegressor`: 1/x is in its library, and an additive model comes first")
def _():
    assert "1/x" in library.DEFAULT_LIBRARY and quotient().formula_ == sympy.sympify("x_1/(x_1 + x_2)")
    model = KANRegressor().fit(TABLE, 2 * TABLE[:, 0] + TABLE[:, 1])
    assert [sum(entry) for entry in model.network_.width] == [2, 1]  # though hidden layers could be tried


@holds("pykan", "`KANRegressor(symbolic=True)` finds it from samples")
def _():
    x = np.random.default_rng(0).uniform(-0.9, 0.9, (40, 2))
    model = KANRegressor(symbolic=True, max_seconds=60, random_state=0).fit(x, x.sum(1) / (1 + x.prod(1)))
    assert model.formula_ == sympy.sympify("(x_1 + x_2)/(x_1*x_2 + 1)")


@holds(
    "pykan",
    "`[n_sum, n_mult]` in `width`; [A deep formula](../auto_gallery/science/b_deep_formula.rst); the picture shows scores of "
    "`KAN.attribute`",
)
def _():
    model = KAN([2, [0, 1], 1])
    assert model.width[1] == (0, 1)
    model.remove_edge(0, 0, 0, mean=1.0)
    edges = model.attribute(X).edges
    opacity = np.tanh(3 * float(edges[1][0, 0]))
    alphas = [line.get_alpha() for line in model.plot(X).axes[0].collections if line.get_alpha() is not None]
    assert any(abs(alpha - opacity) < 1e-9 for group in alphas for alpha in np.atleast_1d(group))
