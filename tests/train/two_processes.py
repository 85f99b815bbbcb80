"""What two processes do in test_distributed.py; started by torchrun with the folder of the recipes."""

import shutil
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from kat_zoo.train.checkpoint import list_checkpoints
from kat_zoo.train.classification import train
from kat_zoo.train.classification_config import Recipe
from kat_zoo.train.config import parse


def main(folder: Path) -> None:
    torch.set_num_threads(1)

    def recipe(name: str, output: str) -> Recipe:
        return parse(Recipe, ["--config", str(folder / f"{name}.yaml"), "--output", str(folder / output)], "test")[0]

    train(recipe("plain", "plain2"))
    whole = recipe("random", "whole2")
    train(whole)
    cut = recipe("random", "cut2")
    if PartialState().is_main_process:
        shutil.copytree(whole.output, cut.output)
        for checkpoint in list_checkpoints(Path(cut.output))[8:]:
            shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    train(cut, resume="auto")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
