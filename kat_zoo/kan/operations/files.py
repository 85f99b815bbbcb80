"""KANs as safetensors files that hold weights and configuration."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..library import function_index, function_names
from ..network import Network, NetworkT


def save(model: Network, path: str | Path) -> None:
    """Write one safetensors file with weights and configuration.

    Args:
        model: the network.
        path: file to write; one that exists is replaced.

    Raises:
        ValueError: the base is a callable, which a file cannot hold.
    """
    from safetensors.torch import save_file

    config = model.config()
    if not isinstance(config["base"], str):
        raise ValueError(f"base={config['base']!r}: expected a named base, a file cannot hold a callable")
    config["functions"] = function_names()
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, path, metadata={"kan": json.dumps(config)})


def load(kind: type[NetworkT], path: str | Path) -> NetworkT:
    """Read a file that `save` wrote.

    Args:
        kind: class of the network.
        path: the safetensors file.

    Raises:
        ValueError: not such a file, or it uses functions that are not registered here.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("kan")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if metadata is None:
        raise ValueError(f"{path} was not written by KAN.save")
    config = json.loads(metadata)
    names, dtype = config.pop("functions"), getattr(torch, config.pop("dtype"))
    model = kind.make(**config, dtype=dtype)
    for name, value in state.items():
        if name.endswith(".function"):
            # By name: registered functions may have other positions here.
            used = {index: function_index(names[index]) for index in set(value.flatten().tolist()) if index >= 0}
            value.apply_(lambda index, used=used: used.get(index, -1))
    model.load_state_dict(state)
    return model
