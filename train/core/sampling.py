"""The order and the random numbers of an epoch: they depend on seed and epoch only, not on workers, processes or restarts."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from .workers import outliving_stop_signals


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block under its own random state of Python, NumPy and torch, and put the old states back afterwards.

    In a loader worker nothing else draws numbers, so there the states, slow to copy (0.2 ms), are not put back.

    Args:
        seed: seed in [0, 2**32).
    """
    in_worker = get_worker_info() is not None
    states = None if in_worker else (random.getstate(), np.random.get_state(), torch.get_rng_state())
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        if states is not None:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


class EpochSampler(Sampler[tuple[int, int]]):
    """The (index, augmentation seed) pairs of one epoch, the same in every process.

    Each sample carries its own seed, so that a run continued in the middle of an epoch, with any number of workers or
    processes, sees the images it would have seen.

    Args:
        size: number of images in the dataset.
        length: samples per epoch.
        seed: seed of the order and of the augmentation.
        repeats: times an image is drawn per pass (repeated augmentation, arXiv 1902.05509).
    """

    def __init__(self, size: int, length: int, seed: int, repeats: int = 1) -> None:
        self.size, self.length, self.seed, self.repeats = size, length, seed, repeats
        self.epoch, self.first = 0, 0

    def seek(self, epoch: int, first: int = 0) -> None:
        """Let the next iteration be epoch `epoch` from its sample number `first` on."""
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        return self.length - self.first

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # SeedSequence mixes (seed, epoch), so that run 0's epoch 1 is not run 1's epoch 0.
        state = int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1))
        generator = torch.Generator().manual_seed(state)
        order = torch.randperm(self.size, generator=generator).repeat_interleave(self.repeats)[: self.length]
        seeds = torch.randint(2**32, (len(order),), generator=generator)
        yield from zip(order[self.first :].tolist(), seeds[self.first :].tolist(), strict=True)


def make_loader(dataset: Dataset, workers: int, **kwargs: Any) -> DataLoader:
    """A loader that leaves the global random state alone and whose workers outlive stop signals.

    Args:
        dataset: map-style.
        workers: processes; 0 loads in this one.
        **kwargs: further arguments of torch's DataLoader.
    """
    # Its own generator: making an iterator draws a number, which must not come from the random state of the model.
    return DataLoader(
        dataset,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
        worker_init_fn=outliving_stop_signals(),
        **kwargs,
    )
