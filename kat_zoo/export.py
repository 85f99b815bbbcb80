"""`kat-zoo export`: a model as ONNX, as a torch.export program, or compiled ahead of time by AOTInductor.

ONNX and AOTInductor files stand alone: our operators are decomposed into standard ones. A torch.export program keeps
them and with them the fast kernels; `import kat_zoo` before loading it.
"""

import contextlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import choice
from .kernels.bspline_torch import spline_contract_reference
from .kernels.fourier_attention_torch import fourier_attention_portable
from .kernels.rational_torch import rational_portable

logger = logging.getLogger("kat_zoo")

FORMATS = {"onnx": ".onnx", "pt2": ".pt2", "aoti": ".aoti.pt2"}


FORMULAS: dict[torch._ops.OperatorBase, Callable] = {
    torch.ops.kat_zoo.rational.default: rational_portable,
    torch.ops.kat_zoo.fourier_attention.default: fourier_attention_portable,
    torch.ops.kat_zoo.spline_contract.default: spline_contract_reference,
}


def capture(model: nn.Module, images: Tensor, *, dynamic_batch: bool = True, decompose: bool = False) -> torch.export.ExportedProgram:
    """Export a model with torch.export.

    Args:
        model: model in evaluation mode.
        images: (B, C, H, W) example, B >= 2 where the batch is dynamic.
        dynamic_batch: any batch size to 4096, rather than that of the example.
        decompose: our operators in standard ones, so that the program does not need kat_zoo.

    Raises:
        ValueError: a model in training mode, or one image where the batch is dynamic.
    """
    if model.training:
        raise ValueError("model in training mode: expected model.eval(), as a program would draw dropout anew or leave it out")
    if dynamic_batch and len(images) < 2:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected two or more for a dynamic batch, or dynamic_batch=False")
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) if dynamic_batch else None
    with torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=shapes)
    if decompose:
        program = program.run_decompositions(FORMULAS)
    return program


def to_onnx(model: nn.Module, images: Tensor, path: Path, *, dynamic_batch: bool = True) -> None:
    """Write an ONNX file, weights inside, through torch's dynamo exporter. Input `images`, output `logits`.

    Raises:
        ModuleNotFoundError: onnx, onnxscript or onnxruntime is missing.
        ValueError: as `capture`.
    """
    _require_onnx()
    with _quiet_exporter():
        program = torch.onnx.export(
            capture(model, images, dynamic_batch=dynamic_batch, decompose=True),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None  # only the old exporter returns nothing
    program.save(path, external_data=False)
    _name_batch(path)


def _name_batch(path: Path) -> None:
    """Call the first axis of input and output "batch", for which the exporter makes up a name."""
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        axis = value.type.tensor_type.shape.dim[0]
        if axis.dim_param:
            axis.dim_param = "batch"
    onnx.save(model, path)


def describe_onnx(path: Path, facts: Mapping[str, Any]) -> None:
    """Write facts into the metadata of an ONNX file, which runtimes show: names of the classes, preprocessing.

    Args:
        path: file that `to_onnx` wrote.
        facts: values by name; those that are not strings are written as JSON.
    """
    import onnx

    model = onnx.load(path)
    texts = {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)


def to_pt2(model: nn.Module, images: Tensor, path: Path, *, dynamic_batch: bool = True) -> None:
    """Write a torch.export program; `torch.export.load(path).module()` runs it, after `import kat_zoo`.

    Raises:
        ValueError: as `capture`.
    """
    torch.export.save(capture(model, images, dynamic_batch=dynamic_batch), path)


def to_aoti(model: nn.Module, images: Tensor, path: Path, *, dynamic_batch: bool = True) -> None:
    """Compile for the device of the images; `torch._inductor.aoti_load_package(path)` runs it, with torch alone.

    Needs a C++ compiler, and for CUDA nvcc.

    Raises:
        ValueError: as `capture`.
    """
    program = capture(model, images, dynamic_batch=dynamic_batch, decompose=True)
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def load(path: Path, format: str) -> Callable[[Tensor], Tensor]:
    """Load what `kat-zoo export` wrote, as a function from images to the model's output.

    Args:
        path: file.
        format: a key of `FORMATS`.

    Raises:
        ValueError: an unknown format.
    """
    choice("format", format, tuple(FORMATS))
    if format == "pt2":
        return torch.export.load(path).module()
    if format == "aoti":
        return torch._inductor.aoti_load_package(str(path))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"format 'onnx' needs {', '.join(missing)}: pip install 'kat_zoo[export]'")


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter reports its progress with print; a library does not."""
    with Path(os.devnull).open("w", encoding="utf-8") as sink, contextlib.redirect_stdout(sink):
        yield


def milliseconds(function: Callable[[Tensor], Tensor], images: Tensor, repeats: int) -> float:
    """Median time of `function(images)` over a number of runs, in milliseconds."""
    with torch.inference_mode():
        function(images)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            function(images)
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2] * 1e3


def largest_difference(model: Callable[[Tensor], Tensor], exported: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Largest |exported - model| over the largest |model|; absolute where the output is zero, as that of a head of zeros."""
    with torch.inference_mode():
        expected, got = model(images), exported(images)
    return float((got - expected).abs().max() / (expected.abs().max() or 1))
