"""Small data in COCO's format, a recipe on it, for the tests of detection."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from kat_zoo.train.core.config import EmaConfig, OptimizerConfig, ScheduleConfig, SystemConfig
from kat_zoo.train.detection.recipe import DetectionAugmentConfig, DetectionDataConfig, DetectionRecipe, DetectorConfig

HEIGHT, WIDTH = 36, 40
CATEGORIES = [{"id": 9, "name": "cross"}, {"id": 5, "name": "square"}]


def draw(random, image, category):
    """A bright square or cross somewhere in the image; its mask."""
    side = int(random.integers(9, 15))
    top, left = int(random.integers(HEIGHT - side)), int(random.integers(WIDTH - side))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    if category == 5:
        mask[top : top + side, left : left + side] = 1
    else:
        third = side // 3
        mask[top + third : top + 2 * third, left : left + side] = 1
        mask[top : top + side, left + third : left + 2 * third] = 1
    image[mask == 1] = 230
    return mask


def write_split(folder, name, count, random):
    (folder / name).mkdir(parents=True)
    images, annotations = [], []
    for i in range(1, count + 1):
        image = random.integers(0, 50, (HEIGHT, WIDTH)).astype(np.uint8)
        for category in (5, 9)[: 1 + i % 2]:
            mask = draw(random, image, category)
            code = rle.encode(mask)
            record = {"bbox": rle.toBbox(code).tolist(), "area": int(mask.sum()), "iscrowd": 0}
            record["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}
            annotations.append({"id": len(annotations), "image_id": i, "category_id": category, **record})
        Image.fromarray(image).save(folder / name / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / f"{name}.json").write_text(json.dumps(content))


def write_coco(folder, train=9, val=5):
    random = np.random.default_rng(0)
    write_split(folder, "train", train, random)
    write_split(folder, "val", val, random)
    return folder


def small_recipe(root, output, head="mask_rcnn"):
    """Two epochs of two updates with everything random switched on."""
    few = {"box_detections_per_img": 5, "rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 10, "box_batch_size_per_image": 8}
    return DetectionRecipe(
        output=str(output),
        model=DetectorConfig(
            head=head,
            backbone="kat_pico_patch4_28",
            backbone_args={"depth": 2, "embed_dim": 24, "drop_path_rate": 0.2},
            pyramid_args={"out_channels": 32, "scales": [1, 0.5], "window_size": 3, "global_blocks": [1]},
            kwargs=few if "rcnn" in head else {"detections_per_img": 5},
        ),
        data=DetectionDataConfig(
            root=str(root), train_images="train", train_annotations="train.json", val_images="val", val_annotations="val.json",
            batch_size=4, workers=0, min_size=(32, 40), max_size=60,
        ),
        augment=DetectionAugmentConfig(resize="jitter", scale=(0.8, 1.4), crop=(40, 36)),
        optimizer=OptimizerConfig(lr=2e-3, clip_grad=1.0, grad_accum=2, layer_decay=0.8),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
        ema=EmaConfig(decay=0.9),
        system=SystemConfig(log_every=2, trackers=()),
    )  # fmt: skip
