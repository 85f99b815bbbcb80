"""What two processes do in test_modes.py; started by torchrun with the folder of the recipes."""

import shutil
import sys
from pathlib import Path

import datasets
import torch
from accelerate import PartialState

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import parse


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0

    def recipe(name: str, output: str) -> Recipe:
        return parse(Recipe, ["--config", str(folder / f"{name}.yaml"), "--output", str(folder / output)], "test")[0]

    train(recipe("lp_ft", "lp_ft2"))
    whole, cut = recipe("stream", "whole2"), recipe("stream", "cut2")
    train(whole)
    if PartialState().is_main_process:
        shutil.copytree(whole.output, cut.output)
        for checkpoint in list_checkpoints(Path(cut.output))[6:]:
            shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    train(cut, resume="auto")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    PartialState().destroy_process_group()  # or gloo's threads may abort the exit
