"""The rational activation on the CPU against nn.GELU, eager PyTorch and torch.compile.

    .venv/bin/python benchmarks/rational.py            # all shapes: benchmarks/rational.csv and rational.png
    .venv/bin/python benchmarks/rational.py --quick    # two shapes, nothing written

Every method runs in one process in turns; a figure is the minimum of the turns. Ratios are to nn.GELU of the same dtype,
shape and threads. On large tensors a fresh result costs page faults of 4 KiB, more than the arithmetic. The kernels ask
for huge pages there (madvise; torch does so for every tensor with THP_MEM_ALLOC_ENABLE=1, which is not set here), and that
is most of their lead. Whether freed memory is kept or fresh depends on all that was allocated before: the time of one
method differed several times over. So the two extremes are measured: results of 2 MiB and more are always fresh (mallopt),
but for the rows `preallocated`, where kernels alone write into memory that is there already. Nothing is reported if the
result differs from the float64 reference.
"""

import argparse
import csv
import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kat_zoo.kernels import cpu_library, rational, rational_reference
from kat_zoo.layers.init import rational_coefficients

HERE = Path(__file__).parent
SHAPES = [(1576, 192), (1576, 768), (12608, 768), (12608, 1536), (50432, 3072)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FIELDS = ["rows", "channels", "dtype", "threads", "pass", "method", "milliseconds", "ratio_to_gelu"]
COLORS = {"nn.GELU": "tab:gray", "kat_zoo": "tab:red", "eager PyTorch": "tab:blue", "torch.compile": "tab:green"}
M_MMAP_THRESHOLD = -3  # malloc.h
SECONDS = 0.6  # spent on each method of each case, and five turns at least


def coefficients() -> tuple[Tensor, Tensor]:
    a, b = rational_coefficients("swish", (5, 4))
    return a.reshape(1, -1).float(), b.reshape(1, -1).float().expand(8, -1).contiguous()


def eager(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return rational_reference(x, a, b, compute_dtype=torch.float32)


def check() -> None:
    """Raise unless the kernel agrees with the float64 reference, result and every gradient, in each dtype measured."""
    a, b = (c.requires_grad_() for c in coefficients())
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        x = torch.randn(1000, 768, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
        results = []
        for function, inputs in (
            (rational, [x, a, b]),
            (rational_reference, [t.detach().double().requires_grad_() for t in (x, a, b)]),
        ):
            y = function(*inputs)
            results.append([y, *torch.autograd.grad(y, inputs, torch.ones_like(y))])
        for name, one, two in zip(("y", "x", "numerator", "denominator"), *results, strict=True):
            error = ((one - two).abs().max() / two.abs().max()).item()
            if error > tolerance:
                raise SystemExit(f"{dtype} {name} is wrong by {error:.1e}: no figures are reported")


def minimum(methods: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each method, the minimum of many turns."""
    best = dict.fromkeys(methods, float("inf"))
    for method in methods.values():
        method()
    end = time.perf_counter() + SECONDS * len(methods)
    turns = 0
    while turns < 5 or time.perf_counter() < end:
        turns += 1
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def preallocated(x: Tensor, g: Tensor, y: Tensor, dx: Tensor, a: Tensor, b: Tensor) -> tuple[Callable[[], object], ...]:
    """The compiled forward writing to y, and the compiled backward writing to dx."""
    library = cpu_library.load()
    if library is None:
        raise SystemExit("kat_zoo is installed without its compiled kernels: nothing to measure")
    rows, channels = x.shape
    shape = (rows, len(b), channels // len(b), a.shape[1] - 1, b.shape[1], torch.get_num_threads(), cpu_library.isa())
    coefficients = (a.data_ptr(), len(a), b.data_ptr(), len(b))
    dtype, da, db = cpu_library.DTYPES[x.dtype], torch.empty_like(a), torch.empty_like(b)
    return (
        lambda: library.kat_rational_forward(dtype, x.data_ptr(), y.data_ptr(), *coefficients, *shape),
        lambda: library.kat_rational_backward(
            dtype, g.data_ptr(), x.data_ptr(), dx.data_ptr(), *coefficients, da.data_ptr(), db.data_ptr(), *shape
        ),
    )


def measure(rows: int, channels: int, dtype: torch.dtype, peers: bool) -> dict[str, dict[str, float]]:
    x, g = torch.randn(2, rows, channels).to(dtype).unbind(0)
    a, b = (c.requires_grad_() for c in coefficients())
    xg = x.clone().requires_grad_()
    y, dx = torch.empty_like(x), torch.empty_like(x)

    def training(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*inputs), inputs, g)

    def inference(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                function(*inputs)

        return run

    functions: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
        "nn.GELU": (F.gelu, ()),
        "kat_zoo": (rational, (a, b)),
    }
    if peers:
        functions["eager PyTorch"] = (eager, (a, b))
        functions["torch.compile"] = (torch.compile(eager), (a, b))
    forward = {name: inference(f, x, *rest) for name, (f, rest) in functions.items()}
    both = {name: training(f, xg, *rest) for name, (f, rest) in functions.items()}
    result = {"forward": minimum(forward), "forward+backward": minimum(both)}
    with torch.no_grad():
        ours, ours_backward = preallocated(x, g, y, dx, a, b)
        in_place = {"nn.GELU": lambda: torch.ops.aten.gelu.out(x, out=y), "kat_zoo": ours}
        result["forward, preallocated"] = minimum(in_place)
        in_place_both = {
            "nn.GELU": lambda: (in_place["nn.GELU"](), torch.ops.aten.gelu_backward.grad_input(g, x, grad_input=dx)),
            "kat_zoo": lambda: (ours(), ours_backward()),
        }
        result["forward+backward, preallocated"] = minimum(in_place_both)
        result["copy"] = minimum({"copy": lambda: y.copy_(x)})
    return result


def draw(table: list[dict[str, object]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    for (axes, ratios), what in zip(panels.T, ("forward", "forward+backward"), strict=True):
        for dtype in DTYPES:
            for method in dict.fromkeys(row["method"] for row in table):
                line = [r for r in table if (r["dtype"], r["method"], r["pass"], r["threads"]) == (dtype, method, what, 1)]
                if line:
                    half = {"linestyle": "--", "marker": "s", "markersize": 4, "markerfacecolor": "white"}
                    style = {"marker": "o", "markersize": 3} if dtype == "float32" else half
                    color = COLORS[str(method)]
                    elements = [int(r["rows"]) * int(r["channels"]) for r in line]  # type: ignore[call-overload]
                    axes.plot(elements, [r["milliseconds"] for r in line], color=color, label=f"{method}, {dtype}", **style)
                    ratios.plot(elements, [r["ratio_to_gelu"] for r in line], color=color, **style)
        copies = [r for r in table if (r["pass"], r["dtype"], r["threads"]) == ("copy", "float32", 1)]
        elements = [int(r["rows"]) * int(r["channels"]) for r in copies]  # type: ignore[call-overload]
        streams = 1.0 if what == "forward" else 2.5  # x -> y; then x, g -> dx: five streams against a copy's two
        axes.plot(elements, [streams * float(str(r["milliseconds"])) for r in copies], "k:", label="memory bound (copy), float32")
        axes.set(xscale="log", yscale="log", ylabel="milliseconds", title=f"{what}, one thread")
        ratios.set(xscale="log", yscale="log", xlabel="elements", ylabel="time / time of nn.GELU of the same dtype")
        for panel in (axes, ratios):
            panel.grid(alpha=0.3, which="both")
    panels[0, 0].legend(fontsize=7, handlelength=4)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two shapes, no peers, nothing written")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    check()
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2 << 20)
    table: list[dict[str, object]] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for rows, channels in SHAPES[1:3] if quick else SHAPES:
            for name, dtype in DTYPES.items():
                peers = not quick and threads == 1 and name == "float32" and 1e6 < rows * channels < 1e7
                for what, times in measure(rows, channels, dtype, peers).items():
                    for method, seconds in times.items():
                        ratio = seconds / times["nn.GELU"] if "nn.GELU" in times else float("nan")
                        values = (rows, channels, name, threads, what, method, round(1e3 * seconds, 3), round(ratio, 3))
                        table.append(dict(zip(FIELDS, values, strict=True)))
                        print(*(f"{v:<16}" for v in values), flush=True)
    if not quick:
        with (HERE / "rational.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(table)
        draw(table, HERE / "rational.png")


if __name__ == "__main__":
    main()
