"""What each of two processes does under DeepSpeed in test_zero.py; started by accelerate's launcher with the folder of the recipes."""

import os
import shutil
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core import run
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import parse


def poison() -> None:
    """Let process 1 alone have a loss that is no number in update 3."""
    backward = run.Run.backward

    def poisoned(self: run.Run, losses: dict[str, torch.Tensor]) -> None:
        bad = PartialState().process_index == 1 and self.progress.update == 2
        backward(self, {name: value * (float("nan") if bad else 1.0) for name, value in losses.items()})

    run.Run.backward = poisoned  # type: ignore[method-assign, assignment]


def main(folder: Path) -> None:
    torch.set_num_threads(1)

    def go(name: str, stage: int, output: str, resume: str = "no") -> None:
        AcceleratorState._reset_state(reset_partial_state=False)
        os.environ["ACCELERATE_DEEPSPEED_ZERO_STAGE"] = str(stage)
        recipe = parse(Recipe, ["--config", str(folder / f"{name}.yaml"), "--output", str(folder / output)], "test")[0]
        train(recipe, resume)

    for name, stage in (("float32", 1), ("float32", 2), ("bf16", 2)):
        go(name, stage, f"{name}_zero{stage}")
    go("random", 2, "whole")
    if PartialState().is_main_process:
        shutil.copytree(folder / "whole", folder / "cut")
        for checkpoint in list_checkpoints(folder / "cut")[1:]:
            shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    go("random", 2, "cut", resume="auto")
    poison()
    go("random", 1, "poisoned")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    PartialState().destroy_process_group()  # or gloo's threads may abort the exit
