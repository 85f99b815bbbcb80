"""KANs as safetensors files that hold weights and configuration."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..library import function_index, function_names
from ..network import KAN


def save(model: KAN, path: str | Path) -> None:
    """Write one safetensors file with weights and configuration.

    Raises:
        ValueError: the base is a callable, which a file cannot hold.
    """
    from safetensors.torch import save_file

    config = model.config()
    if not isinstance(config["base"], str):
        raise ValueError(f"base={config['base']!r} is a callable; expected a named base to save the network")
    config["functions"] = function_names()
    config["dtype"] = str(model.dtype).removeprefix("torch.")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, path, metadata={"kan": json.dumps(config)})


def load(path: str | Path) -> KAN:
    """Read a file that `save` wrote.

    Raises:
        ValueError: not such a file, or it uses functions that are not registered here.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("kan")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
    if metadata is None:
        raise ValueError(f"{path} was not written by KAN.save")
    config = json.loads(metadata)
    names, dtype = config.pop("functions"), getattr(torch, config.pop("dtype"))
    model = KAN(**config, dtype=dtype)
    for name, value in state.items():
        if name.endswith(".function"):
            # By name: the order of registered functions may differ here.
            used = {index: function_index(names[index]) for index in set(value.flatten().tolist()) if index >= 0}
            value.apply_(lambda index, used=used: used.get(index, -1))
    model.load_state_dict(state)
    return model
