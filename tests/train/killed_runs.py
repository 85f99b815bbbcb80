"""Runs that are killed while they write a checkpoint, for test_classification.py; the arguments are a recipe and when to kill.

Each is a fork of this process, which has imported everything and has not differentiated anything: after that PyTorch cannot be forked.
"""

import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core import checkpoint
from kat_zoo.train.core.config import parse


def train_until_killed(config: str, syncs: int) -> None:
    """Train into `cutN`, and be killed right after N files or folders of checkpoints were flushed to the disk."""
    sync, left = checkpoint._sync, iter(range(syncs))

    def flush_and_die(path):
        sync(path)
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint._sync = flush_and_die
    output = str(Path(config).parent / f"cut{syncs}")
    train(parse(Recipe, ["--config", config, "--output", output], "test")[0])


if __name__ == "__main__":
    for number in sys.argv[2:]:
        process = get_context("fork").Process(target=train_until_killed, args=(sys.argv[1], int(number)))
        process.start()
        process.join()
        print(process.exitcode, flush=True)
