"""A model as a torch module of plain operations, and as ONNX."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..library import get_function
from .program import Layer, Program, to_numpy

NUMBERS = {"center": "center", "half": "width", "low": "low", "high": "high", "fill": "fill"}  # buffer of each number of an input


class LayerModule(nn.Module):
    """A layer of a program; its arrays are buffers.

    Args:
        layer: the layer.
    """

    ends: Tensor
    origins: Tensor
    pieces: Tensor
    source: Tensor
    first: Tensor
    incidence: Tensor
    base_weight: Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.sums, self.products, self.arity, self.base = layer.sums, layer.products, layer.arity, layer.base
        self.functions = layer.functions
        self.subnodes = layer.subnodes
        self.splines = len(layer.edges)
        pieces = layer.origins.shape[1]
        incidence = np.zeros((self.splines, layer.subnodes))
        incidence[np.arange(self.splines), layer.edges[:, 0]] = 1.0
        arrays = {
            "ends": layer.ends[layer.edges[:, 1]],
            "origins": layer.origins[layer.edges[:, 1]].reshape(-1),
            "pieces": layer.pieces.reshape(self.splines * pieces, layer.pieces.shape[2]),
            "source": layer.edges[:, 1],
            "first": np.arange(self.splines) * pieces,
            "incidence": incidence,
            "base_weight": layer.base_weight,
        }
        for name, values in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs) to (N, sums + products)."""
        y = x.new_zeros(x.shape[0], self.subnodes)  # len(x) would fix the number of rows of an exported program
        if self.splines:
            v = x[:, self.source]
            place = (v[:, :, None] >= self.ends).sum(2) + self.first
            t, pieces = v - self.origins[place], self.pieces[place]
            values = pieces[:, :, -1]
            for k in range(pieces.shape[2] - 2, -1, -1):
                values = values * t + pieces[:, :, k]
            if self.base == "silu":
                values = values + self.base_weight * v * torch.sigmoid(v)
            elif self.base == "sin":
                values = values + self.base_weight * torch.sin(v)
            elif self.base == "identity":
                values = values + self.base_weight * v
            y = y + values @ self.incidence
        for name, out, i, a, b, c, d in self.functions:
            # A column of zeros and a one, for ONNX has no addition in place.
            one = torch.zeros(self.subnodes, dtype=x.dtype, device=x.device)
            one[out] = 1.0
            y = y + (c * get_function(name).torch(a * x[:, i : i + 1] + b) + d) * one
        if not self.products:
            return y
        factors = y[:, self.sums :].reshape(-1, self.products, self.arity)
        product = factors[:, :, 0]
        for k in range(1, self.arity):
            product = product * factors[:, :, k]
        return torch.cat([y[:, : self.sums], product], 1)


class ProgramModule(nn.Module):
    """A program as a module: rows (N, columns) of float64, with the codes of categories, to predictions (N, outputs).

    Args:
        program: the program.
    """

    column: Tensor
    center: Tensor
    width: Tensor
    low: Tensor
    high: Tensor
    fill: Tensor
    category_code: Tensor
    missing: Tensor
    category: Tensor
    spread: Tensor
    shift: Tensor

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.link = program.link
        self.layers = nn.ModuleList(LayerModule(layer) for layer in program.layers)
        kinds = np.array([("number", "missing", "category").index(one.kind) for one in program.inputs])
        self.plain = bool((kinds == 0).all() and all(np.isinf(one.high) for one in program.inputs))
        arrays: dict[str, Any] = {"column": np.array([one.column for one in program.inputs])}
        arrays |= {text: np.array([getattr(one, name) for one in program.inputs], float) for name, text in NUMBERS.items()}
        arrays |= {"category_code": np.array([one.code for one in program.inputs], float), "missing": kinds == 1, "category": kinds == 2}
        arrays |= {"spread": np.asarray(program.spread, float), "shift": np.asarray(program.shift, float)}
        for name, values in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows to predictions."""
        raw = x[:, self.column]
        scaled = (raw - self.center) / self.width
        if not self.plain:
            lost = torch.isnan(raw)
            scaled = torch.where(lost, self.fill, torch.minimum(torch.maximum(scaled, self.low), self.high))
            scaled = torch.where(self.missing, lost.to(scaled.dtype), scaled)
            scaled = torch.where(self.category, (raw == self.category_code).to(scaled.dtype), scaled)
        h = scaled
        for layer in self.layers:
            h = layer(h)
        y: Tensor = h * self.spread + self.shift
        if self.link == "exp":
            return y.exp()
        if self.link == "sigmoid":
            return torch.cat([1 - torch.sigmoid(y), torch.sigmoid(y)], 1)
        return y.softmax(1) if self.link == "softmax" else y


def to_torch(model: Any) -> ProgramModule:
    """A module of plain torch operations that predicts as the model does, differentiable in numbers.

    Args:
        model: a `KAN`, or a fitted `KANRegressor` or `KANClassifier`.

    Raises:
        ValueError: a model without a network.
    """
    return ProgramModule(to_numpy(model)).eval()


def to_onnx(model: Any, path: str | Path) -> None:
    """Write an ONNX file with input "x" (N, columns) and output "y" (N, outputs), float64, and check it in ONNX Runtime.

    Args:
        model: a `KAN`, or a fitted `KANRegressor` or `KANClassifier`.
        path: the file.

    Raises:
        ModuleNotFoundError: onnx, onnxscript or onnxruntime is missing.
        ValueError: a model without a network, or ONNX Runtime gives other values than the module.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"to_onnx needs {', '.join(missing)}: pip install 'kat_zoo[export]'")
    import onnxruntime

    program = to_numpy(model)
    module = ProgramModule(program).eval()
    x = torch.zeros(3, len(program.columns), dtype=torch.float64)
    for one in program.inputs:
        width = 0.0 if one.kind != "number" else one.half
        x[:, one.column] = torch.tensor([one.center - 0.3 * width, one.center, one.center + 0.7 * width])
    rows = torch.export.Dim("rows", min=1)
    done = torch.onnx.export(
        module, (x,), input_names=["x"], output_names=["y"], dynamo=True, dynamic_shapes={"x": {0: rows}}, verbose=False
    )
    if done is None:
        raise ValueError(f"{path}: torch.onnx.export returned nothing: expected a program")
    done.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x.numpy()})[0]
    expected = program(x.numpy())
    size = float(np.nanmax(np.abs(expected))) or 1.0
    if not np.allclose(found, expected, rtol=1e-9, atol=1e-9 * size, equal_nan=True):
        raise ValueError(f"{path}: ONNX Runtime is off by {np.nanmax(np.abs(found - expected)):.1e}: expected the values of the model")
