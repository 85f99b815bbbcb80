"""Loads the compiled CPU kernels (`_cpu`, a plain C library) and binds them to torch's own OpenMP pool."""

import ctypes
import functools
import importlib.machinery
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

logger = logging.getLogger("kat_zoo")

ISAS = ("portable", "avx2", "avx512")
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}

_forced_isa: list[int] = []
_SOFT = 1  # omp_pause_soft
_child_loses_pool = _pool_lost = False


class _OpenMP(NamedTuple):
    """Functions of the OpenMP runtime that torch itself uses, or None: two addresses, and the function that ends the caller's pool."""

    parallel: int | None
    thread_num: int | None
    pause: Callable[[int], int] | None


@functools.cache
def _torch_openmp() -> _OpenMP:
    root = Path(torch.__file__).parent
    names = [path for folder in (root / "lib", root.parent / "torch.libs") for path in map(str, folder.glob("lib*omp*"))]
    for name in [*names, "libgomp.so.1", "libiomp5.so", "libomp.so.5", "libomp.so"]:
        try:
            # RTLD_NOLOAD: only a runtime that is in the process already; loading another would start a second pool.
            library = ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            functions = (library.GOMP_parallel, library.omp_get_thread_num)
        except (OSError, AttributeError):
            continue
        parallel, thread_num = (ctypes.cast(function, ctypes.c_void_p).value for function in functions)
        return _OpenMP(parallel, thread_num, getattr(library, "omp_pause_resource_all", None) if "gomp" in name else None)
    return _OpenMP(None, None, None)


def _before_fork() -> None:
    """End the pool of the thread that forks, as a child has none of its threads and would hang in it; both start one when they need it."""
    global _child_loses_pool
    pause = _torch_openmp().pause
    _child_loses_pool = _pool_lost or pause is None or pause(_SOFT) != 0


def _after_fork_in_child() -> None:
    global _pool_lost
    _pool_lost = _child_loses_pool


if hasattr(os, "register_at_fork"):
    # At import: torch may use its pool before the first kernel does.
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


def _library_path() -> Path | None:
    folder = Path(__file__).parent
    # The plain suffix comes last: the library knows no Python's ABI, and one with a tag is left of an older build.
    candidates = [folder / f"_cpu{suffix}" for suffix in reversed(importlib.machinery.EXTENSION_SUFFIXES)]
    return next((path for path in candidates if path.exists()), None)


@functools.cache
def load() -> ctypes.CDLL | None:
    """Return the library, or None (announced once in the log) where the package was installed without a C++ compiler."""
    path = _library_path()
    if path is None:
        logger.warning(
            "kat_zoo: without its compiled CPU kernels (was there no C++ compiler?) plain PyTorch is used, which is about "
            "20 times slower. The package kat_zoo has them when it is installed where g++ or clang++ is available."
        )
        return None
    library = ctypes.CDLL(str(path))
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    coefficients: list[Any] = [pointer, integer, pointer, integer]
    shape: list[Any] = [long, integer, long, integer, integer, integer, integer]
    library.kat_set_openmp.argtypes = [pointer, pointer]
    library.kat_rational_forward.argtypes = [integer, pointer, pointer, *coefficients, *shape]
    library.kat_rational_backward.argtypes = [integer, pointer, pointer, pointer, *coefficients, pointer, pointer, *shape]
    openmp = _torch_openmp()
    if openmp.parallel is None:
        logger.warning("kat_zoo: torch's OpenMP runtime was not found; the CPU kernels run on one thread.")
    library.kat_set_openmp(openmp.parallel, openmp.thread_num)
    return library


@functools.cache
def _best_isa() -> int:
    library = load()
    return 0 if library is None else int(library.kat_best_isa())


def isa() -> int:
    """Number (index into `ISAS`) of the instruction set the kernels run with: the best of this machine unless forced."""
    return _forced_isa[-1] if _forced_isa else _best_isa()


@contextmanager
def force_isa(name: str) -> Iterator[None]:
    """Run the CPU kernels with one of `ISAS`, for tests and measurements.

    Raises:
        ValueError: the name is unknown or this machine has no such instructions.
    """
    if name not in ISAS or ISAS.index(name) > _best_isa():
        raise ValueError(f"isa={name!r}: expected one that this machine has, {', '.join(ISAS[: _best_isa() + 1])}")
    _forced_isa.append(ISAS.index(name))
    try:
        yield
    finally:
        _forced_isa.pop()


def check_status(code: int) -> None:
    """Check the result of a function of the library.

    Args:
        code: result of the function, 0 for success.

    Raises:
        MemoryError: no memory for the work space.
    """
    if code:
        raise MemoryError("kat_zoo: the CPU kernel could not allocate its work space")


def num_threads() -> int:
    """Threads for a kernel: torch's setting, and one in a forked child that lost torch's pool, as it could not be ended before."""
    return 1 if _pool_lost else torch.get_num_threads()
