"""Loaders of streams: each process and each loader worker reads its own shards and decodes nothing twice.

The order of a stream follows from seed, epoch and the number of processes and workers. A run that is continued with the
same numbers sees the very images it would have seen: what was seen is read again, but not decoded. Continued with
other numbers, it sees as many images, in another order, and says so.
"""

import logging
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce, send_to_device
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..core.images import UNREADABLE, UnreadableImages, decode, to_mode
from ..core.workers import outliving_stop_signals
from .hub_data import Stream

logger = logging.getLogger("kat_zoo")

Augment = Callable[[Image.Image, int, int], Tensor]  # image, seed, epoch -> augmented image


def _share(rows: Any, rank: int, processes: int) -> Any:
    """One process's part of the rows: its shards, or where they are not a multiple of the processes, every n-th row."""
    from datasets.distributed import split_dataset_by_node

    return rows if processes == 1 else split_dataset_by_node(rows, rank, processes)


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


class _TrainRows(IterableDataset):
    """The augmented images of one process, from a micro-batch of an epoch on; made anew in every worker."""

    def __init__(self, stream: Stream, transform: Augment, mode: str, seed: int, unreadable: UnreadableImages) -> None:
        self.stream, self.transform, self.mode, self.seed, self.unreadable = stream, transform, mode, seed, unreadable
        self.rank, self.processes = PartialState().process_index, PartialState().num_processes
        self.epoch = self.rounds = self.batches = self.micro = 0

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        worker, workers = _worker()
        wanted = len(range(worker, self.batches, workers)) * self.micro
        seen = self.rounds * self.micro
        yield from islice(self._augmented(worker, seen), max(0, wanted - seen))

    def _augmented(self, worker: int, seen: int) -> Iterator[tuple[Tensor, int]]:
        waiting: list[int] = []  # positions of unreadable images, whose place the next readable one takes
        for position, row in enumerate(islice(self._endless(), seen, None), start=seen):
            waiting.append(position)
            label = self.stream.label_of(row)
            try:
                image = decode(row[self.stream.image])
            except UNREADABLE as error:
                self.unreadable.note(self.stream.name_of(row), error)
                continue
            image = to_mode(image, self.mode, self.stream.name_of(row))
            for place in waiting:
                key = (self.seed, self.epoch, self.rank, worker, place)
                yield self.transform(image, int(np.random.SeedSequence(key).generate_state(1)[0]), self.epoch), label
            waiting.clear()

    def _endless(self) -> Iterator[dict[str, Any]]:
        for reading in count():
            # A new dataset for each reading: `set_epoch` would change the order in the other workers as well.
            seed = int(np.random.SeedSequence((self.seed, self.epoch, reading)).generate_state(1)[0])
            shuffled = self.stream.rows.shuffle(seed=seed, buffer_size=self.stream.buffer)
            empty = True
            for row in self.stream.read(_share(shuffled, self.rank, self.processes)):
                empty = False
                yield row
            if empty:
                raise ValueError("a loader worker found no image in its part of the stream; set data.workers lower")


class StreamLoader:
    """Endless epochs of augmented micro-batches on the device; see the module's docstring for what a restart repeats.

    Args:
        stream: the training split.
        transform: (image, seed, epoch) -> tensor.
        mode: PIL mode that images are converted to.
        seed: seed of order and augmentation.
        micro_batch: images of a micro-batch over all processes.
        micro_batches: number of micro-batches in an epoch.
        workers: loader processes per process; no more than it has shards.
        unreadable: counts images that cannot be read.

    Raises:
        ValueError: the micro-batch cannot be divided by the number of processes.
    """

    def __init__(
        self,
        stream: Stream,
        transform: Augment,
        mode: str,
        seed: int,
        micro_batch: int,
        micro_batches: int,
        workers: int,
        unreadable: UnreadableImages,
    ) -> None:
        processes = PartialState().num_processes
        if micro_batch % processes:
            raise ValueError(f"{micro_batch} images (data.batch_size / optimizer.grad_accum) cannot be divided by {processes} processes")
        self.rows = _TrainRows(stream, transform, mode, seed, unreadable)
        self.rows.micro, self.rows.batches = micro_batch // processes, micro_batches
        self.micro_batch, self.first = micro_batch, 0
        self.workers = _limit(workers, stream)

    def seek(self, epoch: int, first: int = 0) -> None:
        """Let the next iteration be epoch `epoch` from its sample number `first`, of all processes together, on."""
        self.rows.epoch, self.first = epoch, first // self.micro_batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Worker w delivers batches w, w + workers, ...; a continued epoch begins at a whole round of the workers.
        self.rows.rounds, odd = divmod(self.first, max(1, self.workers))
        batches = _loader(self.rows, self.rows.micro, self.workers)
        yield from (send_to_device(batch, PartialState().device) for batch in islice(batches, odd, None))

    def order_numbers(self) -> dict[str, int]:
        """The numbers that the order depends on; a checkpoint keeps them."""
        return {"processes": PartialState().num_processes, "workers": self.workers}

    def compare_order(self, before: dict[str, int]) -> None:
        """Say so if a run is continued with other numbers of processes or workers."""
        if before != self.order_numbers():
            logger.warning("the stream continues in another order: it was read by %s, and now by %s", before, self.order_numbers())


class _TestRows(IterableDataset):
    def __init__(self, stream: Stream, transform: Callable[[Image.Image], Tensor], mode: str, unreadable: UnreadableImages | None) -> None:
        self.stream, self.transform, self.mode, self.unreadable = stream, transform, mode, unreadable
        self.rows = _share(stream.rows, PartialState().process_index, PartialState().num_processes)

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        for row in self.stream.read(self.rows):
            try:
                image = decode(row[self.stream.image])
            except UNREADABLE as error:
                name = self.stream.name_of(row)
                if self.unreadable is None:
                    raise ValueError(f"{name} cannot be read, and evaluation leaves no image out: {error}") from error
                self.unreadable.note(name, error)
                continue
            yield self.transform(to_mode(image, self.mode, self.stream.name_of(row))), self.stream.label_of(row)


class StreamTestLoader:
    """A whole split, on the device, in batches of the same size in all processes; padding has the label -1.

    Args:
        stream: the evaluation split.
        transform: image -> tensor.
        mode: PIL mode that images are converted to.
        batch: images of a batch of one process.
        workers: loader processes per process; no more than it has shards.
        unreadable: counts images that cannot be read and are left out; None: they are errors.
    """

    def __init__(
        self,
        stream: Stream,
        transform: Callable[[Image.Image], Tensor],
        mode: str,
        batch: int,
        workers: int,
        unreadable: UnreadableImages | None = None,
    ) -> None:
        self.rows, self.batch = _TestRows(stream, transform, mode, unreadable), batch
        self.workers = _limit(workers, stream)
        self.padding = torch.zeros(batch, *transform(Image.new(mode, (8, 8))).shape)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = PartialState().device
        batches = iter(_loader(self.rows, self.batch, self.workers))
        while True:
            images, labels = next(batches, (self.padding[:0], torch.zeros(0, dtype=torch.int64)))
            # The others may have more: all go on until the last one is through, because gathering takes all of them.
            if not int(reduce(torch.tensor([len(labels)], device=device), "sum")):
                return
            missing = self.batch - len(labels)
            images, labels = torch.cat([images, self.padding[:missing]]), torch.cat([labels, labels.new_full((missing,), -1)])
            yield images.to(device), labels.to(device)


def _limit(workers: int, stream: Stream) -> int:
    """Loader workers that all have a shard of their process to read."""
    shards, processes = stream.rows.num_shards, PartialState().num_processes
    if not shards % processes:
        shards //= processes
    elif PartialState().is_main_process:
        logger.warning("%d shards are not a multiple of %d processes: each process reads all, for its share", shards, processes)
    if workers > shards:
        logger.warning("data.workers %d is lowered to %d: a worker reads whole shards, and a process has no more", workers, shards)
    return min(workers, shards)


def _loader(rows: IterableDataset, batch: int, workers: int) -> DataLoader:
    return DataLoader(
        rows,
        batch_size=batch,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the model's random state is not touched
        worker_init_fn=outliving_stop_signals(),
    )
