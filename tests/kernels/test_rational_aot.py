"""The Triton kernels compiled ahead of time, without a GPU: what the code uses, and what makes Triton compile again."""

import pytest

from .compiled import run_compiling

ROWS = "from kat_zoo.kernels import report as r; report(rows=r.rows({archs}, ['rational'], {dtypes}, {widths}))"


def check(row):
    """The goals, for one row of the report."""
    what = {key: row[key] for key in ("kernel", "dtype", "group_width", "arch")}
    assert row["atomics"] == 0 and row["divisions"] <= 1, row
    assert row["load_bits"] == 128, f"{what}: {row['load_bits']}-bit loads"
    if row["arch"] in ("sm_80", "sm_90", "sm_100"):
        assert row["spills"] == row["stack"] == 0, row
    itemsize = 4 if row["dtype"] == "float32" else 2
    if row["kernel"] != "rational_reduce":
        streams = 2 if row["kernel"] == "rational_forward" else 3  # x and y; x, its gradient and the result's
        assert row["bytes_per_element"] == pytest.approx(streams * itemsize), row
    if (row["kernel"], row["arch"], row["dtype"]) == ("rational_backward", "sm_90", "bfloat16"):
        assert row["instructions_per_element"] <= {24: 80, 384: 50}.get(row["group_width"], 80), row


def test_goals():
    rows = run_compiling(ROWS.format(archs=["sm_90"], dtypes=["bfloat16"], widths=[24, 384]))["rows"]
    rows += run_compiling(ROWS.format(archs=["sm_80", "sm_100"], dtypes=["bfloat16"], widths=[384]))["rows"]
    assert len(rows) == 12
    for row in rows:
        check(row)


@pytest.mark.slow
def test_goals_of_every_kernel():
    archs, dtypes, widths = ["sm_80", "sm_90", "sm_100", "sm_120", "gfx942"], ["float32", "bfloat16", "float16"], [24, 48, 96, 192, 384]
    rows = run_compiling(ROWS.format(archs=archs, dtypes=dtypes, widths=widths))["rows"]
    assert len(rows) == 5 * 3 * 5 * 3
    for row in rows:
        check(row)


def test_nothing_compiles_again_for_another_batch_or_image_size():
    result = run_compiling("""
counts = {}
def step(name, shape, channel_dim=1, groups=8, rows=(1, 8)):
    x, a, b = torch.empty(shape, dtype=torch.bfloat16), torch.zeros(rows[0], 6), torch.zeros(rows[1], 4)
    with aot.compile_only("sm_90") as recorder:
        rational_triton.forward(x, a, b, channel_dim)
        rational_triton.backward(x, x, a, b, channel_dim)
    counts[name] = [len(recorder.launches), recorder.compiled]
step("first", (197, 192))
for batch in (2, 3, 16, 128, 1000):
    step(f"batch {batch}", (batch * 197, 192))
step("one row", (1, 192))
step("own rows", (640, 192), rows=(8, 8))
step("other width", (197, 768))
step("NCHW", (2, 64, 56, 56))
step("NCHW, another image", (16, 64, 40, 48))
report(**counts)
""")
    for name, (launches, compiled) in result.items():
        assert launches == 3, name
        assert compiled == {"first": 3, "other width": 2, "NCHW": 2}.get(name, 0), (name, compiled)


def test_the_exact_reciprocal_and_other_layouts_compile():
    result = run_compiling("""
with aot.compile_only("sm_90") as recorder:
    exact = rational_triton.Gpu(32, False)
    for shape, dtype, channel_dim, order in (((64, 384), torch.bfloat16, 1, (5, 4)), ((64, 200), torch.float32, 1, (8, 8)),
                                             ((2, 24, 30, 31), torch.float16, 1, (3, 2)), ((64, 96), torch.float64, 1, (5, 4))):
        x, a, b = torch.empty(shape, dtype=dtype), torch.zeros(1, order[0] + 1), torch.zeros(8, order[1])
        rational_triton.forward(x, a, b, channel_dim, gpu=exact)
        rational_triton.backward(x, x, a, b, channel_dim, gpu=exact)
report(compiled=recorder.compiled, approximate=["rcp.approx" in launch.kernel.asm["ptx"] for launch in recorder.launches])
""")
    assert result == {"compiled": 12, "approximate": [False] * 12}


def test_all_kernels_that_kat_tiny_launches_compile():
    """A training step of the whole model under autocast; on CPU tensors, so only the launches are real."""
    result = run_compiling("""
import timm, kat_zoo
from kat_zoo.kernels import rational
library = torch.library.Library("kat_zoo", "IMPL")
library.impl("rational", rational._forward_cuda, "CPU", allow_override=True)
library.impl("rational_backward", rational._backward_cuda, "CPU", allow_override=True)
model = timm.create_model("kat_tiny_patch16_224")
with aot.compile_only("sm_90") as recorder:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(2, 3, 224, 224)).sum()
    loss.backward()
names = [launch.name for launch in recorder.launches]
report(counts={name: names.count(name) for name in set(names)}, compiled=recorder.compiled)
""")
    launches = 2 * 12  # two activations in each of twelve blocks
    assert result["counts"] == {f"rational_{name}_kernel": launches for name in ("forward", "backward", "reduce")}
    assert result["compiled"] == 2 * 2 + 1  # group widths 24 and 96; the reduction has one form


def test_unknown_arch_is_named():
    result = run_compiling("""
try:
    aot.target("h100")
except ValueError as error:
    report(message=str(error))
""")
    assert "arch='h100'" in result["message"]
