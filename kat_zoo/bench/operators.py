"""Our operators and those they stand beside, each checked against its formula in float64 on the operands that are timed."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config
from torch.nn import functional

from ..kernels import fourier_attention, fourier_attention_reference, rational, rational_reference, spline_linear
from ..layers.init import rational_coefficients
from ..layers.spline import uniform_knots
from .task import Scale, Task, checked
from .timing import Call, Timer, Timing

GROUPS, RANK, HARMONICS, GRID_SIZE, SPLINE_ORDER = 8, 12, 3, 5, 3
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}

Operands = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Contender:
    """A function that is timed.

    Attributes:
        name: name in the table.
        function: function of all operands.
        reference: its formula, evaluated in float64.
        backward: whether its backward is timed, too.
        compiled: whether it goes through torch.compile.
    """

    name: str
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    backward: bool = True
    compiled: bool = False


@dataclass(frozen=True)
class Case:
    """Contenders on the same operands.

    Attributes:
        part: part of the benchmark.
        name: name in the table.
        dtype: dtype of the operands.
        operands: function that makes the operands that hold a batch in their first dimension, and those that all samples share.
        contenders: functions of these operands.
        amount: bytes or floating-point operations of a pass, by its name.
        chunk: samples for which the formula is evaluated at once.
        count_launches: whether to count launches.
    """

    part: str
    name: str
    dtype: torch.dtype
    operands: Callable[[], Operands]
    contenders: tuple[Contender, ...]
    amount: Mapping[str, float] = field(default_factory=dict)
    chunk: int = 4096
    count_launches: bool = False

    def tasks(self, rank: int) -> Iterator[Task]:
        """One task for each pass of each contender."""
        for contender in self.contenders:
            for direction in ("forward", "backward") if contender.backward else ("forward",):
                run = functools.partial(_measure, self, contender, direction == "backward")
                seconds = 6.0 if contender.compiled else 1.0
                yield Task(self.part, self.name, contender.name, direction, run, rank, seconds, self.amount.get(direction))


def oracle(reference: Callable[..., Tensor], operands: Operands, grad: Tensor | None, chunk: int) -> list[Tensor]:
    """A formula in float64, chunk by chunk of the batch.

    Args:
        reference: function of all operands.
        operands: operands of the batch, and shared ones.
        grad: gradient of the result; None for the result itself.
        chunk: samples at once.

    Returns:
        The result, or the gradients of the operands that have one.
    """
    batched, shared = operands
    shared = tuple(t.double().requires_grad_(grad is not None) for t in shared)
    parts = []
    for start in range(0, len(batched[0]), chunk):
        own = [t[start : start + chunk].detach().double().requires_grad_(grad is not None) for t in batched]
        with torch.set_grad_enabled(grad is not None):
            y = reference(*own, *shared)
        upstream = None if grad is None else grad[start : start + chunk].double()
        parts.append([y] if grad is None else torch.autograd.grad(y, [*own, *shared], upstream, allow_unused=True))
    count = 1 if grad is None else len(batched)
    columns = [column for column in zip(*parts, strict=True) if column[0] is not None]
    return [torch.cat(column) if i < count else torch.stack(column).sum(0) for i, column in enumerate(columns)]


def _clone(t: Tensor, requires_grad: bool) -> Tensor:
    """A copy in memory of its own, with the same strides: those of q, k and v are not those of contiguous tensors."""
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).copy_(t).requires_grad_(requires_grad)


def _measure(case: Case, contender: Contender, backward: bool, timer: Timer) -> Timing:
    function = timer.compile(contender.function) if contender.compiled else contender.function
    operands = case.operands()
    batched, shared = operands
    wanted = oracle(contender.reference, operands, None, case.chunk)
    grad = torch.randn_like(wanted[0]).to(case.dtype) if backward else None
    if grad is not None:
        wanted = oracle(contender.reference, operands, grad, case.chunk)

    def make() -> Call:
        leaves = [_clone(t, backward) for t in (*batched, *shared)]
        if grad is None:
            return torch.no_grad()(lambda: function(*leaves))
        y, g = function(*leaves), grad.clone()
        return lambda: torch.autograd.grad(y, leaves, g, retain_graph=True, allow_unused=True)

    def check(result: Any) -> float:
        found = [result] if grad is None else [t for t in result if t is not None]
        return checked(found, wanted, TOLERANCE[case.dtype])

    copies = timer.copies(sum(t.numel() * t.element_size() for t in batched))
    # A backward that is called again needs all that the forward kept; Inductor would otherwise write over it.
    with config.patch(donated_buffer=False):
        return timer.measure(make, check, copies, count_launches=case.count_launches)


def _generator(device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


def ceilings(scale: Scale, device: str) -> Iterator[Task]:
    """The limits of the device: a copy that no cache holds, and a product of bfloat16 matrices."""
    size = scale.matrix

    def pair() -> Operands:
        generator = _generator(device)
        x, y = (torch.randn(size, size, device=device, dtype=torch.bfloat16, generator=generator) for _ in range(2))
        return (x,), (y,)

    def copied(x: Tensor, _: Tensor) -> Tensor:
        return x.clone()

    copy, product = Contender("copy", copied, copied, backward=False), Contender("matmul", torch.matmul, torch.matmul, backward=False)
    name = f"{size} x {size} bf16"
    yield from Case("ceilings", name, torch.bfloat16, pair, (copy,), {"forward": 4.0 * size**2}).tasks(0)
    yield from Case("ceilings", name, torch.bfloat16, pair, (product,), {"forward": 2.0 * size**3}).tasks(0)


def rationals(scale: Scale, device: str) -> Iterator[Task]:
    """The activation of KAT at the widths of its models, beside a copy, GELU, and its formula compiled in float32."""

    def operands(rows: int, width: int, dtype: torch.dtype) -> Operands:
        a, b = (c.to(device, torch.float32)[None] for c in rational_coefficients("swish"))
        x = torch.randn(rows, width, device=device, generator=_generator(device)).to(dtype)
        return (x,), (a, b.repeat(GROUPS, 1))

    def copied(x: Tensor, *_: Tensor) -> Tensor:
        return x.clone()

    def gelu(x: Tensor, *_: Tensor) -> Tensor:
        return functional.gelu(x)

    def formula(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return rational_reference(x, a, b, compute_dtype=torch.float32)

    contenders = (
        Contender("copy", copied, copied, backward=False),
        Contender("GELU", gelu, gelu),
        Contender("rational", rational, rational_reference),
        Contender("formula, compiled", formula, rational_reference, compiled=True),
    )
    for dtype, rank in ((torch.bfloat16, 1), (torch.float32, 8)):
        for width in scale.widths:
            make = functools.partial(operands, scale.rows, width, dtype)
            moved = scale.rows * width * dtype.itemsize
            name = f"{scale.rows} x {width} {NAMES[dtype]}"
            yield from Case("rational", name, dtype, make, contenders, {"forward": 2.0 * moved, "backward": 3.0 * moved}).tasks(rank)


def attentions(scale: Scale, device: str) -> Iterator[Task]:
    """Fourier attention beside softmax attention of the same heads and, for the fewest heads, beside its formula compiled."""
    dim = 64

    def operands(batch: int, heads: int, tokens: int) -> Operands:
        generator = _generator(device)
        qkv = torch.randn(batch, tokens, 3, heads, dim, device=device, generator=generator).bfloat16()
        a, b = (torch.randn(heads, RANK, tokens, HARMONICS, device=device, generator=generator) / tokens**0.5 for _ in range(2))
        w = torch.randn(heads, tokens, RANK, device=device, generator=generator) / RANK
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # the strides that a model's attention has
        return (q, k, v), (a, b, w)

    def softmax(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)

    ours = Contender("fourier_attention", fourier_attention, fourier_attention_reference)
    formula = Contender("formula, compiled", fourier_attention_reference, fourier_attention_reference, compiled=True)
    for tokens in scale.tokens:
        for heads in scale.heads:
            batch = max(1, scale.rows // tokens)
            contenders = (Contender("SDPA", softmax, softmax), ours, *([formula] if heads == min(scale.heads) else []))
            make = functools.partial(operands, batch, heads, tokens)
            name = f"{batch} x {heads} heads x {tokens} tokens x {dim} bf16"
            yield from Case("attention", name, torch.bfloat16, make, contenders, chunk=4).tasks(3 if tokens == min(scale.tokens) else 6)


def dense_kan_layer(x: Tensor, knots: Tensor, coef: Tensor, base_weight: Tensor) -> Tensor:
    """A KAN layer as it is usually written: all bases by Cox-de Boor's recursion, then two matrix products.

    Args:
        x: (B, C_in).
        knots: (G + 2 k + 1) knots of all inputs, k = 3.
        coef: (C_in, G + k, C_out).
        base_weight: (C_out, C_in).

    Returns:
        (B, C_out).
    """
    z = x.unsqueeze(-1)
    basis = ((z >= knots[:-1]) & (z < knots[1:])).to(x.dtype)
    for p in range(1, SPLINE_ORDER + 1):
        rising = (z - knots[: -p - 1]) / (knots[p:-1] - knots[: -p - 1])
        falling = (knots[p + 1 :] - z) / (knots[p + 1 :] - knots[1:-p])
        basis = rising * basis[..., :-1] + falling * basis[..., 1:]
    return functional.linear(functional.silu(x), base_weight) + basis.flatten(1) @ coef.flatten(0, 1)


def splines(scale: Scale, device: str) -> Iterator[Task]:
    """KAN layers beside the usual formula, eager and compiled, float32: an MNIST network, and a layer of a ViT."""
    ends = (torch.tensor([end], dtype=torch.float64, device=device) for end in (-1.0, 1.0))
    exact = uniform_knots(GRID_SIZE, SPLINE_ORDER, *ends)
    knots = {torch.float64: exact[0], torch.float32: exact[0].float()}

    def ours(x: Tensor, *weights: Tensor) -> Tensor:
        for coef, base_weight in zip(weights[::2], weights[1::2], strict=True):  # the lines of KANLinear.forward
            x = functional.linear(functional.silu(x), base_weight) + spline_linear(x, exact, coef, SPLINE_ORDER)
        return x

    def usual(x: Tensor, *weights: Tensor) -> Tensor:
        for coef, base_weight in zip(weights[::2], weights[1::2], strict=True):
            x = dense_kan_layer(x, knots[x.dtype], coef, base_weight)
        return x

    def operands(rows: int, shape: tuple[int, ...]) -> Operands:
        generator = _generator(device)
        x = 1.8 * torch.rand(rows, shape[0], device=device, generator=generator) - 0.9  # the two differ outside the grid
        weights = []
        for inputs, outputs in itertools.pairwise(shape):
            for size in ((inputs, GRID_SIZE + SPLINE_ORDER, outputs), (outputs, inputs)):
                weights.append(torch.randn(size, device=device, generator=generator) * 0.1 / inputs**0.5)
        return (x,), tuple(weights)

    contenders = (
        Contender("usual formula", usual, usual),
        Contender("KANLinear", ours, usual),
        Contender("usual formula, compiled", usual, usual, compiled=True),
    )
    for rows, shape in scale.networks:
        make = functools.partial(operands, rows, shape)
        yield from Case("splines", f"{list(shape)}, {rows} rows", torch.float32, make, contenders, count_launches=True).tasks(4)
