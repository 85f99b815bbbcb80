"""Does a KAT carry detection and segmentation? Scenes of Fashion-MNIST items, a pico KAT, its ViT twin and frozen random weights.

    python benchmarks/dense_proof.py --resume        # all runs, then the report
    python benchmarks/dense_proof.py --report        # table and figures from the checked-in results alone

Every run has one thread, the same scenes, recipe and budget; only the backbone and its first weights differ: KAT and ViT start from
the weights in the package (trained on Fashion-MNIST classification) and are fine-tuned, `random` is the KAT as initialized, frozen,
under the same heads. Training scenes hold items of Fashion-MNIST's training split, evaluation scenes items of its test split.
It can be stopped at any moment and called again with --resume.

Writes benchmarks/results/dense/{runs,curves}.csv, curves.png, pictures.png (detection) and regions.png (segmentation).
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from dense_regions import draw_regions
from dense_runs import begin, counted, cpu_minutes, draw_losses, losses, parser_of, read_table, train_all, write_table
from matplotlib.figure import Figure
from PIL import Image
from torchvision.transforms import v2

from kat_zoo.train.core.config import parse
from kat_zoo.train.detection.coco import decode_masks
from kat_zoo.train.detection.formats import read_split
from kat_zoo.train.detection.predict import draw
from kat_zoo.train.detection.predict import open_run as open_detector
from kat_zoo.train.detection.recipe import DetectionRecipe
from kat_zoo.train.scenes import SceneConfig, write_scenes
from kat_zoo.train.segmentation.recipe import SegmentationRecipe

RESULTS = Path(__file__).parent / "results" / "dense"
SCENES = {"train": 1200, "val": 200, "size": (64, 64), "objects": (1, 3), "scale": (0.9, 1.5)}
BACKBONES = {  # name -> (model, first weights from the package, frozen)
    "KAT": ("kat_pico_patch4_28", True, False),
    "random": ("kat_pico_patch4_28", False, True),
    "ViT": ("vit_mlp_pico_patch4_28", True, False),
}
TASKS: dict[str, tuple[type, str, list[str]]] = {  # name -> (recipe class, packaged recipe, what differs from it)
    "detection": (DetectionRecipe, "kat_pico_maskrcnn_scenes", []),
    "segmentation": (
        SegmentationRecipe,
        "kat_pico_upernet_scenes",
        ["--data.short_side=64", "--data.long_side=256", "--data.crop=64", "--data.stride=43", "--data.workers=0",
         "--system.precision=bf16", "--system.fused_attention=false", "--system.trackers=[]", "--system.log_every=10",
         "--system.checkpoint_every=50"],
    ),
}  # fmt: skip
METRICS = {"detection": ("box_ap50", "mask_ap50", "box_ap"), "segmentation": ("miou",)}
DRAWN = 0.3  # least score in pictures.png: so short a training is rarely sure
FIELDS = ["task", "backbone", "seed", "metric", "percent", "cpu_minutes"]
CURVE_FIELDS = ["task", "backbone", "seed", "update", "loss"]


def plan(task: str, backbone: str, seed: int, work: Path) -> Any:
    """The recipe of a run."""
    recipe_class, name, changes = TASKS[task]
    model, pretrained, frozen = BACKBONES[backbone]
    neck = "pyramid_args" if task == "detection" else "neck_args"
    return parse(
        recipe_class,
        [
            "--config", name, f"--output={work / f'{task}_{backbone}_{seed}'}", f"--seed={seed}", f"--data.root={work / 'scenes'}",
            f"--model.backbone={model}", f"--model.pretrained={pretrained}", f"--model.{neck}.frozen_stages={4 if frozen else -1}",
            *changes,
        ],
        "dense_proof",
    )[0]  # fmt: skip


def is_finished(folder: Path) -> bool:
    """Whether a run folder holds a finished run."""
    return (folder / "result.json").exists()


def run(task: str, backbone: str, seed: int, work: Path) -> bool:
    """Train, or go on; whether the run is finished."""
    recipe = plan(task, backbone, seed, work)
    folder = Path(recipe.output)
    if is_finished(folder):
        return True
    with counted(folder):
        result = import_module(f"kat_zoo.train.{task}.loop").train(recipe, "auto")
    return result is not None


def figures(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a run by the names of METRICS."""
    flat = {f"{kind}_{name}": value for kind in ("box", "mask") for name, value in (result.get(kind) or {}).items()}
    return flat | {key: value for key, value in result.items() if isinstance(value, float)}


def collect(finished: Sequence[tuple[str, str, int]], work: Path) -> None:
    """Write runs.csv and curves.csv."""
    rows, curves = [], []
    for task, backbone, seed in finished:
        folder = work / f"{task}_{backbone}_{seed}"
        values = figures(json.loads((folder / "result.json").read_text()))
        rows += [[task, backbone, seed, metric, f"{values[metric]:.2f}", f"{cpu_minutes(folder):.1f}"] for metric in METRICS[task]]
        curves += [[task, backbone, seed, *point] for point in losses(folder)]
    write_table(RESULTS / "runs.csv", FIELDS, rows)
    write_table(RESULTS / "curves.csv", CURVE_FIELDS, curves)


def report() -> None:
    """Print the table and draw the curves."""
    rows, curves = (read_table(RESULTS / f"{name}.csv") for name in ("runs", "curves"))
    for task, metrics in METRICS.items():
        for metric in metrics:
            for backbone in BACKBONES:
                these = [row for row in rows if (row["task"], row["metric"], row["backbone"]) == (task, metric, backbone)]
                values = [float(row["percent"]) for row in these]
                if not values:
                    continue
                each = ", ".join(f"{value:.1f}" for value in values)
                minutes = statistics.mean(float(row["cpu_minutes"]) for row in these)
                print(f"{task} {metric} {backbone}: mean {statistics.mean(values):.1f} % (seeds: {each}); {minutes:.1f} CPU minutes a run")
    figure = Figure(figsize=(9, 3.2), dpi=120, layout="constrained")
    tasks = list(dict.fromkeys(r["task"] for r in curves))
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        draw_losses(axes, [row for row in curves if row["task"] == task], task)
    figure.savefig(RESULTS / "curves.png")


def pictures(work: Path, count: int = 4) -> None:
    """Draw the first evaluation scenes: the truth, and what the first seed of each backbone finds with a score of DRAWN or more."""
    split = read_split(work / "scenes/annotations/instances_val.json", work / "scenes/images/validation", masks=True)
    detectors = {
        name: open_detector(work / f"detection_{name}_0") for name in BACKBONES if (work / f"detection_{name}_0" / "result.json").exists()
    }
    # A panel has as many pixels as a drawing, SIDE: its labels stay as large as they were drawn.
    figure = Figure(figsize=(2.7 * count, 2.8 * (len(detectors) + 1)), dpi=200, layout="constrained")
    grid = figure.subplots(len(detectors) + 1, count)
    for column, record in enumerate(split.images[:count]):
        with Image.open(split.folder / record["file_name"]) as file:
            image = v2.functional.pil_to_tensor(file)
        objects = split.objects(record["id"])
        boxes = torch.tensor([a["bbox"] for a in objects])
        boxes[:, 2:] += boxes[:, :2]
        truth = {"boxes": boxes, "labels": split.labels(objects), "masks": decode_masks(objects, *image.shape[-2:])}
        found = {"truth": truth} | {name: detector.predict(image, DRAWN) for name, detector in detectors.items()}
        for row, (name, one) in enumerate(found.items()):
            axes = grid[row, column]
            axes.imshow(draw(image, one, split.classes).permute(1, 2, 0).numpy())
            axes.set(xticks=[], yticks=[], ylabel=name if not column else "")
    figure.savefig(RESULTS / "pictures.png")


def order(tasks: Sequence[str], seeds: int) -> Iterator[tuple[str, str, int]]:
    """All runs; what is needed first comes first."""
    for seed in range(seeds):
        for task in tasks:
            for backbone in BACKBONES:
                yield task, backbone, seed


def main() -> None:
    parser = parser_of(__doc__, Path("runs/dense_proof"), 2)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="(default: both)")
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    begin(arguments, scenes=lambda folder: write_scenes(SceneConfig(out=str(folder), **SCENES)))
    every = list(order(list(TASKS), arguments.seeds))
    train_all(
        [one for one in every if one[0] in arguments.tasks],
        lambda one: is_finished(arguments.work / "_".join(map(str, one))),
        lambda one: run(*one, arguments.work),
        lambda _: collect([one for one in every if is_finished(arguments.work / "_".join(map(str, one)))], arguments.work),
    )
    report()
    if "detection" in arguments.tasks:
        pictures(arguments.work)
    if "segmentation" in arguments.tasks:
        draw_regions(arguments.work, list(BACKBONES), RESULTS / "regions.png")


if __name__ == "__main__":
    main()
