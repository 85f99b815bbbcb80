"""The plugin's names, unmodified, inside transformers and segmentation_models_pytorch: at the native size and at another."""

import pytest
import segmentation_models_pytorch as smp
import torch
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    TimmBackbone,
    TimmBackboneConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from kat_zoo.dense import accept_any_size

SIZES = [pytest.param((224, 224), id="native"), pytest.param((96, 130), id="other")]
NAMES = ["test_kat", pytest.param("kat_tiny_patch16_224", marks=pytest.mark.slow)]


def backbone_config(name, indices=(-1,)):
    return TimmBackboneConfig(backbone=name, out_indices=list(indices), features_only=True, use_pretrained_backbone=False)


def prepared(model, size):
    return accept_any_size(model) if size != (224, 224) else model


def check_gradients(vit, unused=("norm.", "head.")):
    missing = [key for key, p in vit.named_parameters() if p.grad is None and not key.startswith(unused)]
    assert not missing


def grid(size):
    return tuple(-(-side // 16) for side in size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*NAMES, pytest.param("karat_tiny_g3b_patch16_224", marks=pytest.mark.slow)])
def test_timm_backbone(name, size):
    model = TimmBackbone(backbone_config(name, (1, 3, 5)))
    if name.startswith("karat") and size != (224, 224):
        model._backbone.model.set_input_size((96, 144))
        size = (96, 144)
    else:
        prepared(model, size)
    maps = model(torch.rand(1, 3, *size)).feature_maps
    assert [tuple(m.shape[2:]) for m in maps] == [grid(size)] * 3
    sum(m.square().mean() for m in maps).backward()
    check_gradients(model._backbone.model)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_upernet(name, size):
    config = UperNetConfig(
        backbone_config=backbone_config(name, (0, 2, 3, 5)),
        hidden_size=16,
        auxiliary_channels=16,
        num_labels=4,
    )
    torch.manual_seed(0)
    model = prepared(UperNetForSemanticSegmentation(config), size)
    outputs = model(torch.rand(2, 3, *size), labels=torch.randint(4, (2, *size)))
    assert outputs.logits.shape == (2, 4, *size)
    outputs.loss.backward()
    check_gradients(model.backbone._backbone.model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Backbone timm_backbone is not a supported model")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["kat_tiny_patch16_224"])
def test_mask2former(name, size):
    config = Mask2FormerConfig(
        backbone_config=backbone_config(name, (0, 2, 3, 5)),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        dim_feedforward=32,
        num_attention_heads=2,
        num_queries=5,
        train_num_points=64,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = prepared(Mask2FormerForUniversalSegmentation(config), size)
    masks = (torch.rand(1, *size) > 0.5).float()
    outputs = model(torch.rand(1, 3, *size), mask_labels=[masks], class_labels=[torch.tensor([1])])
    assert outputs.loss.isfinite()
    outputs.loss.backward()
    check_gradients(model.model.pixel_level_module.encoder._backbone.model)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["kat_tiny_patch16_224"])
def test_detr(name, size):
    config = DetrConfig(
        backbone_config=backbone_config(name),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=5,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = prepared(DetrForObjectDetection(config), size)
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.3]])}]
    outputs = model(torch.rand(1, 3, *size), labels=labels)
    assert outputs.pred_boxes.shape == (1, 5, 4) and outputs.loss.isfinite()
    outputs.loss.backward()
    check_gradients(model.model.backbone.model.model)


@pytest.mark.parametrize("size", [pytest.param((224, 224), id="native"), pytest.param((96, 128), id="other")])
@pytest.mark.parametrize("name", NAMES)
def test_smp_dpt(name, size):
    other = {"dynamic_img_size": True} if size != (224, 224) else {}
    model = smp.DPT(
        f"tu-{name}",
        encoder_weights=None,
        decoder_intermediate_channels=(8, 16, 16, 16),
        decoder_fusion_channels=16,
        classes=4,
        **other,
    )
    logits = model(torch.rand(2, 3, *size))
    assert logits.shape == (2, 4, *size)
    logits.square().mean().backward()
    check_gradients(model.encoder.model)
