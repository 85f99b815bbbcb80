"""How full a kernel leaves a GPU, against NVIDIA's rules worked out by hand."""

import pytest

from kat_zoo.kernels.occupancy import GPUS, bandwidth_share, occupancy, resident_blocks

from .aot import checked_in


@pytest.mark.parametrize(
    ("registers", "warps", "expected"),
    [
        (32, 4, 1.0),  # 1,024 registers a warp: 16 warps of each of four schedulers
        (36, 4, 0.75),  # rounded up to 40, so 1,280 a warp: 12 of 16
        (63, 4, 0.5),
        (72, 4, 0.4375),  # 7 warps a scheduler
        (255, 4, 0.125),
        (72, 8, 0.375),  # 28 warps hold three blocks of eight
    ],
)
def test_registers_bound_occupancy(registers, warps, expected):
    assert occupancy(GPUS["sm_90"], registers, 0, warps, 132)[0] == expected


def test_shared_memory_and_blocks_bound_occupancy():
    assert resident_blocks(GPUS["sm_90"], 32, 100 * 1024, 4) == 2  # 101 KiB each of 228
    assert resident_blocks(GPUS["sm_90"], 32, 227 * 1024, 4) == 1
    assert resident_blocks(GPUS["sm_80"], 32, 227 * 1024, 4) == 0
    assert resident_blocks(GPUS["sm_90"], 32, 0, 1) == 32
    assert resident_blocks(GPUS["sm_120"], 32, 0, 1) == 24 and resident_blocks(GPUS["sm_120"], 32, 0, 4) == 12


def test_waves():
    assert occupancy(GPUS["sm_90"], 72, 0, 4, 132 * 7)[1] == 1
    assert occupancy(GPUS["sm_90"], 72, 0, 4, 1024)[1] == pytest.approx(1024 / 924)
    assert occupancy(GPUS["sm_80"], 32, 227 * 1024, 4, 1)[1] == float("inf")


def test_the_roofline_is_a_copy_or_the_issue_of_instructions():
    gpu = GPUS["sm_90"]
    assert bandwidth_share(gpu, 1.0, 8.0) == 1
    # 132 x 4 schedulers at 1.98 GHz issue 1.045e12 instructions a second, each of 32 threads; 6 bytes leave room for 41.8 at 4.8 TB/s.
    assert bandwidth_share(gpu, 2 * 41.8, 6.0) == pytest.approx(0.5, rel=1e-3)


def test_the_checked_in_report_says_how_full_the_gpus_are():
    rows = checked_in("")
    assert {row["arch"] for row in rows if row["waves"] is None} == {"gfx942"}
    for row in rows:
        if row["arch"] != "gfx942":
            assert 0 < row["occupancy"] <= 1 and row["waves"] > 0 and 0 < row["bandwidth_share"] <= 1, row
    known = [row for row in rows if (row["kernel"], row["arch"], row["dtype"]) == ("rational_backward", "sm_90", "float32")]
    assert {row["occupancy"] for row in known} == {0.438}
