"""What a session begins with: the columns that are chosen, their names in code, saved tables, and networks from Python."""

import base64

import numpy as np
import pytest
import sympy

from kat_zoo.explore import Session
from kat_zoo.explore.formulas import code_of
from kat_zoo.explore.state import strengths
from kat_zoo.kan import KAN

X1 = sympy.Symbol("x_1")


class Started:
    def start(self):
        return self


def opened(columns, **options):
    """A session with the table of these columns, where NaN is an empty cell."""
    rows = [",".join("" if value != value else str(value) for value in row) for row in zip(*columns.values(), strict=True)]
    data = "\n".join([",".join(columns), *rows]).encode()
    session = Session()
    session.do("open_file", {"name": "t.csv", "data": base64.b64encode(data).decode(), **options})
    return session


def test_columns_with_many_gaps_are_not_chosen_at_first():
    generator = np.random.default_rng(0)
    columns = {name: generator.normal(size=200) for name in "abcd"}
    rare = np.where(np.arange(200) < 5, columns["a"], np.nan)
    half, other = (np.where(np.arange(200) % 2 == n, columns["b"], np.nan) for n in range(2))
    columns |= {"rare": rare, "half": half, "other": other, "y": 2 * columns["b"]}
    state = opened({name: values.tolist() for name, values in columns.items()}).state
    problem = state.problem
    assert {"a", "b"} < set(problem.inputs) and len(problem.y) >= 100 and "rare" not in problem.inputs
    found = strengths(state.table, "y")
    assert found["b"] > 0.9 and found["rare"] == 0 and found["a"] < 0.05 and found["half"] == pytest.approx(0.5, abs=0.05)


def test_a_target_is_explained_by_as_many_columns_as_the_last_one():
    generator = np.random.default_rng(0)
    columns = {f"c{n}": generator.normal(size=50).tolist() for n in range(30)}
    problem = opened(columns, target="c7").state.problem
    assert problem.target == "c7" and len(problem.inputs) == 8 and "c7" not in problem.inputs
    with pytest.raises(ValueError, match="column 'z': expected a column of the table"):
        opened(columns, target="z")


def test_code_has_names_that_every_language_takes():
    names = ["from", "class", "True", "N", "S", "E", "pi", "beta", "max", "numpy", "int"]
    for name in [*names, "speed"]:
        session = opened({name: [1.0, 2.0, 4.0], "y": [2.0, 4.0, 8.0]})
        code = code_of(2.5 * X1, 2.5 * X1, session.state.problem)
        compile(code["numpy"], "formula", "exec")
        expected = "speed" if name == "speed" else "x_1"
        assert sympy.sympify(code["sympy"]) == 2.5 * sympy.Symbol(expected) and f"formula(double {expected})" in code["c"]


def test_code_of_functions_that_a_language_lacks_is_left_out():
    problem = opened({"x": [1.0, 2.0, 4.0], "y": [2.0, 4.0, 8.0]}).state.problem
    assert set(code_of(sympy.airyai(X1), sympy.airyai(X1), problem)) == {"sympy", "numpy"}
    assert set(code_of(sympy.zeta(X1), sympy.zeta(X1), problem)) == {"sympy"}


def test_a_saved_session_begins_with_its_table():
    session = opened({"x": [1.0, 2.0, 4.0], "y": [2.0, 4.0, 8.0]})
    for _ in range(3):
        session.do(session.steps[0].name, session.steps[0].options)
    again = Session.from_json(session.to_json())
    assert len(session.steps) == 4 and len(again.steps) == 1 and again.state.problem.inputs == ("x",)


@pytest.mark.parametrize("names", [["x", "y"], ["y", "y_2"], ["a" * 80 + "b", "a" * 80 + "c"], ["a" * 90 + "b", "a" * 90 + " (2)"]])
def test_inputs_of_any_name_are_opened(names, monkeypatch):
    seen = {}
    monkeypatch.setattr("kat_zoo.explore.command.Page", lambda server, port: seen.update(server=server) or Started())
    X = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    network = KAN([2, 1], 3)
    network.explore(X, names=names, browser=False)
    problem = Session.from_bytes(seen["server"].first).state.problem
    assert len({*problem.inputs, problem.target}) == 3
    np.testing.assert_array_equal(problem.X, X)
    with pytest.raises(ValueError, match="names=\\['x'\\]: expected 2, one for each column of X"):
        network.explore(X, names=["x"], browser=False)
