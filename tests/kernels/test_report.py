"""`kat-zoo kernels report`: rows that are compiled again, and the reader of their code on listings counted by hand."""

import json
import os
import re
import subprocess
import sys

import pytest

from kat_zoo.kernels import command, report

from .aot import PINNED, checked_in

pytest.importorskip("triton")
from kat_zoo.kernels import assembly

CODE = """
import json, sys
from kat_zoo.kernels import command, report
path = sys.argv[1]
command.main(["report", "--arch", "sm_90,gfx942", "--kernel", "bspline", "--width", "5", "--json", path])
rows = report.rows(["sm_90"], ["rational"], ["bfloat16"], [48]) + report.rows(["sm_90"], ["fourier_attention"], ["bfloat16"])
print(json.dumps(rows))
"""


def key(row):
    return [row[name] for name in ("kernel", "arch", "dtype", "group_width")]


@pytest.mark.skipif(not PINNED, reason="the checked-in report is of the Triton of constraints.txt")
def test_rows_of_the_checked_in_report(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = tmp_path / "rows.json"
    done = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows, (header, *table, last) = json.loads(path.read_text()), done.stdout.splitlines()
    assert header.split() == [name.replace("_per_element", "/element") for name in rows[0]]
    assert [line.split() for line in table] == [["-" if value is None else str(value) for value in row.values()] for row in rows]
    rows += json.loads(last)
    expected = {str(key(row)): row for row in checked_in("")}
    assert len(rows) == 2 * 3 + 3 + 3 and len({str(key(row)) for row in rows}) == len(rows)
    for row in rows:
        assert row == expected[str(key(row))]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--width", "0"], "width=0: expected an integer of at least 1"),
        (["--kernel", "rational,bspine"], "kernel='bspine': expected one of rational, fourier_attention, bspline"),
        (["--dtype", "float64"], "dtype='float64': expected one of float32, bfloat16, float16"),
        (["--arch", "sm_9x"], "arch='sm_9x'"),
        ([], "TRITON_INTERPRET=1: expected it unset"),
        (["--width", "x"], "argument --width: invalid comma-separated int value"),
        (["--json", "nowhere/rows.json"], "--json nowhere/rows.json: expected a file in a folder that exists"),
    ],
)
def test_what_cannot_be_compiled_is_named(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        command.main(["report", *options])


def test_a_table_of_nothing_is_empty():
    assert report.render([]) == ""


# ---- The reader of the code -------------------------------------------------------------------------------------------

GCN = """
kernel:
\ts_load_dwordx4 s[0:3], s[4:5], 0x0
\ts_waitcnt lgkmcnt(0)
.LBB0_1:
\tglobal_load_dwordx4 v[0:3], v[4:5], off  ; 16 bytes
\tv_rcp_f32 v6, v0
\tv_mul_f32 v6, v6, v1
\tglobal_store_dwordx2 v[4:5], v[6:7], off
\ts_cbranch_scc1 .LBB0_1
\ts_cbranch_vccz .LBB0_3
\tv_mov_b32 v0, 0
.LBB0_3:
\ts_endpgm
\tv_mov_b32 v1, 0
"""


def analyze(code, element_bytes=4, per_iteration=None):
    return assembly._analyze(
        code,
        element_bytes,
        lambda o: o.startswith("global_load"),
        lambda o: o.startswith("global_store"),
        lambda o: o.startswith("v_rcp"),
        assembly._amd_bytes,
        per_iteration,
    )


def test_a_loop_of_five_instructions():
    code = assembly._gcn(GCN)
    assert len(code) == 10 and [(i.opcode, i.target) for i in code if i.target is not None] == [
        ("s_cbranch_scc1", 2),
        ("s_cbranch_vccz", 9),
    ]
    assert [i.falls_through for i in code] == [True] * 9 + [False]
    found = analyze(code)  # two elements of four bytes are stored
    assert found == {"load_bits": 128, "loop_instructions": 2.5, "divisions": 0.5, "bytes_moved": 12.0, "overhead": 2 + 1 + 1}
    found = analyze(code, per_iteration=5)
    assert (found["loop_instructions"], found["divisions"], found["bytes_moved"]) == (1.0, 0.2, 4.8)


def test_code_without_a_loop_is_one_iteration():
    code = assembly._gcn(GCN.replace("\ts_cbranch_scc1 .LBB0_1\n", ""))
    found = analyze(code)
    assert found["overhead"] == 0 and found["loop_instructions"] == 9 / 2 and found["bytes_moved"] == 12.0


def test_the_loop_with_the_fewest_instructions_per_element_is_the_main_one():
    slow = "".join(f"\tv_mul_f32 v6, v6, v{i}\n" for i in range(20))
    loop = f".LBB0_7:\n\tglobal_load_dword v0, v[4:5], off\n{slow}\tglobal_store_dword v[4:5], v6, off\n\ts_cbranch_scc1 .LBB0_7\n"
    found = analyze(assembly._gcn(GCN.replace(".LBB0_1:\n", f"{loop}.LBB0_1:\n")))
    assert found["loop_instructions"] == 2.5 and found["overhead"] == 2 + 23 + 2


def test_a_loop_that_cannot_be_left():
    code = assembly._gcn(GCN.replace("s_cbranch_scc1", "s_branch").replace("s_cbranch_vccz .LBB0_3", "s_branch .LBB0_1"))
    with pytest.raises(ValueError, match="the kernel's main loop is not reachable"):
        assembly._shortest(code, 0, lambda i: code[i].opcode == "s_endpgm")
