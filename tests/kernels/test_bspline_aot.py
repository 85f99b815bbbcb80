"""The B-spline kernels compiled ahead of time, without a GPU."""

import pytest

from .aot import checked_in, probe

KERNELS = {
    "bspline_basis", "spline_pick", "spline_contract_local", "spline_project_local", "spline_accumulate_local",
}  # fmt: skip
INSTRUCTIONS = {
    "bspline_basis": 70,
    "spline_pick": 320,
    "spline_contract_local": 35,
    "spline_project_local": 35,
    "spline_accumulate_local": 120,
}


def check(row):
    assert row["atomics"] == 0, row
    if row["arch"].startswith("sm_"):
        assert row["spills"] == row["stack"] == 0, row
        assert row["instructions_per_element"] <= INSTRUCTIONS[row["kernel"]], row


def test_goals_of_every_kernel_in_the_checked_in_report():
    rows = checked_in("spline") + checked_in("bspline")
    assert len(rows) == len(KERNELS) * 5 and {row["kernel"] for row in rows} == KERNELS
    for row in rows:
        check(row)


def test_nothing_compiles_again_for_another_batch():
    compiled = probe("spline")
    # A finer grid has wider tiles of bases.
    assert compiled == {"first": [6, 5], "batch 70": [6, 0], "batch 1000": [6, 0], "other inputs": [6, 0], "fine grid": [6, 2]}


@pytest.mark.slow
def test_the_checked_in_report_is_what_the_kernels_compile_to():
    rows = checked_in("spline") + checked_in("bspline")
    found = probe("spline_slow")
    assert sorted(map(str, found["rows"])) == sorted(map(str, rows))
    assert not any(found["spills"].values()), found["spills"]
