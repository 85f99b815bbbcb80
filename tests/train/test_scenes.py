"""Scenes: what pycocotools and the ADE20K masks read is what was composed."""

import dataclasses
import filecmp

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from kat_zoo.train.classification.datasets import ArrayImages
from kat_zoo.train.scenes import SceneConfig, compose, main, write_scenes

from .conftest import write_idx


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Fashion-MNIST whose training items are filled squares of classes 0 to 4, its test items of classes 5 to 9."""
    root = tmp_path_factory.mktemp("items")
    for stem, first in (("train", 0), ("t10k", 5)):
        images = np.zeros((20, 28, 28), np.uint8)
        images[:, 4:24, 6:22] = 200
        images[:, 10:14, 10:14] = 0  # a hole belongs to the item
        write_idx(root / f"{stem}-images-idx3-ubyte.gz", images)
        write_idx(root / f"{stem}-labels-idx1-ubyte.gz", (np.arange(20) % 5 + first).astype(np.uint8))
    return str(root)


@pytest.fixture(scope="module")
def written(items, tmp_path_factory):
    config = SceneConfig(out=str(tmp_path_factory.mktemp("scenes") / "s"), train=12, val=6, size=(90, 120), objects=(3, 8), root=items)
    return config, write_scenes(config)


@pytest.mark.parametrize("part, folder, classes, count", [("train", "training", range(5), 12), ("val", "validation", range(5, 10), 6)])
def test_coco_and_ade_tell_the_same_truth(written, part, folder, classes, count):
    _, out = written
    coco = COCO(out / "annotations" / f"instances_{part}.json")
    assert len(coco.imgs) == count and [c["name"] for c in coco.loadCats(range(1, 11))][9] == "Ankle boot"
    for image_id, entry in coco.imgs.items():
        with Image.open(out / "images" / folder / entry["file_name"]) as picture:
            assert picture.size == (entry["width"], entry["height"]) == (120, 90)
        with Image.open(out / "annotations" / folder / entry["file_name"]) as picture:
            semantic = np.asarray(picture)
        expected = np.zeros_like(semantic)
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert annotations
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert not expected[mask].any(), "visible parts of two items overlap"
            expected[mask] = annotation["category_id"]
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box and annotation["area"] == mask.sum() and annotation["iscrowd"] == 0
        assert np.array_equal(semantic, expected)
    assert {a["category_id"] - 1 for a in coco.anns.values()} <= set(classes), "an item of the other split"
    assert len(set(coco.anns)) == sum(len(anns) for anns in coco.imgToAnns.values())


def test_class_table_counts_images(written):
    _, out = written
    rows = [line.split("\t") for line in (out / "objectInfo10.txt").read_text().splitlines()[1:]]
    coco = COCO(out / "annotations" / "instances_train.json")
    assert [int(row[2]) for row in rows] == [len(coco.getImgIds(catIds=[i])) for i in range(1, 11)]


@pytest.mark.parametrize("min_visible", [0.3, 0.9, 1.0])
def test_nothing_is_hidden_beyond_what_is_asked(min_visible):
    images = np.full((4, 28, 28), 255, np.uint8)  # an item fills its square, so that its whole area is known from its scale
    config = SceneConfig(out="", size=(60, 60), objects=(6, 6), scale=(1, 1), min_visible=min_visible)
    parts = []
    for seed in range(10):
        scene = compose(ArrayImages(images, np.arange(4)), config, np.random.default_rng(seed))
        areas = scene.masks.sum((1, 2)) / 28**2
        assert scene.visible == pytest.approx(areas) and areas.min() >= min_visible
        assert areas[-1] == 1, "the topmost item is whole"
        parts += areas.tolist()
    assert min_visible == 1 or min(parts) < 1, "nothing overlaps"


def test_later_items_lie_on_earlier_ones_and_holes_are_filled():
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 2:26, 2:26], images[1, 2:26, 2:26] = 100, 250
    images[:, 10:16, 10:16] = 0
    config = SceneConfig(out="", size=(40, 40), objects=(5, 5), scale=(1, 1), min_visible=0.2)
    scene = compose(ArrayImages(images, np.arange(2)), config, np.random.default_rng(1))
    assert len(set(scene.labels)) == 2
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        assert set(np.unique(scene.image[mask])) <= {0, (100, 250)[label]}
    assert (scene.image[scene.masks[-1]] == 0).sum() == 36 and scene.masks[-1].sum() == 24**2


def test_scenes_depend_on_the_seed_alone(written, tmp_path):
    config, out = written
    fewer = write_scenes(dataclasses.replace(config, out=str(tmp_path / "fewer"), train=5))
    other = write_scenes(dataclasses.replace(config, out=str(tmp_path / "other"), train=5, seed=1))
    for name in ("images/training/00000005.png", "annotations/validation/00000003.png"):
        assert filecmp.cmp(out / name, fewer / name, shallow=False)
        assert not filecmp.cmp(out / name, other / name, shallow=False)


def test_a_folder_with_content_is_left_alone(items, tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(ValueError, match="exists; give a new folder"):
        main(["--out", str(tmp_path), "--root", items])
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_a_killed_run_has_left_is_named(items, tmp_path):
    (tmp_path / "s.partial").mkdir()
    with pytest.raises(ValueError, match=r"--out .*s: .*s.partial is of a run that was killed, or is still writing; remove it"):
        write_scenes(SceneConfig(out=str(tmp_path / "s"), root=items))


def test_an_interrupted_run_leaves_nothing(items, tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("kat_zoo.train.scenes.coco_annotations", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(SceneConfig(out=str(tmp_path / "s"), root=items))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options, message",
    [
        (["--size", "[40, 112]"], r"--size=\(40, 112\): expected at least 28 x scale = 56"),
        (["--objects", "[3, 2]"], "--objects"),
        (["--scale", "[0, 2]"], "--scale"),
        (["--min_visible", "0"], "--min_visible=0"),
        (["--val", "0"], "--val=0: expected at least 1"),
        (["--seed", "-1"], "--seed=-1"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        main(["--out", str(tmp_path / "s"), *options])
    assert not list(tmp_path.iterdir())


def test_an_item_of_which_nothing_is_left_is_drawn_again():
    images = np.zeros((20, 28, 28), np.uint8)
    images[:10, 14, 14] = 200  # gone at a quarter of the size
    images[10:, 4:24, 4:24] = 200
    items = ArrayImages(images, np.zeros(20, np.uint8))
    options = SceneConfig(out="unused", size=(28, 28), objects=(1, 1), scale=(0.25, 0.25))
    for seed in range(20):
        assert compose(items, options, np.random.default_rng(seed)).masks.any()
