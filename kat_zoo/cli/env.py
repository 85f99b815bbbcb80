"""`kat-zoo env`: the versions and the machine, as a report of a bug needs them."""

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from ..kernels import cpu_library

PACKAGES = (
    "kat_zoo",
    "torch",
    "torchvision",
    "timm",
    "triton",
    "numpy",
    "huggingface_hub",
    "safetensors",
    "accelerate",
    "datasets",
    "scikit-learn",
    "sympy",
)


def run(options: argparse.Namespace) -> int:
    """Print a line for each fact.

    Args:
        options: parsed arguments of `kat-zoo env`; it has none.

    Returns:
        Exit code 0.
    """
    rows = {"python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    rows |= {name: _version(name) for name in PACKAGES}
    rows["GPU"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch sees"
    rows["threads"] = f"{torch.get_num_threads()} of {os.cpu_count()} processors"
    compiled = cpu_library.load() is not None
    rows["CPU kernels"] = f"C++, {cpu_library.ISAS[cpu_library.isa()]}" if compiled else "not compiled: plain PyTorch"
    width = max(map(len, rows))
    sys.stdout.write("".join(f"{name:<{width}}  {value}\n" for name, value in rows.items()))
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
