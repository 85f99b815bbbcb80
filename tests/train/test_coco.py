"""Annotations in COCO's format: what is read, mended and refused."""

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from kat_zoo.train.detection.coco import decode_masks
from kat_zoo.train.detection.formats import read_split

from .detection_scenes import write_coco


@pytest.fixture
def folder(tmp_path):
    return write_coco(tmp_path / "coco", train=3, val=2)


def edit(folder, change):
    """Change the training annotations by a function of their content; read them."""
    path = folder / "train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return read_split(path, folder / "train", masks=True)


def first(content):
    return content["annotations"][0]


def test_polygons_and_both_kinds_of_rle_are_the_same_mask(folder):
    def in_three_ways(content):
        box = [6, 4, 10, 12]  # edges on pixels: a polygon fills exactly these
        mask = np.zeros((36, 40), np.uint8, order="F")
        mask[4:16, 6:16] = 1
        polygon = [[6, 4, 16, 4, 16, 16, 6, 16]]
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *edges, flat.size]).tolist()
        compressed = rle.encode(mask)["counts"].decode()
        segmentations = [polygon, {"size": [36, 40], "counts": counts}, {"size": [36, 40], "counts": compressed}]
        content["annotations"] = [
            {"id": 7 + i, "image_id": 1, "category_id": 5, "bbox": box, "segmentation": s} for i, s in enumerate(segmentations)
        ]

    split = edit(folder, in_three_ways)
    objects = split.objects(1)
    masks = decode_masks(objects, 36, 40)
    expected = torch.zeros(36, 40, dtype=torch.uint8)
    expected[4:16, 6:16] = 1
    assert len(masks) == 3 and all(torch.equal(mask, expected) for mask in masks)
    assert [a["area"] for a in objects] == [120] * 3 and [a["id"] for a in objects] == [1, 2, 3]


def test_categories_become_labels_from_one_on_and_crowds_are_no_objects(folder):
    split = edit(folder, lambda content: first(content).update(iscrowd=1))
    assert split.category_ids == [5, 9] and split.classes == ("square", "cross")
    crowd = split.api.loadAnns([1])[0]
    assert crowd["iscrowd"] == 1 and crowd not in split.objects(crowd["image_id"])
    objects = [a for record in split.images for a in split.objects(record["id"])]
    labels = split.labels(objects)
    assert {(a["category_id"], int(label)) for a, label in zip(objects, labels, strict=True)} == {(5, 1), (9, 2)}


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda c: first(c).update(bbox=[3, 3, 0, 5]), "1 objects with an empty box are left out, first in image 1"),
        (lambda c: first(c).update(bbox=[50, 3, 4, 5]), "1 objects with a box outside the image are left out, first in image 1"),
        (lambda c: first(c).update(segmentation={"size": [36, 40], "counts": [1440]}), "with an empty mask are left out"),
    ],
)
def test_objects_that_cannot_be_seen_are_left_out_with_a_warning(change, named, folder, caplog):
    before = len(read_split(folder / "train.json", folder / "train", masks=True).api.anns)
    assert not caplog.text
    split = edit(folder, change)
    assert len(split.api.anns) == before - 1 and named in caplog.text


def test_a_box_across_the_edge_is_clipped_with_a_warning(folder, caplog):
    split = edit(folder, lambda c: first(c).update(bbox=[-5, 30, 60, 20]))
    assert split.api.loadAnns([1])[0]["bbox"] == [0, 30, 40, 6]
    assert "1 objects with a box across the edge are clipped, first in image 1" in caplog.text


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda c: first(c).update(category_id=6), r"image 1 \(1.png\): category_id 6"),
        (lambda c: first(c).update(image_id=99), "image 99: there is no such image"),
        (lambda c: first(c).update(bbox=[1, 2, 3]), r"image 1 \(1.png\): bbox=\[1, 2, 3\]"),
        (lambda c: first(c).update(bbox=[1, 2, 3, float("nan")]), r"image 1 \(1.png\): bbox"),
        (lambda c: first(c).pop("segmentation"), r"image 1 \(1.png\): there is no segmentation"),
        (lambda c: first(c).update(segmentation=[[1, 2, 3, 4, 5]]), r"image 1 \(1.png\): a polygon="),
        (lambda c: first(c).update(segmentation=[[1, "2", 3, 4, 5, 6]]), r"image 1 \(1.png\): a polygon="),
        (lambda c: first(c).update(segmentation=[[1, 2, 3e9, 4, 5, 6]]), "expected an outline that fits an image of"),
        (lambda c: first(c).update(segmentation=[[0, 0, 60000, 0, 0, 60000]]), "expected an outline that fits an image of"),
        (lambda c: c["images"][0].update(height=10**9), "height=1000000000, width=.*: expected at most 65536"),
        (lambda c: first(c).update(area="12"), r"image 1 \(1.png\): area='12': expected a number"),
        (lambda c: first(c).update(bbox=[1, 2, "3", 4]), r"image 1 \(1.png\): bbox="),
        (lambda c: first(c).update(iscrowd="yes"), r"image 1 \(1.png\): iscrowd='yes': expected 0 or 1"),
        (lambda c: c["annotations"].insert(1, 7), "annotation number 1 is '7': expected an object"),
        (lambda c: c["images"].insert(1, "x"), "image number 1 is 'x': expected an object"),
        (lambda c: c["images"][0].update(height="36"), "image 1 has .*'height': '36'.*: expected integers"),
        (lambda c: c["images"][0].update(file_name=3), "image 1 has file_name=3: expected the path of a file"),
        (lambda c: c["categories"].insert(0, None), "category number 0 is None: expected an integer id and a name"),
        (lambda c: c["categories"][1].pop("name"), "category number 1 is .*: expected an integer id and a name"),
        (lambda c: c["categories"][1].pop("id"), "category number 1 is .*: expected an integer id and a name"),
        (
            lambda c: first(c).update(segmentation={"size": [36, 40], "counts": [1439]}),
            r"image 1 \(1.png\): damaged RLE, runs of 1439 pixels",
        ),
        (lambda c: first(c).update(segmentation={"size": [36, 40], "counts": [1500, -60]}), r"image 1 \(1.png\): damaged RLE"),
        (lambda c: first(c).update(segmentation={"size": [36, 40], "counts": "n0"}), r"image 1 \(1.png\): damaged RLE, runs of 30 pixels"),
        (lambda c: first(c).update(segmentation={"size": [36, 40], "counts": "~"}), r"image 1 \(1.png\): damaged RLE, not readable"),
        (
            lambda c: first(c).update(segmentation={"size": [40, 36], "counts": "n0"}),
            r"image 1 \(1.png\): the size of the RLE is \[40, 36\]",
        ),
        (lambda c: c["images"][1].update(id=1), "image id 1 is used twice"),
        (lambda c: c["images"][0].pop("height"), "image 1 needs id, file_name, height and width"),
        (lambda c: c["categories"][0].update(id=5), r"category ids \[5, 5\]"),
        (lambda c: c.pop("categories"), "expected the lists images, annotations, categories"),
    ],
)
def test_other_faults_are_refused_with_the_image_id(change, named, folder):
    with pytest.raises(ValueError, match=named):
        edit(folder, change)


def test_missing_files_are_named(folder):
    (folder / "train" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images .* the first image 2: .*2.png"):
        read_split(folder / "train.json", folder / "train", masks=False)
    with pytest.raises(FileNotFoundError, match="absent.json"):
        read_split(folder / "absent.json", folder / "train", masks=False)
    (folder / "train.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_split(folder / "train.json", folder / "train", masks=False)


def test_null_is_the_same_as_nothing(folder):
    split = edit(folder, lambda c: first(c).update(area=None, iscrowd=None))
    record = split.objects(1)[0]
    assert record["iscrowd"] == 0 and record["area"] > 0


def test_objects_that_cannot_be_seen_are_left_out_and_counted_or_refused(folder, caplog):
    """A detector of boxes does not look at polygons."""
    content = json.loads((folder / "train.json").read_text())
    first(content).update(segmentation=[[1, 2, 3, 4]])
    content["annotations"][1].update(segmentation=[[1, 2], [6, 4, 16, 4, 16, 16, 6, 16]])
    (folder / "train.json").write_text(json.dumps(content))
    count = len(content["annotations"])
    path = folder / "train.json"
    assert len(read_split(path, folder / "train", masks=False).api.anns) == count and not caplog.text
    assert len(read_split(path, folder / "train", masks=True).api.anns) == count - 1
    assert "1 objects with a polygon of fewer than three points are left out, first in image 1" in caplog.text
    assert "1 objects with a polygon of fewer than three points keep their other polygons" in caplog.text
    with pytest.raises(ValueError, match=r"1 objects with a polygon .* are left out, first in image 1 \(1.png\), and data.strict is true"):
        read_split(path, folder / "train", masks=True, strict=True)
