"""The CPU path against the float64 reference, forward and every gradient, and the operator's contract."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kat_zoo.kernels import cpu_library, rational, rational_reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Relative to the largest entry: the rounding of the dtype itself for y and dx; coefficient gradients are float32 sums.
RESULT_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2, torch.float16: 1e-3}
ISAS = [name for i, name in enumerate(cpu_library.ISAS) if i <= cpu_library._best_isa()]


def coefficients(generator, a_rows, b_rows, order=(5, 4), dtype=torch.float32):
    a = torch.randn(a_rows, order[0] + 1, generator=generator, dtype=torch.float64) * 0.5
    b = torch.randn(b_rows, order[1], generator=generator, dtype=torch.float64) * 0.5
    return a.to(dtype), b.to(dtype)


def gradients(function, x, a, b, g, **kwargs):
    inputs = [t.detach().requires_grad_() for t in (x, a, b)]
    y = function(*inputs, **kwargs)
    return [y.detach(), *torch.autograd.grad(y, inputs, g.to(y.dtype))]


def assert_matches_reference(x, a, b, g, **kwargs):
    ours = gradients(rational, x, a, b, g, **kwargs)
    oracle = gradients(rational_reference, x.double(), a.double(), b.double(), g.double(), **kwargs)
    result, sums = RESULT_TOLERANCE[x.dtype], 1e-14 if x.dtype == torch.float64 else 4e-6
    for name, got, want, tolerance in zip(("y", "dx", "da", "db"), ours, oracle, (result, result, sums, sums), strict=True):
        assert got.dtype == (x.dtype if name in ("y", "dx") else a.dtype), name
        assert got.shape == want.shape, name
        error = (got.double() - want).abs().max() / want.abs().max().clamp_min(1e-300)
        assert error <= tolerance, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape, groups",
    # Wide groups with and without a rest; narrow ones whose period is several rows, one row, or a row with a rest; two blocks.
    [((1, 192), 4), ((17, 192), 8), ((3, 7, 200), 1), ((3, 7, 200), 8), ((129, 48), 48), ((5, 3072), 8), ((2, 20000), 2), ((3, 1001), 77),
     ((7, 9), 3), ((700, 96), 8)],
)  # fmt: skip
def test_matches_reference(isa, dtype, shape, groups, generator):
    x = torch.randn(shape, generator=generator).mul(3).to(dtype)
    g = torch.randn(shape, generator=generator).to(dtype)
    a, b = coefficients(generator, 1, groups, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    with cpu_library.force_isa(isa):
        assert_matches_reference(x, a, b, g)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("order", [(5, 4), (3, 2), (7, 6), (8, 8), (0, 1), (1, 3), (2, 8)])
@pytest.mark.parametrize("rows", [(1, 4), (4, 1), (4, 4), (1, 1)], ids=lambda r: f"a{r[0]}b{r[1]}")
def test_orders_and_broadcast_rows(isa, order, rows, generator):
    x, g = torch.randn(2, 33, 100, generator=generator).unbind(0)
    with cpu_library.force_isa(isa):
        assert_matches_reference(x, *coefficients(generator, *rows, order), g)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.transpose(0, 1),
        lambda x: x[:, ::2],
        lambda x: x[..., 8:24],
        lambda x: x.expand(5, *x.shape),
        lambda x: x.permute(2, 0, 1),
    ],
    ids=["transposed", "rows skipped", "channels sliced", "expanded", "channels first"],
)
def test_strides(make, generator):
    x = make(torch.randn(16, 24, 32, generator=generator))
    g = torch.randn(x.shape, generator=generator).expand(x.shape)
    assert_matches_reference(x, *coefficients(generator, 1, 8), g)
    assert_matches_reference(x.contiguous(), *coefficients(generator, 1, 8), torch.ones(()).expand(x.shape))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_channel_dim(memory_format, generator):
    x = torch.randn(3, 16, 9, 11, generator=generator).to(memory_format=memory_format)
    a, b = coefficients(generator, 1, 4)
    assert_matches_reference(x, a, b, torch.randn(x.shape, generator=generator), channel_dim=1)
    assert rational(x, a, b, channel_dim=1).is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(rational(x, a, b, channel_dim=1), rational(x.movedim(1, -1), a, b).movedim(-1, 1))


def test_coefficients_may_have_their_own_dtype(generator):
    x = torch.randn(9, 64, generator=generator).bfloat16()
    a, b = coefficients(generator, 1, 8, dtype=torch.bfloat16)
    assert_matches_reference(x.float(), a.float(), b.float(), x.float())
    y, dx, da, db = gradients(rational, x, a, b, x)
    assert (y.dtype, dx.dtype, da.dtype, db.dtype) == (torch.bfloat16,) * 4
    with torch.autocast("cpu", torch.bfloat16):
        assert rational(x, a.float(), b.float()).dtype == torch.bfloat16
    double = gradients(rational, x.double(), a.float(), b.float(), x.double())
    assert double[0].dtype == torch.float64 and double[2].dtype == torch.float32


def test_gradients_at_zero_use_sign_plus_one():
    """Zero denominators must move (torch.abs would give 0), and so must b at x = 0 and at -0.0."""
    x = torch.tensor([[0.0, -0.0, 1.0, -2.0]])
    a, b = torch.tensor([[0.0, 1, 0, 0, 0, 0]]), torch.zeros(1, 4)
    _, dx, _, db = gradients(rational, x, a, b, torch.ones(1, 4))
    torch.testing.assert_close(db, -(x * x.abs() ** torch.arange(1, 5)[:, None]).sum(1)[None])
    a, b = torch.tensor([[1.0, 0, 0, 0, 0, 0]]), torch.tensor([[0.5, 0, 0, 0]])
    _, dx, _, _ = gradients(rational, x[:, :2], a, b, torch.ones(1, 2))
    torch.testing.assert_close(dx, torch.full((1, 2), -0.5))
    reference = gradients(rational_reference, x[:, :2], a, b, torch.ones(1, 2))[1]
    torch.testing.assert_close(dx, reference)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("init", ["random", "identity", "one denominator", "cubic"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("width", [8, 32])
def test_finite_wherever_the_true_value_is(isa, dtype, init, sign, width, generator):
    a, b = coefficients(generator, 1, 2)
    if init == "identity":
        a, b = torch.tensor([[0.0, 1, 0, 0, 0, 0]]), torch.zeros(2, 4)
    if init == "one denominator":
        b[:, 1:] = 0
        a[:, 2:] = 0
    if init == "cubic":  # y ~ x^3 overflows long before its slope does
        b[:, 2:] = 0
    # One sign: with both, the sums of the coefficient gradients cancel and say nothing.
    x = sign * torch.tensor([1e30, 1e15, 1e12, 3e7, 1e6, 0.5, 1.0, 1e-30] * 8).reshape(-1, 2 * width).to(dtype)
    g = torch.ones_like(x)
    with cpu_library.force_isa(isa):
        y, dx, da, db = gradients(rational, x, a, b, g)
    oracle = gradients(rational_reference, x.double(), a.double(), b.double(), g.double())
    top = torch.finfo(torch.float32).max
    for name, got, want in zip(("y", "dx", "da", "db"), (y, dx, da, db), oracle, strict=True):
        fits = want.abs() < top / 16
        tolerance = RESULT_TOLERANCE[dtype] * 10 if name in ("y", "dx") else 1e-5
        got = got.double()[fits]
        torch.testing.assert_close(got, want[fits], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("groups", [1, 4])
def test_nan_and_infinity_pass_through(groups):
    a, b = torch.tensor([[0.0, 1, 0, 0, 0, 0]]), torch.zeros(groups, 4)
    for dtype in DTYPES:
        x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0] * 8], dtype=dtype)
        torch.testing.assert_close(rational(x, a, b), x, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("isa", ISAS)
def test_sixteen_bit_conversions_are_exact(isa, dtype):
    """Identity over every bit pattern: loads, stores, subnormals, and infinities."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(64, 1024)
    with cpu_library.force_isa(isa):
        got = rational(every, torch.tensor([[0.0, 1, 0, 0, 0, 0]]), torch.zeros(1, 4))
    torch.testing.assert_close(got, every, rtol=0, atol=0, equal_nan=True)
    third = torch.tensor([[0.0, 1 / 3, 0, 0, 0, 0]])
    with cpu_library.force_isa(isa):
        got = rational(every, third, torch.zeros(1, 4))
    torch.testing.assert_close(got, (every.float() * (1 / 3)).to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7FFF8000, -1, 0x7FC00000])
@pytest.mark.parametrize("width", [8, 6, 200])
@pytest.mark.parametrize("where", ["x", "numerator", "denominator", "grad"])
@pytest.mark.parametrize("isa", ISAS)
def test_a_nan_stays_one_whatever_its_bits(isa, where, width, bits, generator):
    """A GPU's NaN has all bits set, which carry over when they are rounded to bfloat16."""
    nan = torch.tensor([bits], dtype=torch.int32).view(torch.float32)
    x, grad = (torch.randn(3, 4 * width, generator=generator).bfloat16() for _ in range(2))
    a, b = torch.randn(1, 6, generator=generator), torch.randn(4, 4, generator=generator)
    {"x": x, "numerator": a, "denominator": b, "grad": grad}[where][0, 0] = nan[0]
    with cpu_library.force_isa(isa):
        y, (dx, _, _) = rational(x, a, b), torch.ops.kat_zoo.rational_backward(grad, x, a, b)
    assert dx[0, 0].isnan() and (where == "grad" or y[0, 0].isnan())


@pytest.mark.parametrize("groups", [8, 32, 768])
def test_coefficient_gradients_do_not_depend_on_threads(threads, groups, generator):
    x, g = torch.randn(2, 1000, 768, generator=generator).unbind(0)
    a, b = coefficients(generator, 1, groups)
    results = []
    for count in (1, 2, 2):
        threads(count)
        results.append(gradients(rational, x, a, b, g))
    for name, one, two, again in zip(("y", "dx", "da", "db"), *results, strict=True):
        assert torch.equal(one, two) and torch.equal(two, again), name


@pytest.mark.parametrize("shape", [(0, 16), (3, 0, 16)])
def test_empty(shape):
    a, b = torch.ones(1, 6), torch.ones(8, 4)
    y, dx, da, db = gradients(rational, torch.empty(shape), a, b, torch.empty(shape))
    assert y.shape == dx.shape == shape
    assert not da.any() and not db.any()


@pytest.mark.parametrize("path", ["kernel", "reference"])
def test_second_order(path, generator):
    x = torch.randn(3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    a, b = (c.requires_grad_() for c in coefficients(generator, 1, 2, dtype=torch.float64))
    function = rational if path == "kernel" else rational_reference
    assert torch.autograd.gradcheck(function, (x, a, b))
    assert torch.autograd.gradgradcheck(function, (x, a, b))


def test_second_order_where_the_gradient_depends_on_x(generator):
    """In (f(x)^2)' the incoming gradient is itself a function of x and of the coefficients."""
    x = torch.randn(3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    a, b = (c.requires_grad_() for c in coefficients(generator, 1, 2, dtype=torch.float64))
    seconds = []
    for function in (rational, rational_reference):
        (first,) = torch.autograd.grad(function(x, a, b).square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), (x, a, b)))
    for got, want in zip(*seconds, strict=True):
        torch.testing.assert_close(got, want)


def test_third_order(generator):
    x = torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    a, b = coefficients(generator, 1, 1, dtype=torch.float64)
    thirds = []
    for function in (rational, rational_reference):
        y = function(x, a, b).sum()
        for _ in range(3):
            (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        thirds.append(y)
    torch.testing.assert_close(*thirds)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=torch.ones(4, 30)), "expected 8 groups to divide its 30 channels"),
        (dict(x=torch.ones(4, 32, dtype=torch.int64)), "x of dtype torch.int64"),
        (dict(numerator=torch.ones(6)), r"numerator of shape \(6,\)"),
        (dict(numerator=torch.ones(1, 10)), r"numerator of shape \(1, 10\)"),
        (dict(denominator=torch.ones(8, 9)), r"denominator of shape \(8, 9\)"),
        (dict(denominator=torch.ones(8, 0)), r"denominator of shape \(8, 0\)"),
        (dict(numerator=torch.ones(4, 6)), "numerator of 4 rows and denominator of 8"),
        (dict(numerator=torch.ones(1, 6, dtype=torch.float64)), "numerator of dtype torch.float64 and denominator"),
        (dict(numerator=torch.ones(1, 6, device="meta")), "numerator on meta: expected the device of x, cpu"),
        (dict(channel_dim=2), "channel_dim=2: expected -2 to 1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = dict(x=torch.ones(4, 32), numerator=torch.ones(1, 6), denominator=torch.ones(8, 4)) | change
    with pytest.raises(ValueError, match=message):
        rational(**arguments)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
def test_opcheck(generator):
    a, b = coefficients(generator, 1, 4)
    every = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    for shape, dim, checks in (((3, 5, 16), -1, every), ((2, 16, 3, 3), 1, every[:3])):
        x = torch.randn(shape, generator=generator, requires_grad=True)
        arguments = (x, a.requires_grad_(), b.requires_grad_(), dim)
        torch.library.opcheck(torch.ops.kat_zoo.rational.default, arguments, test_utils=checks)
        torch.library.opcheck(torch.ops.kat_zoo.rational_backward.default, (torch.ones_like(x), *arguments), test_utils=checks)


def test_only_the_input_is_saved(generator):
    x = torch.randn(50, 64, generator=generator, requires_grad=True)
    a, b = (c.requires_grad_() for c in coefficients(generator, 1, 8))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        rational(x, a, b)
    assert sum(t.numel() for t in saved) == x.numel() + a.numel() + b.numel()


def run_python(code, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)


def test_loading_has_no_side_effects():
    """A library linked with -ffast-math would flush denormals to zero in the whole process."""
    code = (
        "import sys, torch\n"
        "from kat_zoo.kernels import rational\n"
        "rational(torch.ones(1, 8), torch.ones(1, 6), torch.ones(1, 4))\n"
        "tiny = torch.tensor([1e-40]); print(float(tiny * 0.5) > 0, 5e-324 > 0, 'kat_zoo.kernels.rational_triton' in sys.modules)\n"
        "maps = open('/proc/self/maps').read() if sys.platform == 'linux' else ''\n"
        "print(len({line.split()[-1] for line in maps.splitlines() if 'gomp' in line or 'iomp' in line}) <= 1)"
    )
    result = run_python(code)
    assert result.stdout.split() == ["True", "True", "False", "True"], result.stderr


@pytest.mark.parametrize("mebibytes", [12, 64])
def test_large_results_ask_for_huge_pages(generator, mebibytes):
    """The flag hg on the memory of y and dx, and nothing else: the pages they do not fill stay as they were."""
    x = torch.randn(mebibytes << 8, 1 << 10, generator=generator)
    y, dx, *_ = gradients(rational, x, *coefficients(generator, 1, 8), x)
    offered = Path("/sys/kernel/mm/transparent_hugepage").exists()
    for tensor in (y, dx) if sys.platform == "linux" else ():
        assert ("hg" in flags_of_mapping(tensor.data_ptr() + tensor.nbytes // 2)) == offered
        if mebibytes == 64:  # fresh memory, whatever the allocator keeps
            assert "hg" not in flags_of_mapping(tensor.data_ptr())


def flags_of_mapping(address):
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.startswith("VmFlags:") and inside:
            return line.split()[1:]
        start, dash, end = line.split()[0].partition("-")
        if dash and not line.endswith("kB"):
            inside = int(start, 16) <= address < int(end, 16)
    raise AssertionError("no such mapping")


def test_without_the_compiled_library(monkeypatch, caplog, generator):
    """An install without a compiler computes the same and says once that it is slow."""
    x, g = torch.randn(2, 5, 32, generator=generator).unbind(0)
    a, b = coefficients(generator, 1, 8)
    with_kernel = gradients(rational, x, a, b, g)
    cpu_library.load.cache_clear()
    monkeypatch.setattr(cpu_library, "_library_path", lambda: None)
    try:
        for _ in range(2):
            without = gradients(rational, x, a, b, g)
        assert len([r for r in caplog.records if "without its compiled CPU kernels" in r.message]) == 1
    finally:
        monkeypatch.undo()
        cpu_library.load.cache_clear()
    for one, two in zip(with_kernel, without, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
