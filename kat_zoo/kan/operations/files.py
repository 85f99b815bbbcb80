"""KANs as safetensors files that hold weights and configuration.

The metadata has `version`, which files before version 1 lack, and `kan`, a JSON object: the arguments of the network, the name of its
dtype, and the names of the functions that the edges count. All of it is checked before a network is built, for the file may be anybody's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._arguments import require_writable
from ..._checks import choice, count, is_count, real
from ..._weights import check_weights
from ...kernels.bspline_op import MAX_SPLINE_ORDER
from ...layers.spline import BASES
from ..library import function_index, function_names
from ..network import Network, NetworkT, parse_width

VERSION = 1
KEYS = ("width", "grid_size", "spline_order", "base", "mult_arity", "extrapolate", "noise_scale", "functions", "dtype")
DTYPES = ("float64", "float32", "bfloat16", "float16")

Shapes = dict[str, tuple[int, ...]]


def save(model: Network, path: str | Path) -> None:
    """Write one safetensors file with weights and configuration.

    Args:
        model: the network.
        path: file to write; one that exists is replaced.

    Raises:
        ValueError: the base is a callable, which a file cannot hold; a weight is NaN or infinite, which `load` refuses; or the file
            cannot be written.
    """
    from safetensors.torch import save_file

    require_writable("path", Path(path))
    config = model.config()
    if not isinstance(config["base"], str):
        raise ValueError(f"base={config['base']!r}: expected a named base, a file cannot hold a callable")
    config["functions"] = function_names()
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    check_weights(state, state, f"the network for {path}")
    save_file(state, path, metadata={"version": str(VERSION), "kan": json.dumps(config)})


def load(kind: type[NetworkT], path: str | Path) -> NetworkT:
    """Read a file that `save` wrote.

    Args:
        kind: class of the network.
        path: the safetensors file.

    Raises:
        ValueError: not such a file, one of a newer version, a value that makes no sense, or functions that are not registered here; it
            names the file, the entry and the right form.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "kan" not in metadata:
                raise ValueError(f"{path} was not written by KAN.save")
            try:
                config = _read_config(metadata)
                _check_shapes(_shapes(config), {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}: {error}") from error
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    names, dtype = config.pop("functions"), getattr(torch, config.pop("dtype"))
    model = kind.make(**config, dtype=dtype)
    check_weights(state, model.state_dict(), str(path))
    try:
        _check_values(state, names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name, value in state.items():
        if name.endswith(".function"):
            # By name: registered functions may have other positions here.
            used = {index: function_index(names[index]) for index in set(value.flatten().tolist()) if index >= 0}
            value.apply_(lambda index, used=used: used.get(index, -1))
    model.load_state_dict(state)
    return model


def _read_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The configuration in the metadata of a file, every value of the right kind."""
    version = metadata.get("version", "0")
    if version not in map(str, range(VERSION + 1)):
        raise ValueError(f"version={version[:20]!r}: expected at most {VERSION}; a newer kat_zoo wrote the file")
    config = json.loads(metadata["kan"])
    if not isinstance(config, dict) or set(config) != set(KEYS):
        given = sorted(config) if isinstance(config, dict) else str(config)
        raise ValueError(f"metadata kan={str(given)[:80]}: expected an object with the keys {', '.join(KEYS)}")
    count("grid_size", config["grid_size"])
    count("spline_order", config["spline_order"], 0, MAX_SPLINE_ORDER)
    count("mult_arity", config["mult_arity"], 2)
    real("noise_scale", config["noise_scale"], 0)
    choice("base", config["base"], BASES)
    choice("extrapolate", config["extrapolate"], ("linear", "zero"))
    choice("dtype", config["dtype"], DTYPES)
    names = config["functions"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"functions={str(names)[:80]}: expected a list of names")
    parse_width(config["width"])
    return config


def _shapes(config: Mapping[str, Any]) -> Shapes:
    """Shapes of the tensors that a network of this configuration has."""
    shapes: Shapes = {}
    width, order = parse_width(config["width"]), config["spline_order"]
    for number, (before, (n_sum, n_mult)) in enumerate(pairwise(width)):
        c_in, c_out = sum(before), n_sum + n_mult * config["mult_arity"]
        table = (c_out, c_in)
        layer = {
            "affine": (*table, 4),
            "function": table,
            "spline.coef": (c_in, config["grid_size"] + order, c_out),
            "spline.knots": (c_in, config["grid_size"] + 2 * order + 1),
            "spline.mask": table,
            **({} if config["base"] == "zero" else {"spline.base_weight": table}),
        }
        shapes |= {f"layers.{number}.{name}": shape for name, shape in layer.items()}
    return shapes


def _check_shapes(wanted: Shapes, given: Shapes) -> None:
    """Compare shapes before memory is taken for the network: a width of 1e9 has no such tensors."""
    for name in sorted(wanted.keys() | given.keys()):
        if name not in given or name not in wanted:
            raise ValueError(f"{name} is {'missing' if name in wanted else 'of no layer'}: expected the tensors that the width asks for")
        if given[name] != wanted[name]:
            raise ValueError(f"{name} of shape {given[name]}: expected {wanted[name]}, by the configuration")


def _check_values(state: Mapping[str, Tensor], names: list[str]) -> None:
    """Check the tensors that are not free numbers: knots, masks and functions."""
    for name, value in state.items():
        if name.endswith(".knots") and bool((value.diff(dim=1) < 0).any()):
            raise ValueError(f"{name} falls: expected numbers that stay or rise along every row")
        if name.endswith(".mask") and not bool(((value == 0) | (value == 1)).all()):
            raise ValueError(f"{name} has {float(value[(value != 0) & (value != 1)][0]):g}: expected 0 or 1")
        if name.endswith(".function"):
            wrong = [index for index in value.flatten().tolist() if index != -1 and not is_count(index, 0, len(names) - 1)]
            if wrong:
                raise ValueError(f"{name} has {wrong[0]}: expected -1, or an integer from 0 to {len(names) - 1}")
