"""Augmented targets of detectors, splits, and COCO's figures."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from PIL import Image
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from kat_zoo.train.detection.coco import decode_masks
from kat_zoo.train.detection.data import EvalScenes, TrainScenes, eval_loader, open_splits, train_transform
from kat_zoo.train.detection.evaluate import coco_results, evaluate, summarize
from kat_zoo.train.detection.formats import read_split
from kat_zoo.train.detection.predict import Detector
from kat_zoo.train.detection.recipe import DetectionAugmentConfig, DetectionDataConfig
from kat_zoo.train.segmentation.predict import Segmenter

from .detection_scenes import HEIGHT, WIDTH, small_recipe, write_coco


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture
def val(coco):
    return read_split(coco / "val.json", coco / "val", masks=True)


# ---- Targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "augment",
    [
        DetectionAugmentConfig(hflip=1.0),
        DetectionAugmentConfig(hflip=0.5, photometric=True),
        DetectionAugmentConfig(resize="jitter", scale=(0.3, 2.5), crop=(40, 40)),
    ],
    ids=["flip", "photometric", "jitter"],
)
def test_boxes_and_masks_stay_on_their_objects(augment, coco):
    """The objects are the only bright pixels, so that an augmented image tells where they are."""
    recipe = small_recipe(coco, "unused")
    split, _ = open_splits(recipe.data, masks=True)
    scenes = TrainScenes(split, train_transform(recipe.data, augment, [0.1]), 1, masks=True)
    sizes, seen = set(), 0
    for seed in range(20):
        image, target = scenes[seed % len(scenes), seed]
        sizes.add(tuple(image.shape[-2:]))
        assert image.shape[-2:] == target["masks"].shape[-2:] and len(target["boxes"]) == len(target["masks"]) == len(target["labels"])
        dark = image.quantile(0.02)
        for box, mask in zip(target["boxes"], target["masks"].bool(), strict=True):
            assert image[0][mask].median() > dark + 0.25
            tight = masks_to_boxes(mask[None])[0] + torch.tensor([0, 0, 1, 1])
            assert (box - tight).abs().max() <= 2  # masks are resized by nearest neighbor
        bright = image[0] > (dark + image.max()) / 2
        assert not len(target["boxes"]) or (bright & target["masks"].bool().any(0)).sum() >= 0.8 * bright.sum() - 3
        seen += len(target["boxes"])
    assert seen >= 15
    assert sizes == {(40, 40)} if augment.resize == "jitter" else len(sizes) == 2  # min_size has two values
    assert torch.equal(scenes[3, 3][0], scenes[3, 3][0])
    assert len({scenes[3, seed][0].numpy().tobytes() for seed in range(8)}) > 1


def test_an_image_of_another_size_or_damaged_is_refused(coco, tmp_path):
    folder = shutil.copytree(coco, tmp_path / "coco")
    recipe = small_recipe(folder, "unused")
    scenes = EvalScenes(open_splits(recipe.data, masks=False)[1], 1)
    Image.new("L", (8, 9)).save(folder / "val" / "1.png")
    with pytest.raises(ValueError, match=r"image 1, .*1.png, has the size \(width, height\) \(8, 9\)"):
        scenes[0]
    (folder / "val" / "2.png").write_bytes((folder / "val" / "3.png").read_bytes()[:100])
    with pytest.raises(ValueError, match="image 2, .* cannot be read"):
        scenes[1]
    Image.fromarray(np.full((HEIGHT, WIDTH), 100 * 257, np.uint16)).save(folder / "val" / "3.png")
    assert torch.allclose(scenes[2][0], torch.tensor(100 / 255))
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.float32)).save(folder / "val" / "4.png", "TIFF")
    with pytest.raises(ValueError, match="image 4, .*4.png: its pixels are 32-bit numbers"):
        scenes[3]


def test_photometric_distortion_leaves_the_channels_where_they_are():
    data = DetectionDataConfig(min_size=(36,), max_size=60)
    transform = train_transform(data, DetectionAugmentConfig(hflip=0.0, photometric=True), [0.5] * 3)
    image = torch.zeros(3, 36, 40, dtype=torch.uint8)
    image[0] = 200  # red; hue moves by a twentieth of the circle at most
    torch.manual_seed(0)
    seen = [transform({"image": tv_tensors.Image(image)})["image"].float().mean((1, 2)) for _ in range(40)]
    assert all(color.argmax() == 0 for color in seen) and len({color[0].item() for color in seen}) > 10


# ---- Figures ---------------------------------------------------------------------------------------------------------


def truth(split, record):
    """What a perfect detector would say of an image."""
    objects = split.objects(record["id"])
    boxes = torch.tensor([a["bbox"] for a in objects])
    masks = decode_masks(objects, record["height"], record["width"])[:, None].float()
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return {"boxes": boxes, "labels": split.labels(objects), "scores": torch.ones(len(objects)), "masks": masks}


def test_the_truth_scores_100_and_wrong_classes_0(val):
    perfect = [r for record in val.images for r in coco_results(truth(val, record), record["id"], val.category_ids)]
    result = summarize(val, perfect, len(val.images), masks=True)
    assert result.box["ap"] == result.mask["ap"] == pytest.approx(100)
    assert result.box_per_class == result.mask_per_class == pytest.approx((100, 100))
    assert np.isnan(result.box["ap_large"])  # there are none
    wrong = [{**r, "category_id": 5} for r in perfect]
    assert summarize(val, wrong, 5, masks=True).mask_per_class[1] == 0


def test_ap50_by_hand(val):
    """One of n objects of a class is found, surer than a false alarm: precision 1 up to recall 1 / n, then 0 (101 points)."""
    squares = [a for record in val.images for a in val.objects(record["id"]) if a["category_id"] == 5]
    found = {"image_id": squares[0]["image_id"], "category_id": 5, "bbox": squares[0]["bbox"], "score": 0.9}
    alarm = {**found, "bbox": [0, 0, 1, 1], "score": 0.8}
    others = [
        {"image_id": record["id"], "category_id": 9, "bbox": a["bbox"], "score": 1.0}
        for record in val.images
        for a in val.objects(record["id"])
        if a["category_id"] == 9
    ]
    expected = 100 * (100 // len(squares) + 1) / 101
    assert summarize(val, [found, alarm, *others], 5, masks=False).box["ap50"] == pytest.approx((expected + 100) / 2)
    nothing = summarize(val, [], 5, masks=True)
    assert nothing.box["ap"] == nothing.mask["ap50"] == 0


class Oracle(torch.nn.Module):
    """Answers with the truth of the images it has seen, found by their pixels."""

    def __init__(self, split, scenes):
        super().__init__()
        self.answers = {scenes[i][0].numpy().tobytes(): truth(split, record) for i, record in enumerate(split.images)}
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return [self.answers[image.numpy().tobytes()] for image in images]


@pytest.mark.parametrize("batch_size", [2, 5])
def test_every_image_counts_once(batch_size, coco, val):
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
    scenes = EvalScenes(val, 1)
    data = dataclasses.replace(small_recipe(coco, "unused").data, batch_size=batch_size)
    model = Oracle(val, scenes).train()
    result = evaluate(accelerator, model, accelerator.prepare(eval_loader(scenes, data)), val, masks=True)
    assert result.images == model.seen == 5 and model.training
    assert result.values("ema_")["ema_mask_ap50"] == pytest.approx(100)


def test_splits_that_do_not_fit_each_other_are_refused(coco, tmp_path):
    folder = shutil.copytree(coco, tmp_path / "coco")
    content = json.loads((folder / "val.json").read_text())
    (folder / "val.json").write_text(json.dumps(content | {"annotations": []}))
    recipe = small_recipe(folder, tmp_path / "run")
    with pytest.raises(ValueError, match="val.json has no objects"):
        open_splits(recipe.data, masks=True)
    content["categories"].append({"id": 11, "name": "disc"})
    (folder / "val.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="different categories .disc"):
        open_splits(recipe.data, masks=True)


def test_labels_of_the_background_are_no_detections(val):
    found = {"boxes": torch.tensor([[0.0, 0, 9, 9], [1, 1, 5, 5]]), "labels": torch.tensor([0, 1]), "scores": torch.tensor([0.9, 0.8])}
    (result,) = coco_results(found, 1, val.category_ids)
    assert result["category_id"] == val.category_ids[0] and result["score"] == pytest.approx(0.8)


@pytest.mark.parametrize("augment", [DetectionAugmentConfig(resize="jitter", crop=(64, 64), scale=(0.1, 2.0)), DetectionAugmentConfig()])
def test_long_and_narrow_images_keep_a_pixel(augment):
    transform = train_transform(DetectionDataConfig(min_size=(32,), max_size=64), augment, [0.5] * 3)
    image = tv_tensors.Image(torch.zeros(3, 4, 900, dtype=torch.uint8))
    torch.manual_seed(0)
    assert all(min(transform(image).shape) > 0 for _ in range(30))


def test_predict_takes_bytes_alone():
    with pytest.raises(ValueError, match="image of dtype torch.float32 .* expected torch.uint8"):
        Detector(None, None, ()).predict(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="image of dtype torch.float32 .* expected torch.uint8"):
        Segmenter(None, None, ()).predict(torch.rand(3, 8, 8))
