"""Builds and registers `standin`, a device whose operators are the CPU's and which refuses tensors of two devices."""

import hashlib
import subprocess
import tempfile
import types
from pathlib import Path

import torch
from torch.utils import cpp_extension

SOURCE = Path(__file__).with_name("standin.cpp")
LIBRARIES = Path(torch.__file__).parent / "lib"


def build() -> Path:
    """The library, compiled once for a source and a version of torch."""
    key = hashlib.sha256(SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"kat_zoo_standin_{key}.so"
    if not library.exists():
        includes = [f"-I{path}" for path in cpp_extension.include_paths()]
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
        with tempfile.NamedTemporaryFile(dir=library.parent, suffix=".so", delete=False) as file:
            part = Path(file.name)
        command = ["g++", "-shared", "-fPIC", "-std=gnu++20", "-O0", "-w", abi, *includes, SOURCE, "-o", part]
        command += [f"-L{LIBRARIES}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{LIBRARIES}"]
        subprocess.run(command, check=True)
        part.rename(library)
    return library


def register() -> torch.device:
    """Load the library and give the device its Python module."""
    torch.ops.load_library(build())
    module = types.ModuleType("torch.standin")
    state = torch.zeros(1, dtype=torch.uint8)
    for name, value in {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: None,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: state.clone(),
        "set_rng_state": lambda new, device=None: None,
        "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
        "empty_cache": lambda: None,
        "_lazy_init": lambda: None,
    }.items():
        setattr(module, name, value)
    torch.utils.rename_privateuse1_backend("standin")
    torch._register_device_module("standin", module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return torch.device("standin")
