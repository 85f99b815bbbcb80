"""Compile Triton kernels for a GPU that is not there: a driver that compiles every launch and runs none.

The host code of an operator runs as it would on the device, on CPU tensors, so the compiled kernels are those that will be
launched: same constants, same specialization, same grid. No GPU, no CUDA or ROCm driver is needed; results are left
uninitialized.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

_WARP_32 = ("gfx10", "gfx11", "gfx12")


def target(arch: str) -> GPUTarget:
    """Return the Triton target for `sm_90`, `gfx942` and the like.

    Raises:
        ValueError: the name is neither sm_NN nor gfxNNN.
    """
    if match := re.fullmatch(r"sm_(\d{2,3})a?", arch):
        return GPUTarget("cuda", int(match[1]), 32)
    if re.fullmatch(r"gfx[0-9a-f]{3,4}", arch):
        return GPUTarget("hip", arch, 32 if arch.startswith(_WARP_32) else 64)
    raise ValueError(f"arch={arch!r}: expected an NVIDIA name such as sm_90 or an AMD name such as gfx942")


# KiB a block may ask for (CUDA C++ Programming Guide, technical specifications per compute capability).
_SHARED_MEMORY = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 120: 99}


@dataclass
class Launch:
    """One kernel launch that was compiled instead of run."""

    name: str
    kernel: Any  # triton.compiler.CompiledKernel
    grid: tuple[int, ...]  # three numbers
    arguments: tuple[Any, ...]
    constants: dict[str, Any]  # compile-time arguments by name


@dataclass
class Recorder:
    """The launches under `compile_only`, in order."""

    launches: list[Launch] = field(default_factory=list)
    compiled: int = 0  # how often a launch found no kernel compiled for its arguments


class _CompileOnlyDriver(DriverBase):
    """The parts of a Triton driver that the launch path asks for."""

    def __init__(self, gpu: GPUTarget) -> None:
        self.gpu = gpu
        self.utils = self

    @classmethod
    def is_active(cls) -> bool:
        return False  # never chosen by itself

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise RuntimeError("kat_zoo.kernels.aot compiles, it does not launch")

    def get_benchmarker(self) -> Callable[..., Any]:
        raise RuntimeError("kat_zoo.kernels.aot compiles, it does not measure")

    def get_current_target(self) -> GPUTarget:
        return self.gpu

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_current_device(self) -> str:
        return str(self.gpu)  # the key of Triton's in-process cache of compiled kernels

    def get_current_stream(self, device: object) -> int:
        return 0

    def get_device_properties(self, device: object) -> dict[str, int]:
        return {"max_shared_mem": _SHARED_MEMORY.get(self.gpu.arch, 64 if self.gpu.backend == "hip" else 48) * 1024}

    def load_binary(self, name: str, binary: bytes, shared: int, device: object) -> tuple[Any, ...]:
        return None, None, 0, 0, 1024

    def launcher_cls(self, source: object, metadata: object) -> Callable[..., None]:
        return lambda *_: None


@contextlib.contextmanager
def compile_only(arch: str) -> Iterator[Recorder]:
    """Within the context, launching a Triton kernel compiles it for `arch` and does nothing else.

    Args:
        arch: GPU architecture, as `sm_80`, `sm_90` or `gfx942`.

    Yields:
        The recorder of the launches.

    Raises:
        ValueError: an unknown arch.
        RuntimeError: TRITON_INTERPRET=1 was set when the kernels were defined.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET=1: expected it unset, as interpreted kernels are not compiled")
    recorder, driver = Recorder(), _CompileOnlyDriver(target(arch))

    def on_compile(**_: object) -> None:
        recorder.compiled += 1

    slot = "_active" if hasattr(triton.runtime.driver, "_active") else "active"  # Triton 3.4
    previous = getattr(triton.runtime.driver, slot)
    hook = triton.knobs.runtime.jit_post_compile_hook
    run = triton.JITFunction.run

    def recording_run(self: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=warmup, **kwargs)
        recorder.launches.append(Launch(self.__name__, kernel, (*grid, 1, 1)[:3], args, kwargs))
        return kernel

    triton.runtime.driver.set_active(driver)
    triton.knobs.runtime.jit_post_compile_hook = on_compile
    triton.JITFunction.run = recording_run
    try:
        yield recorder
    finally:
        triton.JITFunction.run = run
        triton.knobs.runtime.jit_post_compile_hook = hook
        setattr(triton.runtime.driver, slot, previous)
