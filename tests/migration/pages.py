"""The pages for those who come from elsewhere: their rows, the checks of what a row says, and networks for them."""

import contextlib
import copy
import csv
import functools
import io
import re
from pathlib import Path

import numpy as np
import torch
import yaml

from kat_zoo.cli.main import main
from kat_zoo.kan import KAN, KANRegressor

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "docs" / "migration"
RESULTS = ROOT / "benchmarks" / "results"

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(80, 2, generator=GENERATOR, dtype=torch.float64) * 2 - 1
Y = torch.sin(X[:, :1]) + X[:, 1:] ** 2
TABLE = np.random.default_rng(0).uniform(1, 5, (60, 2))
IMAGES = torch.rand(2, 3, 64, 64, generator=GENERATOR)
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 10, "img_size": 64}

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


@functools.cache
def quotient():
    return KANRegressor(symbolic=True, max_seconds=30, random_state=0).fit(TABLE, TABLE[:, 0] / TABLE.sum(1))
