"""Pictures with a rotation flag, as phones store them, are seen upright wherever training opens an image."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from kat_zoo.train.classification.datasets import hub, image_folder
from kat_zoo.train.classification.loader import EvalImages
from kat_zoo.train.classification.recipe import AugmentConfig
from kat_zoo.train.classification.stream import StreamTestLoader
from kat_zoo.train.detection.data import EvalScenes
from kat_zoo.train.detection.formats import read_split
from kat_zoo.train.segmentation.ade20k import check, open_folders
from kat_zoo.train.segmentation.data import EvalPixels
from kat_zoo.train.segmentation.recipe import SegmentationDataConfig

from ..test_images import FLAGS, UPRIGHT, rotated

EXACT = AugmentConfig(crop="none", hflip=0.0, color_jitter=0.0, auto_augment=None, random_erasing=0.0)


def pixels(image):
    return torch.from_numpy(np.asarray(image).copy())[None]


def assert_upright(images):
    found = [image[0].round() for image in images]
    assert len(found) == 8
    for image in found:
        assert image.shape == (16, 24) and (image - torch.from_numpy(UPRIGHT)).abs().max() < 12


def test_classes_in_folders(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        for flag in FLAGS:
            rotated(tmp_path / split / "a" / f"{flag}.jpg", flag)
    images = EvalImages(image_folder(str(tmp_path)).test, pixels, "L")
    assert_upright(images[i][0].float() for i in range(8))


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_the_hub_by_index_and_as_a_stream(streaming, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = [{"bytes": rotated(tmp_path / "x.jpg", flag).read_bytes(), "path": "x.jpg"} for flag in FLAGS]
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        data = datasets.Dataset.from_dict({"image": rows, "label": [0] * 8}, features=features)
        data.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    test = hub(str(tmp_path / "data"), streaming=streaming, samples=8).test
    if streaming:
        ((batch, _),) = StreamTestLoader(test, lambda image: pixels(image.resize((24, 16))), "L", 8, 0)
        assert_upright(batch.float())
    else:
        images = EvalImages(test, pixels, "L")
        assert_upright(images[i][0].float() for i in range(8))


def write_coco(folder, flags, size=(24, 16)):
    (folder / "images").mkdir(parents=True)
    for flag in flags:
        rotated(folder / "images" / f"{flag}.jpg", flag)
    records = [{"id": flag, "file_name": f"{flag}.jpg", "width": size[0], "height": size[1]} for flag in flags]
    content = {"images": records, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (folder / "all.json").write_text(json.dumps(content))
    return EvalScenes(read_split(folder / "all.json", folder / "images", masks=False), 1)


def test_scenes_of_coco(tmp_path):
    scenes = write_coco(tmp_path / "upright", FLAGS)
    assert_upright(255 * scenes[i][0] for i in range(8))
    raw = write_coco(tmp_path / "raw", [6], size=(16, 24))  # annotations of the picture as it is stored
    with pytest.raises(ValueError, match=r"image 6, .*6.jpg, .* \(24, 16\) once turned upright by its EXIF orientation; .* \(16, 24\)"):
        raw[0]


def test_pixels_of_ade20k(tmp_path):
    labels = np.zeros((16, 24), np.uint8)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        for flag in FLAGS:
            rotated(tmp_path / "images" / split / f"{flag}.jpg", flag)
            Image.fromarray(labels).save(tmp_path / "annotations" / split / f"{flag}.png")
    data = SegmentationDataConfig(root=str(tmp_path), num_classes=2, reduce_zero_label=False, short_side=16, long_side=24)
    splits = open_folders(data)
    check(splits.test, 2, False)
    scenes = EvalPixels(splits.test, data, 1)
    assert_upright(255 * scenes[i][0] for i in range(8))
    Image.fromarray(labels.T.copy()).save(tmp_path / "annotations" / "validation" / "6.png")
    with pytest.raises(ValueError, match=r"6.png is 24 x 16 and .*6.jpg is 16 x 24 pixels, once turned upright by its EXIF orientation"):
        check(splits.test, 2, False)
