"""The Triton kernels against the float64 reference: in Triton's interpreter, and on a real GPU with `make test-gpu`."""

import os

import pytest
import torch

from kat_zoo.kernels import rational_reference

# Norm-wise for y and dx: the rounding of the dtype. Sums for the coefficients are float32.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2, torch.float16: 1e-3}

# numpy, which the interpreter computes with, reports what overflows before it is done again with care.
OVERFLOWS = pytest.mark.filterwarnings("ignore:.*(overflow|invalid value|divide by zero).*:RuntimeWarning")

pytestmark = [pytest.mark.gpu] if os.environ.get("KAT_ZOO_TEST_GPU") == "1" else []


def coefficients(generator, a_rows, b_rows, order=(5, 4), dtype=torch.float32):
    a = torch.randn(a_rows, order[0] + 1, generator=generator) * 0.5
    b = torch.randn(b_rows, order[1], generator=generator) * 0.5
    return a.to(dtype), b.to(dtype)


def run(x, a, b, g, channel_dim=-1, **options):
    """(y, dx, da, db) of the Triton path, as the operator calls it."""
    from kat_zoo.kernels import rational_triton

    channel_dim %= x.ndim
    y = rational_triton.forward(x, a, b, channel_dim, **options)
    return y, *rational_triton.backward(g, x, a, b, channel_dim, **options)


def oracle(x, a, b, g, channel_dim=-1):
    inputs = [t.detach().double().requires_grad_() for t in (x, a, b)]
    y = rational_reference(*inputs, channel_dim)
    return y.detach(), *torch.autograd.grad(y, inputs, g.double())


def assert_matches_reference(device, x, a, b, g, channel_dim=-1):
    got = run(*(t.to(device) for t in (x, a, b, g)), channel_dim)
    result, sums = TOLERANCE[x.dtype], 1e-14 if x.dtype == torch.float64 else 1e-6 if a.dtype == torch.float32 else 1e-2
    for name, ours, want, like, tolerance in zip(
        ("y", "dx", "da", "db"),
        got,
        oracle(x, a, b, g, channel_dim),
        (x, x, a, b),
        (result, result, sums, sums),
        strict=True,
    ):
        assert (ours.dtype, ours.shape) == (like.dtype, like.shape), name
        error = (ours.cpu().double() - want).norm() / want.norm().clamp_min(1e-300)
        assert error <= tolerance, f"{name}: relative error {error:.2e}"


@pytest.mark.parametrize(
    "dtype, rows, width",
    [
        *[(torch.float32, *size) for size in ((1, 24), (17, 25), (17, 96), (1, 384))],
        *[(torch.bfloat16, *size) for size in ((17, 24), (1, 25), (1, 96))],
        *[pytest.param(dtype, 16, 384, marks=pytest.mark.slow) for dtype in (torch.float32, torch.bfloat16)],
    ],
    ids=str,
)
def test_odd_sizes(device, dtype, rows, width, generator):
    x, g = torch.randn(2, rows, 8 * width, generator=generator).mul(2).to(dtype).unbind(0)
    assert_matches_reference(device, x, *coefficients(generator, 1, 8), g)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_other_dtypes(device, dtype, generator):
    x, g = torch.randn(2, 17, 96, generator=generator).to(dtype).unbind(0)
    of = torch.float64 if dtype == torch.float64 else torch.float32
    assert_matches_reference(device, x, *coefficients(generator, 1, 8, dtype=of), g)


@pytest.mark.parametrize("order, rows", [((0, 1), (1, 4)), ((1, 3), (4, 1)), ((3, 2), (4, 4)), ((8, 8), (1, 1)), ((2, 7), (1, 1))])
def test_orders_and_broadcast_rows(device, order, rows, generator):
    x, g = torch.randn(2, 33, 80, generator=generator).unbind(0)
    assert_matches_reference(device, x, *coefficients(generator, *rows, order), g)


@pytest.mark.parametrize("channels, groups", [(8, 1), (8, 8), (30, 5), (24, 12)])
def test_groups(device, channels, groups, generator):
    x, g = torch.randn(2, 19, channels, generator=generator).unbind(0)
    assert_matches_reference(device, x, *coefficients(generator, groups, 1), g)


@pytest.mark.parametrize(
    "make, channel_dim",
    [
        (lambda x: x.transpose(0, 1), -1),
        (lambda x: x[..., 8:24], -1),
        (lambda x: x[1:, :, 1:], 0),
        (lambda x: x, 1),
        (lambda x: x.movedim(-1, 1), 1),
        (lambda x: x[0, 0], -1),
    ],
    ids=[
        "transposed",
        "channels sliced",
        "channels first, sliced",
        "channels in the middle",
        "channels last memory",
        "1-D",
    ],
)
def test_layouts(device, make, channel_dim, generator):
    x = make(torch.randn(9, 16, 32, generator=generator))
    x = x[: x.shape[0] // 8 * 8] if channel_dim == 0 else x
    g = torch.randn((), generator=generator).expand(x.shape)
    assert_matches_reference(device, x, *coefficients(generator, 1, 8), g, channel_dim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_wide_groups_have_a_dynamic_width(device, dtype, generator):
    """NCHW: a group is a run of 2 * 41 * 40 elements, longer than a tile and no power of two."""
    x, g = torch.randn(2, 3, 4, 41, 40, generator=generator).to(dtype).unbind(0)
    assert_matches_reference(device, x, *coefficients(generator, 1, 2), g, channel_dim=1)


def test_64_bit_offsets(device, generator, monkeypatch):
    """The code for more than 2^31 elements, at a size that can be tested anywhere."""
    from kat_zoo.kernels import rational_triton

    monkeypatch.setattr(rational_triton, "INT32_LIMIT", 0)
    x, g = torch.randn(2, 17, 192, generator=generator).unbind(0)
    assert_matches_reference(device, x, *coefficients(generator, 1, 8), g)
    x, g = torch.randn(2, 2, 4, 41, 40, generator=generator).unbind(0)
    assert_matches_reference(device, x, *coefficients(generator, 1, 2), g, channel_dim=1)


@pytest.mark.parametrize("rows", [1, 197, 128 * 197, 2**24, 2**33])
@pytest.mark.parametrize("groups, width", [(1, 1), (8, 24), (8, 384), (8, 96 * 56 * 56), (4096, 1)])
@pytest.mark.parametrize("backward", [False, True])
def test_every_vector_has_a_program(device, rows, groups, width, backward):
    from kat_zoo.kernels import rational_triton

    a, b = torch.empty(1, 6), torch.empty(groups, 4)
    gpu = rational_triton.Gpu(32, True)
    of = [rational_triton.problem(n, groups, width, torch.bfloat16, a, b, backward, gpu) for n in (rows, 197)]
    (grid, (units, steps, *_), constants), (_, _, for_another_batch) = of
    tiles = -(-units // constants["TILE"])
    assert grid[0] == groups and grid[1] <= 65535
    assert (grid[1] - 1) * steps < tiles <= grid[1] * steps
    changed = {key for key in constants if constants[key] != for_another_batch[key]}
    assert changed <= ({"INDEX"} if rows * groups * width > 2**31 else set())


@OVERFLOWS
@pytest.mark.parametrize("zeros_a, zeros_b", [(0, 0), (4, 4), (0, 2), (2, 0), (5, 0)])
def test_finite_wherever_the_true_value_is(device, zeros_a, zeros_b, generator):
    """Powers overflow float32 for most of these; coefficients of trailing zeros lower the degree."""
    a, b = coefficients(generator, 1, 2)
    a, b = a.abs().add(0.1), b.abs().add(0.1)
    a[:, 6 - zeros_a :], b[:, 4 - zeros_b :] = 0, 0
    scale = torch.logspace(-30, 30, 61)
    x = torch.cat([scale, -scale, torch.randn(70, generator=generator)]).expand(2, -1).contiguous()
    g = torch.full_like(x, 1e-6)
    y, dx, *_ = run(*(t.to(device) for t in (x, a, b, g)))
    want_y, want_dx, *_ = oracle(x, a, b, g)
    for ours, want in ((y, want_y), (dx, want_dx)):
        ours, representable = ours.cpu().double(), (want.abs() < 3e38)
        assert ours[representable].isfinite().all()
        normal = representable & (want.abs() > 1e-36)
        assert ((ours - want).abs()[normal] <= 4e-6 * want.abs()[normal] + 1e-7 * (want.abs() < 1)[normal]).all()


@OVERFLOWS
def test_coefficient_sums_of_large_inputs(device, generator):
    """The chunk that is done again in powers of 1/x must not count twice, nor lose its ordinary elements."""
    a, b = coefficients(generator, 2, 2)
    x, g = torch.randn(2, 40, 96, generator=generator).unbind(0)
    x, g = x.clone(), g.clone()
    x[3, 5], x[30, 90] = 3e12, -4e18
    g[3, 5] = g[30, 90] = 1e-20
    got, want = run(*(t.to(device) for t in (x, a, b, g)))[2:], oracle(x, a, b, g)[2:]
    for ours, expected in zip(got, want, strict=True):
        torch.testing.assert_close(ours.cpu().double(), expected, rtol=2e-5, atol=2e-5)


def test_sign_of_zero_is_positive(device):
    x = torch.tensor([[0.0, -0.0] * 4])
    a, b = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, -0.0]])
    _, dx, _, db = run(*(t.to(device) for t in (x, a, b + torch.tensor([[0.5, 0.0]]), torch.ones_like(x))))
    assert torch.equal(dx.cpu(), torch.full_like(x, 1.0 - 0.5))
    _, _, _, db = run(*(t.to(device) for t in (torch.ones_like(x), a, b, torch.ones_like(x))))
    assert torch.equal(db.cpu(), torch.full_like(b, -2.0 * 8))


@pytest.mark.parametrize(
    "x_dtype, dtype", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16), (torch.float16, torch.float64)]
)
def test_coefficients_of_another_dtype(device, x_dtype, dtype, generator):
    """As under autocast: nothing is cast before the kernel."""
    x, g = torch.randn(2, 17, 96, generator=generator).to(x_dtype).unbind(0)
    assert_matches_reference(device, x, *coefficients(generator, 1, 8, dtype=dtype), g)


def test_several_chunks_and_bitwise_repeatable(device, generator):
    """4 chunks of 4 tiles for each of two groups."""
    g, x = torch.randn(2, 21, 768, generator=generator)
    assert_matches_reference(device, x, *coefficients(generator, 2, 1), g)
    inputs = [t.to(device) for t in (g, x, *coefficients(generator, 1, 2))]
    g, x, a, b = inputs
    for first, second in zip(run(x, a, b, g), run(x, a, b, g), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("shape", [(0, 16), (4, 0), (2, 0, 3, 16)])
def test_empty(device, shape, generator):
    x = torch.empty(shape, device=device)
    a, b = (c.to(device) for c in coefficients(generator, 1, 8))
    y, dx, da, db = run(x, a, b, x)
    assert y.shape == dx.shape == shape
    assert not da.any() and not db.any() and (da.shape, db.shape) == (a.shape, b.shape)


@OVERFLOWS
def test_nan_stays_where_it_is(device, generator):
    x = torch.randn(5, 48, generator=generator)
    x[2, 7] = float("nan")
    a, b = coefficients(generator, 1, 8)
    y, dx, *_ = run(*(t.to(device) for t in (x, a, b, torch.ones_like(x))))
    assert torch.equal(y.cpu().isnan(), x.isnan()) and torch.equal(dx.cpu().isnan(), x.isnan())


@pytest.mark.gpu
def test_operator_on_the_gpu(device, generator):
    """Through autograd, under autocast, with the exact reciprocal too, and past 2^31 elements."""
    from kat_zoo.kernels import rational, rational_triton

    x = torch.randn(64, 197, 192, generator=generator).to(device)
    a, b = (c.to(device).requires_grad_() for c in coefficients(generator, 1, 8))
    with torch.autocast(device):
        y = rational(x.bfloat16().requires_grad_(), a, b)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and a.grad.dtype == torch.float32 and b.grad.isfinite().all()
    exact = rational_triton.forward(x, a, b, 2, gpu=rational_triton.Gpu(rational_triton.current_gpu().warp_size, False))
    torch.testing.assert_close(exact, rational(x, a, b), rtol=1e-6, atol=1e-6)
    big = torch.zeros(2**31 // 1024 + 8, 1024, dtype=torch.bfloat16, device=device)
    big[-1, -1] = 3.0
    torch.testing.assert_close(rational(big, a, b)[-1:], rational(big[-1:], a, b))
