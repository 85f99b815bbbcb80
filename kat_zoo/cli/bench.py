"""`kat-zoo bench rational`: the activation against a device copy and GELU, KAT against timm's ViT; a table each.

On a GPU: `kat-zoo bench rational --device cuda --csv benchmarks/rational_cuda.csv`. Without one, the same code at a
small size: `kat-zoo bench rational --device cpu --batch-size 1 --models tiny`, or, with TRITON_INTERPRET=1 in front and
`--models none --tokens 1 --seconds 0`, with the activation in Triton's interpreter.
"""

import argparse
import csv
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from .._arguments import require_writable
from .._checks import count, real
from ..kernels import cpu_library, rational, rational_reference
from ..layers.init import rational_coefficients

SIZES = {"tiny": 192, "small": 384, "base": 768}
TOKENS, GROUPS = 197, 8
Row = dict[str, object]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


class _Interpreted(torch.autograd.Function):
    """The Triton kernels on CPU tensors, where the operator would choose C++."""

    @staticmethod
    def forward(ctx, x: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
        from ..kernels import rational_triton

        ctx.save_for_backward(x, numerator, denominator)
        return rational_triton.forward(x, numerator, denominator, x.ndim - 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        from ..kernels import rational_triton

        x, numerator, denominator = ctx.saved_tensors
        return rational_triton.backward(grad, x, numerator, denominator, x.ndim - 1)


def _activation(device: str) -> tuple[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    if device == "cpu":
        import triton

        if triton.knobs.runtime.interpret:
            return "triton, interpreted", _Interpreted.apply
        return "C++" if cpu_library.load() else "PyTorch", rational
    return "triton", rational


def milliseconds(function: Callable[[], object], seconds: float) -> float:
    """Median time of a call, of blocks of calls of 10 ms or more between which the device is synchronized."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

    def block(calls: int) -> float:
        synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            function()
        synchronize()
        return time.perf_counter() - start

    block(1)  # compiles, allocates
    calls = max(1, round(0.01 / max(block(1), 1e-6)))
    times = [block(calls)]
    while sum(times) < seconds:
        times.append(block(calls))
    return statistics.median(times) / calls * 1e3


def check_oracle(function: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, a: Tensor, b: Tensor) -> None:
    """Compare y and every gradient with the float64 reference on a few rows.

    Raises:
        ValueError: they differ: the time of a wrong result says nothing.
    """
    x = x.detach()[:8].clone()
    results = []
    for call, dtype in ((function, None), (rational_reference, torch.float64)):
        inputs = [t.detach().to(dtype or t.dtype).requires_grad_() for t in (x, a, b)]
        y = call(*inputs)
        results.append([y.detach(), *torch.autograd.grad(y, inputs, torch.ones_like(y))])
    for name, got, want in zip(("y", "dx", "dnumerator", "ddenominator"), *results, strict=True):
        error = float((got.double() - want).norm() / want.norm())
        if not error <= TOLERANCE[x.dtype]:
            raise ValueError(f"{name} differs from the float64 reference by {error:.1e} ({x.dtype}, {x.device}): nothing is reported")


def kernel_rows(device: str, sizes: Sequence[str], dtypes: Sequence[str], tokens: int, seconds: float) -> list[Row]:
    """Time both passes at both widths of every model; ratios to a copy that moves as many bytes, and to GELU."""
    path, function = _activation(device)
    rows: list[Row] = []
    for size, expansion, dtype in ((s, e, d) for s in sizes for e in (1, 4) for d in dtypes):
        x = torch.randn(tokens, SIZES[size] * expansion, device=device, dtype=DTYPES[dtype])
        a, b = (c.to(device, torch.float32) for c in rational_coefficients("swish", (5, 4)))
        a, b = a.reshape(1, -1).requires_grad_(), b.reshape(1, -1).repeat(GROUPS, 1).requires_grad_()
        check_oracle(function, x, a, b)
        g, target = torch.randn_like(x), torch.empty_like(x)
        copy = milliseconds(functools.partial(target.copy_, x), seconds)  # reads and writes x once
        x.requires_grad_()
        for name, streams in (("forward", 2), ("backward", 3)):
            ours, gelu = (
                milliseconds(_call(f, (x, *c), g, name == "backward"), seconds) for f, c in ((function, (a, b)), (nn.functional.gelu, ()))
            )
            gigabytes = streams * x.numel() * x.element_size() / 1e9
            rows.append(
                {
                    "pass": name,
                    "path": path,
                    "shape": f"{x.shape[0]}x{x.shape[1]}",
                    "dtype": dtype,
                    "ms": round(ours, 4),
                    "GB/s": round(gigabytes / ours * 1e3, 1),
                    "of copy": round(copy * streams / 2 / ours, 3),
                    "time / GELU": round(ours / gelu, 3),
                }
            )
    return rows


def _call(function: Callable, inputs: tuple[Tensor, ...], g: Tensor, backward: bool) -> Callable[[], object]:
    """A forward without autograd, or a backward alone through a graph that is kept."""
    if backward:
        y = function(*inputs)
        return lambda: torch.autograd.grad(y, inputs, g, retain_graph=True)

    def forward() -> Tensor:
        with torch.no_grad():
            return function(*inputs)

    return forward


def _throughput(name: str, device: str, dtype: torch.dtype, batch_size: int, seconds: float) -> tuple[float, float]:
    """Images/s of inference and of a training step (autocast, AdamW)."""
    model = timm.create_model(name).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")
    images = torch.randn(batch_size, 3, 224, 224, device=device)
    labels = torch.randint(1000, (batch_size,), device=device)

    def infer() -> None:
        with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            model(images)

    def train() -> None:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    rates = []
    for function, mode in ((infer, model.eval), (train, model.train)):
        mode()
        rates.append(batch_size / milliseconds(function, seconds) * 1e3)
    return rates[0], rates[1]


def model_rows(device: str, sizes: Sequence[str], dtypes: Sequence[str], batch_size: int, seconds: float) -> list[Row]:
    """Images/s of KAT and of timm's ViT of the same size, inference and training."""
    rows: list[Row] = []
    for size, dtype in ((s, d) for s in sizes for d in dtypes):
        kat, vit = (_throughput(f"{family}_{size}_patch16_224", device, DTYPES[dtype], batch_size, seconds) for family in ("kat", "vit"))
        for mode, ours, theirs in zip(("inference", "training"), kat, vit, strict=True):
            rates = {"KAT images/s": ours, "ViT images/s": theirs, "KAT / ViT": ours / theirs}
            rounded = {key: round(value, 3) for key, value in rates.items()}
            rows.append({"model": size, "mode": mode, "dtype": dtype, "batch": batch_size, **rounded})
    return rows


def _print(rows: Sequence[Row]) -> None:
    table = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print()


def _write(path: Path, tables: Sequence[Sequence[Row]]) -> None:
    with path.open("w", newline="") as file:
        for rows in tables:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def run(options: argparse.Namespace) -> int:
    """Measure, and print the tables.

    Args:
        options: parsed arguments of `kat-zoo bench`.

    Returns:
        Exit code 0.
    """
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("batch_size", "tokens"):
        if getattr(options, name) is not None:
            count(f"--{name.replace('_', '-')}", getattr(options, name))
    real("--seconds", options.seconds, 0)
    require_writable("--csv", options.csv)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda': torch sees no GPU: expected --device cpu")
    sizes = [size for size in options.models if size != "none"]
    tokens = options.tokens or options.batch_size * TOKENS
    tables = [kernel_rows(options.device, sizes or ["tiny"], options.dtype, tokens, options.seconds)]
    if sizes:
        tables.append(model_rows(options.device, sizes, options.dtype, options.batch_size, options.seconds))
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}\n")
    for rows in tables:
        _print(rows)
    if options.csv:
        _write(options.csv, tables)
    return 0
