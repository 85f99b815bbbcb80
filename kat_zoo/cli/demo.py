"""`kat-zoo demo`: the weights that ship with the package classify the images that ship with it."""

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, cast

import numpy as np
import timm
import torch
from timm.data import create_transform, resolve_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

from .. import models as zoo_models  # noqa: F401  (registers the models)
from ..hub.registry import shipped_models
from ..hub.samples import Samples, load_samples
from ..layers import GroupRational
from ..transfer import vit_to_kat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDS = 9
REFERENCE = "vit_mlp_pico_patch4_28"  # what speeds are relative to; untrained where its weights do not ship


@torch.inference_mode()
def classify(model: nn.Module, images: Tensor) -> Tensor:
    """Class probabilities (N, num_classes) of preprocessed images (N, C, H, W)."""
    return torch.cat([model(batch).softmax(1) for batch in images.split(64)])


def images_per_second(models: dict[str, nn.Module], images: Tensor) -> dict[str, float]:
    """Median throughput of each model, measured in turns so that a busy machine disturbs all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            start = time.perf_counter()
            classify(model, images)
            seconds[name].append(time.perf_counter() - start)
    return {name: len(images) / median(times[1:]) for name, times in seconds.items()}


def preprocess(name: str, samples: Samples) -> Tensor:
    """The samples as the model wants them: its own evaluation transform."""
    config = resolve_data_config({}, pretrained_cfg=cast(PretrainedCfg, get_pretrained_cfg(name)).to_dict())
    transform: Callable = create_transform(**config, is_training=False)
    return torch.stack([transform(samples.pil(i)) for i in range(len(samples.labels))])


def confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts (num_classes, num_classes): rows are true classes, columns predicted ones."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def draw_predictions(samples: Samples, probabilities: Tensor, title: str) -> "Figure":
    """32 images with prediction and probability; wrong ones, shown first, name the true class in red."""
    from matplotlib.figure import Figure

    predicted, labels = probabilities.argmax(1), torch.from_numpy(samples.labels)
    order = torch.argsort((predicted == labels).int(), stable=True)
    wrong = int((predicted != labels).sum())
    shown = [*order[: min(wrong, 8)].tolist(), *order[wrong : wrong + 32 - min(wrong, 8)].tolist()]
    figure = Figure(figsize=(13, 8), layout="constrained")
    figure.suptitle(title)
    for axes, i in zip(figure.subplots(4, 8).flat, shown, strict=True):
        axes.imshow(samples.images[i], cmap="gray_r")
        axes.axis("off")
        right = bool(predicted[i] == labels[i])
        text = f"{samples.classes[predicted[i]]} {probabilities[i].max():.0%}"
        text += "" if right else f"\nis {samples.classes[labels[i]]}"
        axes.set_title(text, fontsize=8, color="black" if right else "crimson")
    return figure


def draw_comparison(probabilities: dict[str, Tensor], labels: Tensor, classes: Sequence[str]) -> "Figure":
    """Accuracy of every model on each class, and how sure it is where it is right and where it is wrong."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.4))
    width = 0.8 / len(probabilities)
    for i, (name, table) in enumerate(probabilities.items()):
        hits = table.argmax(1) == labels
        shares = [100 * float(hits[labels == c].double().mean()) for c in range(len(classes))]
        places = [c + (i - (len(probabilities) - 1) / 2) * width for c in range(len(classes))]
        left.bar(places, shares, width, label=f"{name}: {100 * hits.double().mean():.1f} %")
        confidence = table.max(1).values
        sure = [100 * float(confidence[group].mean()) if group.any() else 0.0 for group in (hits, ~hits)]
        right.bar([g + (i - (len(probabilities) - 1) / 2) * width for g in (0, 1)], sure, width)
    left.set(ylabel=f"right of {len(labels)} images (%)", xticks=range(len(classes)), ylim=(0, 122), yticks=range(0, 101, 20))
    left.set_xticklabels(classes, rotation=30, ha="right", fontsize=8)
    left.legend(fontsize=8, loc="upper left", ncols=2)
    right.set(ylabel="mean probability of the answer (%)", xticks=(0, 1), xticklabels=("where right", "where wrong"), ylim=(0, 100))
    return figure


def draw_activations(model: nn.Module, title: str) -> "Figure":
    """Every learned activation of a KAT, a panel per block and position, a line per group; dashed: where it started."""
    from matplotlib.figure import Figure

    acts = [(name, m) for name, m in model.named_modules() if isinstance(m, GroupRational)]
    columns = (len(acts) + 1) // 2
    figure = Figure(figsize=(2.4 * columns, 5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(2, columns, sharex=True, squeeze=False)
    for i, (name, act) in enumerate(acts):
        axes = panels[i % 2, i // 2]
        x = torch.linspace(-4, 4, 201)
        start = GroupRational(act.num_groups, act.init, act.order)
        with torch.inference_mode():
            y = act(x[:, None].repeat(1, act.num_groups))
            axes.plot(x, y, linewidth=1)
            axes.plot(x, start(x[:, None].repeat(1, act.num_groups))[:, 0], "k--", linewidth=0.8)
        axes.set_title(name.replace("blocks.", "block ").replace(".mlp", ""), fontsize=8)
        axes.tick_params(labelsize=7)
        if i % 2:
            axes.set_xlabel("x", fontsize=8)
        if i // 2 == 0:
            axes.set_ylabel("activation", fontsize=8)
    return figure


def _print_results(rows: list[tuple[str, ...]], matrix: Tensor, classes: Sequence[str], name: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"Fashion-MNIST, {int(matrix.sum())} test images", title_justify="left")
    for column in ("model", "parameters", "top-1", "images/s", "speed"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    table = Table(title=f"Confusion of {name} (rows: true class)", title_justify="left")
    table.add_column("", no_wrap=True)
    for i in range(len(classes)):
        table.add_column(str(i), justify="right")
    for i, (label, counts) in enumerate(zip(classes, matrix.tolist(), strict=True)):
        table.add_row(f"{i} {label}", *(str(c) if c else "." for c in counts))
    console.print(table)


def _show_transfer(name: str, vit: nn.Module, images: Tensor) -> None:
    """Say how close a KAT comes to the ViT that it is made of."""
    kat, report = vit_to_kat(vit, images=images[:16])
    same = int((classify(kat.eval(), images).argmax(1) == classify(vit, images).argmax(1)).sum())
    print(
        f"\nA ViT becomes a KAT, without training: the logits of {name} move by {100 * report.relative_logits_error:.2f} % of their size,"
    )
    print(f"and {same} of {len(images)} images keep their class (kat_zoo.vit_to_kat).")


def _show_formula() -> None:
    """Find a formula in a table, and say how long it took."""
    from ..kan import KANRegressor

    X = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tables this small are not shared out with profit
    began = time.process_time()
    model = KANRegressor(symbolic=True, random_state=0).fit(X, np.exp(np.sin(np.pi * X[:, 0]) + X[:, 1] ** 2))
    print(
        f"\nA KAN finds the formula of a table of 1,000 rows in {time.process_time() - began:.0f} CPU seconds (kat_zoo.kan.KANRegressor):"
    )
    print(f"y = {model.formula_}\n")
    torch.set_num_threads(threads)


def run(options: argparse.Namespace) -> int:
    """Run the demo.

    Args:
        options: parsed arguments of `kat-zoo demo`.

    Returns:
        Exit code 0.

    Raises:
        FileNotFoundError: this install holds no weights.
    """
    out = options.out
    names = shipped_models()
    if not names:
        raise FileNotFoundError("no weights ship with this install; reinstall kat_zoo from a complete source or wheel")
    for module in ("matplotlib", "rich", "scipy", "sklearn", "sympy"):  # before the measurement, not after it
        importlib.import_module(module)
    out.mkdir(parents=True, exist_ok=True)
    pictures: list[Path] = []
    samples = load_samples()
    labels = torch.from_numpy(samples.labels)
    models: dict[str, nn.Module] = {name: timm.create_model(name, pretrained=True).eval() for name in names}
    images = {name: preprocess(name, samples) for name in names}
    twin = next((name for name in names if name.startswith(REFERENCE)), f"{REFERENCE} (untrained)")
    if twin not in models:
        models[twin] = timm.create_model(REFERENCE).eval()
    speed = images_per_second(models, images[names[0]])
    rows: list[tuple[str, ...]] = []
    probabilities: dict[str, Tensor] = {}
    for name, model in models.items():
        accuracy = "-"
        if name in names:
            probabilities[name] = classify(model, images[name])
            accuracy = f"{100 * (probabilities[name].argmax(1) == labels).double().mean():.1f} %"
            title = f"{name}: {accuracy} of {len(labels)} shipped test images"
            pictures.append(out / f"{name}.predictions.png")
            draw_predictions(samples, probabilities[name], title).savefig(pictures[-1], dpi=110)
        parameters = sum(p.numel() for p in model.parameters())
        rows.append((name, f"{parameters:,}", accuracy, f"{speed[name]:.0f}", f"{speed[name] / speed[twin]:.2f} x"))
        if any(isinstance(module, GroupRational) for module in model.modules()):
            title = f"Learned activations of {name} (a line per group; dashed: initial)"
            pictures.append(out / f"{name}.activations.png")
            draw_activations(model, title).savefig(pictures[-1], dpi=110)
    if len(names) > 1:
        pictures.append(out / "comparison.png")
        draw_comparison(probabilities, labels, samples.classes).savefig(pictures[-1], dpi=110)
    headline = next((name for name in names if name.startswith("kat_")), names[0])
    _print_results(rows, confusion(probabilities[headline].argmax(1), labels, len(samples.classes)), samples.classes, headline)
    if twin in names:
        _show_transfer(twin, models[twin], images[twin])
    _show_formula()
    print(f"Pictures: {', '.join(map(str, pictures))}")
    return 0
