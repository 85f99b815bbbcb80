"""`kat-zoo analyze RUN [RUN ...]`: pictures of finished runs, side by side, with their numbers."""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kat_zoo import analysis
from kat_zoo._arguments import ArgumentParser
from kat_zoo._text import one_line
from kat_zoo.models._pretrained import count_classes

from ..core.checkpoint import list_checkpoints, update_of
from ..core.runs import read_run
from . import loader as loaders
from .datasets import open_splits
from .model import build_model
from .recipe import Recipe

logger = logging.getLogger("kat_zoo")

BACKGROUND = 0.08  # brightness (of 1) up to which a pixel of Fashion-MNIST is background: its clothes lie on black


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        label: the run folder's name.
        folder: the run folder.
        recipe: recipe of the run.
        model: model with the run's last weights, in evaluation mode.
        log: records of metrics.jsonl.
    """

    label: str
    folder: Path
    recipe: Recipe
    model: nn.Module
    log: list[dict]

    @cached_property
    def states(self) -> dict[str, dict[str, Tensor]]:
        """Label ("epoch 3") -> weights, oldest first: the start, where it can be built again, then the checkpoints that were kept."""
        states = self._start()
        epochs = {record["update"]: record["epoch"] for record in self.log}
        for checkpoint in list_checkpoints(self.folder):
            averaged = checkpoint / "ema.safetensors"
            update = update_of(checkpoint)
            label = f"epoch {epochs[update]:g}" if update in epochs else f"update {update}"
            states[label] = load_file(averaged if averaged.exists() else checkpoint / "model.safetensors")
        return states

    def _start(self) -> dict[str, dict[str, Tensor]]:
        """The weights that a run of this recipe starts from; none with a warning where what they came from is gone."""
        classes: Any = self.model.num_classes
        try:
            with loaders.seeded(self.recipe.seed):
                return {"start": build_model(self.recipe.model, classes, adapt=self.recipe.mode != "pretrain").state_dict()}
        except (ValueError, OSError, RuntimeError) as error:
            logger.warning("%s: its start is left out, which cannot be built again: %s", self.label, one_line(error)[:200])
            return {}

    @property
    def trainable(self) -> list[str]:
        """Names of the trainable parameters."""
        return [name for name, p in self.model.named_parameters() if p.requires_grad]


def open_run(folder: Path) -> FinishedRun:
    """Read a run folder of the trainer.

    Args:
        folder: folder of a run.

    Raises:
        FileNotFoundError: not a finished run.
        ValueError: a run of another task than classification.
    """
    run = read_run(folder, "classification")  # the analyses know classifiers
    recipe, last, log = run.recipe(Recipe), run.load_weights(), run.log
    bare = replace(recipe.model, pretrained=False, checkpoint=None, init_from=None, new_head=False)
    model = build_model(bare, count_classes(last, recipe.model.name))
    run.fill(model)
    return FinishedRun(folder.name, folder, recipe, model.eval(), log)


def _images(run: FinishedRun, count: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """The first test images as the model sees them, their labels, and what of them is foreground, if that is known; no padding."""
    data = run.recipe.data
    splits = open_splits(data, run.recipe.seed)
    resolved = loaders.data_config(data, run.model)
    batches: list[tuple[Tensor, Tensor]] = []
    for images, labels in loaders.eval_loader(splits.test, data, resolved, 1):
        batches.append((images[labels >= 0], labels[labels >= 0]))  # the batches of a stream are filled up
        if sum(len(labels) for _, labels in batches) >= count:
            break
    images, labels = (torch.cat(parts)[:count] for parts in zip(*batches, strict=True))
    if data.dataset != "fashion_mnist":
        return images, labels, None
    mean, std = (torch.tensor(resolved[key])[:, None, None] for key in ("mean", "std"))
    return images, labels, (images * std + mean).amax(1) > BACKGROUND


def _seen(run: FinishedRun) -> dict[str, object]:
    """The settings on which the images of `_images` depend, and how they look."""
    data = run.recipe.data
    resolved = loaders.data_config(data, run.model)
    settings: dict[str, object] = {"data.dataset": data.dataset, "data.holdout": data.holdout}
    if data.dataset in ("folder", "hub", "webdataset"):  # others are the same data in any folder
        settings["data.root"] = data.root
    if data.holdout:
        settings["seed"] = run.recipe.seed
    return settings | {key: resolved[key] for key in ("input_size", "mean", "std", "interpolation", "crop_pct")}


def _shared_images(runs: Sequence[FinishedRun], count: int) -> tuple[Tensor, Tensor | None]:
    """Images and foreground for all runs, which must be of the same data."""
    first = _seen(runs[0])
    for run in runs[1:]:
        for key, value in _seen(run).items():
            if first.get(key) != value:
                raise analysis.NotApplicable(
                    f"{key} of {run.label} is {value}, of {runs[0].label} {first.get(key)}: expected runs on the same images"
                )
    images, _, foreground = _images(runs[0], count)
    return images, foreground


def _landscape(runs: Sequence[FinishedRun], out: Path, arguments: argparse.Namespace) -> Path:
    surfaces = {}
    for run in runs:
        images, labels, _ = _images(run, arguments.loss_images)
        plane = analysis.principal_plane(list(run.states.values()), run.trainable)

        def loss(model: nn.Module, images: Tensor = images, labels: Tensor = labels) -> float:
            return float(torch.nn.functional.cross_entropy(model(images), labels))

        surfaces[run.label] = (plane, analysis.loss_surface(run.model, plane, loss, arguments.grid))
    return analysis.plot_landscape(surfaces, out / "landscape.png")


def _histograms(runs: Sequence[FinishedRun], out: Path, arguments: argparse.Namespace) -> list[Path]:
    paths = []
    for run in runs:
        labels = list(run.states)
        if not labels:
            raise analysis.NotApplicable(f"{run.label} has neither its start nor checkpoints: expected weights of two times or more")
        shown = sorted({0, len(labels) // 2, len(labels) - 1})
        states = {labels[i]: run.states[labels[i]] for i in shown}
        paths.append(analysis.plot_histograms(states, out / f"histograms_{run.label}.png"))
    return paths


def _models(runs: Sequence[FinishedRun]) -> Mapping[str, nn.Module]:
    return {run.label: run.model for run in runs}


def _spectra(runs: Sequence[FinishedRun], out: Path, arguments: argparse.Namespace) -> Path:
    return analysis.plot_spectra(_models(runs), _shared_images(runs, 5)[0], out / "spectra.png")


def _maps(runs: Sequence[FinishedRun], out: Path, arguments: argparse.Namespace) -> Path:
    return analysis.plot_attention_maps(_models(runs), _shared_images(runs, arguments.images)[0], out / "attention_maps.png")


def _quality(runs: Sequence[FinishedRun], out: Path, arguments: argparse.Namespace) -> Path:
    images, foreground = _shared_images(runs, arguments.loss_images)
    if foreground is None:
        logger.warning("quality: no pointing game on %s, only fashion_mnist's objects lie on black", runs[0].recipe.data.dataset)
    return analysis.plot_quality(_models(runs), images, foreground, out / "attention_quality.png")


def _curves(runs: Sequence[FinishedRun], out: Path, arguments: argparse.Namespace) -> Path:
    return analysis.plot_curves({run.label: run.log for run in runs}, out / "curves.png")


def _costs(runs: Sequence[FinishedRun], out: Path, arguments: argparse.Namespace) -> Path:
    costs = analysis.measure_costs(_models(runs), _shared_images(runs, runs[0].recipe.data.batch_size)[0])
    return analysis.plot_costs(costs, out / "costs.png")


ANALYSES: dict[str, Callable[[Sequence[FinishedRun], Path, argparse.Namespace], Path | list[Path]]] = {
    "curves": _curves,
    "costs": _costs,
    "histograms": _histograms,
    "spectra": _spectra,
    "maps": _maps,
    "quality": _quality,
    "landscape": _landscape,
}


def main(argv: Sequence[str]) -> int:
    """`kat-zoo analyze`: see the module's docstring.

    Args:
        argv: run folders and options.

    Returns:
        Exit code.

    Raises:
        ValueError: an unknown analysis, one asked for by name that does not apply to the runs, a number out of range, or two
            run folders of one name.
        FileNotFoundError: not a run folder.
    """
    parser = ArgumentParser(prog="kat-zoo analyze", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of kat-zoo train")
    parser.add_argument("--what", help="comma-separated: " + ", ".join(ANALYSES) + "; by default all that apply to the runs")
    parser.add_argument("--out", type=Path, default=Path("analysis"), help="folder of the pictures and their .csv")
    parser.add_argument("--images", type=int, default=4, help="images of the attention maps")
    parser.add_argument("--loss-images", type=int, default=256, help="images that the loss and the quality are averaged over")
    parser.add_argument("--grid", type=int, default=15, help="grid points per axis of the landscape")
    arguments = parser.parse_args(argv)
    wanted = list(ANALYSES) if arguments.what is None else arguments.what.split(",")
    if unknown := [name for name in wanted if name not in ANALYSES]:
        raise ValueError(f"--what {unknown[0]!r}: expected some of {', '.join(ANALYSES)}")
    for name, least in (("images", 1), ("loss_images", 1), ("grid", 2)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected {least} or more")
    labels = [folder.resolve().name for folder in arguments.runs]
    if len(set(labels)) < len(labels):
        raise ValueError(f"runs {', '.join(labels)}: expected folders of different names, which label the pictures")
    runs = [open_run(folder.resolve()) for folder in arguments.runs]
    for name in wanted:
        try:
            made = ANALYSES[name](runs, arguments.out, arguments)
        except analysis.NotApplicable as reason:
            if arguments.what is not None:
                raise ValueError(f"--what {name}: {reason}") from reason
            logger.warning("%s left out: %s", name, reason)
            continue
        for path in made if isinstance(made, list) else [made]:
            print(path)
    return 0
