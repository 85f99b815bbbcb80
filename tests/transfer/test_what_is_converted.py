"""vit_to_kat: what it takes, what it refuses and by which name, and what it leaves alone."""

import pytest
import timm
import torch
from timm.layers.mlp import SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn

from kat_zoo import to_kat, vit_to_kat

from .test_activations import images, realistic


def glu(vit):
    vit.blocks[1].mlp = SwiGLU(64, 192)
    return vit


def prelu(vit):
    vit.blocks[1].mlp.act = nn.PReLU()
    return vit


REFUSED = {
    "VisionTransformerDistilled": lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1),
    "vit of class KAT": lambda: timm.create_model("test_kat"),
    "vit of class ResNet": lambda: timm.create_model("resnet18"),
    "global_pool='map': expected timm's attention pooling with GELU": lambda: timm.create_model(
        "test_vit", global_pool="map", class_token=False, act_layer="gelu_tanh"
    ),
    "ParallelScalingBlock": lambda: timm.create_model("test_vit", block_fn=ParallelScalingBlock),
    "SwiGLU": lambda: glu(timm.create_model("test_vit")),
    "PReLU: expected one without parameters": lambda: prelu(timm.create_model("test_vit")),
    "vit of class Eva": lambda: timm.create_model("eva02_tiny_patch14_224", depth=1),
    "vit of class VisionTransformerRelPos": lambda: timm.create_model("vit_relpos_small_patch16_224", depth=1),
    "vit of class VisionTransformerSAM": lambda: timm.create_model("samvit_base_patch16_224", depth=1),
    "HybridEmbed": lambda: timm.create_model("vit_tiny_r_s16_p8_224", depth=1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_unsupported_models_are_refused(message):
    vit = REFUSED[message]()
    with pytest.raises(ValueError, match=message) as caught:
        vit_to_kat(vit)
    try:  # the advice is good
        to_kat(vit)
        taken = True
    except ValueError:
        taken = False
    assert ("; kat_zoo.to_kat keeps" in str(caught.value)) == taken


def with_head(head):
    vit = realistic(depth=1)
    vit.head = head
    return vit


@pytest.mark.parametrize("head", [nn.Linear(64, 7), nn.Identity()], ids=["linear", "identity"])
def test_a_head_may_have_been_replaced(head):
    vit = with_head(head)
    kat, report = vit_to_kat(vit, images(4, seed=1))
    assert kat(images(1, seed=2)).shape == vit(images(1, seed=2)).shape and report.relative_logits_error < 3e-3
    assert kat.num_classes == (7 if isinstance(head, nn.Linear) else 0)


def test_other_parts_are_refused_by_name():
    with pytest.raises(ValueError, match=r"head.0.bias \(9,\) in place of none, .*kat_zoo.to_kat keeps"):
        vit_to_kat(with_head(nn.Sequential(nn.Linear(64, 9))))
    vit = realistic(depth=2)
    nn.utils.parametrizations.weight_norm(vit.blocks[1].mlp.fc2)
    with pytest.raises(ValueError, match=r"blocks.1.mlp.fc2.parametrizations.weight.original0 .*; kat_zoo.to_kat keeps"):
        vit_to_kat(vit)
    with pytest.raises(ValueError, match="hidden width of blocks.0.mlp 140: expected a multiple of 8"):
        vit_to_kat(timm.create_model("test_vit", mlp_ratio=140.5 / 64))
    with pytest.raises(ValueError, match="none of them on the meta device"):
        vit_to_kat(timm.create_model("test_vit", device="meta"))
    for vit in (None, timm.models.VisionTransformer):
        with pytest.raises(ValueError, match="vit=.*: expected timm's plain VisionTransformer"):
            vit_to_kat(vit)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_float16_has_the_range_of_the_coefficients(scale):
    vit = realistic(depth=2, scale=scale)
    kat, _ = vit_to_kat(vit, images(8, seed=1))
    x = images(4, seed=2)
    with torch.no_grad():
        expected, y = vit(x), kat.half()(x.half()).float()
    assert (y - expected).norm() < 5e-3 * expected.norm()
    assert max(parameter.abs().max() for name, parameter in kat.named_parameters() if ".act" in name) <= 4096


def test_one_module_may_be_the_activation_of_all_blocks():
    vit = realistic(depth=2)
    vit.blocks[0].mlp.fc1.weight.data *= 5  # blocks with other arguments
    apart = vit_to_kat(vit, images(4, seed=1))[1]
    vit.blocks[0].mlp.act = vit.blocks[1].mlp.act
    assert vit_to_kat(vit, images(4, seed=1))[1] == apart


def test_a_conversion_leaves_the_random_state_and_keeps_what_is_frozen():
    vit = realistic(depth=2)
    vit.patch_embed.requires_grad_(False)
    vit.set_grad_checkpointing()
    before = torch.get_rng_state()
    kat, _ = vit_to_kat(vit, images(2, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    frozen = {name for name, parameter in kat.named_parameters() if not parameter.requires_grad}
    assert frozen == {"patch_embed.proj.weight", "patch_embed.proj.bias"} and kat.grad_checkpointing


def test_autocast_does_not_reach_the_fits():
    vit, x = realistic(depth=1), images(2, seed=1)
    plain = vit_to_kat(vit, x)[1]
    with torch.autocast("cpu", torch.bfloat16):
        assert vit_to_kat(vit, x)[1] == plain


def test_hidden_widths_survive_timms_rounding():
    vit = timm.create_model("test_vit", embed_dim=448, num_heads=7, depth=1, mlp_ratio=488.5 / 448)
    kat, _ = vit_to_kat(vit)
    assert kat.blocks[0].mlp.fc1.out_features == vit.blocks[0].mlp.fc1.out_features == 488


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(images=[]), "images without a batch"),
        (dict(images=torch.zeros(3, 64, 64)), r"\(B, C, H, W\)"),
        (dict(images=[(torch.zeros(1, 3, 64, 64), 0)]), r"\(B, C, H, W\)"),
        (dict(init_range=(2, -2)), r"init_range=\(2, -2\): expected"),
        (dict(init_range=3), "init_range=3: expected two finite numbers"),
        (dict(images=torch.zeros(2, 1, 64, 64)), r"images of shape \(2, 1, 64, 64\): the model does not take them \(.*3 channels"),
        (dict(images=torch.zeros(2, 3, 70, 64)), r"images of shape \(2, 3, 70, 64\): the model does not take them \(.*70"),
        (dict(images=torch.zeros(0, 3, 64, 64)), r"images of shape \(0, 3, 64, 64\) .*: expected"),
        (dict(images=torch.full((1, 3, 64, 64), torch.nan)), "expected .* finite"),
        (dict(images=torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), "and torch.uint8: expected normalized floating-point images"),
        (dict(images=5), "images=5: expected tensors"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        vit_to_kat(realistic(depth=1), **arguments)
