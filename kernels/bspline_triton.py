"""The B-spline operators on GPUs: the host's part, which chooses the form of a contraction and cuts tensors into programs.

Wide layers write the dense bases of a piece of the rows and leave the rest to the library's matrix product (in TF32 where
torch.set_float32_matmul_precision allows it). Small layers, and grids so fine that most of a dense basis would be zeros, take one
kernel, which never writes a basis. Sums over rows are made of parts that the shapes alone decide, added in a fixed order: no
atomics, bitwise repeatable.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from .bspline_triton_kernels import (
    bspline_basis_kernel,
    spline_accumulate_local_kernel,
    spline_contract_local_kernel,
    spline_pick_kernel,
    spline_project_local_kernel,
)
from .launching import launcher, multiply_adds, on_device

WIDE_OUTPUTS = 16  # outputs from which matrix products pay
WASTE = 16  # bases for one that is not 0, above which they do not
PIECE = 2**26  # elements of the dense bases that are written at a time: 256 MiB in float32
PART_ROWS, MAX_PARTS = 1024, 64  # least rows of a part of a sum over rows, and the largest number of parts
MAX_CHANNELS = 65535  # of a launch: no axis but the first has more programs
SAMPLES = 128  # of a program of the elementwise kernels


class Problem:
    """Sizes and constants that the kernels of one call share.

    Args:
        x: (B, C) rows.
        knots: (1 or C, G + 2 k + 1) knots in float64, contiguous.
        outputs: number O of outputs.
        spline_order: degree k of the pieces.
        derivative: number of derivatives, at most k.
    """

    def __init__(self, x: Tensor, knots: Tensor, outputs: int, spline_order: int, derivative: int) -> None:
        self.rows, self.inputs = x.shape
        self.outputs = outputs
        self.bases = knots.shape[1] - spline_order - 1
        grid = self.bases - spline_order
        self.tail = (knots.shape[1] if knots.shape[0] > 1 else 0, grid, self.bases)
        self.sizes = (self.rows, self.inputs, outputs, *self.tail)
        self.wide = outputs >= WIDE_OUTPUTS
        self.gathers = not self.wide or self.bases > WASTE * (spline_order + 1)
        self.constants: dict[str, Any] = {
            "ORDER": spline_order,
            "DERIVATIVE": derivative,
            "STEPS": (grid - 1).bit_length(),
            "num_warps": 4,
            **multiply_adds(),
        }

    def pieces(self) -> list[slice]:
        """Cut the rows so that their bases have at most PIECE elements."""
        step = max(PIECE // (self.inputs * self.bases), 1)
        if self.rows <= step:  # apart, or a compiled graph would hold for one number of rows alone
            return [slice(0, self.rows)]
        return [slice(i, i + step) for i in range(0, self.rows, step)]

    def block(self, dtype: torch.dtype, sums: bool) -> int:
        """Bases that a thread holds beside the values of its sample, as tiles or as sums: as many as do not spill."""
        double, high = dtype == torch.float64, self.constants["ORDER"] > 3
        most = 16 // (1 + (double and high)) if sums else 16 // (1 + double) // (1 + high)
        return min(triton.next_power_of_2(self.bases), most)

    def write(self, x: Tensor, knots: Tensor, scale: Tensor | None, out: Tensor) -> Tensor:
        """Fill out (rows, C, G + k) with the bases at x, times the scale."""
        block = self.block(x.dtype, sums=False)
        constants = self.constants | {"SCALED": scale is not None, "M": SAMPLES, "J": block}
        grid = (triton.cdiv(x.numel(), SAMPLES),)
        operands = (x, knots, x if scale is None else scale, out, x.numel(), self.inputs, *self.tail)
        launcher(bspline_basis_kernel, x)[grid](*operands, **constants)
        return out

    def written(self, x: Tensor, knots: Tensor, scale: Tensor | None, rows: slice) -> Tensor:
        """The bases of some rows, (rows, C (G + k))."""
        x, scale = x[rows], None if scale is None else scale[rows]
        return self.write(x, knots, scale, x.new_empty(*x.shape, self.bases)).flatten(1)


def basis(x: Tensor, knots: Tensor, out: Tensor, spline_order: int, derivative: int) -> None:
    """Fill out (..., C, G + k) with the bases at x (..., C)."""
    with on_device(x):
        Problem(x.flatten(0, -2) if x.ndim > 1 else x[None], knots, 1, spline_order, derivative).write(x, knots, None, out)


def contract(x: Tensor, knots: Tensor, coef: Tensor, scale: Tensor | None, y: Tensor, spline_order: int, derivative: int) -> None:
    """Fill y (B, O), from contiguous operands as `torch.ops.kat_zoo.spline_contract` has them."""
    shared = Problem(x, knots, y.shape[1], spline_order, derivative)
    with on_device(x):
        if not shared.gathers:
            for rows in shared.pieces():
                torch.mm(shared.written(x, knots, scale, rows), coef.flatten(0, 1), out=y[rows])
            return
        n = min(triton.next_power_of_2(shared.outputs), 16)
        grid = (triton.cdiv(shared.rows, SAMPLES), triton.cdiv(shared.outputs, n))
        constants = shared.constants | {"SCALED": scale is not None, "M": SAMPLES, "N": n}
        launcher(spline_contract_local_kernel, x)[grid](x, knots, coef, x if scale is None else scale, y, *shared.sizes, **constants)


def project(grad: Tensor, x: Tensor, knots: Tensor, coef: Tensor, u: Tensor, spline_order: int, derivative: int) -> None:
    """Fill u (B, C), from contiguous operands as `torch.ops.kat_zoo.spline_project` has them."""
    shared = Problem(x, knots, grad.shape[1], spline_order, derivative)
    with on_device(x):
        if not shared.gathers:
            for rows in shared.pieces():
                products = grad[rows] @ coef.flatten(0, 1).T
                samples = x[rows].numel()
                operands = (x[rows], knots, products, u[rows], samples, shared.inputs, *shared.tail)
                launcher(spline_pick_kernel, x)[triton.cdiv(samples, SAMPLES),](*operands, **shared.constants, M=SAMPLES)
            return
        n = min(triton.next_power_of_2(shared.outputs), 4)
        for start in range(0, shared.inputs, MAX_CHANNELS):
            some = slice(start, start + MAX_CHANNELS)
            parts = (grad, x[:, some], knots[some] if len(knots) > 1 else knots, coef[some], u[:, some])
            grid = (triton.cdiv(shared.rows, SAMPLES), len(coef[some]))
            launcher(spline_project_local_kernel, x)[grid](*parts, *shared.sizes, **shared.constants, M=SAMPLES, N=n)


def accumulate(grad: Tensor, x: Tensor, knots: Tensor, scale: Tensor | None, w: Tensor, spline_order: int, derivative: int) -> None:
    """Fill w (C, G + k, O), from contiguous operands as `torch.ops.kat_zoo.spline_accumulate` has them."""
    shared = Problem(x, knots, grad.shape[1], spline_order, derivative)
    with on_device(x):
        if shared.wide:
            flat = w.flatten(0, 1)
            for rows in shared.pieces():
                flat.addmm_(shared.written(x, knots, scale, rows).T, grad[rows], beta=float(rows.start > 0))
            return
        tiles = triton.cdiv(shared.rows, SAMPLES)
        steps = max(triton.cdiv(tiles, MAX_PARTS), min(PART_ROWS // SAMPLES, tiles))
        block = shared.block(x.dtype, sums=True)
        parts, blocks = triton.cdiv(tiles, steps), triton.cdiv(shared.bases, block)
        partial = w if parts == 1 else w.new_empty(parts, *w.shape)
        grid = (shared.inputs * blocks, shared.outputs, parts)
        constants = shared.constants | {"SCALED": scale is not None, "M": SAMPLES, "J": block}
        operands = (grad, x, knots, x if scale is None else scale, partial, *shared.sizes, steps, blocks)
        launcher(spline_accumulate_local_kernel, x)[grid](*operands, **constants)
        if parts > 1:
            torch.sum(partial, 0, out=w)
