"""`kat-zoo scenes`: pictures composed of Fashion-MNIST items, annotated as COCO instances and as ADE20K masks.

Items of Fashion-MNIST's training split appear in training scenes only, items of its test split in validation scenes only.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from accelerate.utils import tqdm
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import binary_fill_holes

from .classification.datasets import Images, Splits, fashion_mnist
from .core.config import parse, require

BACKGROUND = 20  # gray level up to which a pixel of Fashion-MNIST is background: its clothes lie on black
SPLITS = ("training", "validation")  # the folders of ADE20K
TRIES = 20  # places that are tried for an item before it is left out


@dataclass(frozen=True)
class SceneConfig:
    """Settings of the scenes.

    Attributes:
        out: folder to make.
        train: scenes in the training split.
        val: scenes in the validation split.
        size: (height, width) of a scene, in pixels.
        objects: least and most items that are tried in a scene; where they find no room there are fewer, but one at least.
        scale: range of an item's size, as a multiple of its 28 pixels.
        min_visible: part of every item that stays visible where others lie on it, in (0, 1]; a place that would hide more is
            not taken, so that everything that can be seen is annotated.
        seed: seed of everything; scene number i does not depend on how many there are.
        root: folder of Fashion-MNIST; None looks in the usual places, then on the Hub.
    """

    out: str
    train: int = 2000
    val: int = 500
    size: tuple[int, int] = (112, 112)
    objects: tuple[int, int] = (1, 6)
    scale: tuple[float, float] = (0.9, 2.0)
    min_visible: float = 0.4
    seed: int = 0
    root: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be composed.

        Raises:
            ValueError: naming the option, its value and what is right.
        """
        require(
            ("--train", self.train, self.train >= 1, "at least 1"),
            ("--val", self.val, self.val >= 1, "at least 1"),
            ("--objects", self.objects, 1 <= self.objects[0] <= self.objects[1], "two numbers in rising order, from 1 on"),
            ("--scale", self.scale, 0.25 <= self.scale[0] <= self.scale[1], "two numbers in rising order, from 0.25 on"),
            ("--size", self.size, min(self.size) >= 28 * self.scale[1], f"at least 28 x scale = {28 * self.scale[1]:g} pixels each way"),
            ("--min_visible", self.min_visible, 0 < self.min_visible <= 1, "in (0, 1]"),
            ("--seed", self.seed, self.seed >= 0, "at least 0"),
        )


@dataclass(frozen=True)
class Scene:
    """One picture and its truth.

    Attributes:
        image: (H, W) uint8.
        labels: class index of each item, the lowest item first.
        masks: (N, H, W) bool, the visible part of each item; no two overlap.
        visible: visible part of each item's area, in (0, 1].
    """

    image: np.ndarray
    labels: list[int]
    masks: np.ndarray
    visible: list[float]

    def semantic(self) -> np.ndarray:
        """(H, W) uint8: 0 for the background, class index + 1 elsewhere, as ADE20K numbers them."""
        return np.einsum("nhw,n->hw", self.masks.astype(np.uint8), np.array(self.labels, np.uint8) + np.uint8(1))


def compose(items: Images, config: SceneConfig, random: np.random.Generator) -> Scene:
    """Compose a scene of random items.

    Args:
        items: gray images on black, with labels.
        config: size, number and scale of the items.
        random: generator of every choice.

    Returns:
        The scene; it has one item or more.
    """
    image = _background(config.size, random)
    masks: list[np.ndarray] = []
    areas: list[int] = []
    labels: list[int] = []
    wanted = int(random.integers(config.objects[0], config.objects[1], endpoint=True))
    while wanted > 0 or not masks:  # an item so small that nothing of it is left is none
        wanted -= 1
        item, label = items[int(random.integers(len(items)))]
        for _ in range(TRIES):
            color, alpha = _place(item, config, random)
            mask = alpha >= 0.5
            left = [below & ~mask for below in masks]
            if mask.any() and all(part.sum() >= config.min_visible * area for part, area in zip(left, areas, strict=True)):
                image = image * (1 - alpha) + color
                masks, areas, labels = [*left, mask], [*areas, int(mask.sum())], [*labels, label]
                break
    visible = [int(mask.sum()) / area for mask, area in zip(masks, areas, strict=True)]
    return Scene(image.round().clip(0, 255).astype(np.uint8), labels, np.stack(masks), visible)


def _place(item: Image.Image, config: SceneConfig, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An item at a random scale and place of the canvas: its gray levels times its opacity, and its opacity in [0, 1].

    Dark pixels that an item encloses belong to it: most are prints and shadows.
    """
    pixels = np.asarray(item.convert("L"), np.float32)
    opaque = binary_fill_holes(pixels > BACKGROUND).astype(np.float32)
    if random.random() < 0.5:
        pixels, opaque = pixels[:, ::-1], opaque[:, ::-1]
    side = round(28 * random.uniform(*config.scale))
    top, left = (int(random.integers(size - side, endpoint=True)) for size in config.size)
    canvas = np.zeros((2, *config.size), np.float32)
    for layer, values in zip(canvas, (pixels * opaque, opaque), strict=True):  # premultiplied, so that no dark rim appears
        layer[top : top + side, left : left + side] = np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR))
    return canvas[0], canvas[1]


def _background(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """A plain, shaded, clouded or striped surface with some grain; (H, W) float32 gray levels."""
    low, high = np.sort(random.uniform(0, 200, 2))
    y, x = np.mgrid[: size[0], : size[1]]
    angle = random.uniform(0, np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    kind = random.integers(4)
    if kind == 0:
        shade = np.zeros(size)
    elif kind == 1:
        shade = (along - along.min()) / np.ptp(along)
    elif kind == 2:
        cloud = Image.fromarray(random.random((5, 5), np.float32))
        shade = np.asarray(cloud.resize(size[::-1], Image.Resampling.BICUBIC))
    else:
        shade = np.sin(2 * np.pi * along / random.uniform(6, 30)) > 0
    return (low + (high - low) * shade + random.normal(0, random.uniform(0, 8), size)).clip(0, 255).astype(np.float32)


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO's records of a scene: visible masks as compressed RLE, tight boxes (x, y, width, height), category = class index + 1."""
    records = []
    for i, (mask, label) in enumerate(zip(scene.masks, scene.labels, strict=True)):
        code = rle.encode(np.asfortranarray(mask, np.uint8))
        records.append(
            {
                "id": first_id + i,
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": rle.toBbox(code).tolist(),
                "area": int(rle.area(code)),
                "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode()},
                "iscrowd": 0,
            }
        )
    return records


def write_scenes(config: SceneConfig) -> Path:
    """Compose the scenes and write them; the folder appears when it is whole.

    Args:
        config: settings of the scenes, with the folder to write to.

    Returns:
        The folder: `images/{training,validation}/*.png`; `annotations/instances_{train,val}.json` (COCO; file names are relative
        to the split's image folder); `annotations/{training,validation}/*.png` (ADE20K; 0 is background) and `objectInfo10.txt`.

    Raises:
        ValueError: the folder exists and is not empty, or another run has begun it.
        FileNotFoundError: Fashion-MNIST is not there.
    """
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} exists; give a new folder")
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        raise ValueError(f"--out {out}: {partial} is of a run that was killed, or is still writing; remove it, or give a new folder")
    splits = fashion_mnist(config.root)
    partial.mkdir(parents=True)
    try:
        _write(splits, config, partial)
        partial.replace(out)
    except BaseException:  # an interrupt too
        shutil.rmtree(partial)
        raise
    return out


def _write(splits: Splits, config: SceneConfig, out: Path) -> None:
    categories = [{"id": i + 1, "name": name, "supercategory": "fashion"} for i, name in enumerate(splits.classes)]
    pixels = np.zeros(len(categories) + 1, np.int64)
    scenes_with: list[np.ndarray] = []
    with tqdm(total=config.train + config.val, desc="scenes", unit="scene") as bar:
        for number, (split, count, items) in enumerate(zip(SPLITS, (config.train, config.val), (splits.train, splits.test), strict=True)):
            images: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            having = np.zeros(len(categories) + 1, np.int64)
            for kind in ("images", "annotations"):
                (out / kind / split).mkdir(parents=True)
            for i in range(count):
                scene = compose(cast(Images, items), config, np.random.default_rng((config.seed, number, i)))
                name, semantic = f"{i + 1:08d}.png", scene.semantic()
                Image.fromarray(scene.image).save(out / "images" / split / name)
                Image.fromarray(semantic).save(out / "annotations" / split / name)
                images.append({"id": i + 1, "file_name": name, "height": config.size[0], "width": config.size[1]})
                annotations += coco_annotations(scene, i + 1, len(annotations) + 1)
                counts = np.bincount(semantic.ravel(), minlength=len(pixels))
                pixels, having = pixels + counts, having + (counts > 0)
                bar.update()
            scenes_with.append(having)
            info = {"description": f"Fashion-MNIST items in scenes, seed {config.seed}, min_visible {config.min_visible:g}"}
            instances = {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
            (out / "annotations" / f"instances_{('train', 'val')[number]}.json").write_text(json.dumps(instances), encoding="utf-8")
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]  # ADE20K's table of classes: share of pixels, images of each split that have it
    for i, category in enumerate(categories, 1):
        share = pixels[i] / pixels.sum()
        lines.append(f"{i}\t{share:.4f}\t{scenes_with[0][i]}\t{scenes_with[1][i]}\t0\t{category['name']}")
    (out / f"objectInfo{len(categories)}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """`kat-zoo scenes`: see the module's docstring.

    Args:
        argv: `--out DIR` and options of `SceneConfig`.

    Returns:
        Exit code.
    """
    config, _ = parse(SceneConfig, argv, "kat-zoo scenes")
    print(f"{config.train} + {config.val} scenes in {write_scenes(config)}")
    return 0
