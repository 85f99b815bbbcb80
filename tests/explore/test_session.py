"""A session without a page: steps, undo, and a script that really repeats them."""

import base64
import copy
import json
import subprocess
import sys

import httpx
import numpy as np
import pytest
import sympy
import torch

from kat_zoo.explore import Session, fronts, searching, views
from kat_zoo.explore.formulas import labels, latex_label
from kat_zoo.explore.state import FrontRow
from kat_zoo.kan import KAN, KANRegressor

X1, X2 = sympy.symbols("x_1 x_2")
TOY = sympy.exp(sympy.sin(sympy.pi * X1) + X2**2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For the fixtures below, too: sums of several threads differ in their last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained():
    session = Session()
    session.do("open_example", {"name": "toy"})
    session.do("train", {"hidden": [3], "sparsity": 0.01, "chunks": 3})
    return session.to_bytes()


@pytest.fixture
def session(trained):
    return Session.from_bytes(trained)


def test_a_search_finds_the_toy_function_and_holds_it_against_unseen_rows():
    session = Session()
    session.do("open_example", {"name": "toy"})
    session.do("search")
    full, printed = session.state.expressions()
    assert full == printed == TOY
    view = views.formula_view(session.state)
    assert view["exact"] and view["held"] == 200 and view["latex"] == r"z = e^{y^{2} + \sin{\left(\pi x \right)}}"
    # An independent reference: the rows themselves.
    problem = session.state.problem
    expected = np.exp(np.sin(np.pi * problem.X[:, 0]) + problem.X[:, 1] ** 2)
    np.testing.assert_allclose(session.state.predict(problem.X), expected, rtol=1e-12)
    assert np.allclose(problem.y, expected)
    scope = {}
    exec(view["code"]["numpy"], scope)
    np.testing.assert_allclose(scope["formula"](*problem.X.T), expected, rtol=1e-12)
    assert "double formula(double x, double y)" in view["code"]["c"]
    shorter = session.do("take", {"row": 0})
    assert shorter.chosen == 0 and not views.formula_view(shorter)["exact"]


def test_a_formula_of_noisy_data_is_not_called_exact():
    session = Session()
    session.do("open_example", {"name": "decay"})
    session.do("search", {"seconds": 20})
    view = views.formula_view(session.state)
    assert view["symbolic"] and not view["exact"] and 1e-3 < view["error"] < 0.1


def test_too_few_rows_verify_nothing():
    session = Session()
    session.do("open_example", {"name": "planets"})
    session.do("search", {"seconds": 20})
    view = views.formula_view(session.state)
    assert view["held"] == 0 and not view["exact"]


def test_every_step_is_undone_and_made_again(session):
    steps = [
        ("prune", {"threshold": 0.05}),
        ("train", {"chunks": 2}),
        ("add_node", {"layer": 1}),
        ("remove_node", {"layer": 1, "node": 1}),
        ("restore_node", {"layer": 1, "node": 1}),
        ("fix", {"edge": [0, 0, 0], "function": "sin"}),
        ("unfix", {"edge": [0, 0, 0]}),
        ("remove_edge", {"edge": [0, 1, 0]}),
        ("restore_edge", {"edge": [0, 1, 0]}),
        ("auto", {"edges": [[0, 0, 0]]}),
    ]
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = [session.state.network(x)]
    for name, options in steps:
        values.append(session.do(name, options).network(x))
    last = session.position
    for n in range(len(steps), -1, -1):
        assert torch.equal(session.state.network(x), values[n])
        session.undo()
    assert session.position == last - len(steps) - 1
    for n in range(len(steps) + 1):
        session.redo()
        assert torch.equal(session.state.network(x), values[n])
    session.undo()
    session.do("train", {"chunks": 1})
    assert len(session.steps) == session.position == last  # the step that was undone is forgotten


def test_removing_an_edge_keeps_the_mean_and_restoring_it_brings_its_shape_back(session):
    before = session.state
    A = before.scales.inputs(before.problem.X)
    old = before.network(A).detach()
    removed = session.do("remove_edge", {"edge": [1, 0, 0]}).network
    assert removed.edge_kind(1, 0, 0) == "pruned"
    torch.testing.assert_close(removed(A).detach().mean(), old.mean())
    restored = session.do("restore_edge", {"edge": [1, 0, 0]}).network
    torch.testing.assert_close(restored(A).detach(), old, atol=1e-9, rtol=1e-9)


def test_a_removed_node_is_restored_with_its_shape(session):
    before = session.state
    A = before.scales.inputs(before.problem.X)
    old = before.network(A).detach()
    removed = session.do("remove_node", {"layer": 1, "node": 1})
    view = views.network_view(removed)
    assert view["nodes"] == [2, 3, 1] and view["removed"] == [[], [1], []] and view["node_scores"][1][1] == 0
    off = removed.network(A).detach()
    torch.testing.assert_close(off.mean(), old.mean())
    assert (off - old).abs().max() > 1e-3
    restored = session.do("restore_node", {"layer": 1, "node": 1})
    torch.testing.assert_close(restored.network(A).detach(), old, atol=1e-9, rtol=1e-9)
    assert views.network_view(restored)["removed"] == [[], [], []]
    for node in range(2):
        session.do("remove_node", {"layer": 1, "node": node})
    with pytest.raises(ValueError, match="at least two nodes"):
        session.do("remove_node", {"layer": 1, "node": 2})
    session.do("remove_edge", {"edge": [1, 2, 0]})  # the last edge of the output, which becomes its constant
    assert views.network_view(session.state)["removed"] == [[], [0, 1, 2], []]
    back = session.do("restore_node", {"layer": 1, "node": 2}).network
    assert back.edge_kind(1, 2, 0) == "numeric"


def test_the_script_repeats_the_session(session, tmp_path):
    session.do("prune", {"threshold": 0.05})
    session.do("train", {"chunks": 2})
    session.do("fix", {"edge": [0, 0, 0], "function": "sin"})
    session.do("remove_edge", {"edge": [0, 1, 0]})
    session.do("remove_node", {"layer": 1, "node": 0})
    session.do("restore_node", {"layer": 1, "node": 0})
    run = subprocess.run([sys.executable, "-c", session.script()], cwd=tmp_path, capture_output=True, text=True, check=True)
    formula, error = run.stdout.strip().splitlines()
    assert formula == str(session.state.expressions()[1])
    assert float(error.split()[2]) == pytest.approx(session.state.error(), rel=1e-3)


def test_a_saved_search_opens_with_the_formulas_that_it_found(monkeypatch):
    """Made again, a search that the clock ended finds others."""
    session = Session()
    session.do("open_example", {"name": "decay"})
    session.do("search", {"seconds": 3})
    session.do("take", {"row": 1})
    monkeypatch.setattr(searching.KANRegressor, "fit", lambda *_: pytest.fail("searched again"))
    again = Session.from_json(session.to_json())
    assert again.state.front == session.state.front and again.state.chosen == 1
    assert views.formula_view(again.state) == views.formula_view(session.state)
    assert again.script() == session.script()


EXPRESSIONS = ("3*(x_1 + 1)**0.5 - pi*sin(2*x_2)/7", "-x_1*exp(-x_2)*Abs(x_1)", "phi_0_0_0(x_1)", "besselj(0, x_1)", "sign(x_1)", "E")


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_formula_is_read_as_it_was_written(text):
    full = sympy.sympify(text)
    row = FrontRow(3, 0.25, sympy.Mul(sympy.Float("0.1234567890123456789", 17), full, evaluate=False), full)
    (found,) = fronts.read(json.loads(json.dumps(fronts.write([row]))), ["x_1", "x_2"])
    assert found == row and str(found.full) == str(row.full)


@pytest.mark.parametrize(
    "full",
    ["__import__('os')", "y", "1/0", "9" * 500, 7, None, [], ["Add"], ["sin"], ["sin", "x_1", "x_1"], ["Integer", "5"], ["f", "x_1"],
     ["Float", "0x1", 0, 53], ["Float", "15", -1, 10**9], ["Float", "1", 10**9, 53], ["Float", 1.5, 0, 53], ["Float", "15"],
     [["Add"], "1"], ["phi_0_0_0", "y"], ["Symbol", "x_1"]],
)  # fmt: skip
def test_a_formula_that_is_none_is_refused(full):
    with pytest.raises(ValueError, match="formula"):
        fronts.read([{"complexity": 1, "loss": 0.0, "full": full, "printed": "1"}], ["x_1"])


def test_a_formula_of_many_parts_within_another_is_refused():
    tree = "x_1"
    for _ in range(5000):
        tree = ["Abs", tree]
    with pytest.raises(ValueError, match="formula"):
        fronts.read([{"complexity": 1, "loss": 0.0, "full": tree, "printed": "1"}], ["x_1"])


@pytest.mark.parametrize("found", [[], {}, [1], [{"loss": "a"}], [{"complexity": -1, "loss": 0, "full": "pi", "printed": "pi"}], "a"])
def test_formulas_that_are_none_are_refused(found):
    with pytest.raises(ValueError, match="found|complexity"):
        fronts.read(found, ["x_1"])


def test_a_saved_session_is_repeated(session):
    again = Session.from_json(session.to_json())
    x = torch.rand(9, 2, dtype=torch.float64)
    assert torch.equal(again.state.network(x), session.state.network(x))
    for text in ("", "{}", "[1]", '{"kat_zoo_explore": 9, "steps": []}', "[" * 5000, '{"kat_zoo_explore": 1, "steps": [{"step": "x"}]}'):
        with pytest.raises(ValueError, match="session|version"):
            Session.from_json(text)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("nonsense", {}, "step"),
        ("train", {"hidden": [5], "speed": 9}, "other options"),
        ("train", {"hidden": [99]}, "hidden=99"),
        ("train", {"hidden": [5, 5, 5, 5]}, "at most 3 layers"),
        ("train", {"hidden": 5}, "step 'train'"),
        ("train", {"chunks": 10**9}, "chunks="),
        ("train", {"sparsity": float("nan")}, "sparsity="),
        ("prune", {"threshold": -1}, "threshold="),
        ("fix", {"edge": [9, 0, 0], "function": "sin"}, "layer=9"),
        ("fix", {"edge": "abc", "function": "sin"}, "layer='a'"),
        ("fix", {"edge": [0, 0, 0], "function": "__import__('os')"}, "function="),
        ("remove_node", {"layer": 0, "node": 0}, "layer=0"),
        ("remove_node", {"layer": 1, "node": 9}, "node=9"),
        ("restore_node", {"layer": 1, "node": 0}, "expected a removed node"),
        ("add_node", {"layer": 9}, "layer=9"),
        ("take", {"row": 0}, "no formulas"),
        ("choose", {"inputs": ["x"], "target": "nothing"}, "'nothing'"),
        ("open_example", {"name": "x"}, "name='x'"),
        ("open_file", {"name": "t.csv", "data": "%%%"}, "base64"),
        ("unfix", {"edge": [0, 0, 0]}, "symbolic edge"),
    ],
)
def test_refused_steps_change_nothing(session, name, options, message):
    before = session.to_bytes()
    with pytest.raises(ValueError, match=message):
        session.do(name, options)
    assert session.to_bytes() == before


def test_steps_ask_for_those_before_them():
    for name, options, message in (("train", {"hidden": [2]}, "no columns"), ("prune", {"threshold": 0.1}, "no columns|no network")):
        with pytest.raises(ValueError, match=message):
            Session().do(name, options)


def test_an_interrupt_keeps_the_parts_of_a_training_that_were_done(session):
    def interrupt(news):
        if news.get("progress", 0) >= 0.2:
            raise KeyboardInterrupt

    session.do("train", {"chunks": 10, "hidden": [2]}, interrupt)
    assert session.steps[-1].options["chunks"] == 2 and session.state.losses[-1][0] == 20


HOSTILE = ["a b", "<img src=x onerror=alert(1)>", "température", "x_1", "1+1", r"\input{/etc/passwd}", 'q"; import os', "lambda", "变量"]

SCRIPTED = HOSTILE[2], HOSTILE[6]  # each takes a new Python


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_of_a_column_goes_through(name, tmp_path):
    x = np.linspace(-1, 1, 60)
    header = '"' + name.replace('"', '""') + '",other,y'
    rows = "\n".join(f"{a},{b},{2 * a + b}" for a, b in zip(x, np.sin(9 * x), strict=True))
    data = f"{header}\n{rows}\n".encode()
    session = Session()
    session.do("open_file", {"name": "t.csv", "data": base64.b64encode(data).decode()})
    session.do("search", {"seconds": 20})
    view = views.formula_view(session.state)
    assert view["exact"] and view["symbolic"]
    assert r"\input" not in view["latex"]
    compile(view["code"]["numpy"], "formula", "exec")
    compile(session.script(), "script", "exec")
    if name not in SCRIPTED:
        return
    (tmp_path / "t.csv").write_bytes(data)
    run = subprocess.run([sys.executable, "-c", session.script()], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "2*x_1" in run.stdout


def test_columns_that_differ_in_brackets_keep_them():
    """Without these, inside - outside was T - T."""
    x, z = np.random.default_rng(0).uniform(0, 9, (2, 40))
    rows = "\n".join(f"{a},{b},{3.5 * (a - b)}" for a, b in zip(x, z, strict=True))
    data = f"T (inside),T (outside),loss [W]\n{rows}\n".encode()
    session = Session()
    session.do("open_file", {"name": "t.csv", "data": base64.b64encode(data).decode()})
    session.do("search", {"seconds": 20})
    view = views.formula_view(session.state)
    assert view["exact"] and view["latex"].startswith(r"\mathrm{loss} = ")
    for names in (view["latex"], json.dumps(view["math"])):
        assert "inside" in names and "outside" in names
    assert labels(session.state.problem) == {"T (inside)": "T (inside)", "T (outside)": "T (outside)", "loss [W]": "loss"}


def test_names_in_latex():
    assert latex_label("m") == "m" and latex_label("x_1") == "x_{1}"
    assert latex_label("50% & {more}") == r"\mathrm{50\%\ \&\ \{more\}}"


def test_a_wide_table_begins_with_its_strongest_columns():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(200, 30))
    y = X[:, 7] ** 2 + X[:, 19]
    text = ",".join([*(f"c{i}" for i in range(30)), "y"]) + "\n" + "\n".join(",".join(map(str, row)) for row in np.column_stack([X, y]))
    session = Session()
    state = session.do("open_file", {"name": "wide.csv", "data": base64.b64encode(text.encode()).decode()})
    assert len(state.problem.inputs) == 8 and {"c7", "c19"} <= set(state.problem.inputs)


def test_a_preview_of_pruning_tells_what_pruning_does(session):
    view = views.prune_view(session.state, 0.05)
    before = session.state
    after = session.do("prune", {"threshold": 0.05}).network
    assert after.nodes == view["nodes"] and after.num_edges() == view["edges"]
    assert len(view["gone"]) >= before.network.num_edges() - after.num_edges() > 0
    one_by_one = copy.deepcopy(before.network)
    for edge in view["gone"]:
        one_by_one.remove_edge(*edge)
    one_by_one = one_by_one.prune(before.scales.inputs(before.problem.X), 0, 0)  # nodes that are left without edges
    assert one_by_one.nodes == after.nodes and one_by_one.num_edges() == after.num_edges()
    assert view["after"] == pytest.approx(session.state.error(), rel=1e-4)


def test_the_view_of_an_edge_has_fits(session):
    session.do("train", {"chunks": 3})
    view = views.edge_view(session.state, [0, 0, 0])
    assert len(view["x"]) == len(view["y"]) and view["candidates"][0]["r2"] > 0.9
    assert all(len(one["fit"]) == len(view["x"]) for one in view["candidates"])


def test_an_estimator_opens_its_page(monkeypatch):
    generator = np.random.default_rng(0)
    X = generator.uniform(100, 300, (200, 2))
    model = KANRegressor(hidden=(2,)).fit(X, X[:, 0] * X[:, 1])
    seen = {}
    monkeypatch.setattr(
        "kat_zoo.explore.command.Page", lambda server, port: seen.update(server=server) or seen.setdefault("page", Started())
    )
    assert model.explore(browser=False) is seen["page"]
    session = Session.from_bytes(seen["server"].first)
    np.testing.assert_allclose(session.state.predict(X[:9]), model.predict(X[:9]), rtol=1e-9)
    assert session.state.error() < 1e-9
    again = Session.from_json(session.to_json())
    np.testing.assert_allclose(again.state.predict(X[:9]), model.predict(X[:9]), rtol=1e-9)
    network = KAN([2, 1], 3)
    network.explore(X / 100, browser=False)
    with pytest.raises(ValueError, match="one output|2 outputs"):
        KANRegressor(hidden=(2,)).fit(X, X).explore(browser=False)


def test_the_page_of_an_estimator_is_served_by_the_process_that_called():
    """As in a notebook: the cell ends, the page is a link and goes on, until it is closed."""
    X = np.random.default_rng(0).uniform(-1, 1, (100, 2))
    page = KANRegressor(hidden=(2,)).fit(X, X[:, 0] * X[:, 1]).explore(browser=False)
    try:
        assert f'href="{page.url}"' in page._repr_html_()
        with httpx.Client(base_url=page.url, timeout=60) as client:
            assert "kat-zoo" in client.get("").text
            name = client.post("api/sessions", headers={"Origin": page.url.rsplit("/", 2)[0]}).json()["session"]
            view = client.get(f"api/sessions/{name}").json()["view"]
        assert view["network"]["nodes"][0] == 2 and view["history"]["steps"] == ["Open a network"]
    finally:
        page.close()
    with pytest.raises(httpx.TransportError):
        httpx.get(page.url)


class Started:
    def start(self):
        return self
