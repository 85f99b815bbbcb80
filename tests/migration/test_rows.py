"""What a row says of this package is executed, and a row that nothing executes fails.

The last cell of a row is the claim: a check is found by its text, so that a claim that is reworded is looked at again.
"""

import re

import pytest

from . import (  # noqa: F401 (their checks are registered)
    test_flashkat,
    test_karat,
    test_kat,
    test_pykan_edits,
    test_pykan_networks,
    test_symbolic_regression,
    test_timm,
)
from .pages import CHECKS, ROOT, headings, rows

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
