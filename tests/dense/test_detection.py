"""torchvision's detectors on the pyramid: losses, gradients, detections, strides, image statistics."""

import re

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2

from kat_zoo.dense import faster_rcnn, fcos, mask_rcnn, retinanet

BUILDERS = {f.__name__: f for f in (faster_rcnn, fcos, mask_rcnn, retinanet)}
LOSSES = {
    "faster_rcnn": {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"},
    "mask_rcnn": {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"},
    "retinanet": {"classification", "bbox_regression"},
    "fcos": {"classification", "bbox_regression", "bbox_ctrness"},
}
SMALL = {"out_channels": 32}


def small(name, backbone="test_kat", pyramid_args=None, **kwargs):
    torch.manual_seed(0)
    pyramid_args = {**SMALL, **(pyramid_args or {})}
    return BUILDERS[name](backbone, 3, pyramid_args=pyramid_args, min_size=64, max_size=100, **kwargs)


def scenes(channels=3):
    """Two images of different sizes, one with two objects and one with none."""
    torch.manual_seed(1)
    images = [torch.rand(channels, 70, 90), torch.rand(channels, 64, 50)]
    masks = torch.zeros(2, 70, 90, dtype=torch.uint8)
    masks[0, 5:40, 4:44] = 1
    masks[1, 20:60, 50:85] = 1
    boxes = torch.tensor([[4.0, 5, 44, 40], [50, 20, 85, 60]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "masks": torch.zeros(0, 64, 50, dtype=torch.uint8)},
    ]
    return images, targets


@pytest.mark.parametrize(
    "name, backbone, args",
    [
        ("mask_rcnn", "test_kat", {"window_size": 2, "grad_checkpointing": True}),
        ("faster_rcnn", "test_karat", {}),
        ("retinanet", "test_vit", {}),
        ("fcos", "test_kat", {"window_size": 2}),
    ],
)
def test_losses_train_every_parameter(name, backbone, args):
    model = small(name, backbone, args)
    losses = model(*scenes())
    assert set(losses) == LOSSES[name]
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    assert not [key for key, p in model.backbone.backbone.named_parameters() if not p.grad.any()]


@pytest.mark.parametrize("name", BUILDERS)
def test_detections_lie_in_the_image(name):
    model = small(name, **({"score_thresh": 0.0} if name in ("retinanet", "fcos") else {"box_score_thresh": 0.0})).eval()
    images, _ = scenes()
    with torch.no_grad():
        detections = model(images)
    for image, found in zip(images, detections, strict=True):
        height, width = image.shape[-2:]
        assert len(found["boxes"]) and found["boxes"].min() >= 0
        assert (found["boxes"].max(0).values <= torch.tensor([width, height, width, height])).all()
        assert set(found) == {"boxes", "labels", "scores"} | ({"masks"} if name == "mask_rcnn" else set())
        if name == "mask_rcnn":
            assert found["masks"].shape == (len(found["boxes"]), 1, height, width)


@pytest.mark.parametrize("name", BUILDERS)
def test_levels_meet_their_anchors(name):
    model = small(name).eval()
    transformed, _ = model.transform(scenes()[0])
    levels = model.backbone(transformed.tensors)
    generator = model.rpn.anchor_generator if "rcnn" in name else model.anchor_generator
    assert len(generator.sizes) == len(levels)
    for stride, level in zip(model.backbone.strides, levels.values(), strict=False):
        assert [size / stride for size in transformed.tensors.shape[-2:]] == list(level.shape[-2:])
    if "rcnn" in name:  # torchvision infers the scales of RoIAlign from the shapes
        pool = model.roi_heads.box_roi_pool
        pool(levels, [torch.tensor([[0.0, 0, 9, 9]])] * 2, transformed.image_sizes)
        assert pool.scales == [1 / stride for stride in model.backbone.strides]


def test_defaults_are_those_of_torchvision_at_patch_16():
    assert small("mask_rcnn").rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert small("retinanet").anchor_generator.sizes[0] == (32, 40, 50)
    assert [sizes[0] for sizes in small("retinanet").anchor_generator.sizes] == [32, 64, 128, 256, 512]
    assert small("fcos").anchor_generator.sizes == ((8,), (16,), (32,), (64,), (128,))


def test_grey_images_and_small_patches():
    model = small("mask_rcnn", "kat_pico_patch4_28")
    assert model.transform.image_mean == [0.286] and model.transform.image_std == [0.353]
    assert model.backbone.strides == [1, 2, 4, 8] and model.transform.size_divisible == 8
    losses = model(*scenes(channels=1))
    assert all(loss.isfinite() for loss in losses.values())
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\)"):
        model(*scenes(channels=3))


def test_image_statistics_come_from_the_backbone_or_the_user():
    cfg = timm.get_pretrained_cfg("test_vit")
    model = small("faster_rcnn", "test_vit")
    assert (model.transform.image_mean, model.transform.image_std) == (list(cfg.mean), list(cfg.std))
    own = small("fcos", image_mean=[0.1, 0.2, 0.3], image_std=[1, 1, 1])
    assert own.transform.image_mean == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("name", BUILDERS)
def test_layer_decay(name):
    model = small(name, backbone_args={"depth": 2})
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.1, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    for key, parameter in model.named_parameters():
        depth = 3 if not key.startswith("backbone.backbone.") else int(key.split(".")[3]) + 1 if ".blocks." in key else 0
        assert scale[id(parameter)] == 0.5 ** (3 - depth), key


@pytest.mark.parametrize("name", BUILDERS)
def test_boxes_are_float32_under_bfloat16(name, monkeypatch):
    """bfloat16 has multiples of 4 only above 512: boxes, RoIs and targets of a large image must not be rounded to them."""
    rcnn = "rcnn" in name
    torch.manual_seed(0)
    few = {"rpn_post_nms_top_n_test": 50, "box_detections_per_img": 20, "box_score_thresh": 0.0}
    few = few if rcnn else {"topk_candidates": 50, "detections_per_img": 20, "score_thresh": 0.0}
    model = BUILDERS[name]("test_kat", 3, pyramid_args=SMALL, min_size=64, max_size=1200, **few).eval()
    image, box = torch.rand(3, 64, 1100), torch.tensor([[777.3, 5.0, 1001.7, 60.0]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (found,) = model([image])
    assert all(found[key].dtype == torch.float32 for key in found if key != "labels")
    far = found["boxes"][:, ::2][(found["boxes"][:, ::2] > 600) & (found["boxes"][:, ::2] < 1099)]
    assert len(far) and (far % 4 != 0).any()

    coders = [model.roi_heads.box_coder, model.rpn.box_coder] if rcnn else [getattr(model.head, "box_coder", None)]
    seen = []
    for coder in coders:
        coder = coder or model.head.regression_head.box_coder  # RetinaNet's
        method = "encode_single" if hasattr(coder, "encode_single") else "encode"
        encode = getattr(coder, method)
        monkeypatch.setattr(coder, method, lambda *args, encode=encode: (seen.append(args), encode(*args))[1])
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": torch.ones(1, 64, 1100, dtype=torch.uint8)}
    with torch.autocast("cpu", torch.bfloat16):
        model.train()([image], [target])
    assert len(seen) == len(coders)
    for boxes in seen:
        assert all(tensor.dtype == torch.float32 for tensor in boxes)
        assert any((tensor.reshape(-1, 4) == box).all(1).any() for tensor in boxes)


def bare():
    return VisionTransformer(img_size=32, patch_size=16, embed_dim=32, depth=1, num_heads=2, num_classes=0)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: mask_rcnn("kat_absent", 3), "backbone='kat_absent': expected a registered model"),
        (lambda: mask_rcnn("resnet10t", 3), "ResNet: expected a plain VisionTransformer"),
        (lambda: mask_rcnn("test_kat", 1), "num_classes=1: expected an integer of at least 2"),
        (lambda: fcos("test_kat", 0), "num_classes=0"),
        (lambda: mask_rcnn(bare(), 3, pretrained_backbone=True), "backbone is a VisionTransformer already"),
        (lambda: mask_rcnn(bare(), 3, backbone_args={"depth": 1}), "create it with them"),
        (lambda: mask_rcnn(bare(), 3), "pretrained_cfg with mean=.* for a backbone of 3 channels: .*pass image_mean"),
        (lambda: mask_rcnn("test_kat", 3, backbone_args={"patch_size": 14}), r"strides \[3.5, 7.0.*powers of two.*'patch_size': 16"),
        (lambda: mask_rcnn("test_kat", 3, backbone_args={"in_chans": 1}), "a backbone of 1 channels: expected"),
        (lambda: retinanet("test_kat", 3, pyramid_args={"out_channels": 48}), "out_channels=48: expected a multiple of 32"),
        (lambda: fcos("test_kat", 3, pyramid_args={"out_channels": 48}), "out_channels=48: expected a multiple of 32"),
        (lambda: faster_rcnn("test_kat", 3, pyramid_args={"frozen_stages": 9}), "frozen_stages=9"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("name", "wrong", "near"),
    [
        ("mask_rcnn", "mask_rcnn_tresh", "MaskRCNN"),
        ("faster_rcnn", "box_score_tresh", "FasterRCNN; did you mean box_score_thresh?"),
        ("retinanet", "score_tresh", "RetinaNet; did you mean score_thresh?"),
        ("fcos", "box_score_thresh", "FCOS; did you mean score_thresh?"),
    ],
)
def test_an_argument_that_torchvision_would_ignore_is_refused(name, wrong, near):
    with pytest.raises(ValueError, match=rf"^{wrong}=0.5: expected an argument of {re.escape(near)}"):
        small(name, **{wrong: 0.5})
    with pytest.raises(ValueError, match="^out_channel=8: expected an argument of SimpleFeaturePyramid; did you mean out_channels?"):
        small(name, pyramid_args={"out_channel": 8})
    small(name, size_divisible=32)  # of its image transform


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_one_small_image_in_a_narrow_head(name):
    """Its last map has one pixel."""
    (found,) = small(name).eval()([torch.rand(3, 64, 64)])
    assert set(found) == {"boxes", "labels", "scores"}
