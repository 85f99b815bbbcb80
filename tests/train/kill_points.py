"""A tiny run that is killed at many points and continued each time must end as the run that was left alone: same log, weights, result.

    .venv/bin/python tests/train/kill_points.py --points 200      # about 20 minutes of one core

Odd points are moments, evenly spaced over the run, at which it gets SIGKILL, SIGTERM, SIGINT or SIGUSR1 in turn. Even points are file
operations in the run folder (a file opened, renamed, removed), evenly spaced too: the process kills itself in the midst of one. Each
run is a fork of this process, which has imported everything and differentiates nothing: after that PyTorch cannot be forked.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig, ModelConfig, Recipe
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import EmaConfig, OptimizerConfig, ScheduleConfig, SystemConfig
from kat_zoo.train.core.log import read_log

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SEPARATE = get_context("fork")


def recipe(output: Path, data: Path) -> Recipe:
    """Two epochs of six updates with everything random switched on, a loader process, and a checkpoint every other update."""
    return Recipe(
        output=str(output),
        model=ModelConfig("kat_pico_patch4_28", {"depth": 1, "embed_dim": 24, "drop_path_rate": 0.2, "patch_drop_rate": 0.1}),
        data=DataConfig(root=str(data), batch_size=16, workers=1),
        augment=AugmentConfig(mixup=0.2, random_erasing=0.5, crop="pad"),
        optimizer=OptimizerConfig(lr=2e-3, clip_grad=1.0, grad_accum=2),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
        ema=EmaConfig(decay=0.9),
        system=SystemConfig(log_every=2, checkpoint_every=2, trackers=()),
    )


def start(plan: Recipe, resume: str, hook: Callable[[str, Any], None] | None = None) -> Any:
    """Train in a fork, silent; `hook` is its audit hook."""

    def work() -> None:
        torch.set_num_threads(1)
        with open(os.devnull, "w") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        if hook is not None:
            sys.addaudithook(hook)
        train(plan, resume)

    process = SEPARATE.Process(target=work)
    process.start()
    return process


def in_folder(folder: Path, count: Any, last: int | None) -> Callable[[str, Any], None]:
    """An audit hook that counts the file operations in a folder, and kills the process at operation number `last`."""
    owner = None

    def hook(event: str, arguments: Any) -> None:
        nonlocal owner
        owner = owner or os.getpid()
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod") or os.getpid() != owner:
            return
        if isinstance(arguments[0], (str, os.PathLike)) and os.fspath(arguments[0]).startswith(str(folder)):
            count.value += 1
            if count.value == last:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves, as values that can be compared."""
    log = [{key: value for key, value in row.items() if key != "images_per_second"} for row in read_log(folder / "metrics.jsonl")]
    last = list_checkpoints(folder)[-1]
    weights = {
        str(path.relative_to(folder)): {name: value.tolist() for name, value in load_file(path).items()}
        for path in (folder / "model.safetensors", folder / "best.safetensors", last / "model.safetensors", last / "ema.safetensors")
    }
    return {
        "log": log,
        "result": json.loads((folder / "result.json").read_text()),
        "weights": weights,
        "progress": (last / "progress.json").read_text(),
    }


def kill_points(data: Path, work: Path, points: int, first: int = 0) -> list[str]:
    """Kill and continue a run at many points.

    Args:
        data: folder with Fashion-MNIST's four files, or small ones in their format.
        work: folder for the runs.
        points: number of points.
        first: number of the first point that is tried; those before it were tried by an earlier call.

    Returns:
        A sentence for each run that ended otherwise than the one that was left alone.
    """
    whole, count = recipe(work / "whole", data), SEPARATE.Value("i", 0)
    began = time.perf_counter()
    process = start(whole, "no", in_folder(work / "whole", count, None))
    process.join()
    seconds, operations, expected = time.perf_counter() - began, count.value, outcome(work / "whole")
    print(f"left alone: {seconds:.1f} s, {operations} operations on files", flush=True)
    wrong = []
    for point in range(first, points):
        plan = recipe(work / f"point{point}", data)
        if point % 2:
            number = SIGNALS[point // 2 % len(SIGNALS)]
            moment = seconds * (point + 0.5) / points
            name = f"{number.name} after {moment:.2f} s"
            process = start(plan, "auto")
            process.join(moment)
            if process.is_alive():
                os.kill(process.pid, number)
        else:
            last = 1 + operations * point // points
            name = f"SIGKILL in operation {last}"
            process = start(plan, "auto", in_folder(Path(plan.output), SEPARATE.Value("i", 0), last))
        process.join()
        code, updates = process.exitcode, [path.name for path in list_checkpoints(Path(plan.output))]
        process = start(plan, "auto")
        process.join()
        same = process.exitcode == 0 and outcome(Path(plan.output)) == expected
        print(
            f"{point}: {name}, exit code {code}, continued from {(updates or ['the start'])[-1]}: {'equal' if same else 'NOT EQUAL'}",
            flush=True,
        )
        if same:
            shutil.rmtree(plan.output)
        else:
            wrong.append(f"{name}: see {plan.output}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, help="begin at this point, to go on where an earlier call was stopped")
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST's files; by default small ones are made")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="kill_points"))
    data = options.data
    if data is None:
        from importlib.util import module_from_spec, spec_from_file_location

        spec = spec_from_file_location("conftest", Path(__file__).parent / "conftest.py")
        assert spec and spec.loader
        spec.loader.exec_module(module := module_from_spec(spec))
        data = module.write_fashion_mnist(work / "data")
    wrong, tried = kill_points(data, work, options.points, options.first), options.points - options.first
    print(f"{tried - len(wrong)} of {tried} runs ended bit for bit as the one that was left alone", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
