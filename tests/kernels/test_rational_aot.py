"""The Triton kernels compiled ahead of time, without a GPU: what the code uses, and what makes Triton compile again."""

import pytest

from kat_zoo.kernels import aot

from .aot import checked_in, probe


@pytest.fixture(scope="module")
def compiled():
    return probe("default")


def check(row):
    """The goals, for one row of the report."""
    assert row["atomics"] == 0 and row["divisions"] <= 1 and row["load_bits"] == 128, row
    if row["arch"] in ("sm_80", "sm_90", "sm_100"):
        assert row["spills"] == row["stack"] == 0, row
    itemsize = 4 if row["dtype"] == "float32" else 2
    if row["kernel"] != "rational_reduce":
        streams = 2 if row["kernel"] == "rational_forward" else 3  # x and y; x, its gradient and the result's
        assert row["bytes_per_element"] == pytest.approx(streams * itemsize), row
    if (row["kernel"], row["arch"], row["dtype"]) == ("rational_backward", "sm_90", "bfloat16"):
        assert row["instructions_per_element"] <= {24: 80, 384: 50}.get(row["group_width"], 80), row


def test_goals(compiled):
    assert len(compiled["rows"]) == 12
    for row in compiled["rows"]:
        check(row)


def test_goals_of_every_kernel_in_the_checked_in_report():
    rows = checked_in("rational")
    assert len({(r["kernel"], r["dtype"], r["group_width"], r["arch"]) for r in rows}) == len(rows) == 3 * 3 * 5 * 5
    for row in rows:
        check(row)


@pytest.mark.slow
def test_the_checked_in_report_is_what_the_kernels_compile_to():
    """With the versions of constraints.txt."""
    assert probe("slow")["rows"] == checked_in("rational")


def test_nothing_compiles_again_for_another_batch_or_image_size(compiled):
    expected = {"first": 3, "other width": 2, "NCHW": 2}
    for name, (launches, compilations) in compiled["compilations"].items():
        assert (launches, compilations) == (3, expected.get(name, 0)), name


def test_all_kernels_that_kat_tiny_launches_compile(compiled):
    # Two activations in each of twelve blocks; the first is computed again in the backward, instead of being kept.
    expected = {"forward": 3 * 12, "backward": 2 * 12, "reduce": 2 * 12}
    assert compiled["kat_tiny"]["launches"] == {f"rational_{name}_kernel": times for name, times in expected.items()}
    # Width 96 in bfloat16 was compiled before, and so was 24: under autocast act1 gets its input in bfloat16, as fc1 does.
    assert compiled["kat_tiny"]["compiled"] == 0


def test_the_approximate_reciprocal_can_be_switched_off(compiled):
    assert compiled["approximate"] == [True, True, False]
    assert compiled["exact"] == [False, False, False]


def test_unknown_arch_is_named():
    with pytest.raises(ValueError, match="arch='h100'"):
        aot.target("h100")


def test_interpreted_kernels_are_not_compiled():
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET"), aot.compile_only("sm_90"):
        pass
