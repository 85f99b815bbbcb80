"""Linear probing, fine-tuning, both (LP-FT, arXiv 2202.10054) and rationals alone, from one pretrained KAT, in and out of distribution.

    .venv/bin/python benchmarks/lp_ft.py            # benchmarks/results/lp_ft.{csv,png}; again after an interruption: it goes on

Pretraining: classes 0-4 of Fashion-MNIST, 2,000 images each, 6 epochs with RandAugment. Adaptation: classes 5-9, 200 images each,
5 epochs without augmentation. ID: the 5,000 test images of classes 5-9; OOD: the same images with noise, at low contrast,
inverted, shifted. `rationals` trains the coefficients of the activations (a few hundred) from the probe's head, which stays.
The model is a `kat_pico_patch4_28` made smaller (patches of 7, embed_dim 64, depth 2). The learning rate, of two, is
chosen on 1,000 ID validation images. Three seeds, of the weights and of the images: about 6 minutes of one core.
"""

import argparse
import csv
import json
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

import kat_zoo  # noqa: F401  (registers the models)
from kat_zoo.train.classification.datasets import open_dataset
from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig, ModelConfig, Recipe
from kat_zoo.train.core.config import EmaConfig, OptimizerConfig, ScheduleConfig, SystemConfig

HERE = Path(__file__).parent
MODEL, KWARGS = "kat_pico_patch4_28", {"patch_size": 7, "embed_dim": 64, "num_heads": 4, "depth": 2}
MEAN, STD = 0.2860, 0.3530
PLAIN = AugmentConfig(
    crop="none", hflip=0.0, color_jitter=0.0, auto_augment=None, random_erasing=0.0, mixup=0.0, cutmix=0.0, smoothing=0.0
)  # fmt: skip
STRONG = replace(PLAIN, crop="pad", pad=4, hflip=0.5, auto_augment="rand-m9-mstd0.5", random_erasing=0.25)
# method -> (mode, what is trained, learning rates to choose from)
METHODS: dict[str, tuple[Any, str, tuple[float, ...]]] = {
    "LP": ("linear_probe", "all", (1e-3,)),
    "FT": ("finetune", "all", (3e-4, 1e-3)),
    "LP-FT": ("lp_ft", "all", (3e-4, 1e-3)),
    "rationals": ("finetune", "rationals", (1e-3, 1e-2)),
}


def write_images(folder: Path, images: Any, labels: np.ndarray, classes: range, chosen: slice, seed: int) -> None:
    """Some images of some classes as folder/CLASS/NUMBER.png, the layout of `data.dataset: folder`."""
    for label in classes:
        indices = np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))[chosen]
        (folder / str(label)).mkdir(parents=True)
        for index in indices:
            images[int(index)][0].save(folder / str(label) / f"{index:05d}.png")


def write_data(folder: Path, seed: int) -> None:
    """The images that a seed pretrains on, adapts to and validates with; all from the training split."""
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    images = open_dataset("fashion_mnist").train
    labels = np.array([images[i][1] for i in range(len(images))])
    for task, classes, count in (("pretrain", range(5), 2000), ("adapt", range(5, 10), 200)):
        write_images(folder / task / "train", images, labels, classes, slice(0, count), seed)
        write_images(folder / task / "val", images, labels, classes, slice(count, count + 200), seed)
    (folder / "complete").touch()


def recipe(run: Path, data: Path, seed: int, mode: Any, model: ModelConfig, augment: AugmentConfig, lr: float, epochs: int) -> Recipe:
    return Recipe(
        output=str(run),
        seed=seed,
        mode=mode,
        model=replace(model, name=MODEL, kwargs=KWARGS),
        data=DataConfig(
            dataset="folder", root=str(data), batch_size=64, workers=0, input_size=(1, 28, 28), mean=(MEAN,), std=(STD,)
        ),
        augment=augment,
        optimizer=OptimizerConfig(lr=lr, clip_grad=1.0),
        schedule=ScheduleConfig(epochs=epochs, warmup_epochs=1 if epochs > 1 else 0),
        ema=EmaConfig(decay=0.0),
        system=SystemConfig(log_every=10, eval_every=5 if mode != "pretrain" else 1, trackers=()),
    )  # fmt: skip


def run_once(plan: Recipe) -> Path:
    """Train unless that is done; continue what was interrupted. Returns the run folder."""
    run = Path(plan.output)
    if not (run / "result.json").exists() and train(plan, resume="auto") is None:
        raise SystemExit("stopped; the same command goes on")
    return run


def adapt(folder: Path, seed: int, method: str, start: Path) -> tuple[Path, float, float]:
    """Adapt with each learning rate; returns the best run, its rate and its ID validation accuracy in percent."""
    mode, train_only, rates = METHODS[method]
    model = ModelConfig(checkpoint=str(start), train_only=train_only, new_head=method != "rationals")
    runs = [
        run_once(recipe(folder / f"{method}_{lr:g}", folder / "data" / "adapt", seed, mode, model, PLAIN, lr, 5)) for lr in rates
    ]  # fmt: skip
    scores = [json.loads(max((run / "checkpoints").glob("*/progress.json")).read_text())["best"] for run in runs]
    best = int(np.argmax(scores))
    return runs[best], rates[best], scores[best]


def test_sets(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """The test images (5000, 1, 28, 28) of classes 5-9 in [0, 1], as they are and changed, and their labels 0-4."""
    random = np.random.default_rng(seed)
    split = open_dataset("fashion_mnist").test
    chosen = [(np.asarray(image, np.float32) / 255, label - 5) for image, label in (split[i] for i in range(len(split))) if label >= 5]
    clean = np.stack([image for image, _ in chosen])
    steps = random.choice((-5, 0, 5), (len(clean), 2))
    steps[(steps == 0).all(1)] = 5
    padded = np.pad(clean, ((0, 0), (5, 5), (5, 5)))
    shifted = np.stack([p[5 + y : 33 + y, 5 + x : 33 + x] for p, (y, x) in zip(padded, steps, strict=True)])
    sets = {
        "clean (ID)": clean,
        "noise": np.clip(clean + random.normal(0, 0.25, clean.shape), 0, 1),
        "low contrast": 0.5 + 0.3 * (clean - 0.5),
        "inverted": 1 - clean,
        "shifted": shifted,
    }
    return {name: torch.tensor(x, dtype=torch.float32)[:, None] for name, x in sets.items()}, torch.tensor([y for _, y in chosen])


def load(weights: Path) -> nn.Module:
    model = timm.create_model(MODEL, num_classes=5, **KWARGS)
    model.load_state_dict(load_file(weights))
    return model.eval()


@torch.no_grad()
def in_batches(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([run((part - MEAN) / STD) for part in x.split(500)])


def measure(weights: Path, start: Path, sets: dict[str, Tensor], labels: Tensor) -> tuple[float, list[tuple[str, float, float]]]:
    """How far the backbone went from where it started, and per set the accuracy in percent and how far the features went.

    Distances are relative: |w - w0| / |w0| over all weights but the head's; the mean over images of |f - f0| / |f0|.
    """
    model, origin = load(weights), load(start)
    pairs = [(p, q) for (name, p), q in zip(model.named_parameters(), origin.parameters(), strict=True) if not name.startswith("head.")]
    moved = sum(float((p - q).square().sum()) for p, q in pairs) ** 0.5 / sum(float(q.square().sum()) for _, q in pairs) ** 0.5
    figures = []
    for name, x in sets.items():
        found, before = (in_batches(lambda t, m=m: m.forward_head(m.forward_features(t), pre_logits=True), x) for m in (model, origin))
        with torch.no_grad():
            right = (model.get_classifier()(found).argmax(1) == labels).double().mean()
        drift = ((found - before).norm(dim=1) / before.norm(dim=1)).mean()
        figures.append((name, 100 * float(right), float(drift)))
    return moved, figures


def one_seed(folder: Path, seed: int) -> list[dict[str, Any]]:
    """All methods on one seed, as rows of the table."""
    write_data(folder / "data", seed)
    plan = recipe(folder / "pretrain", folder / "data" / "pretrain", seed, "pretrain", ModelConfig(), STRONG, 2e-3, 6)
    pretrained = run_once(plan) / "best.safetensors"
    sets, labels = test_sets(seed)
    rows, start = [], pretrained
    for method in tqdm(METHODS, desc=f"seed {seed}", unit="method"):
        start = folder / "LP_0.001" / "best.safetensors" if method == "rationals" else pretrained
        run, lr, score = adapt(folder, seed, method, start)
        moved, figures = measure(run / "best.safetensors", pretrained, sets, labels)
        ood = [figure for figure in figures if figure[0] != "clean (ID)"]
        figures.append(("mean OOD", statistics.mean(f[1] for f in ood), statistics.mean(f[2] for f in ood)))
        common = {"seed": seed, "method": method, "lr": lr if method != "LP" else "", "validation_top1": round(score, 2)}
        rows += [
            {**common, "weight_drift": f"{moved:.4f}", "images": name, "top1": f"{top1:.2f}", "feature_drift": f"{drift:.4f}"}
            for name, top1, drift in figures
        ]
    return rows


def summary(rows: list[dict[str, Any]], column: str) -> dict[str, dict[str, tuple[float, float]]]:
    """images -> method -> (mean, sample standard deviation) over the seeds."""
    result: dict[str, dict[str, tuple[float, float]]] = {}
    for name in dict.fromkeys(row["images"] for row in rows):
        for method in METHODS:
            values = [float(row[column]) for row in rows if (row["images"], row["method"]) == (name, method)]
            result.setdefault(name, {})[method] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
    return result


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    labels = {"top1": "top-1 (%)", "feature_drift": "feature drift |f - f0| / |f0|"}
    for axis, (column, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        table = summary(rows, column)
        for i, method in enumerate(METHODS):
            means, deviations = zip(*(table[name][method] for name in table), strict=True)
            axis.bar(np.arange(len(table)) + 0.2 * (i - 1.5), means, 0.2, yerr=deviations, capsize=2, label=method)
        axis.set_xticks(range(len(table)), list(table), rotation=15)
        axis.set(ylabel=label, xlabel="test images of classes 5-9", title=f"mean and deviation over {len({r['seed'] for r in rows})} seeds")
        axis.margins(y=0.25)
        axis.legend(fontsize="small", ncols=4, loc="upper right")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/lp_ft"), help="folder of the runs, which are kept and continued")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = [row for seed in options.seeds for row in one_seed(options.runs / f"seed{seed}", seed)]
    with (options.out / "lp_ft.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, options.out / "lp_ft.png")
    for column in ("top1", "feature_drift"):
        print(column)
        for name, methods in summary(rows, column).items():
            print(f"  {name:<13}" + "".join(f"  {method} {mean:.3g} +- {sd:.2g}" for method, (mean, sd) in methods.items()))


if __name__ == "__main__":
    main()
