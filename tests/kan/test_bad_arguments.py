"""Every public call names the argument it refuses and says what would be right."""

import pytest
import sympy
import torch

from kat_zoo.kan import KAN, LAN, KANClassifier, KANRegressor
from kat_zoo.kan.formula import export
from kat_zoo.kan.operations import structure as tools
from kat_zoo.layers import KANLinear

NAN = float("nan")
X = torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = X[:, :1] * X[:, 1:]


def kan():
    return KAN([2, 2, 1])


def undefined():
    """X is positive: the square root of -x has no value."""
    model = KAN([2, 2, 1])
    model.fix_symbolic(0, 0, 0, "sqrt", affine=(-1, 0, 1, 0))
    return model


CALLS = {
    r"x of type ndarray: expected a tensor, model.tensor\(x\)": lambda: kan()(X.numpy()),
    "x of dtype torch.float32: expected torch.float64, the network's": lambda: kan()(X.float()),
    "width=5": lambda: KAN(5),
    "width='251'": lambda: KAN("251"),
    r"width=\[2, 2.5, 1\]": lambda: KAN([2, 2.5, 1]),
    r"width=\[2, \[1, 1, 1\], 1\]": lambda: KAN([2, [1, 1, 1], 1]),
    "mult_arity=2.5": lambda: KAN([2, 1], mult_arity=2.5),
    "grid_size=2.5": lambda: KANLinear(2, 1, 2.5),
    "spline_order=1.5": lambda: KANLinear(2, 1, 3, 1.5),
    "noise_scale=-1": lambda: KANLinear(2, 1, noise_scale=-1),
    "dtype=torch.int32": lambda: KANLinear(2, 1, dtype=torch.int32),
    r"grid_schedule=\[\]": lambda: kan().fit(X, Y, grid_schedule=[]),
    r"grid_schedule=\[3.5\]": lambda: kan().fit(X, Y, grid_schedule=[3.5]),
    "steps=1.5": lambda: kan().fit(X, Y, steps=1.5),
    "batch_size=0": lambda: kan().fit(X, Y, optimizer="adam", batch_size=0),
    "l1=nan": lambda: kan().fit(X, Y, l1=NAN),
    "lr=0.1: expected None": lambda: kan().fit(X, Y, lr=0.1),
    r"optimizer='lm' with entropy, batch_size: expected 'lbfgs' or 'adam'": lambda: kan().fit(X, Y, entropy=1.0, batch_size=9),
    "seed=-2": lambda: kan().fit(X, Y, optimizer="adam", seed=-2),
    "steps=True": lambda: kan().fit(X, Y, steps=True),
    "layer=1.5": lambda: kan().expand_width(1.5),
    "n_sum=-1": lambda: kan().expand_width(1, -1, 3),
    "round=2.5": lambda: kan().formula(round=2.5),
    "lr=-1": lambda: kan().fit(X, Y, optimizer="adam", lr=-1),
    "X_val of 5 samples, y_val of 4: expected the same": lambda: kan().fit(X, Y, X[:5], Y[:4]),
    "y_val of 2 columns: expected 1": lambda: kan().fit(X, Y, X[:5], X[:5]),
    "refine|grid_size=2.5: expected an integer": lambda: kan().refine(2.5),
    "margin=-0.1": lambda: kan().update_grid(X, margin=-0.1),
    "max_change=-1": lambda: kan().update_grid(X, max_change=-1),
    "update_grid|X holds NaN": lambda: kan().update_grid(X * NAN),
    "attribute|expected at least 2 samples of 2 inputs": lambda: kan().attribute(X[:, :1]),
    "node_threshold=nan": lambda: kan().prune(X, NAN),
    "threshold=-1": lambda: kan().prune_inputs(X, -1),
    "expected distinct names": lambda: KAN.from_formula("x", ["x", "x"]),
    "top=2.5": lambda: kan().suggest_symbolic(0, 0, 0, X, top=2.5),
    "suggest_symbolic|X holds NaN": lambda: kan().suggest_symbolic(0, 0, 0, X * NAN),
    "fix_symbolic|X holds NaN": lambda: kan().fix_symbolic(0, 0, 0, "sin", X * NAN),
    "suggest_symbolic|expected at least 2 samples of 2 inputs": lambda: kan().suggest_symbolic(0, 0, 0, X[:1]),
    "library='sin'": lambda: kan().suggest_symbolic(0, 0, 0, X, library="sin"),
    r"regressor|library=\[\]": lambda: KANRegressor(symbolic=True, library=[]).fit(X, Y[:, 0]),
    "regressor|function='exq': expected one of": lambda: KANRegressor(symbolic=True, library=["exq"]).fit(X, Y),
    "steps=-1": lambda: KANRegressor(symbolic=True, steps=-1).fit(X, Y[:, 0]),
    r"grid_schedule=\(0,\)": lambda: KANRegressor(symbolic=True, grid_schedule=(0,)).fit(X, Y[:, 0]),
    "top=0": lambda: kan().suggest_symbolic(0, 0, 0, X, top=0),
    r"library=\[\]": lambda: kan().suggest_symbolic(0, 0, 0, X, library=[]),
    r"affine=\(nan": lambda: kan().fix_symbolic(0, 0, 0, "sin", affine=(NAN, 0, 1, 0)),
    "r2_threshold=2": lambda: kan().auto_symbolic(X, r2_threshold=2),
    "steps=0": lambda: kan().auto_symbolic(X, Y, steps=0),
    r"y of shape \(3, 1\): expected \(30, 1\)": lambda: kan().auto_symbolic(X, Y[:3]),
    "function='foo'": lambda: kan().auto_symbolic(X, library=["foo"]),
    "round=-2": lambda: kan().formula(round=-2),
    "seed=None": lambda: KAN([2, 1], seed=None),
    r"grid_range=\[\(-1, 1\), \(0, 2\)\]": lambda: KAN([2, 1], grid_range=[(-1, 1), (0, 2)]),
    r"grid_range=\(0, inf\)": lambda: KAN([2, 1], grid_range=(0, float("inf"))),
    "grid_range=1": lambda: KAN([2, 1], grid_range=1),
    r"grid_range=\(1, 0\)": lambda: LAN([1, 2, 1], grid_range=(1, 0)),
    "noise_scale=inf": lambda: KAN([2, 1], noise_scale=float("inf")),
    "dtype=float32": lambda: KAN([2, 1], dtype="float32"),
    "base=3": lambda: KAN([2, 1], base=3),
    "seed=-1": lambda: LAN([2, 2, 1], seed=-1),
    r"y of shape \(30,\): expected a table \(samples, columns\); y\[:, None\]": lambda: kan().fit(X, Y[:, 0]),
    "X: expected a table of numbers": lambda: kan().fit([["a", "b"]], [[1.0]]),
    "grid_schedule=5": lambda: kan().fit(X, Y, grid_schedule=5),
    "l1='a'": lambda: kan().fit(X, Y, l1="a"),
    "sample_weight: expected numbers": lambda: kan().fit(X, Y, sample_weight="balanced"),
    r"edge \(0, 0.5, 0\)": lambda: kan().edge(0, 0.5, 0),
    "margin=inf": lambda: kan().update_grid(X, margin=float("inf")),
    "mean=nan": lambda: kan().remove_edge(0, 0, 0, NAN),
    "x of dtype torch.float32: expected torch.float64": lambda: KAN.from_formula("sin(x)+y")(X.float()),
    r"'I\*R': expected a formula of real numbers": lambda: KAN.from_formula("I*R"),
    r"'N\*x': expected a formula of real numbers": lambda: KAN.from_formula("N*x"),
    r"0.6931 \+ 3.142\*I in the formula: expected finite real numbers": lambda: KAN.from_formula("(-2)**x"),
    r"1.0 \+ 1.732\*I in the formula": lambda: KAN.from_formula("x*(-8)**(1/3)"),
    r"1.317\*I in the formula": lambda: KAN.from_formula("acos(2)*x"),
    r"a sum|1.317\*I in the formula": lambda: KAN.from_formula("acos(2)+x"),
    r"1.000E\+400 in the formula": lambda: KAN.from_formula("1e400*x"),
    "variables=None: expected at least one name": lambda: KAN.from_formula("2"),
    r"x of shape \(1, 3\): expected at least 2 samples": lambda: tools.test_symmetry(KAN([3, 1]), torch.rand(1, 3).double(), [0, 1]),
    r"fit|edge \(0, 0, 0\), sqrt has no finite value": lambda: undefined().fit(X, Y),
    r"lbfgs|edge \(0, 0, 0\), sqrt has no finite value": lambda: undefined().fit(X, Y, optimizer="lbfgs"),
    r"update_grid|edge \(0, 0, 0\), sqrt has no finite value": lambda: undefined().update_grid(X),
    r"prune_inputs|edge \(0, 0, 0\), sqrt has no finite value": lambda: undefined().prune_inputs(X),
    r"auto_symbolic|edge \(0, 0, 0\), sqrt has no finite value": lambda: undefined().auto_symbolic(X, Y),
    r"plot|edge \(0, 0, 0\), sqrt has no finite value": lambda: undefined().plot(X),
    "name='1 bad': expected a name that is free in C": lambda: export.to_c(sympy.Symbol("x"), ["x"], "1 bad"),
    r"group=\[0, 7\]": lambda: tools.test_symmetry(KAN([3, 1]), torch.rand(9, 3, dtype=torch.float64), [0, 7]),
    r"width=\[2, 0, 1\]": lambda: LAN([2, 0, 1]),
    "base='foo'": lambda: LAN([2, 3, 1], base="foo"),
    "grid_size=0": lambda: LAN([2, 3, 1], grid_size=0),
    r"grid_schedule=\(\)": lambda: KANRegressor(grid_schedule=()).fit(X, Y[:, 0]),
    "smoothness=-1": lambda: KANRegressor(smoothness=-1).fit(X, Y[:, 0]),
    "validation_fraction=1.5": lambda: KANClassifier(validation_fraction=1.5).fit(X, Y[:, 0] > 0.2),
    "function='nope'": lambda: KANClassifier(symbolic=True, library=["nope"]).fit(X, Y[:, 0] > 0.2),
    r"widths=\[\[2, 1\]\] with symbolic=False: expected None": lambda: KANRegressor(widths=[[2, 1]]).fit(X, Y[:, 0]),
    "max_seconds=1 with symbolic=False: expected None": lambda: KANRegressor(max_seconds=1).fit(X, Y[:, 0]),
    "restarts=3 with symbolic=False: expected 8": lambda: KANRegressor(restarts=3).fit(X, Y[:, 0]),
    "warm_start=True with symbolic=False: expected False": lambda: KANRegressor(warm_start=True).fit(X, Y[:, 0]),
    r"library=\['x'\] with symbolic=False: expected None": lambda: KANClassifier(library=["x"]).fit(X, Y[:, 0] > 0.2),
    "classifier|l1='a'": lambda: KANClassifier(l1="a").fit(X, Y[:, 0] > 0.2),
    "restarts=0": lambda: KANRegressor(symbolic=True, restarts=0).fit(X, Y[:, 0]),
    "max_seconds=-1": lambda: KANRegressor(symbolic=True, max_seconds=-1).fit(X, Y[:, 0]),
    r"widths=\[\]": lambda: KANRegressor(symbolic=True, widths=[]).fit(X, Y[:, 0]),
    r"widths=\[\[2, 2\]\]: expected shapes from 2 inputs to 1": lambda: KANRegressor(symbolic=True, widths=[[2, 2]]).fit(X, Y[:, 0]),
}


@pytest.mark.parametrize("message", CALLS)
def test_names_the_argument_its_value_and_what_would_be_right(message):
    with pytest.raises(ValueError, match=message.partition("|")[2] or message):
        CALLS[message]()


@pytest.mark.parametrize("estimator", [KANRegressor, KANClassifier])
def test_a_device_that_is_not_there_is_named(estimator):
    X = torch.linspace(0, 1, 30)[:, None].numpy()
    with pytest.raises(ValueError, match="device='gpu0': expected a device that PyTorch can use here"):
        estimator(device="gpu0").fit(X, (X[:, 0] > 0.5).astype(int))
