"""`kat-zoo kernels report`: compile the Triton kernels ahead of time for GPUs that are not there; tabulate the code.

A row is one kernel as the models launch it at batch 128 and 224 pixels, 197 tokens. The code depends on group_width:
the channels of a group of the rational (8 groups), the channels of a head of fourier_attention (3 heads, G = 3, r = 12), the outputs
of a spline layer (768 of 192 inputs, as in a ViT; 5 of 2 inputs and 1,000 rows, as in a regression; G = 5, k = 3).
An element is an input of the rational; of fourier_attention it is a logit, one of the B h N^2 that are never in memory; of a spline
layer it is a basis that is written, an input or, in the local kernels, a multiply-add.
instructions_per_element is the number that a thread executes over the elements it handles, everything outside the main loop and the
padding of tiles included; the branch for inputs whose powers overflow is not taken.
occupancy is the share of a multiprocessor's warps that the registers and the shared memory of the kernel allow, waves the programs over
those that the GPU of `occupancy.GPUS` holds at once, bandwidth_share the largest share of the memory's bandwidth that the issue of the
instructions leaves where each tensor is moved once: for NVIDIA's architectures.
"""

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .occupancy import GPUS, bandwidth_share, occupancy

if TYPE_CHECKING:
    from .aot import Launch

logger = logging.getLogger("kat_zoo")

ARCHS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCH, TOKENS, GROUPS = 128, 197, 8
HEADS, RANK, HARMONICS = 3, 12, 3


@dataclass(frozen=True)
class Operator:
    """An operator as the report launches it.

    Attributes:
        launch: function (dtype, width) -> elements worked on, of all kernels or by the kernel's name; it launches every kernel of
            the operator on uninitialized tensors.
        widths: group widths that are compiled by default.
        dtypes: names of the dtypes that the kernels take.
        iterations: function launch -> iterations of its main loop; None where the loop itself shows how many elements it handles,
            for all kernels or for one.
    """

    launch: "Callable[[torch.dtype, int], int | dict[str, int]]"
    widths: tuple[int, ...]
    iterations: "Callable[[Launch], int | None] | None" = None
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16")


def launch_rational(dtype: torch.dtype, width: int) -> int:
    """Launch forward and backward; return the number of elements of x."""
    from . import rational_triton

    x = torch.empty(BATCH * TOKENS, GROUPS * width, dtype=dtype)
    numerator, denominator = torch.zeros(1, 6), torch.zeros(GROUPS, 4)
    rational_triton.forward(x, numerator, denominator, 1)
    rational_triton.backward(torch.empty_like(x), x, numerator, denominator, 1)
    return x.numel()


def launch_fourier_attention(dtype: torch.dtype, width: int) -> int:
    """Launch forward and backward on q, k, v as a model has them; return the number of logits."""
    from .fourier_attention_op import _backward_cuda, _forward_cuda

    q, k, v = torch.zeros(BATCH, TOKENS, 3, HEADS, width, dtype=dtype).permute(2, 0, 3, 1, 4).unbind(0)
    a, w = torch.zeros(HEADS, RANK, TOKENS, HARMONICS), torch.zeros(HEADS, TOKENS, RANK)
    out, _ = _forward_cuda(q, k, v, a, a, w)
    _backward_cuda(out, q, k, v, a, a, w, torch.zeros(BATCH, HEADS, TOKENS, RANK))
    return BATCH * HEADS * TOKENS**2


def iterations_fourier_attention(launch: "Launch") -> int:
    """Return the number of tiles that a program goes through."""
    if launch.name.endswith("key_kernel"):
        return -(-TOKENS // int(launch.constants["M"])) * BATCH // launch.grid[2]
    return -(-TOKENS // int(launch.constants["N"]))


def launch_bspline(dtype: torch.dtype, width: int) -> dict[str, int]:
    """Launch forward and backward of a spline layer; return the elements of each kernel."""
    from .bspline_op import GPU

    rows, inputs, grid, k = (BATCH * TOKENS, 192, 5, 3) if width >= 16 else (1000, 2, 5, 3)
    x, grad = torch.empty(rows, inputs, dtype=dtype), torch.empty(rows, width, dtype=dtype)
    knots, coef = torch.zeros(inputs, grid + 2 * k + 1, dtype=torch.float64), torch.empty(inputs, grid + k, width, dtype=dtype)
    GPU["spline_contract"](x, knots, coef, None, k, 0)
    GPU["spline_project"](grad, x, knots, coef, k, 1)
    GPU["spline_accumulate"](grad, x, knots, None, k, 0)
    local = rows * inputs * width * (k + 1)
    return {
        "bspline_basis_kernel": rows * inputs * (grid + k),
        "spline_pick_kernel": rows * inputs,
        **{f"spline_{name}_local_kernel": local for name in ("contract", "project", "accumulate")},
    }


def iterations_bspline(launch: "Launch") -> int | None:
    """Return the number of channels, of outputs or of tiles that a program goes through."""
    if not launch.name.endswith("local_kernel"):
        return None
    inputs, outputs = launch.arguments[6:8]  # behind five tensors and the rows
    if launch.name.startswith("spline_contract"):
        return int(inputs)
    if launch.name.startswith("spline_project"):
        return -(-int(outputs) // int(launch.constants["N"]))
    return int(launch.arguments[-2])


KERNELS = {
    "rational": Operator(launch_rational, (24, 48, 96, 192, 384)),
    "fourier_attention": Operator(launch_fourier_attention, (64,), iterations_fourier_attention),
    "bspline": Operator(launch_bspline, (5, 768), iterations_bspline, ("float32",)),
}


def rows(
    archs: Sequence[str] = ARCHS,
    kernels: Sequence[str] = tuple(KERNELS),
    dtypes: Sequence[str] = tuple(DTYPES),
    widths: Sequence[int] | None = None,
) -> list[dict[str, object]]:
    """Compile and measure.

    Args:
        archs: GPU architectures, as `sm_90` or `gfx942`.
        kernels: names from `KERNELS`.
        dtypes: names from `DTYPES`.
        widths: channels of a group or head; None takes those of each operator in `KERNELS`.

    Returns:
        A dict per compiled kernel, with the keys kernel, dtype, group_width, arch, registers, stack (bytes), spills
        (instructions), atomics, divisions (per element), load_bits, instructions_per_element, bytes_per_element, occupancy, waves,
        bandwidth_share; the last three are None for architectures without an entry in `occupancy.GPUS`.

    Raises:
        ValueError: an unknown arch, kernel or dtype, a width below 1, or TRITON_INTERPRET=1 is set.
    """
    from triton import knobs

    from .aot import compile_only, target
    from .assembly import figures

    for arch in archs:
        target(arch)
    if small := [width for width in widths or () if width < 1]:
        raise ValueError(f"width={small[0]}: expected an integer of at least 1")
    for name, given, known in (("kernel", kernels, KERNELS), ("dtype", dtypes, DTYPES)):
        if unknown := [value for value in given if value not in known]:
            raise ValueError(f"{name}={unknown[0]!r}: expected one of {', '.join(known)}")
    if knobs.runtime.interpret:
        raise ValueError("TRITON_INTERPRET=1: expected it unset, as interpreted kernels are not compiled")
    table: list[dict[str, object]] = []
    cases = ((a, k, d, w) for a in archs for k in kernels for d in dtypes for w in widths or KERNELS[k].widths if d in KERNELS[k].dtypes)
    for arch, kernel, dtype, width in cases:
        operator, started = KERNELS[kernel], time.perf_counter()
        with compile_only(arch) as recorder:
            worked = operator.launch(DTYPES[dtype], width)
        for launch in {launch.name: launch for launch in recorder.launches}.values():  # the bases are written more than once
            elements = worked if isinstance(worked, int) else worked[launch.name]
            reduction = launch.name.endswith("reduce_kernel")
            threads = math.prod(launch.grid) * launch.kernel.metadata.num_warps * launch.kernel.metadata.target.warp_size
            iterations = operator.iterations(launch) if operator.iterations else None
            per_iteration = elements / (threads * iterations) if iterations else None
            found = figures(launch.kernel, 4 if reduction else DTYPES[dtype].itemsize, per_iteration)
            # A reduction handles the result of the launch before it.
            handled = launch.arguments[0].numel() if reduction else elements
            per_element = found.loop_instructions + found.overhead * threads / handled
            table.append(
                {
                    "kernel": launch.name.removesuffix("_kernel"),
                    "dtype": dtype,
                    "group_width": width,
                    "arch": arch,
                    "registers": found.registers,
                    "stack": found.stack,
                    "spills": found.spills,
                    "atomics": found.atomics,
                    "divisions": round(found.divisions, 3),
                    "load_bits": found.load_bits,
                    "instructions_per_element": round(per_element, 1),
                    "bytes_per_element": round(found.bytes_moved, 2),
                    **_rooflines(arch, launch, found.registers, per_element * handled),
                }
            )
        logger.info("%s %s width %d %s: %.1f s", kernel, dtype, width, arch, time.perf_counter() - started)
    return table


def _rooflines(arch: str, launch: "Launch", registers: int, instructions: float) -> dict[str, float | None]:
    """Occupancy, waves and roofline of a launch whose threads execute `instructions` together."""
    gpu = GPUS.get(arch)
    if gpu is None:
        return {"occupancy": None, "waves": None, "bandwidth_share": None}
    metadata = launch.kernel.metadata
    resident, waves = occupancy(gpu, registers, metadata.shared, metadata.num_warps, math.prod(launch.grid))
    # One tensor may stand in for another that is absent.
    tensors = {(t.data_ptr(), t.shape): t for t in launch.arguments if isinstance(t, torch.Tensor)}
    share = bandwidth_share(gpu, instructions, sum(t.numel() * t.element_size() for t in tensors.values()))
    return {"occupancy": round(resident, 3), "waves": round(waves, 2), "bandwidth_share": round(share, 3)}


def render(table: Sequence[dict[str, object]]) -> str:
    """Return the rows as a plain-text table with a header."""
    lines = [[key.replace("_per_element", "/element") for key in table[0]]] if table else []
    lines += [["-" if value is None else str(value) for value in row.values()] for row in table]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(line, widths, strict=True)).rstrip() for line in lines)


def _list(kind: type) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        return [kind(item) for item in text.split(",")]

    parse.__name__ = f"comma-separated {kind.__name__}"
    return parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kat-zoo kernels report`."""
    parser.add_argument("--arch", type=_list(str), default=list(ARCHS), help=f"comma-separated; default {','.join(ARCHS)}")
    parser.add_argument("--kernel", type=_list(str), default=list(KERNELS), help=f"of {','.join(KERNELS)}")
    parser.add_argument("--dtype", type=_list(str), default=list(DTYPES), help=f"of {','.join(DTYPES)}")
    own = "; ".join(f"{name} {','.join(map(str, operator.widths))}" for name, operator in KERNELS.items())
    parser.add_argument("--width", type=_list(int), help=f"channels of a group or head, comma-separated; default {own}")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")


def run(options: argparse.Namespace) -> None:
    """Print the table and write the JSON file.

    Raises:
        ValueError: as `rows`; or the JSON file's folder is missing.
    """
    if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
        raise ValueError(f"--json {options.json}: expected a file in a folder that exists")
    table = rows(options.arch, options.kernel, options.dtype, options.width)
    if options.json:
        options.json.write_text("[\n" + ",\n".join(json.dumps(row) for row in table) + "\n]\n", encoding="utf-8")
    print(render(table))
