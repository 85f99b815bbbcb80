import time
from dataclasses import replace

import numpy as np
import pandas
import pytest

from kat_zoo.kan import KANRegressor
from kat_zoo.kan.search import closed_form
from kat_zoo.kan.search import guided as guided_module
from kat_zoo.kan.search.closed_form import _run_stages, _solve_part
from kat_zoo.kan.search.guided import guided
from kat_zoo.kan.search.judge import Clock, Data, Judge
from kat_zoo.kan.search.tree import evaluate
from kat_zoo.kan.sklearn.stop import Stop


def table(law, inputs, low=0.5, high=2.0):
    X = np.random.default_rng(0).uniform(low, high, (700, inputs))
    y = law(*X.T)
    return Data(X[:500], y[:500], X[500:], y[500:])


def tables_of(data):
    """The tables that are searched when the search itself finds nothing."""
    seen = []

    def solve(part, depth):
        assert depth == 1
        seen.append(part)
        return Judge(part)

    guided(Judge(data), solve, 0)
    return seen


def of_one_form(form, data, seen):
    """A search that knows one form, for every table, and notes the tables."""

    def solve(part, depth):
        seen.append(part)
        judge = Judge(part)
        judge.adopt(form)
        return judge

    judge = Judge(data)
    guided(judge, solve, 0)
    return judge


def test_so_many_smaller_tables_are_searched_and_no_further_split_is_begun(monkeypatch):
    data = table(lambda a, b, c, d: np.sin(3 * a) + np.cos(4 * b) + np.tanh(5 * c - 5) + d**3, 4)
    numbers = []
    for most in (100, 1):
        monkeypatch.setattr(guided_module, "MOST_SEARCHES", (most, most))
        seen = []
        of_one_form(("x", 0), data, seen)
        numbers.append(len(seen))
    assert numbers[0] > numbers[1] == 4  # the groups of one split


def test_the_last_table_leaves_all_joined_forms_to_try(monkeypatch):
    monkeypatch.setattr(guided_module, "MOST_SEARCHES", (2, 2))
    tried = []

    def solve(part, depth):
        judge = Judge(part)
        for form in (("x", 0), ("sin", ("*", ("n", 3), ("x", 0))), ("cos", ("*", ("n", 4), ("x", 0)))):
            judge.adopt(form)
        return judge

    judge = Judge(table(lambda a, b: np.sin(3 * a) + np.cos(4 * b), 2))
    monkeypatch.setattr(judge, "submit", tried.append)
    guided(judge, solve, 0)
    assert len(tried) > 1


def test_a_form_far_from_its_part_tells_no_inside():
    data, seen = table(lambda a, b, c: np.tanh(a**4 + b**4 + c**4 - 1.5), 3, -1.0, 1.0), []
    of_one_form(("*", ("x", 0), ("x", 1)), data, seen)
    known = [column for part in seen for column in part.X.T]
    assert known and all(any(np.isin(column, data.X[:, i]).all() for i in range(3)) for column in known)


def test_no_network_is_asked_for_parts_where_a_plain_form_leaves_only_noise(monkeypatch):
    def refuse(*arguments):
        raise AssertionError

    monkeypatch.setattr(closed_form, "guided", refuse)
    data = table(lambda a, b, c: a + 2 * b * c + 3 * a * b + c**2 - 1.5 * b**2, 3)
    noise = np.random.default_rng(1).standard_normal(700) * 0.02
    judge = Judge(replace(data, y=data.y + noise[:500], y_val=data.y_val + noise[500:]))
    _run_stages(judge, np.ones(3, bool))
    assert judge.only_noise()


@pytest.mark.slow
def test_groups_that_do_not_interact_are_solved_alone_and_joined():
    data = table(lambda a, b, c: np.log(1 + a * b) + np.cos(3 * c), 3)
    judge = Judge(data)
    guided(judge, _solve_part, 0)
    assert judge.solved
    fresh = np.random.default_rng(1).uniform(0.5, 2, (100, 3))
    a, b, c = fresh.T
    np.testing.assert_allclose(evaluate(judge.best.tree, fresh), np.log(1 + a * b) + np.cos(3 * c), atol=1e-6)


@pytest.mark.parametrize(
    ("law", "groups"),
    [
        (lambda a, b, c, d: np.sin(a * b) * np.exp(-c / d), [2, 2]),
        (lambda a, b, c, d: np.sqrt(np.sin(a * b) + np.exp(c * d)), [2, 2]),
        (lambda a, b, c, d: 1 / (np.sin(a) + np.exp(b * c) * d), [1, 3]),
    ],
)
def test_a_part_is_a_table_of_its_inputs_to_the_networks_error(law, groups):
    data = table(law, 4)
    first = tables_of(data)[0]
    size = first.X.shape[1]
    assert size in groups
    columns = [next(i for i in range(4) if np.isin(column, data.X[:, i]).all()) for column in first.X.T]
    held = np.tile(np.full(4, 1.3), (len(first.X), 1))
    held[:, columns] = first.X
    exact = law(*held.T)
    outer = {0: exact, 1: exact**2, 2: 1 / exact}
    match = max(abs(np.corrcoef(first.y, values)[0, 1]) for values in outer.values())
    assert 1 - match < 1e-3 and first.floor < 0.1


@pytest.mark.parametrize(
    ("law", "joined"),
    [
        (lambda a, b, c: np.exp(np.sin(a * b) * c), lambda a, b: a * b),
        (lambda a, b, c: np.exp(np.cos(a - b) * c), lambda a, b: a - b),
        (lambda a, b, c: np.sin(a / b + c), lambda a, b: a / b),
        (lambda a, b, c: np.sin(a * a + b * b) + c * (a * a + b * b), lambda a, b: a * a + b * b),
    ],
)
def test_two_inputs_that_enter_as_one_become_one(law, joined):
    data = table(law, 3)
    wanted = joined(*data.X.T[:2])
    assert any(part.X.shape == (500, 2) and np.allclose(part.X[:, 0], wanted) and (part.y == data.y).all() for part in tables_of(data))


def test_noise_alone_and_few_rows_have_no_parts():
    data = table(lambda a, b: a * b, 2)
    noise = np.random.default_rng(0).standard_normal(700)
    assert not tables_of(Data(data.X, noise[:500], data.X_val, noise[500:]))
    assert not tables_of(Data(data.X[:60], data.y[:60], data.X_val[:20], data.y_val[:20]))


def test_the_deadline_holds_while_parts_are_searched():
    data = table(lambda a, b, c, d: np.sin(a * b) * np.exp(-c / d), 4)
    data.clock = Clock(time.process_time() - 1, time.process_time)
    judge = Judge(data)
    with pytest.raises(Exception, match="^$") as error:
        guided(judge, _solve_part, 0)
    assert type(error.value).__name__ == "OutOfTime"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "law"),
    [
        (5, lambda a, b, c, d, e: np.sin(a * b + c) * np.exp(d) / (1 + e * e)),
        (5, lambda a, b, c, d, e: np.log(1 + a * b) + e * np.sin(c * d)),
        (6, lambda a, b, c, d, e, f: np.sin(a * b) * np.exp(-c * d) / (e + f * f)),
        (6, lambda a, b, c, d, e, f: a * np.exp(-b * c) + d * np.sin(e * f)),
    ],
)
def test_laws_that_only_their_parts_show(inputs, law, monkeypatch):
    monkeypatch.setattr(Stop, "seconds", staticmethod(time.process_time))
    X = np.random.default_rng(7).uniform(0.5, 2, (1200, inputs))
    y = law(*X.T)
    names = list("abcdef"[:inputs])
    model = KANRegressor(symbolic=True, random_state=0, max_seconds=120).fit(pandas.DataFrame(X[:1000], columns=names), y[:1000])
    assert model.exact_
    np.testing.assert_allclose(model.predict(pandas.DataFrame(X[1000:], columns=names)), y[1000:], rtol=1e-6)
