"""When memory runs out: how many images at a time would fit, found by trying."""

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, find_executable_batch_size, gather
from accelerate.utils.memory import should_reduce_batch_size
from timm.data import Mixup
from torch import nn

from kat_zoo._checks import is_count

from ..core.checkpoint import read_progress
from ..core.optim import create_optimizer
from ..core.run import OutOfMemory
from ..core.yaml_file import read_settings
from .recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Trial:
    """One update on noise, after which the weights are what they were.

    Attributes:
        recipe: optimizer, sizes and batch.
        model: the bare model, on the device.
        task: function from (images, targets) to a dict with `loss`.
        input_size: (channels, height, width).
        num_classes: number of classes of the labels.
        mixup: mixup of the batch, or None.
        accelerator: accelerator of this process.
    """

    recipe: Recipe
    model: nn.Module
    task: Any
    input_size: tuple[int, int, int]
    num_classes: int
    mixup: Mixup | None
    accelerator: Accelerator

    def __call__(self, batch: int) -> int:
        """Try `batch` images in this process; no other process takes part. Returns `batch`, or fails as training would."""
        device, side = self.accelerator.device, max([*self.recipe.data.sizes.values(), 0])
        shape = (self.input_size[0], *(max(side, length) for length in self.input_size[1:]))
        weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        was_training, wrapped, self.task.trainable_module = self.model.training, self.task.trainable_module, self.model
        try:
            images, labels = torch.randn(batch, *shape, device=device), torch.randint(self.num_classes, (batch,), device=device)
            if self.mixup is not None:
                images, labels = self.mixup(images, labels)
            self.model.train()
            with self.accelerator.autocast():
                loss = self.task(images, labels)["loss"]
            loss.backward()
            create_optimizer(self.model, self.recipe.optimizer).step()  # its state takes memory, too
        finally:
            self.task.trainable_module = wrapped
            self.model.zero_grad(set_to_none=True)
            self.model.load_state_dict(weights)
            self.model.train(was_training)
        return batch


def micro_batches(recipe: Recipe, processes: int) -> list[int]:
    """Images per process and pass that make up the recipe's global batch, from the recipe's own down."""
    batch, pairs = recipe.data.batch_size, recipe.images_together
    steps = range(recipe.optimizer.grad_accum, batch + 1)
    return [batch // n // processes for n in steps if batch % (n * processes * pairs) == 0]


def largest(candidates: Sequence[int], trial: Callable[[int], int]) -> int:
    """The first of `candidates`, which descend, that fits into memory; 0 if none does."""
    if not candidates:
        return 0
    smaller = iter(candidates[1:])

    def attempt(batch: int) -> int:
        return trial(batch)

    search = find_executable_batch_size(attempt, starting_batch_size=candidates[0], reduce_batch_size_fn=lambda: next(smaller, 0))
    try:
        return search()
    except RuntimeError as error:
        if "No executable batch size" in str(error):
            return 0
        raise


def fit_batch(recipe: Recipe, trial: Trial, checkpoint: Path | None) -> Recipe:
    """Raise `optimizer.grad_accum` until a pass fits into the memory of every process; the global batch stays.

    Args:
        recipe: recipe of the run.
        trial: trial that runs a batch.
        checkpoint: checkpoint of a continued run; it keeps the number that was found for as many processes, if one was.

    Returns:
        The recipe with the number of accumulation steps found.

    Raises:
        OutOfMemory: not even the smallest batch fits.
    """
    accelerator = trial.accelerator
    accum = 0 if checkpoint is None else _found_before(checkpoint, accelerator.num_processes)
    if not accum:
        candidates = micro_batches(recipe, accelerator.num_processes)
        if not candidates:
            raise ValueError(f"data.batch_size {recipe.data.batch_size} cannot be shared by {accelerator.num_processes} processes")
        found = torch.tensor([largest(candidates, trial)], device=accelerator.device)
        micro = int(gather(found).min())
        if not micro:
            raise OutOfMemory(f"out of memory: not even {candidates[-1]} image(s) at a time fit")
        accum = recipe.data.batch_size // (micro * accelerator.num_processes)
        accelerator.print(f"{micro} images per process fit into memory: optimizer.grad_accum is {accum}")
    accelerator.gradient_accumulation_steps = accum
    return dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, grad_accum=accum))


def _found_before(checkpoint: Path, processes: int) -> int:
    """The number of accumulation steps that the run of a checkpoint has found for as many processes; 0 if it has not."""
    stored = checkpoint.resolve().parents[1] / "recipe.yaml"
    if not stored.is_file() or read_progress(checkpoint).processes != processes:
        return 0
    begun = read_settings(stored)
    accum = begun.get("optimizer", {}).get("grad_accum", 1)
    return accum if begun.get("auto_batch_size") and is_count(accum) else 0


@contextmanager
def explain_out_of_memory(recipe: Recipe, trial: Trial) -> Iterator[None]:
    """Turn an out-of-memory error of the block into one that says which settings would fit.

    Args:
        recipe: recipe of the run.
        trial: trial that runs a batch.

    Raises:
        OutOfMemory: with the hint.
    """
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error) or not recipe.trains:
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the activations
        candidates = micro_batches(recipe, trial.accelerator.num_processes)
        sharded = trial.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        fits = 0 if sharded else largest(candidates[1:], trial)
        hint = "no smaller batch fits: choose a smaller model or smaller images"
        if sharded:  # to try, this process would wait for the others
            hint = "raise optimizer.grad_accum, or set auto_batch_size to true"
        elif fits:
            accum = recipe.data.batch_size // (fits * trial.accelerator.num_processes)
            hint = f"{fits} would fit: set optimizer.grad_accum to {accum}, or auto_batch_size to true"
        raise OutOfMemory(f"out of memory with {candidates[0]} images per process at a time; {hint}") from error
