"""The laws of benchmarks/kan_laws.py: each has a source, units, and rows; and how lengths are counted."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import kan_laws
from laws import LAWS
from laws.law import known_constants, length, read_catalogue

from kat_zoo.kan.sklearn.units import read_units


def test_there_are_forty_laws_each_with_a_source_and_units():
    assert len(LAWS) == 40
    for name, law in LAWS.items():
        assert len(law.source.split(",")) >= 2 or "19" in law.source, name
        units = read_units(list(law.inputs), law.units, law.target, law.constants)
        assert len(units.dimensions) == len(law.inputs) + len(law.constants), name
        X, y = law.sample(200, np.random.default_rng(0))
        assert X.shape == (200, len(law.inputs)) and np.isfinite(y).all() and np.ptp(y) > 0, name
        for column, (low, high, kind, _) in zip(X.T, law.inputs.values(), strict=True):
            assert low <= column.min() and column.max() <= high + (kind == "int"), name


def test_each_list_has_a_file_of_its_own_with_units_and_without(monkeypatch):
    names = []
    for options in ([], ["--units"], ["--catalogue", "laws.yaml"], ["--catalogue", "laws.yaml", "--units"]):
        monkeypatch.setattr(sys, "argv", ["kan_laws.py", *options])
        names.append(kan_laws.parse().out.name)
    assert names == ["kan_laws.csv", "kan_laws_units.csv", "kan_laws_catalogue.csv", "kan_laws_catalogue_units.csv"]


LENGTHS = {
    "a*b/c": 5,
    "2*pi*sqrt(a**3/(6.67e-11*M))": 10,
    "(6.626e-34/(2*pi))*w": 3,
    "add(X0, mul(X1, 3.0))": 5,
    "-x": 1,
    "x ^ 2": 3,
    "((": None,
}


@pytest.mark.parametrize("text", LENGTHS)
def test_operators_and_operands_are_counted(text):
    assert length(text) == LENGTHS[text]


def test_constants_are_known_by_their_numbers():
    assert set(known_constants("v1*2.99792458e8**2/sqrt(1 - v2**2/2.99792458e8**2)")) == {"c"}
    assert set(known_constants("6.674e-11*x + 3*1.380649e-23*T")) == {"k_B"}


def test_a_catalogue_is_read(tmp_path):
    text = """
    I.1:
      sources: [a book]
      prepared: v1^2 * 2.99792458e8
      vars:
        v0: {units: [1, -2, 1, 0, 0]}
        v1: {units: [0, 0, 0, 0, 0], sample_range: [1.0, 2.0], sample_type: [log, neg]}
      constraints: [v1^2 > 2]
    """
    (tmp_path / "laws.yaml").write_text(text)
    law = read_catalogue(tmp_path / "laws.yaml")["I.1"]
    assert law.target == "m**1*s**-2*kg**1" and law.units == {"v1": "1"} and set(law.constants) == {"c"} and law.source == "a book"
    X, y = law.sample(50, np.random.default_rng(0))
    assert X.max() < -(2**0.5) and np.allclose(y, X[:, 0] ** 2 * 2.99792458e8)
