"""Everything that a GPU does, against the CPU in float64. `make test-gpu` runs it on one; the default suite runs it on the CPU."""

import contextlib
import os

import pytest
import timm
import torch
from torch import nn

import kat_zoo
from kat_zoo.kan import KAN
from kat_zoo.kernels import bspline_basis, fourier_attention, fourier_attention_reference, rational, rational_reference, spline_linear
from kat_zoo.kernels.bspline_torch import bspline_basis_reference, spline_contract_reference
from kat_zoo.layers import GRKAN, KANLinear

GPU = os.environ.get("KAT_ZOO_TEST_GPU") == "1"
pytestmark = [pytest.mark.gpu] if GPU else []
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float64: 1e-10}
PICO = ["kat_pico_patch4_28", "karat_pico_patch4_28", "karat_kat_pico_patch4_28", "vit_kan_pico_patch4_28", "kat_mixer_pico_patch4_28"]


def rational_case(generator, dtype, size):
    rows, channels = [(1, 8), (197, 192), (33, 24), (5, 3072)][size]
    return [
        torch.randn(rows, channels, generator=generator).to(dtype),
        torch.randn(1, 6, generator=generator),
        torch.randn(8, 4, generator=generator),
    ]


def fourier_case(generator, dtype, size):
    sizes = [(2, 3, 197, 64, 12, 3), (1, 2, 50, 16, 8, 1), (1, 1, 33, 32, 5, 11), (2, 6, 65, 24, 12, 3)]
    batch, heads, tokens, dim, rank, harmonics = sizes[size]
    qkv = [torch.randn(batch, heads, tokens, dim, generator=generator).to(dtype) for _ in range(3)]
    coefficients = [torch.randn(heads, rank, tokens, harmonics, generator=generator) / tokens for _ in range(2)]
    return [*qkv, *coefficients, torch.randn(heads, tokens, rank, generator=generator) / rank]


def spline_case(generator, dtype, size):
    rows, inputs, outputs, grid, order = [(1000, 2, 5, 5, 3), (300, 24, 96, 5, 3), (70, 3, 1, 90, 2), (9, 4, 33, 7, 5)][size]
    knots = torch.linspace(-1 - 2 * order / grid, 1 + 2 * order / grid, grid + 2 * order + 1, dtype=torch.float64).repeat(inputs, 1)
    coef = torch.randn(inputs, grid + order, outputs, generator=generator).to(dtype)
    return [(3 * torch.rand(rows, inputs, generator=generator) - 1.5).to(dtype), knots, coef], order


def spline(order):
    def function(x, knots, coef):
        return spline_linear(x, knots, coef, order)

    return function


def cases(name, generator, dtype, size):
    """The operator, its formula, its tensors, and which of them it is differentiated by."""
    if name == "rational":
        return rational, rational_reference, rational_case(generator, dtype, size), (0, 1, 2)
    if name == "fourier_attention":
        return fourier_attention, fourier_attention_reference, fourier_case(generator, dtype, size), range(6)
    tensors, order = spline_case(generator, dtype, size)
    return spline(order), lambda x, t, c: spline_contract_reference(x, t, c, None, order, 0), tensors, (0, 2)


def run(function, tensors, wanted, forward=None, backward=None):
    """The result and the gradients, each pass under a context of its own."""
    tensors = [t.detach().clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
    with forward or contextlib.nullcontext():
        y = function(*tensors)
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y)
    with backward or contextlib.nullcontext():
        y.backward(weights)
    return [y.detach(), *(tensors[i].grad for i in wanted)]


def compare(found, expected, tolerance):
    for got, want in zip(found, expected, strict=True):
        bound = max(tolerance, 1e-6) if got.dtype == torch.float32 else tolerance  # gradients of float32 coefficients
        got, want = got.double().cpu(), want.double().cpu()
        assert (got - want).norm() <= bound * max(float(want.norm()), 1e-12), (got - want).norm() / want.norm()


@pytest.mark.parametrize("size", range(4))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["rational", "fourier_attention", "spline"])
def test_operators(name, dtype, size, device, generator):
    function, formula, tensors, wanted = cases(name, generator, dtype, size)
    expected = run(formula, [t.double() for t in tensors], wanted)
    found = run(function, [t.to(device) for t in tensors], wanted)
    assert found[0].dtype == dtype and found[0].device.type == device
    compare(found, expected, TOLERANCE[dtype])
    for again, first in zip(run(function, [t.to(device) for t in tensors], wanted), found, strict=True):
        assert torch.equal(again, first)


@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
@pytest.mark.parametrize("name", ["rational", "fourier_attention", "spline"])
def test_operators_under_autocast(name, inside, device, generator):
    function, _, tensors, wanted = cases(name, generator, torch.bfloat16, 1)
    tensors = [t.to(device) for t in tensors]
    autocast = torch.autocast(device, torch.bfloat16)
    found = run(function, tensors, wanted, autocast, autocast if inside else None)
    for got, want in zip(found, run(function, tensors, wanted), strict=True):
        assert got.dtype == want.dtype and torch.equal(got, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides_and_nothing_at_all(dtype, device, generator):
    x, a, b = (t.to(device) for t in rational_case(generator, dtype, 1))
    images = x[:196].reshape(4, 7, 7, 192).permute(0, 3, 1, 2)
    compare([rational(images, a, b, 1)], [rational(images.contiguous(), a, b, 1)], 1e-12)
    compare([rational(x.t().contiguous().t(), a, b)], [rational(x, a, b)], 1e-12)
    assert rational(x[:0], a, b).shape == (0, 192)
    (z, knots, coef), order = spline_case(generator, dtype, 1)
    z, knots, coef = z.to(device), knots.to(device), coef.to(device)
    assert spline_linear(z[:0], knots, coef, order).shape == (0, 96)
    compare([spline_linear(z.t().contiguous().t(), knots, coef, order)], [spline_linear(z, knots, coef, order)], 1e-12)
    basis = bspline_basis_reference(z.double(), knots, order)
    compare([bspline_basis(z, knots, order)], [basis], TOLERANCE[dtype])


def step(model, x, target, device, precision=torch.float32, scaler=None):
    """The gradients of one step, on one vector."""
    model = model.to(device)
    model.zero_grad()
    with torch.autocast(device, precision, enabled=precision != torch.float32):
        loss = nn.functional.cross_entropy(model(x.to(device)).float(), target.to(device))
    (scaler.scale(loss) if scaler else loss).backward()
    return torch.cat([p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", PICO)
def test_a_training_step(name, precision, device, generator):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    x, target = torch.randn(4, *model.pretrained_cfg["input_size"], generator=generator), torch.tensor([1, 2, 3, 4])
    expected = step(model, x, target, "cpu")
    scaler = torch.amp.GradScaler(device, init_scale=1024.0) if precision == torch.float16 else None
    found = step(model, x, target, device, precision, scaler) / (1024 if scaler else 1)
    assert (found - expected).norm() <= {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}[precision] * expected.norm()


def test_a_model_computes_what_it_does_on_the_cpu(device):
    model = timm.create_model("kat_pico_patch4_28", pretrained=True).eval()
    x = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(x)
        torch.testing.assert_close(model.to(device)(x.to(device)).cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled(mode, device, generator):
    torch.manual_seed(0)
    model = nn.Sequential(GRKAN(32, 64, 32), KANLinear(32, 10)).to(device)
    x, target = torch.randn(16, 32, generator=generator), torch.arange(16) % 10
    expected = step(model, x, target, device)
    compiled = torch.compile(model, mode=mode)
    for _ in range(3):
        assert (step(compiled, x, target, device) - expected).norm() <= 1e-4 * expected.norm()


def test_a_kan_on_the_device(device):
    generator = torch.Generator().manual_seed(0)
    X = 2 * torch.rand(300, 2, generator=generator, dtype=torch.float64) - 1
    y = torch.exp(torch.sin(torch.pi * X[:, :1]) + X[:, 1:] ** 2)
    X, y = X.to(device), y.to(device)
    model = KAN([2, 1, 1], device=device)
    model.fit(X, y, steps=30)
    model.auto_symbolic(X, y)
    model.fit(X, y, steps=20)
    assert float((model(X) - y).abs().max().detach()) < 2e-2
    other = KAN([2, 3, 1], device=device)
    other.fit(X, y, steps=5, optimizer="lbfgs")
    other.prune(X)(X)


cuda = pytest.mark.gpu


@cuda
def test_a_captured_step(generator):
    """Forward, backward and update of a model in one CUDA graph."""
    torch.manual_seed(0)
    model = timm.create_model("karat_kat_pico_patch4_28", num_classes=10).cuda()
    twin = timm.create_model("karat_kat_pico_patch4_28", num_classes=10).cuda()
    twin.load_state_dict(model.state_dict())
    x, target = torch.randn(8, 1, 28, 28, generator=generator).cuda(), torch.arange(8).cuda()
    optimizers = [torch.optim.AdamW(m.parameters(), 1e-3, capturable=True) for m in (model, twin)]

    def train(m, optimizer):
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(m(x), target).backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            train(model, optimizers[0])
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train(model, optimizers[0])
    for _ in range(5):
        graph.replay()
    for _ in range(8):
        train(twin, optimizers[1])
    torch.testing.assert_close(model.head.weight, twin.head.weight, rtol=1e-4, atol=1e-5)


@cuda
def test_steps_leave_nothing_behind(generator):
    model = timm.create_model("karat_kat_pico_patch4_28", num_classes=10)
    x, target = torch.randn(8, 1, 28, 28, generator=generator), torch.arange(8)
    for _ in range(3):
        step(model, x, target, "cuda", torch.bfloat16)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(50):
        step(model, x, target, "cuda", torch.bfloat16)
    assert torch.cuda.memory_allocated() == before


@cuda
def test_more_than_two_to_the_31_elements():
    a, b = torch.randn(1, 6).cuda(), torch.randn(8, 4).cuda()
    big = torch.zeros(2**31 // 1024 + 8, 1024, dtype=torch.bfloat16, device="cuda")
    big[-1, -1] = 3.0
    torch.testing.assert_close(rational(big, a, b)[-1:], rational(big[-1:], a, b))
    (_, knots, coef), order = spline_case(torch.Generator().manual_seed(0), torch.float32, 0)
    rows = torch.zeros(2**28, 2, device="cuda")  # 2^28 rows of two inputs and five outputs
    rows[-1] = 0.5
    torch.testing.assert_close(
        spline_linear(rows, knots.cuda(), coef.cuda(), order)[-1:], spline_linear(rows[-1:], knots.cuda(), coef.cuda(), order)
    )


@cuda
def test_transfer_on_the_device():
    vit = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64, num_classes=5).cuda().eval()
    x = torch.randn(2, 3, 64, 64).cuda()
    kat, _ = kat_zoo.vit_to_kat(vit, images=x)
    assert (kat.eval()(x) - vit(x)).norm() <= 0.05 * vit(x).norm()
