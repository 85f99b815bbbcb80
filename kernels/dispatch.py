"""Where an operator runs: the import of the Triton kernels, the warning where there is no kernel."""

import functools
import importlib
import logging
import subprocess
from types import ModuleType

logger = logging.getLogger("kat_zoo")


@functools.cache
def announce(operator: str, tensors: str) -> None:
    """Warn once that an operator has no kernel for some tensors, named by their device or dtype."""
    logger.warning("kat_zoo: no kernel for %s tensors; %s runs in plain PyTorch, which is slower.", tensors, operator)


@functools.cache
def _launches() -> bool:
    """Whether Triton can launch kernels; if not, the log says once why. Its driver is compiled at first use, and written to a cache."""
    import triton

    if triton.knobs.runtime.interpret:
        return True
    try:
        triton.runtime.driver.active.get_current_target()
    except (RuntimeError, OSError, AssertionError, subprocess.CalledProcessError) as error:
        reason = " ".join(str(error).split())[:200]
        logger.warning(
            "kat_zoo: Triton cannot launch kernels (%s: %s), so the operators run in plain PyTorch, which is slower. Triton needs "
            "a C compiler, Python's header files and a folder that can be written (TRITON_CACHE_DIR).",
            type(error).__name__,
            reason,
        )
        return False
    return True


@functools.cache
def triton_module(name: str) -> ModuleType | None:
    """Import one of the modules of Triton kernels: when the first GPU tensor arrives, never before; None where Triton cannot be used."""
    try:
        module = importlib.import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return None
    return module if _launches() else None
