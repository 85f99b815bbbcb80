"""Compiles kernels, which the test session interprets, and prints what the test_*_aot.py look at.

usage: aot_probe.py default|slow|attention|attention_slow|models|spline|spline_slow|compiled|tritons
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import timm
import torch
import triton
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from triton_path import triton_path  # beside this script

import kat_zoo  # noqa: F401 (registers the models)
from kat_zoo import kernels
from kat_zoo.kernels import aot, assembly, bspline_op, launching, rational_triton, report


def report_of(operator):
    """All rows of the report of an operator's kernels; an architecture to a process."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        parts = pool.map(report.rows, [[arch] for arch in report.ARCHS], [[operator]] * len(report.ARCHS))
        return [row for part in parts for row in part]


def step(shape, channel_dim=1, rows=(1, 8), order=(5, 4), dtype=torch.bfloat16, gpu=None):
    """Forward and backward, as the operator launches them."""
    x, a, b = torch.empty(shape, dtype=dtype), torch.zeros(rows[0], order[0] + 1), torch.zeros(rows[1], order[1])
    with aot.compile_only("sm_90") as recorder:
        rational_triton.forward(x, a, b, channel_dim, gpu=gpu)
        rational_triton.backward(x, x, a, b, channel_dim, gpu=gpu)
    return recorder


def compilations():
    """Launches and compilations of a step after the steps before it."""
    calls = {"first": {"shape": (197, 192)}}
    calls |= {f"batch {n}": {"shape": (n * 197, 192)} for n in (2, 3, 16, 128, 1000)}
    calls |= {"one row": {"shape": (1, 192)}, "own rows": {"shape": (640, 192), "rows": (8, 8)}}
    calls |= {"other width": {"shape": (197, 768)}}
    calls |= {"NCHW": {"shape": (2, 64, 56, 56)}, "NCHW, another image": {"shape": (16, 64, 40, 48)}}
    recorders = {name: step(**arguments) for name, arguments in calls.items()}
    return {name: [len(recorder.launches), recorder.compiled] for name, recorder in recorders.items()}


def kat_tiny():
    """A training step of the whole model under autocast; on CPU tensors, so only the launches are real."""
    with triton_path(), aot.compile_only("sm_90") as recorder:
        with torch.autocast("cpu", torch.bfloat16):
            loss = timm.create_model("kat_tiny_patch16_224")(torch.randn(1, 3, 224, 224)).sum()
        loss.backward()
    names = [launch.name for launch in recorder.launches]
    return {"launches": {name: names.count(name) for name in set(names)}, "compiled": recorder.compiled}


def models():
    """The operators whose kernels a training step of each registered model under autocast launches."""
    found = {}
    for name in timm.list_models():
        if not timm.model_entrypoint(name).__module__.startswith("kat_zoo."):
            continue
        model = timm.create_model(name)
        with triton_path(), aot.compile_only("sm_90") as recorder, torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(1, *model.pretrained_cfg["input_size"])).sum()
            loss.backward()
        found[name] = sorted({launch.name.split("_")[0] for launch in recorder.launches})
    return found


def approximate(recorder):
    return ["rcp.approx" in launch.kernel.asm["ptx"] for launch in recorder.launches]


def default():
    exact = rational_triton.Gpu(32, False)
    return {
        "compilations": compilations(),
        "kat_tiny": kat_tiny(),
        "approximate": approximate(step((197, 192))),
        "exact": approximate(step((197, 192), gpu=exact)),
        "rows": report.rows(["sm_90"], ["rational"], ["bfloat16"], [24, 384])
        + report.rows(["sm_80", "sm_100"], ["rational"], ["bfloat16"], [384]),
    }


def slow():
    for dtype, shape, order in (
        (torch.float32, (64, 200), (8, 8)),
        (torch.float16, (2, 24, 30, 31), (3, 2)),
        (torch.float64, (64, 96), (5, 4)),
    ):
        step(shape, dtype=dtype, order=order)
    return {"rows": report_of("rational")}


def attention_step(batch=2, tokens=197, heads=3, dim=64, num_harmonics=3, rank=12, dtype=torch.bfloat16, arch="sm_90"):
    """Forward and backward of Fourier attention, as the operator launches them."""
    from kat_zoo.kernels.fourier_attention_op import _backward_cuda, _forward_cuda

    q, k, v = torch.zeros(batch, tokens, 3, heads, dim, dtype=dtype).permute(2, 0, 3, 1, 4).unbind(0)
    a, w = torch.zeros(heads, rank, tokens, num_harmonics), torch.zeros(heads, tokens, rank)
    with aot.compile_only(arch) as recorder:
        out, z = _forward_cuda(q, k, v, a, a, w)
        _backward_cuda(out, q, k, v, a, a, w, z)
    return recorder


def amd_architectures():
    """Those whose kernels can be linked: Triton 3.4 asks for the linker of an installed ROCm, later ones bring it."""
    from triton.backends.amd.compiler import HIPBackend

    try:
        getattr(HIPBackend, "path_to_rocm_lld", lambda: None)()
    except Exception as error:  # of no class of its own
        assert "linker" in str(error)
        return ()
    return "gfx90a", "gfx950", "gfx1100"


def attention():
    calls = {"first": {}, "batch 3": {"batch": 3}, "batch 16": {"batch": 16}, "one image": {"batch": 1}}
    calls |= {"208 tokens": {"tokens": 208}, "65 tokens": {"tokens": 65}, "other head": {"dim": 32}}
    recorders = {name: attention_step(**arguments) for name, arguments in calls.items()}
    return {
        "compilations": {name: [len(recorder.launches), recorder.compiled] for name, recorder in recorders.items()},
        "rows": report.rows(["sm_90"], ["fourier_attention"], ["bfloat16"], [64]),
        "amd": {arch: len(attention_step(dim=16, num_harmonics=1, arch=arch).launches) for arch in amd_architectures()},
    }


def attention_slow():
    """Spills and shared memory in bytes of the kernels for other numbers of harmonics, ranks and heads."""
    spills, shared = {}, {}
    for arch in ("sm_80", "sm_90"):
        for dtype in (torch.float32, torch.bfloat16):
            for size in ({"num_harmonics": 1}, {"num_harmonics": 5, "rank": 24}, {"num_harmonics": 11}, {"dim": 96}):
                for launch in attention_step(arch=arch, dtype=dtype, **size).launches:
                    name = f"{arch} {dtype} {size} {launch.name}"
                    spills[name] = assembly.figures(launch.kernel, 4, 1.0).spills
                    shared[name] = launch.kernel.metadata.shared
    return {"rows": report_of("fourier_attention"), "spills": spills, "shared": shared}


def spline_step(rows=25, inputs=3, outputs=5, grid=5, order=3, dtype=torch.float32, arch="sm_90"):
    """Every kernel of a small and of a wide spline layer."""
    x, knots = torch.empty(rows, inputs, dtype=dtype), torch.zeros(inputs, grid + 2 * order + 1, dtype=torch.float64)
    with aot.compile_only(arch) as recorder:
        for width in (outputs, 64):
            coef, grad = torch.empty(inputs, grid + order, width, dtype=dtype), torch.empty(rows, width, dtype=dtype)
            bspline_op.GPU["spline_contract"](x, knots, coef, None, order, 0)
            bspline_op.GPU["spline_project"](grad, x, knots, coef, order, min(order, 1))
            bspline_op.GPU["spline_accumulate"](grad, x, knots, None, order, 0)
    return recorder


def spline():
    calls = {"first": {}, "batch 70": {"rows": 70}, "batch 1000": {"rows": 1000}, "other inputs": {"inputs": 7}, "fine grid": {"grid": 8}}
    recorders = {name: spline_step(**arguments) for name, arguments in calls.items()}
    return {name: [len(recorder.launches), recorder.compiled] for name, recorder in recorders.items()}


def spline_slow():
    """Spills and atomics of the kernels, up to splines of the highest degree and in float64."""
    spills = {}
    double = {"dtype": torch.float64}
    sizes = [{"order": 0}, {"order": 1}, {"order": 2, "grid": 40}, {"grid": 200}, {"order": 5}, {"order": 7}]
    sizes += [{"grid": 50} | double, {"order": 4} | double, {"order": 7} | double]
    for arch in ("sm_80", "sm_90"):
        for size in sizes:
            for launch in spline_step(arch=arch, **size).launches:
                found = assembly.figures(launch.kernel, 4)
                spills[f"{arch} {size} {launch.name}"] = found.spills + found.atomics
    return {"rows": report_of("bspline"), "spills": spills}


DEFAULTS = {"num_ctas": 1, "num_stages": 3}  # of Triton for NVIDIA's GPUs; a graph names them


def described(launches):
    """Each launch: kernel, grid, constants, numbers, and shapes and strides of the tensors."""

    def text(value):
        return [list(value.shape), list(value.stride())] if isinstance(value, torch.Tensor) else repr(value)

    return [
        [launch.name, launch.grid, sorted((DEFAULTS | launch.constants).items(), key=str), [text(a) for a in launch.arguments]]
        for launch in launches
    ]


def layers():
    """A function around each operator, and its arguments for a batch."""

    def activation(x, a, b):
        return kernels.rational(torch.nn.functional.layer_norm(x, x.shape[-1:]), a, b).relu()

    def attention(qkv, a, w):
        return kernels.fourier_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0), a, a, w).relu()

    def spline(x, knots, coef):
        return kernels.spline_linear(x * 2, knots, coef).relu()

    def draw(*shape, grad=True):
        return torch.randn(*shape).requires_grad_(grad)

    knots = torch.linspace(-2, 2, 12, dtype=torch.float64).repeat(4, 1)
    yield "rational", activation, lambda batch: [draw(batch, 197, 192), draw(1, 6), draw(8, 4)]
    yield "fourier_attention", attention, lambda batch: [draw(batch, 37, 3, 3, 16), draw(3, 12, 37, 3), draw(3, 37, 12)]
    for outputs in (5, 64):
        yield f"spline {outputs}", spline, lambda batch, o=outputs: [draw(batch * 128, 4), knots, draw(4, 8, o)]


def compiled():
    """What torch.compile makes of the operators; on CPU tensors that it takes for a GPU's, so only the launches are real."""
    if launching.TRACED_DEVICES:
        launching.TRACED_DEVICES.add("cpu")
    found = {}
    for name, function, arguments in layers():
        graphs = []

        def keep(graph, _, graphs=graphs):
            graphs.append(sorted({str(node.target) for node in graph.graph.nodes if node.op == "call_function"}))
            return make_boxed_func(graph)

        graph = torch.compile(function, fullgraph=True, dynamic=True, backend=aot_autograd(fw_compiler=keep))
        launches = {"eager": [], "compiled": []}
        for batch in (18, 20, 25):
            tensors = arguments(batch)
            for key, run in (("eager", function), ("compiled", graph)):
                with triton_path(), aot.compile_only("sm_90") as recorder:
                    run(*tensors).sum().backward()
                launches[key].append(sorted(map(repr, described(recorder.launches))))
        with triton_path(), aot.compile_only("sm_90"):
            exported = torch.export.export(ExportedFunction(function), tuple(arguments(18))).run_decompositions()
        found[name] = {"graphs": graphs, **launches, "exported": sorted({str(node.target) for node in exported.graph.nodes})}
    return found


class ExportedFunction(torch.nn.Module):
    """A function as torch.export takes it."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def tritons():
    """The kernels under another version of Triton: each compiles, none spills."""
    rows = report.rows(["sm_80", "sm_90"], dtypes=["float32", "bfloat16"])
    bad = [row for row in rows if row["atomics"] or (row["spills"] and row["arch"].startswith("sm_"))]
    assert not bad, bad
    return {"triton": triton.__version__, "kernels": len(rows)}


if __name__ == "__main__":
    parts = {"default": default, "slow": slow, "attention": attention, "attention_slow": attention_slow, "models": models}
    parts |= {"spline": spline, "spline_slow": spline_slow, "compiled": compiled, "tritons": tritons}
    print(json.dumps(parts[sys.argv[1]]()))
