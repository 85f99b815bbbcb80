"""The Triton kernels of Fourier attention compiled ahead of time: what the code uses, and what makes Triton compile again."""

import pytest

from .aot import probe

KERNELS = {f"fourier_attention_{name}" for name in ("forward", "query", "key", "coefficient")}


@pytest.fixture(scope="module")
def compiled():
    return probe("attention")


def check(row):
    """The goals, for one row of the report."""
    assert row["atomics"] == 0 and row["load_bits"] == 128 and row["divisions"] < 0.5, row
    if row["arch"] in ("sm_80", "sm_90", "sm_100"):
        assert row["spills"] == row["stack"] == 0, row
    if (row["arch"], row["dtype"]) == ("sm_90", "bfloat16"):
        assert row["instructions_per_element"] <= 100, row


def test_goals(compiled):
    assert {row["kernel"] for row in compiled["rows"]} == KERNELS and len(compiled["rows"]) == 4
    for row in compiled["rows"]:
        check(row)


@pytest.mark.slow
def test_goals_of_every_kernel():
    found = probe("attention_slow")
    assert len(found["rows"]) == 5 * 3 * 4  # architectures, dtypes, kernels
    for row in found["rows"]:
        check(row)
    # Other grid sizes, ranks and heads fit the shared memory of both architectures; some of them spill.
    assert len(found["spills"]) == 4 * 4 * 2 * 2  # kernels, sizes, dtypes, architectures


def test_nothing_compiles_again_for_another_batch_or_image_size(compiled):
    expected = {"first": 4, "other head": 4}
    for name, (launches, compilations) in compiled["compilations"].items():
        assert (launches, compilations) == (4, expected.get(name, 0)), name
