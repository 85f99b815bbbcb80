"""Checkpoints that are whole or absent: written aside, flushed to disk, then renamed."""

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from kat_zoo._checks import is_count
from kat_zoo._text import one_line
from kat_zoo.hub.repository import CARD, CODE, CONFIG, RECIPE, RESULT, WEIGHTS, serialize

from .states import check_files, load_random_state, load_state, stream_state
from .yaml_file import read_settings

logger = logging.getLogger("kat_zoo")

PREFIX, PARTIAL = "update_", ".partial"
LOG = "metrics.jsonl"
OWN_FILES = (WEIGHTS, "best.safetensors", "last.safetensors", RESULT, CARD, "curves.png", "curves.csv")  # of a run that was evaluated
BEGUN = (CONFIG, CODE, LOG)  # of one that began, beside its recipe
CHECKPOINT = re.compile(rf"{PREFIX}(\d{{8,}})")
MODEL_FILES = {DistributedType.FSDP: "pytorch_model_fsdp*", DistributedType.DEEPSPEED: "pytorch_model"}  # accelerate's names


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        update: optimizer updates done, skipped ones included.
        skipped: updates skipped because the gradient was not finite.
        evaluated: update of the last evaluation.
        best: best value so far of the run's metric, larger is better; None before the first evaluation.
        window: loss name -> values since the last log record, so that a continued run logs what an unbroken one would.
        updates_per_epoch: updates in one epoch, by the number of training images; 0 in checkpoints that do not have it.
        images: number of training images, on which their order depends; 0 where they are streamed.
        processes: number of processes that took part; 0 in checkpoints that do not have it.
        stream: numbers that the order of a stream depends on; empty where images are read by index.
    """

    update: int = 0
    skipped: int = 0
    evaluated: int = 0
    best: float | None = None
    window: dict[str, list[float]] = field(default_factory=dict)
    updates_per_epoch: int = 0
    images: int = 0
    processes: int = 0
    stream: dict[str, int] = field(default_factory=dict)


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a crash, sees the old file or the new one, never a part."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:  # a full disk does not say of which file
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror}, and the file is as it was", str(path)) from error
    _sync(path.parent)


def save_weights(
    weights: Mapping[str, torch.Tensor], path: Path, update: int | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a state dict as safetensors, atomically; timm's `checkpoint_path` reads it.

    Args:
        weights: state dict.
        path: file to write.
        update: update that the weights are of, which the file then states.
        metadata: further statements.
    """
    stated = {**({} if update is None else {"update": str(update)}), **(metadata or {})}
    write_atomically(path, serialize(weights, {"format": "pt"} | stated))  # transformers asks for the format


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict with whole tensors, on the CPU; every process calls it, for FSDP2 gathers the parts."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu() for name, value in model.state_dict().items()
    }


def _load_whole(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load what `whole_weights` gave; a sharded model takes its part."""
    parts = {name: value for name, value in model.state_dict().items() if isinstance(value, DTensor)}
    cut = {name: distribute_tensor(weights[name].to(v.device), v.device_mesh, v.placements) for name, v in parts.items()}
    model.load_state_dict({**weights, **cut})


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _allow_as_usual(path: Path) -> None:
    """Give a file the permissions that the user's umask gives to new ones: safetensors lets nobody else read."""
    if path.is_file():
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def list_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run folder, oldest first; a copy that the user made under another name is none of them."""
    folders = (folder for folder in (run / "checkpoints").glob(f"{PREFIX}*") if CHECKPOINT.fullmatch(folder.name) and folder.is_dir())
    return sorted(folders, key=update_of)


def update_of(folder: Path) -> int:
    """The update that a checkpoint of `list_checkpoints` was made after, by its name."""
    return int(folder.name.removeprefix(PREFIX))


def drop_abandoned(run: Path, checkpoint: Path | None, update: int) -> None:
    """Remove what a run folder holds of the updates after those that a run goes on from; the main process calls it.

    Left there, `--resume auto` would prefer the abandoned checkpoints, and new ones of the same numbers would not be written.

    Args:
        run: run folder.
        checkpoint: checkpoint that the run goes on from, if any.
        update: update at which it stands.
    """
    own = None if checkpoint is None else checkpoint.resolve()
    abandoned = [folder for folder in list_checkpoints(run) if update_of(folder) >= update and folder.resolve() != own]
    for folder in abandoned:
        shutil.rmtree(folder)
    if abandoned:
        names = ", ".join(folder.name for folder in abandoned)
        logger.warning("the run goes on from update %d: removed the checkpoints after it, %s", update, names)
    best = run / "best.safetensors"
    if not best.exists():
        return
    with safe_open(best, "pt") as file:
        stated = (file.metadata() or {}).get("update")  # files of older versions do not state it
    if int(stated) <= update if stated is not None else not abandoned:
        return
    best.unlink()
    logger.warning("the run goes on from update %d: removed best.safetensors, which is of a later one; the best is found anew", update)


def save_checkpoint(accelerator: Accelerator, run: Path, progress: Progress, ema: ModelEmaV3 | None, keep: int) -> Path:
    """Save everything a run needs to go on bit-exactly; every process calls it.

    Args:
        accelerator: accelerator that holds the prepared model and optimizer.
        run: run folder.
        progress: state of the run.
        ema: averaged weights, or None.
        keep: newest checkpoints to keep.

    Returns:
        The checkpoint's folder.
    """
    final = run / "checkpoints" / f"{PREFIX}{progress.update:08d}"
    partial = final.with_name(final.name + PARTIAL)
    if final.exists():  # the same weights; an evaluation may have been added
        if accelerator.is_main_process:
            write_atomically(final / "progress.json", json.dumps(asdict(progress)).encode())
        return final
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(partial), safe_serialization=True)
    except (OSError, RuntimeError, SafetensorError) as error:  # of a full disk, which torch and safetensors tell in their own words
        shutil.rmtree(partial, ignore_errors=True)
        kept = next(reversed(list_checkpoints(run)), "none")
        raise OSError(f"checkpoint {final} could not be written ({one_line(error)[:200]}); the newest is {kept}") from error
    average = None if ema is None else whole_weights(ema.module)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if average is not None:
            save_weights(average, partial / "ema.safetensors")
        write_atomically(partial / "progress.json", json.dumps(asdict(progress)).encode())
        for path in partial.rglob("*"):
            _allow_as_usual(path)
            _sync(path)
        partial.replace(final)
        _sync(final.parent)
        for old in list_checkpoints(run)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


def load_checkpoint(accelerator: Accelerator, folder: Path, ema: ModelEmaV3 | None) -> Progress:
    """Restore what `save_checkpoint` saved.

    Args:
        accelerator: accelerator that holds the prepared model and optimizer.
        folder: a checkpoint's folder.
        ema: averaged weights to fill, or None.

    Returns:
        Where the run stood.

    Raises:
        FileNotFoundError: `folder` is not a checkpoint.
        ValueError: it was saved by another of DDP, FSDP2 and DeepSpeed, a file of it is damaged, or holds more than plain values.
    """
    if not (folder / "progress.json").is_file():
        raise FileNotFoundError(f"{folder} is not a checkpoint of kat-zoo train (no progress.json)")
    weights = MODEL_FILES.get(accelerator.distributed_type, "model.safetensors")
    if not any(folder.glob(weights)):  # accelerate would go on with the weights there are, or fail without a reason
        raise ValueError(
            f"checkpoint {folder} has no {weights}: DDP (or one process), FSDP2 and DeepSpeed do not read each other's checkpoints; "
            "continue as the run was begun, or start another from its model.safetensors (model.checkpoint)"
        )
    progress = read_progress(folder)
    check_files(folder)
    load_state(accelerator, folder)
    if ema is not None:
        _load_whole(ema.module, load_file(folder / "ema.safetensors"))
    load_random_state(accelerator, folder, progress.processes)
    progress.stream = progress.stream or stream_state(folder)
    return progress


def read_progress(folder: Path) -> Progress:
    """Where the run of a checkpoint stood.

    Args:
        folder: a checkpoint's folder.

    Raises:
        ValueError: progress.json is not one that `save_checkpoint` writes.
    """
    path = folder / "progress.json"
    try:
        progress = Progress(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {one_line(error)[:200]}") from error
    counts = ("update", "skipped", "evaluated", "updates_per_epoch", "images", "processes")
    for name in counts:
        if not is_count(getattr(progress, name), 0):
            raise ValueError(f"{path} has {name}={getattr(progress, name)!r}: expected an integer of at least 0")
    if not isinstance(progress.window, dict) or not isinstance(progress.stream, dict):
        raise ValueError(f"{path} is damaged: window and stream must be objects")
    return progress


def find_resume(run: Path, resume: str) -> Path | None:
    """The checkpoint to continue from.

    Args:
        run: run folder.
        resume: `no`, `auto` (the newest of the run folder, or none yet), or the path of a checkpoint.

    Returns:
        Its folder, or None to start anew.

    Raises:
        ValueError: `no`, or a checkpoint of another run, but the run folder holds a run; or a run that begins there would overwrite files.
        FileNotFoundError: a path that is not a checkpoint.
    """
    if resume == "auto":
        newest = next(reversed(list_checkpoints(run)), None)
        if newest is None:
            _refuse_files(run, OWN_FILES if (run / RECIPE).is_file() else (*OWN_FILES, *BEGUN))
        return newest
    if resume != "no":
        if not (Path(resume) / "progress.json").is_file():
            raise FileNotFoundError(f"--resume {resume}: expected auto, no, or the folder of a checkpoint")
        if is_of(Path(resume), run):
            return Path(resume)
        if list_checkpoints(run):
            raise ValueError(f"--resume {resume} is of another run than output {run}, which holds one already; choose another output")
    elif list_checkpoints(run) or (run / LOG).exists():
        raise ValueError(f"output {run} already holds a run; continue it with --resume auto, or choose another output")
    _refuse_files(run, (*OWN_FILES, LOG) if (run / RECIPE).is_file() else (*OWN_FILES, *BEGUN))
    return None if resume == "no" else Path(resume)


def is_of(checkpoint: Path, run: Path) -> bool:
    """Whether a checkpoint is one of this run folder."""
    return checkpoint.resolve().parent.parent == run.resolve()


def _refuse_files(run: Path, names: Sequence[str]) -> None:
    """Refuse to begin where files lie that a run would overwrite, for they may be the user's own.

    A recipe.yaml in the words of `to_yaml` is not one of them: a run that failed before its first checkpoint leaves it, and begins again.
    """
    found = [name for name in names if (run / name).exists()]
    if (run / RECIPE).exists() and not _is_written_by_us(run / RECIPE):
        found.append(RECIPE)
    if found:
        raise ValueError(
            f"output {run} has {', '.join(found)}, but no checkpoint to go on from, and a run would overwrite that: expected another output"
        )


def _is_written_by_us(recipe: Path) -> bool:
    """Whether a recipe is in the words of `to_yaml`: nothing of it is lost where it is written again, as comments would be."""
    try:
        return yaml.safe_dump(read_settings(recipe), sort_keys=False) == recipe.read_text(encoding="utf-8")
    except (ValueError, OSError):
        return False
