"""The pages for those who come from elsewhere. What a row says of this package is executed, and a row that nothing executes fails.

The last cell of a row is the claim: a check is found by its text, so that a claim that is reworded is looked at again.
"""

import contextlib
import copy
import csv
import functools
import inspect
import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import sympy
import timm
import torch
import yaml
from sklearn.model_selection import train_test_split
from timm.models import get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer

import kat_zoo.dense
from kat_zoo.cli.main import main
from kat_zoo.kan import KAN, LAN, KANClassifier, KANRegressor, library, register_function
from kat_zoo.kan.deploy import to_c, to_int8, to_numpy, to_onnx, to_torch
from kat_zoo.kan.formula import export
from kat_zoo.kan.migration import ARGUMENTS, NAMES
from kat_zoo.kan.operations import structure
from kat_zoo.kernels import bspline_basis
from kat_zoo.layers import GRKAN, FourierHeads, GeneralHeads, GroupRational, KANLinear

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "migration"
RESULTS = ROOT / "benchmarks" / "results"

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(80, 2, generator=GENERATOR, dtype=torch.float64) * 2 - 1
Y = torch.sin(X[:, :1]) + X[:, 1:] ** 2
TABLE = np.random.default_rng(0).uniform(1, 5, (60, 2))
IMAGES = torch.rand(2, 3, 64, 64, generator=GENERATOR)
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 10, "img_size": 64}

# Claims whose check is somewhere else, or that say no more than that a thing is not here.
ELSEWHERE = {
    "symbolic_regression": {
        "Python, with torch; no compiler at run time": "a KANRegressor compiles nothing; tests/release/test_wheel.py installs the wheel",
        "none": "says what is not here",
    },
    "pykan": {
        "none": "says what is not here",
        "none: the search for a formula looks for such parts by itself": "tests/kan/test_guided.py",
        "none: the picture is of the network as it is": "says what is not here",
        "none: `benchmarks/kan_laws.py` makes tables of its own laws, or of a catalogue's": "tests/kan/test_laws.py",
        "`KAN.explore`, [`kat-zoo explore`](../explore.md)": "tests/explore/test_session.py and test_server.py",
        "columns of your own in `X`": "the same as: none: add columns to `X`",
        "not here": "says what is not here",
        "not here as pages: a loss of your own with `jacobian` and `hessian`": "docs/gallery/science/g_pde.py, and the row of these two",
    },
    "kat": {
        "`pip install kat_zoo`; GPU kernels are Triton's": "tests/release/test_wheel.py; tests/kernels/test_rational_triton.py",
        "the same, or `kat_tiny_patch16_224.adamdad_in1k`": "tests/hub/test_download.py, from a Hub on loopback",
    },
    "flashkat": {
        "not compiled in": "a Triton kernel takes the number of rows at run time: tests/kernels/test_rational_triton.py",
        "16-bit types in and out, float32 inside": "tests/kernels/test_autocast.py",
    },
    "karat": {
        "never held: [memory and time](../results.md#fourier-attention)": "tests/kernels/test_fourier_attention.py",
        "`kat-zoo analyze`, [with pictures](../attention.md)": "tests/train/test_analyze.py",
    },
    "timm": {
        "the module `kat_zoo.timm` before their name, as above": "tests/release/test_timm_scripts.py",
        "`kat-zoo validate RUN`": "tests/train/test_evaluate.py",
        "`torchrun -m kat_zoo.train.classification`, or `accelerate launch`": "tests/train/test_launchers.py",
    },
}
CHECKS: dict = {page: {} for page in ("pykan", "kat", "flashkat", "karat", "timm", "symbolic_regression")}


def holds(page, *claims):
    def register(check):
        CHECKS[page] |= dict.fromkeys(claims, check)
        return check

    return register


def rows(page):
    """Cells of every row of the tables of a page."""
    lines = re.findall(r"^\| (.*) \|$", (PAGES / f"{page}.md").read_text(), re.MULTILINE)
    return [line.split(" | ") for line in lines]


def headings(page):
    text = (PAGES / f"{page}.md").read_text()
    return [line.split(" | ") for line in re.findall(r"^\| (.*) \|\n\|-", text, re.MULTILINE)]


def read(path):
    """Rows of a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


def is_a_link(claim):
    """Whether a claim only names pages, which tests/test_readme.py follows."""
    return re.sub(r"\[[^]]*\]\([^)]*\)|, with a drawn table|sequences are not here|and the table above|[;, ]", "", claim) in (
        "",
        "unsupervisedrelationsarenothere",
    )


def all_rows():
    found = [(page, row) for page in CHECKS for row in rows(page) if row not in headings(page)]
    return [pytest.param(page, row[-1], id=f"{page}: {row[0]}"[:60]) for page, row in found]


@pytest.mark.parametrize(("page", "claim"), all_rows())
def test_what_a_row_says_is_so(page, claim, tmp_path, monkeypatch, threads):
    threads(1)
    monkeypatch.chdir(tmp_path)
    if is_a_link(claim) or claim in ELSEWHERE.get(page, {}):
        return
    assert claim in CHECKS[page], f"{page}.md: {claim!r}: expected a check here"
    CHECKS[page][claim]()


@pytest.mark.parametrize("page", CHECKS)
def test_every_check_has_its_row(page):
    claims = {row[-1] for row in rows(page)}
    assert {*CHECKS[page], *ELSEWHERE.get(page, {})} - claims == set()


def test_files_that_hold_the_other_claims_exist():
    for reasons in ELSEWHERE.values():
        for name in re.findall(r"(?:tests|docs)/[\w/]+\.py", " ".join(reasons.values())):
            assert (ROOT / name).exists(), name


# pykan: its words, in the first cells.

# Functions of pykan's modules are no words of a model: whoever imports one is told by Python, and by the page.
FUNCTIONS = """
KAN fit_params ex_round lambdify add_symbolic plot_tree create_dataset create_dataset_from_data expr2kan batch_jacobian batch_hessian
get_derivative detect_separability test_symmetry test_separability test_general_separability get_dependence test_symmetry_var
get_molecule KANLayer Symbolic_KANLayer B_batch coef2curve curve2coef extend_grid batch_grad_normgrad get_tree_node sparse_mask
model2param get_feynman_dataset runner1 pareto_frontier MLP
""".split()  # noqa: SIM905 (a paragraph is read more easily)


def words_of_pykan():
    code = re.findall(r"`([^`]*)`", " ".join(row[0] for row in rows("pykan")))
    return sorted({*re.findall(r"[A-Za-z_]\w*", " ".join(code))} - {"LBFGS", "False", "compile", "l", "i", "j"})


def answer(word):
    """The answer to a word of pykan's, as an attribute of a model or as an argument of one of its methods."""
    model = KAN([2, 1])
    answers = []
    calls = (
        lambda: getattr(model, word),
        lambda: KAN([2, 1], **{word: 1}),
        lambda: model.fit(X, Y, **{word: 1}, steps="refused"),
        lambda: model.refine(**{word: 3}),
        lambda: model.plot(X, **{word: 1}),
        lambda: model.formula(**{word: 1}),
        lambda: model.auto_symbolic(X, **{word: 1}, steps="refused"),
        lambda: model.fix_symbolic(0, 0, 0, **{word: "x"}),
    )
    for call in calls:
        try:
            call()
        except (AttributeError, TypeError, ValueError) as error:
            answers.append(str(error))
        else:
            return "works"
    return next((text for text in answers if f"{word} is pykan's: expected" in text or f"{word}= is pykan's: expected" in text), None)


KNOWN = {
    *inspect.signature(KAN.fit).parameters,
    *inspect.signature(KAN).parameters,
    *inspect.signature(KAN.plot).parameters,
    *inspect.signature(KAN.auto_symbolic).parameters,
}


@pytest.mark.parametrize("word", words_of_pykan())
def test_a_word_of_pykan_works_or_is_answered(word):
    if word in FUNCTIONS or word in KNOWN or word == "dataset":  # dataset: tests/kan/test_migration.py
        return
    told = answer(word)
    assert told, f"{word}: expected a method, an argument, or words to write instead"
    if told != "works":
        assert (NAMES | ARGUMENTS)[word] in told


def words_of_methods():
    """Pairs of a method that is here and a word of pykan's for one of its arguments, which is not."""
    calls = re.findall(r"`(\w+)\(([^)]*)\)`", " ".join(row[0] for row in rows("pykan")))
    pairs = [(name, re.match(r"\w+", word)[0]) for name, listed in calls if hasattr(KAN, name) for word in listed.split(", ")]
    pairs += [("prune", "node_th"), ("prune", "edge_th")]
    return [pair for pair in pairs if pair[1] not in {*inspect.signature(getattr(KAN, pair[0])).parameters, "dataset", "l"}]


@pytest.mark.parametrize(("method", "word"), words_of_methods())
def test_a_method_answers_the_words_of_its_row(method, word):
    call = getattr(KAN([2, 1]), method)
    samples = {"X": X} if "X" in inspect.signature(call).parameters else {}
    with pytest.raises(TypeError, match=f"^{word}= is pykan's: expected {re.escape(ARGUMENTS[word])}$"):
        call(**samples, **{word: 1})


@pytest.mark.parametrize("words", [*NAMES.values(), *ARGUMENTS.values()])
def test_words_to_write_exist(words):
    """Methods, attributes and arguments that an answer names."""
    model = KAN([2, 1])
    for name in re.findall(r"\b(?:model|KAN)\.([a-z_]+)", words):
        assert hasattr(model, name), words
    for name in re.findall(r"(?<![.\w])([a-z_]+)\(", words):
        assert name in ("model", "requires_grad_") or hasattr(model, name), words
    arguments = {*KNOWN, *inspect.signature(KAN.suggest_symbolic).parameters, *inspect.signature(KAN.prune).parameters}
    arguments |= {*inspect.signature(KAN.fix_symbolic).parameters, *inspect.signature(KAN.update_grid).parameters}
    for name in re.findall(r"\b([A-Za-z_0-9]+)=", words):
        assert name in arguments, words
    for name in re.findall(r"kat_zoo\.kan\.operations\.structure\.(\w+)", words):
        assert hasattr(structure, name), words


# pykan: what is here.


@functools.cache
def _trained():
    model = KAN([2, 2, 1])
    model.fit(X, Y, steps=20)
    return model


def trained():
    return copy.deepcopy(_trained())


def values(model):
    with torch.no_grad():
        return model(X)


def same(one, other):
    torch.testing.assert_close(values(one), values(other), rtol=1e-6, atol=1e-8)


@holds("pykan", "`KAN(width, grid_size=3, spline_order=3, seed=0)`")
def _():
    parameters = inspect.signature(KAN).parameters
    assert [parameters[name].default for name in ("grid_size", "spline_order", "seed")] == [3, 3, 0] and next(iter(parameters)) == "width"
    same(KAN([2, 1]), KAN([2, 1], grid_size=3, spline_order=3, seed=0))


@holds("pykan", "`mult_arity`, `base`, `grid_range`, `noise_scale`")
def _():
    model = KAN([2, [1, 1], 1], mult_arity=3, base="identity", grid_range=(0, 2), noise_scale=0)
    assert model.layers[0].spline.out_features == 4 and model.edge(0, 0, 0)[1] == (0, 2)
    assert model.layers[0].spline.base == "identity" and not model.layers[0].spline.coef.any()


@holds("pykan", "none: base weights start as those of `nn.Linear`")
def _():
    ours, theirs = KAN([4, 500]).layers[0].spline.base_weight, torch.nn.Linear(4, 500).weight
    for weight in (ours, theirs):
        assert 0.49 < weight.abs().max() <= 0.5 and abs(weight.std() - 1 / 12**0.5) < 0.02


@holds("pykan", "`device`; none of the others")
def _():
    assert KAN([1, 1], device="meta").layers[0].spline.coef.is_meta


@holds("pykan", "none: `update_grid` has an argument `adapt`")
def _():
    steps = {}
    for adapt in (0, 0.9):
        model = KAN([2, 1])
        model.update_grid(X**3, adapt=adapt)
        steps[adapt] = model.layers[0].spline.knots[0, 3:-3].diff()
    assert steps[0].std() < 1e-9 < steps[0.9].std()


@holds(
    "pykan",
    'none; parameters with `requires_grad = False` stay as they are, with `"lm"` the splines and the base of a layer together',
)
def _():
    for optimizer in ("lm", "lbfgs", "adam"):
        model = KAN([2, 2, 1])
        frozen = {name: p for name, p in model.named_parameters() if name.startswith("layers.1.spline")}
        for parameter in frozen.values():
            parameter.requires_grad = False
        before, free = {name: p.clone() for name, p in frozen.items()}, model.layers[0].spline.coef.clone()
        model.fit(X, Y, optimizer=optimizer, steps=3)
        assert all(torch.equal(p, before[name]) for name, p in frozen.items())
        assert not torch.equal(model.layers[0].spline.coef, free)
        alone = KAN([2, 1])
        alone.layers[0].spline.base_weight.requires_grad = False
        before = alone.layers[0].spline.base_weight.clone()
        with pytest.raises(ValueError, match="both or neither") if optimizer == "lm" else contextlib.nullcontext():
            alone.fit(X, Y, optimizer=optimizer, steps=3)
        assert torch.equal(before, alone.layers[0].spline.base_weight)


@holds(
    "pykan",
    "none: there are no caches to turn off, and only symbolic edges cost anything; `torch.compile` works",  # tests/kan/test_network.py
)
def _():
    model = KAN([2, 2, 1])
    before = set(vars(model)) | set(vars(model.layers[0]))
    model(X)
    assert set(vars(model)) | set(vars(model.layers[0])) == before
    assert list(model.layers[0].symbolic_edges(X)) == []
    model.fix_symbolic(0, 0, 0, "sin")
    assert len(list(model.layers[0].symbolic_edges(X))) == 1


@holds("pykan", "none: nothing is written by itself")
def _():
    trained().prune(X).fit(X, Y, steps=2)
    assert list(Path().iterdir()) == []


@holds("pykan", "any leading dimensions")
def _():
    assert KAN([2, 3])(X.view(4, 5, 4, 2)).shape == (4, 5, 4, 3) and KAN([2, 3])(X[0]).shape == (3,)


@holds(
    "pykan",
    "none: `fit` and the other methods refuse samples for which the network has no value, and the message names the edge; "
    "`kan(X)` is NaN there",
)
def _():
    model = KAN([2, 1])
    model.fix_symbolic(0, 1, 0, "log", affine=(1, 0, 1, 0))
    for call in (lambda: model.fit(X, Y), lambda: model.prune(X), lambda: model.attribute(X), lambda: model.plot(X)):
        with pytest.raises(ValueError, match=r"edge \(0, 1, 0\), log has no finite value"):
            call()
    assert torch.equal(values(model).isnan()[:, 0], X[:, 1] < 0)


@holds("pykan", "`to`, of torch; state lies in buffers")
def _():
    model = trained().to(torch.float32)
    assert model(X.float()).dtype == torch.float32
    assert {"function", "spline.knots", "spline.mask"} <= {name for name, _ in model.layers[0].named_buffers()}


@holds("pykan", '`KAN.fit` with `optimizer="lbfgs"`, `steps`, `l1`, `entropy`; `"lm"` is the default and more exact')
def _():
    assert inspect.signature(KAN.fit).parameters["optimizer"].default == "lm"
    assert KAN([2, 2, 1]).fit(X, Y, steps=20).best < KAN([2, 2, 1]).fit(X, Y, optimizer="lbfgs", steps=20).best
    KAN([2, 1]).fit(X, Y, optimizer="lbfgs", steps=2, l1=1e-3, entropy=1e-3)


@holds("pykan", "`coef_smoothness`, on second differences")
def _():
    rough = {}
    for penalty in (0.0, 1.0):
        model = KAN([2, 1], grid_size=10)
        model.fit(X, Y, coef_smoothness=penalty, steps=10)
        rough[penalty] = model.layers[0].spline.coef.diff(n=2, dim=1).square().sum()
    assert rough[1.0] < rough[0.0] / 2


@holds("pykan", "`update_grid=False`, `batch_size`, `loss`, `lr`")
def _():
    model = KAN([2, 1])
    before, seen = model.layers[0].spline.knots.clone(), []

    def loss(prediction, y):
        seen.append(len(y))
        return (prediction - y).abs().mean(1)

    model.fit(3 * X, Y, optimizer="adam", update_grid=False, batch_size=16, loss=loss, lr=1e-2, steps=3)
    assert 16 in seen and torch.equal(before, model.layers[0].spline.knots)


@holds("pykan", "none: call `fit` with few steps in a loop, and measure or draw between")
def _():
    model = KAN([2, 2, 1])
    errors = []
    for _ in range(3):
        model.fit(X, Y, steps=2)
        errors.append(float((values(model) - Y).square().mean()))
    assert errors == sorted(errors, reverse=True) and errors[2] < errors[0]


@holds("pykan", "none: `l1` and `entropy` of `fit`; `parameters()`")
def _():
    sizes = []
    for l1 in (0.0, 1.0):
        model = KAN([2, 1])
        model.fit(X, Y, optimizer="lbfgs", steps=5, l1=l1, entropy=l1)
        sizes.append(model.layers[0].edges(X).std(0).sum())
    assert sizes[1] < sizes[0] and len(list(model.parameters())) > 0


@holds("pykan", "`kan(X)` and a line; the history of `fit` has the errors")
def _():
    model = KAN([2, 2, 1])
    history = model.fit(X, Y, X[:20], Y[:20], steps=10)
    assert abs(float((values(model)[:20] - Y[:20]).square().mean().sqrt()) - min(history.val)) < 1e-6 and len(history.train) > 1


@holds("pykan", "`KAN.update_grid`")
def _():
    model = KAN([2, 1])
    model.update_grid(9 * X)
    low, high = model.edge(0, 0, 0)[1]
    assert low < 9 * float(X[:, 0].min()) and high > 9 * float(X[:, 0].max())


@holds(
    "pykan",
    "`KAN.refine`, in place, and exact for a finer grid; `grid_schedule` of `fit`",
    "`copy.deepcopy`, then `KAN.refine`",
)
def _():
    model, other = trained(), trained()
    for size in (4, 10):
        assert other.refine(size) < 1e-10 and other.grid_size == size
        torch.testing.assert_close(values(other), values(model), rtol=1e-9, atol=1e-9)
    assert model.grid_size == 3
    other.fit(X, Y, grid_schedule=(12, 15), steps=1, early_stopping=False)
    assert other.grid_size == 15


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


def test_four_habits_of_a_network(tmp_path, monkeypatch, capsys, threads):
    """float64, samples as an argument, arrays or tensors, and no side effects."""
    threads(1)
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    model = KAN([2, 2, 1])
    assert {p.dtype for p in model.parameters()} == {torch.float64} and KAN([2, 1], dtype=torch.float32).dtype == torch.float32
    state = {name: set(vars(module)) for name, module in model.named_modules()}
    model.fit(X.numpy(), Y.numpy(), optimizer="lbfgs", steps=2)
    model.fit(X, Y, steps=2)
    model.attribute(X)
    model.plot(X)
    model.suggest_symbolic(0, 0, 0, X)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == state
    for method in (model.plot, model.attribute, model.prune, model.update_grid, model.auto_symbolic):
        with pytest.raises(TypeError, match="X"):
            method()
    with pytest.raises(TypeError, match="X is a dict"):
        model.fit({"train_input": X})
    model.prune(X).expand_width(1).expand_depth().formula()
    assert torch.equal(before[0], torch.get_rng_state()) and random.getstate() == before[2]
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_pykan_is_not_read(tmp_path):
    torch.save(KAN([2, 1]).state_dict(), tmp_path / "mark_state")
    (tmp_path / "mark_config.yml").write_text("width: [2, 1]")
    for name in ("mark_state", "mark_config.yml"):
        with pytest.raises(ValueError, match="is not a safetensors file"):
            KAN.load(tmp_path / name)


# Adamdad/kat.


@holds("kat", "`import kat_zoo`, the same name")
def _():
    model = timm.create_model("kat_tiny_patch16_224", device="meta")
    assert isinstance(model, VisionTransformer) and type(model).__module__.startswith("kat_zoo")


@holds("kat", "`kat_tiny_patch16_224.adamdad_vitft_in1k`")
def _():
    assert get_pretrained_cfg("kat_tiny_patch16_224.adamdad_vitft_in1k").hf_hub_id == "adamdad/kat_tiny_patch16_224.vitft"
    assert get_pretrained_cfg("kat_tiny_patch16_224.adamdad_in1k").hf_hub_id == "adamdad/kat_tiny_patch16_224"
    assert get_pretrained_cfg("kat_tiny_patch16_224").tag == "adamdad_in1k"


def pico(**options):
    return timm.create_model("kat_pico_patch4_28", **options).eval()


@holds("kat", "`kat-zoo convert`, or `checkpoint_path` of `create_model`")
def _():
    model = pico()
    torch.save(model.state_dict(), "kat.pth")
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(pico(checkpoint_path="kat.pth")(x), model(x))
    assert run(["convert", "kat.pth", "folder", "--model", "kat_pico_patch4_28"]) == 0
    assert torch.equal(timm.create_model("local-dir:folder", pretrained=True).eval()(x), model(x))


@holds("kat", "`kat_zoo.layers.GroupRational`; the gelu fit is right for the formula that is computed")
def _():
    x = torch.linspace(-3, 3, 80)[:, None].expand(80, 8)
    layer = GroupRational(init="gelu")
    assert (layer(x) - torch.nn.functional.gelu(x)).abs().max() < 0.01
    a, b = layer.weight_numerator[0], layer.weight_denominator[0].abs()
    written = sum(a[n] * x**n for n in range(6)) / (1 + sum(b[n] * x.abs() ** (n + 1) for n in range(4)))
    torch.testing.assert_close(layer(x), written, rtol=1e-4, atol=1e-5)


@holds("kat", "`kat_zoo.layers.GRKAN`")
def _():
    layer = GRKAN(in_features=16, hidden_features=32)
    assert layer(torch.rand(2, 5, 16)).shape == (2, 5, 16) and layer.fc1.out_features == 32


@holds("kat", "ValueError")
def _():
    for call in (lambda: GroupRational(8)(torch.rand(2, 30)), lambda: GRKAN(30), lambda: GRKAN(32, 30)):
        with pytest.raises(ValueError, match="8"):
            call()


@holds("kat", "any shape and strides; `channel_dim` for convolutions")
def _():
    check_shapes_and_strides()
    x = torch.rand(2, 16, 5, 7)
    torch.testing.assert_close(GroupRational(channel_dim=1)(x), GroupRational()(x.movedim(1, -1)).movedim(-1, 1))


@holds("flashkat", "any shape and strides")
def check_shapes_and_strides():
    layer, x = GroupRational(), torch.rand(7, 16, 5)
    expected = layer(x.transpose(1, 2).contiguous())
    assert torch.equal(layer(x.transpose(1, 2)), expected) and torch.equal(layer(x[0, :, 0]), expected[0, 0])


@holds("kat", "compiled; see [the activation](../results.md#the-activation)")
def _():
    check_cpu_library()
    rows = read(ROOT / "benchmarks" / "rational.csv")
    eager = [float(row["ratio_to_gelu"]) for row in rows if row["method"] == "eager PyTorch" and row["pass"] == "forward"]
    claimed = re.search(r"formula in plain PyTorch, (\d+) to (\d+) times", (PAGES / "kat.md").read_text())
    assert [round(min(eager)), round(max(eager))] == [int(number) for number in claimed.groups()]


@holds("flashkat", "compiled C++")
def check_cpu_library():
    from kat_zoo.kernels import cpu_library

    assert cpu_library._library_path().is_file()


@holds("kat", "`kat-zoo train --config kat_tiny_patch16_224_in1k`, or timm's own: `python -m kat_zoo.timm train.py`")
def _():
    assert configuration(["train", "--config", "kat_tiny_patch16_224_in1k"])["model"]["name"] == "kat_tiny_patch16_224"


@holds("kat", "`kat-zoo validate --model.name kat_tiny_patch16_224`")
def _():
    model = configuration(["validate", "--model.name", "kat_tiny_patch16_224"])["model"]
    assert (model["name"], model["pretrained"]) == ("kat_tiny_patch16_224", True)


@holds("kat", "`kat_zoo.dense`")
def _():
    names = " ".join(kat_zoo.dense.__all__).lower()
    assert "detect" in names or "rcnn" in names
    assert "upernet" in names


@holds("kat", "both work, with torch.export and ONNX")  # the last two: tests/test_export.py
def _():
    model, x = pico(), torch.rand(2, 1, 28, 28)
    for other in (torch.jit.script(model), torch.fx.symbolic_trace(model)):
        torch.testing.assert_close(other(x), model(x))


def test_state_dicts_have_upstreams_names():
    upstream = ["act1.weight_denominator", "act1.weight_numerator", "act2.weight_denominator", "act2.weight_numerator"]
    upstream += ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]
    assert sorted(pico().blocks[0].mlp.state_dict()) == upstream


# FlashKAT.


@holds("flashkat", "`weight_numerator`, `weight_denominator`; theirs are read")
@holds("flashkat", "`share_numerator=False` of `kat_zoo.layers.GroupRational`")
def _():
    theirs = {"numerator_v": torch.randn(8, 6), "denominator_v": torch.randn(8, 4)}
    layer = GroupRational(num_groups=8, share_numerator=False)
    assert layer.weight_numerator.shape == (8, 6)
    layer.load_state_dict(dict(theirs))
    assert torch.equal(layer.weight_numerator, theirs["numerator_v"]) and torch.equal(layer.weight_denominator, theirs["denominator_v"])


@holds("flashkat", "none: partial sums in a fixed order, so a backward pass repeats bit for bit")  # on GPUs: test_rational_triton.py
def _():
    layer, x, found = GroupRational(), torch.randn(5000, 32), []
    for _ in range(3):
        layer.zero_grad()
        layer(x).square().sum().backward()
        found.append(layer.weight_denominator.grad.clone())
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_instructions_beside_flashkats():
    text = (PAGES / "flashkat.md").read_text()
    sentence = r"execute (\d+) instructions an element forward and (\d+) to (\d+) backward, ours (\d+) to (\d+) and (\d+) to (\d+)"
    found = re.search(sentence, text)
    rows = [row for row in json.loads((RESULTS / "flashkat.json").read_text()) if row["arch"] == "sm_90"]

    def ends(kernel):
        counts = [row["instructions_per_element"] for row in rows if row["kernel"] == kernel and row["group_width"] in (24, 96, 384)]
        return [round(min(counts)), round(max(counts))]

    expected = [ends("rational_fwd")[0], *ends("rational_bwd"), *ends("rational_forward"), *ends("rational_backward")]
    assert ends("rational_fwd")[0] == ends("rational_fwd")[1]
    assert [int(number) for number in found.groups()] == expected


# KArAt.


def karat(kind="b", **options):
    return timm.create_model(f"karat_tiny_g3{kind}_patch16_224", **SMALL | options).eval()


def operators(model):
    return [list(block.attn.operators) for block in model.blocks]


@holds("karat", "`karat_tiny_g3b_patch16_224`", '`karat_tiny_g3u_patch16_224`, or `mode="universal"`')
def _():
    blockwise, universal, same_mode = operators(karat()), operators(karat("u")), operators(karat(mode="universal"))
    assert blockwise[0][0] is not blockwise[1][0]
    assert universal[0][0] is universal[1][0] and same_mode[0][0] is same_mode[1][0]


@holds("karat", "`grid_size`, one number or one for each layer; `num_harmonics` of `kat_zoo.layers.FourierHeads`")
def _():
    one, five, each = (operators(karat(grid_size=size)) for size in (1, 5, [1, 5]))
    shapes = [[tuple(p.shape) for p in heads[0].parameters()] for heads in (one[0], five[1])]
    assert [[tuple(p.shape) for p in heads[0].parameters()] for heads in each] == shapes and shapes[0] != shapes[1]
    assert [tuple(p.shape) for p in FourierHeads(3, 17, num_harmonics=5).parameters()] == shapes[1]


@holds("karat", "`rank`")
def _():
    assert inspect.signature(FourierHeads).parameters["rank"].default == 12
    assert sum(p.numel() for p in karat(rank=4).parameters()) < sum(p.numel() for p in karat().parameters())
    assert sum(p.numel() for p in karat(rank=12).parameters()) == sum(p.numel() for p in karat().parameters())


@holds("karat", "`hybrid_heads`, the first heads of a layer")
def _():
    attention = karat(hybrid_heads=1).blocks[0].attn.operators
    assert [type(part).__name__ for part in attention] == ["SoftmaxHeads", "FourierHeads"] and attention.head_counts == [1, 2]


@holds("karat", "`base_function`", "`operator_order`", "`basis`, in `kat_zoo.layers.GeneralHeads`", "`projection`")
def _():
    options = (
        ("base_function", "silu"),
        ("operator_order", "phi_w"),
        ("basis", "rational"),
        ("basis", "morlet"),
        ("projection", "simplex"),
    )
    for name, value in options:
        model = karat(**{name: value})
        assert isinstance(operators(model)[0][0], GeneralHeads) and model(IMAGES).isfinite().all()
    top1 = ablations()
    assert top1["projection", "simplex"] < top1["baseline", "fourier G3 r8"] - 5  # "which hurts"


@holds("karat", '`operator_init="normal"`; the default is scaled, which trains better')
def _():
    normal = operators(karat(operator_init="normal"))[0][0]
    assert any(abs(p.std() - 1) < 0.1 and p.numel() > 1000 for p in normal.parameters())
    same_init = [p.std() for p in operators(karat(operator_init="scaled"))[0][0].parameters()]
    default = [p.std() for p in operators(karat())[0][0].parameters()]
    torch.testing.assert_close(torch.stack(default), torch.stack(same_init), rtol=0.2, atol=0.01)
    assert ablations()["baseline", "fourier G3 r8"] > ablations()["init", "normal"]


@holds("karat", "`edge_scale=True`")  # the counts of the table: tests/models/test_karat.py
def _():
    assert sum(p.numel() for p in karat(edge_scale=True).parameters()) > sum(p.numel() for p in karat().parameters())


@holds("karat", "`set_input_size` interpolates, [at a price](../attention.md#another-image-size)")
def _():
    model = karat()
    before = model(IMAGES)
    model.set_input_size((96, 96))
    assert model(torch.rand(1, 3, 96, 96)).isfinite().all()
    model.set_input_size((64, 64))
    assert not torch.allclose(model(IMAGES), before)


def ablations():
    rows = read(RESULTS / "karat_ablations.csv")
    return {(row["group"], row["variant"]): float(row["top1"]) for row in rows}


# timm's train.py.


def run(words):
    """Exit code of kat-zoo."""
    try:
        return main(words)
    except SystemExit as stop:
        return stop.code


def configuration(words):
    """The recipe that a command line means."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run([*words, "--print_config"]) in (0, None)
    return yaml.safe_load(printed.getvalue())


VALUES = {
    "--model.name": "kat_pico_patch4_28",
    "--model.kwargs": "{drop_rate: 0.1}",
    "--model.checkpoint": "file.pth",
    "--data.root": "folder",
    "--data.dataset": "folder",
    "--data.batch_size": "64",
    "--data.workers": "1",
    "--data.crop_pct": "0.8",
    "--optimizer.lr": "0.002",
    "--optimizer.weight_decay": "0.1",
    "--optimizer.layer_decay": "0.7",
    "--optimizer.clip_grad": "1.0",
    "--optimizer.grad_accum": "2",
    "--schedule.epochs": "7",
    "--schedule.warmup_epochs": "2.0",
    "--schedule.min_lr": "0.0001",
    "--augment.auto_augment": "rand-m7",
    "--augment.mixup": "0.3",
    "--augment.cutmix": "0.3",
    "--augment.random_erasing": "0.2",
    "--augment.smoothing": "0.2",
    "--augment.repeats": "3",
    "--ema.decay": "0.0",
    "--distill.teacher": "vit_tiny_patch16_224",
    "--output": "folder",
}


def check_options(claim):
    """A command line of the row's options is understood, each with its value."""
    pairs = [(name, value or VALUES.get(name)) for name, value in re.findall(r"`(--[\w.]+)(?: ([^`]+))?`", claim)]
    pairs = [(name, VALUES[name] if re.fullmatch(r"[A-Z]+", value) else value) for name, value in pairs]
    found = configuration(["train", *(word for pair in pairs for word in pair)])
    for name, value in pairs:
        node = functools.reduce(lambda tree, key: tree[key], name[2:].split("."), found)
        assert node == yaml.safe_load(value), name


for row in rows("timm"):
    if row[-1].startswith("`--"):
        holds("timm", row[-1])(functools.partial(check_options, row[-1]))


def test_weights_are_averaged_by_default():
    assert configuration(["train"])["ema"]["decay"] > 0


# PySR and gplearn.


@functools.cache
def quotient():
    return KANRegressor(symbolic=True, max_seconds=30, random_state=0).fit(TABLE, TABLE[:, 0] / TABLE.sum(1))


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


@holds("symbolic_regression", "none: description length on held-out rows")
def _():
    model = quotient()
    assert model.held_out_ > 0 and not {"parsimony", "model_selection"} & {*inspect.signature(KANRegressor).parameters}


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
