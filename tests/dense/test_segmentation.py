"""UperNet and DPT on plain ViTs: any size, losses, gradients, image statistics."""

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch.nn import functional as F

from kat_zoo.dense import dpt, faster_rcnn, upernet

NARROW = {
    "upernet": {"hidden_size": 16, "auxiliary_channels": 16, "pyramid_args": {"out_channels": 16}},
    "dpt": {"fusion_channels": 16, "intermediate_channels": (8, 16, 16, 16)},
}
BUILDERS = {"upernet": upernet, "dpt": dpt}


def small(name, backbone="test_kat", num_classes=5, **kwargs):
    torch.manual_seed(0)
    return BUILDERS[name](backbone, num_classes, **{**NARROW[name], **kwargs})


def batch(height, width, channels=3):
    torch.manual_seed(1)
    return torch.rand(2, channels, height, width), torch.randint(5, (2, height, width))


@pytest.mark.parametrize("size", [(64, 64), (50, 83), (9, 16)])
@pytest.mark.parametrize("backbone", ["test_kat", "test_karat", "kat_pico_patch4_28"])
@pytest.mark.parametrize("name", BUILDERS)
def test_logits_at_every_pixel(name, backbone, size):
    model = small(name, backbone).eval()
    images, _ = batch(*size, channels=model.image_mean.shape[0])
    with torch.no_grad():
        assert model(images).shape == (2, 5, *size)


@pytest.mark.parametrize("name, backbone", [("upernet", "test_kat"), ("dpt", "test_kat"), ("dpt", "kat_pico_patch4_28")])
def test_losses_train_every_parameter(name, backbone):
    model = small(name, backbone)
    losses = model(*batch(50, 70, channels=model.image_mean.shape[0]))
    assert set(losses) == {"loss_decode"} | ({"loss_auxiliary"} if name == "upernet" else set())
    sum(losses.values()).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not [key for key, p in model.encoder.backbone.named_parameters() if not p.grad.any()]


def test_loss_is_the_cross_entropy_of_the_pixels_that_count():
    model = small("upernet")
    model.encoder.eval()
    images, labels = batch(48, 40)
    labels[0, :30] = 255
    logits, auxiliary = model.heads(model._normalized(images))
    up = [F.interpolate(x, size=(48, 48), mode="bilinear")[..., :40] for x in (logits, auxiliary)]
    losses = model(images, labels)
    torch.testing.assert_close(losses["loss_decode"], F.cross_entropy(up[0], labels, ignore_index=255))
    torch.testing.assert_close(losses["loss_auxiliary"], 0.4 * F.cross_entropy(up[1], labels, ignore_index=255))


def test_a_crop_without_labels_costs_nothing():
    model = small("upernet")
    images, labels = batch(32, 32)
    losses = model(images, torch.full_like(labels, 255))
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_images_are_normalized_as_the_backbone_wants_and_padded_with_the_mean():
    model = small("dpt", "test_vit")
    mean = model.image_mean
    assert mean.flatten().tolist() == pytest.approx(list(model.encoder.backbone.pretrained_cfg["mean"]))
    padded = model._normalized(mean.expand(1, 3, 20, 40) + model.image_std)
    assert padded.shape == (1, 3, 32, 64)
    torch.testing.assert_close(padded[..., :20, :40], torch.ones(1, 3, 20, 40))
    assert not padded[..., 20:, :].any() and not padded[..., 40:].any()
    assert "image_mean" not in model.state_dict()


def test_blocks_of_a_quarter_each_feed_the_levels():
    assert small("upernet", backbone_args={"depth": 8}).encoder.indices == [1, 3, 5, 7]
    assert small("dpt", features_args={"indices": (0, 1, 2, 3)}).encoder.indices == [0, 1, 2, 3]
    assert small("upernet", pyramid_args={"out_channels": 16, "indices": (-1,)}).encoder.indices == [5]


@pytest.mark.parametrize("name", BUILDERS)
def test_layer_decay(name):
    model = small(name)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    for key, parameter in model.named_parameters():
        depth = 7 if not key.startswith("encoder.backbone.") else int(key.split(".")[3]) + 1 if ".blocks." in key else 0
        assert scale[id(parameter)] == 0.5 ** (7 - depth), key


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: small("upernet", "kat_absent"), "backbone='kat_absent': expected a registered model"),
        (lambda: small("upernet", num_classes=1), "num_classes=1: expected an integer of at least 2"),
        (lambda: small("dpt", num_classes=0), "num_classes=0"),
        (lambda: small("upernet", pyramid_args={"scales": (2, 1), "indices": (0, 1)}), r"scales=\[2, 1\]: UperNet takes 3 levels"),
        (lambda: small("dpt", backbone_args={"depth": 3}), "backbone of 3 blocks: expected at least 4"),
        (lambda: small("dpt", features_args={"indices": (1, 3)}), r"indices=\[1, 3\].*expected four of each"),
        (lambda: small("dpt", readout="mean"), "readout"),
        (lambda: small("upernet", backbone_args={"in_chans": 2}), "a backbone of 2 channels: .*pass image_mean"),
        (lambda: small("dpt")(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), "torch.uint8.*expected floats in"),
        (lambda: small("dpt")(torch.zeros(1, 1, 32, 32)), r"expected floats in \[0, 1\], \(B, 3, H, W\)"),
        (lambda: small("dpt")(torch.rand(1, 3, 32, 32), torch.zeros(1, 32, 16).long()), r"shape \(1, 32, 16\): expected integers"),
        (lambda: small("dpt")(torch.rand(1, 3, 32, 32), torch.zeros(1, 32, 32)), "labels of dtype torch.float32"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("upernet", {"hidden_sizes": 8}, "^hidden_sizes=8: expected an argument of UperNet; did you mean hidden_size?"),
        ("upernet", {"hidden_size": "8"}, "^hidden_size='8': expected an integer"),
        (
            "upernet",
            {"pyramid_args": {"out_channel": 8}},
            "^out_channel=8: expected an argument of SimpleFeaturePyramid; did you mean out_",
        ),
        ("dpt", {"readouts": "cat"}, "^readouts='cat': expected an argument of DPT; did you mean readout?"),
        ("dpt", {"features_args": {"window": 3}}, "^window=3: expected an argument of ViTFeatures"),
        (
            "dpt",
            {"backbone_args": {"drop_path": 0.1}},
            "^backbone_args={'drop_path': 0.1}: test_kat has no argument drop_path; did you mean",
        ),
    ],
)
def test_unknown_arguments_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        small(name, **arguments)


@pytest.mark.parametrize("build", [lambda **kwargs: small("upernet", **kwargs), lambda **kwargs: faster_rcnn("test_kat", 3, **kwargs)])
def test_each_of_mean_and_std_may_be_given_alone(build):
    def statistics(**kwargs):
        model = build(**kwargs)
        model = getattr(model, "transform", model)
        return [torch.as_tensor(value).flatten().tolist() for value in (model.image_mean, model.image_std)]

    mean, std = statistics(image_mean=None)
    assert statistics(image_mean=(0.5, 0.25, 0.125)) == [[0.5, 0.25, 0.125], std]
    assert statistics(image_std=(1, 1, 1)) == [mean, [1, 1, 1]]
    for wrong in ({"image_mean": 0.5}, {"image_std": (0.1, 0.2)}, {"image_std": (1, 1, 0)}, {"image_mean": ("a",) * 3}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name}=.*expected (3 numbers|one value per channel)"):
            build(**wrong)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small("dpt", fusion_channels=0), "fusion_channels=0"),
        (lambda: small("dpt", intermediate_channels=(8.0, 8, 8, 8)), "intermediate_channels=8.0"),
        (lambda: small("upernet", pool_scales=(0,)), "pool_scales=0"),
        (lambda: small("upernet", pyramid_args={"out_channels": 16, "scales": ("4",)}), "scales="),
        (lambda: faster_rcnn("test_kat", 3, _skip_resise=True), "_skip_resise=True: expected an argument"),
    ],
)
def test_arguments_that_would_fail_late_or_be_ignored(build, message):
    with pytest.raises(ValueError, match=message):
        build()
