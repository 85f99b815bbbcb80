"""The states of a checkpoint, read so that no file of it can run code.

Accelerate writes pickles: optimizer, scaler, random states, and under FSDP2 and DeepSpeed the weights. Each is looked at before anything
is loaded, and `torch.load` then takes plain values and tensors only, whoever calls it. The folder may come from a stranger.
"""

import importlib
import logging
import os
import pickle
import random
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, load
from safetensors import SafetensorError, safe_open
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from kat_zoo._text import one_line

logger = logging.getLogger("kat_zoo")

PICKLES = (".bin", ".pkl", ".pt", ".pth")
STREAM = "custom_checkpoint_*.pkl"  # older versions kept the state of a stream in it
METADATA = ".metadata"  # of torch.distributed.checkpoint, which FSDP2 uses
NUMPY = {"numpy.ndarray", "numpy.dtype", "numpy.dtypes.UInt32DType", "_codecs.encode"} | {
    f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")
}  # arrays of numbers, in the random states
DEEPSPEED = (  # plain containers in the state of its optimizer
    ("deepspeed.runtime.fp16.loss_scaler", "LossScaler"),
    ("deepspeed.runtime.zero.config", "ZeroStageEnum"),
    ("deepspeed.utils.tensor_fragment", "fragment_address"),
)
LAYOUT = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "BytesStorageMetadata", "MetadataIndex",
        "StorageMeta", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "pathlib": {"PosixPath", "PurePosixPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath"},
    "collections": {"OrderedDict"},
}  # fmt: skip
KINDS = ("fused", "foreach", "capturable")  # of an optimizer's step, as the device has it; a checkpoint may be of another one
UNREADABLE = (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError, TypeError)


class _Layout(pickle.Unpickler):
    """Reads the layout of a sharded checkpoint, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """A class of the layout, or a dtype.

        Raises:
            pickle.UnpicklingError: Anything else.
        """
        found = name in LAYOUT.get(module, ()) or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype))
        if not found:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def check_files(folder: Path) -> None:
    """Look at every file of a checkpoint that holds a state.

    Args:
        folder: a checkpoint's folder.

    Raises:
        ValueError: a file that is damaged, or that holds more than plain values and tensors; it is named.
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    pass
            elif path.name == METADATA:
                with path.open("rb") as file:
                    _Layout(file).load()
            elif path.suffix in PICKLES:
                allowed = NUMPY if path.name.startswith("random_states") else {".".join(names) for names in DEEPSPEED}
                if names := sorted(set(get_unsafe_globals_in_checkpoint(path)) - allowed):
                    raise pickle.UnpicklingError(", ".join(names))
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path} holds more than plain values ({one_line(error)[:100]}) and could run code: it is not read") from error
        except (*UNREADABLE, SafetensorError) as error:
            raise ValueError(f"{path} is damaged: {one_line(error)[:200]}") from error


def load_state(accelerator: Accelerator, folder: Path) -> None:
    """`Accelerator.load_state` of a folder that has been checked.

    Args:
        accelerator: accelerator that holds the prepared model and optimizer.
        folder: a checkpoint's folder.

    Raises:
        ValueError: a state that does not fit, or that holds more than plain values and tensors.
    """
    with ExitStack() as stack:
        stack.enter_context(_plain_values_only())
        for optimizer in accelerator._optimizers:
            stack.enter_context(_same_kind(optimizer))
        if accelerator.distributed_type == DistributedType.DEEPSPEED:
            known = [getattr(importlib.import_module(module), name) for module, name in DEEPSPEED]
            stack.enter_context(safe_globals(known))
        if any(folder.glob(STREAM)):  # accelerate would unpickle them
            folder = stack.enter_context(_without_streams(folder))
        try:
            accelerator.load_state(str(folder))
        except (*UNREADABLE, SafetensorError) as error:
            raise ValueError(f"checkpoint {folder} cannot be loaded: {one_line(error)[:300]}") from error


def stream_state(folder: Path) -> dict[str, int]:
    """The state of a stream in a checkpoint of an older version; empty where there is none."""
    paths = sorted(folder.glob(STREAM))
    state = load(paths[0], map_location="cpu") if paths else {}
    if not isinstance(state, dict) or not all(isinstance(value, int) for value in state.values()):
        raise ValueError(f"{paths[0]} does not hold the state of a stream: expected two integers, processes and workers")
    return state


def load_random_state(accelerator: Accelerator, folder: Path, processes: int) -> None:
    """Restore the random state of this process, which accelerate leaves out in silence where it cannot be read.

    Args:
        accelerator: accelerator of this process.
        folder: a checkpoint's folder.
        processes: number of processes that wrote it; 0 where it is unknown.

    Raises:
        ValueError: it is missing although as many processes go on, or damaged.
    """
    path = folder / f"random_states_{accelerator.process_index}.pkl"
    if not path.is_file():
        if processes in (0, accelerator.num_processes):
            raise ValueError(f"{path}: no such file, and without it the run would go on with other random numbers")
        logger.warning("process %d has no random state in %s, which %d wrote: it begins with a new one", accelerator.process_index, folder,
                       processes)  # fmt: skip
        return
    try:
        states = load(path)
        random.setstate(states["random_state"])
        np.random.set_state(states["numpy_random_seed"])
        torch.set_rng_state(states["torch_manual_seed"])
        if torch.cuda.is_available() and "torch_cuda_manual_seed" in states:
            _set_gpus(states["torch_cuda_manual_seed"], path)
    except (*UNREADABLE, IndexError) as error:
        raise ValueError(f"{path} does not hold the random state of a run: {one_line(error)[:200]}") from error
    if torch.cuda.is_available() and "torch_cuda_manual_seed" not in states:
        logger.warning("%s was written without a GPU: the GPU begins with a new random state", path)


def _set_gpus(states: list[torch.Tensor], path: Path) -> None:
    """Restore the random states of the GPUs that this process sees; accelerate keeps one of each GPU that it saw then."""
    count = torch.cuda.device_count()
    torch.cuda.set_rng_state_all(states[:count])
    if len(states) != count:
        logger.warning("%s was written where the process saw %d GPUs, now it sees %d: their random states may be others", path,
                       len(states), count)  # fmt: skip


@contextmanager
def _plain_values_only() -> Iterator[None]:
    """Let every `torch.load`, whoever calls it, refuse what could run code."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = {key: os.environ.pop(key, None) for key in (name, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")}
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        os.environ.update({key: value for key, value in before.items() if value is not None})


@contextmanager
def _same_kind(prepared: Any) -> Iterator[None]:
    """Let an optimizer keep its own KINDS over a load: one that was begun on CPUs would lose `fused` on a GPU, and refuse `found_inf`."""
    optimizer = getattr(prepared, "optimizer", prepared)
    optimizer = getattr(optimizer, "_base_optimizer", optimizer)  # of timm's Lookahead
    if not hasattr(optimizer, "register_load_state_dict_pre_hook"):  # DeepSpeed's
        yield
        return

    def keep(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
        own = [{kind: group[kind] for kind in KINDS if kind in group} for group in optimizer.param_groups]
        stored = state["param_groups"]
        if len(own) != len(stored):  # which load_state_dict tells
            return None
        return {**state, "param_groups": [{**group, **kinds} for group, kinds in zip(stored, own, strict=True)]}

    hook = optimizer.register_load_state_dict_pre_hook(keep)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _without_streams(folder: Path) -> Iterator[Path]:
    """A view of a checkpoint without the states of streams."""
    with TemporaryDirectory() as view:
        for path in folder.iterdir():
            if not path.match(STREAM):
                (Path(view) / path.name).symlink_to(path.resolve(), path.is_dir())
        yield Path(view)
