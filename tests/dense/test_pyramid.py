"""The pyramid: windows against masked attention, any image size against timm, KArAt's interpolation, freezing, layer decay."""

import ast
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from torch.nn import functional as F
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

import kat_zoo
from kat_zoo.dense import SimpleFeaturePyramid, ViTFeatures, accept_any_size
from kat_zoo.dense.features import quarter_blocks
from kat_zoo.dense.windows import windowed_attention


def vit(name="test_kat", **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


def grads(model, images, between=None):
    model.zero_grad()
    outputs = model(images)
    if between is not None:
        model(between)
    levels = outputs.values() if isinstance(outputs, dict) else outputs
    sum((level * level.detach().cos()).sum() for level in levels).backward()
    return {name: p.grad for name, p in model.named_parameters()}


def window_masks(grid, window, prefix):
    """For each window the additive mask under which global attention sees that window (and the prefix) only."""
    row, column = torch.meshgrid(*(torch.arange(size) // window for size in grid), indexing="ij")
    number = (row * (-(-grid[1] // window)) + column).flatten()
    same = number[:, None] == number[None]
    for w in range(int(number.max()) + 1):
        allowed = torch.ones(prefix + len(number), prefix + len(number), dtype=torch.bool)
        allowed[prefix:, prefix:] = same
        allowed[:prefix, prefix:] = number == w
        yield torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, float("-inf"))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("grid, window", [((6, 4), 2), ((5, 7), 3), ((2, 9), 4), ((4, 4), 4), ((3, 2), 14)])
def test_windows_are_masked_global_attention(grid, window, prefix, fused, generator):
    attn = Attention(16, num_heads=2, qkv_bias=True).double()
    attn.fused_attn = fused
    x = torch.randn(2, prefix + grid[0] * grid[1], 16, dtype=torch.float64, generator=generator)
    out = windowed_attention(attn, x, grid, window, prefix)
    expected = torch.stack([attn(x, attn_mask=mask) for mask in window_masks(grid, window, prefix)])
    torch.testing.assert_close(out[:, prefix:], expected[0][:, prefix:])
    torch.testing.assert_close(out[:, :prefix], expected[:, :, :prefix].mean(0))


@pytest.mark.parametrize("name", ["test_kat", "test_vit", "kat_pico_patch4_28"])
def test_a_window_over_the_whole_image_is_global_attention(name, generator):
    backbone = vit(name)
    channels = backbone.patch_embed.proj.in_channels
    plain = ViTFeatures(deepcopy(backbone))
    windowed = ViTFeatures(deepcopy(backbone), window_size=8, global_blocks=())
    assert windowed.windowed == list(range(len(backbone.blocks)))
    size = 5 * plain.patch_size
    images = torch.randn(2, channels, size, size - 3, generator=generator)
    torch.testing.assert_close(windowed(images), plain(images))
    expected = grads(plain, images)
    for key, grad in grads(windowed, images).items():
        torch.testing.assert_close(grad, expected[key], msg=key)
    small = ViTFeatures(deepcopy(backbone), window_size=2)
    assert small.windowed == [i for i in range(len(backbone.blocks)) if i not in quarter_blocks(len(backbone.blocks))]
    if small.windowed:
        assert not torch.allclose(small(images)[0], plain(images)[0])


@pytest.mark.parametrize(
    "depth, blocks", [(12, [2, 5, 8, 11]), (24, [5, 11, 17, 23]), (6, [0, 2, 3, 5]), (4, [0, 1, 2, 3]), (2, [0, 1]), (1, [0])]
)
def test_global_blocks_end_each_quarter(depth, blocks):
    assert quarter_blocks(depth) == blocks


SIZES = [(64, 64), (70, 100), (16, 200), (5, 3)]


@pytest.mark.parametrize(
    "name, size",
    [*((name, size) for name in ("test_kat", "test_vit") for size in SIZES), ("deit_tiny_distilled_patch16_224", (50, 70))],
)
def test_any_size_agrees_with_timm(name, size, generator):
    reference = vit(name, dynamic_img_size=True, dynamic_img_pad=True).eval()
    features = ViTFeatures(vit(name), indices=(1, -1)).eval()
    images = torch.randn(2, 3, *size, generator=generator)
    expected = reference.forward_intermediates(images, indices=[1, len(reference.blocks) - 1], intermediates_only=True)
    torch.testing.assert_close(features(images), expected)
    padded = F.pad(images, (0, -size[1] % 16, 0, -size[0] % 16))
    torch.testing.assert_close(features(padded), expected)


def test_levels_have_their_strides(generator):
    pyramid = SimpleFeaturePyramid(vit(), 24, scales=(8, 4, 2, 1, 0.5, 0.25), extra_blocks=LastLevelMaxPool())
    levels = pyramid(torch.randn(1, 3, 80, 100, generator=generator))
    assert list(levels) == ["0", "1", "2", "3", "4", "5", "pool"]
    sizes = [(40, 56), (20, 28), (10, 14), (5, 7), (3, 4), (2, 2), (1, 1)]
    assert [tuple(level.shape) for level in levels.values()] == [(1, 24, *size) for size in sizes]
    assert pyramid.strides == [2, 4, 8, 16, 32, 64]
    top = SimpleFeaturePyramid(vit(), 32, scales=(2, 1, 0.5), extra_blocks=LastLevelP6P7(32, 32))
    assert list(top(torch.randn(1, 3, 64, 64))) == ["0", "1", "2", "p6", "p7"]


@pytest.mark.parametrize("name", ["test_kat", "test_vit", "test_karat", "deit_tiny_distilled_patch16_224"])
def test_gradients_reach_every_parameter(name, generator):
    pyramid = SimpleFeaturePyramid(vit(name), 16, indices=(0, 2, 3, 5) if name.startswith("test") else (-1,))
    missing = [key for key, grad in grads(pyramid, torch.randn(1, 3, 48, 70, generator=generator)).items() if not grad.any()]
    assert not missing


@pytest.mark.parametrize("name, window", [("test_kat", 2), ("test_karat", 0)])
def test_checkpointing_changes_no_gradient(name, window, generator):
    pyramid = SimpleFeaturePyramid(vit(name), 16, window_size=window)
    images = torch.randn(2, 3, 80, 70, generator=generator)
    expected = grads(pyramid, images)
    pyramid.set_grad_checkpointing()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        pyramid(images)
        with_checkpoints = sum(saved)
        saved.clear()
        pyramid.set_grad_checkpointing(False)
        pyramid(images)
    assert with_checkpoints < sum(saved) / 2
    pyramid.set_grad_checkpointing()
    # An image of another size between forward and backward must not matter to the recomputation.
    for key, grad in grads(pyramid, images, between=images[..., :33]).items():
        torch.testing.assert_close(grad, expected[key], msg=key)


@pytest.mark.parametrize("mode", ["blockwise", "universal"])
def test_karat_is_interpolated(mode, generator):
    backbone = vit("test_karat", mode=mode)
    features = ViTFeatures(deepcopy(backbone)).eval()
    images = torch.randn(2, 3, 64, 130, generator=generator)
    backbone.set_input_size((64, 144))
    padded = F.pad(images, (0, 14))
    expected = backbone.eval().forward_intermediates(padded, indices=1, intermediates_only=True)
    torch.testing.assert_close(features(images), expected, atol=2e-5, rtol=2e-5)


def test_karat_of_dynamic_size_is_interpolated_once(generator):
    images = torch.randn(1, 3, 80, 112, generator=generator)
    fixed, dynamic = (vit("test_karat", dynamic_img_size=dynamic) for dynamic in (False, True))
    dynamic.load_state_dict(fixed.state_dict())
    for ours, theirs in zip(ViTFeatures(dynamic.eval())(images), ViTFeatures(fixed.eval())(images), strict=True):
        assert torch.equal(ours, theirs)


def test_karat_variants_without_a_kernel_train_at_their_own_size_only(generator):
    features = ViTFeatures(vit("test_karat", base_function="silu"))
    own, other = torch.randn(1, 3, 96, 96, generator=generator), torch.randn(1, 3, 64, 64, generator=generator)
    features(own)[0].sum().backward()
    with pytest.raises(ValueError, match=r"images of 4 x 4 patches.*set_input_size"):
        features(other)
    with torch.no_grad():
        assert features(other)[0].shape == (1, 64, 4, 4)


def test_frozen_stages_stay_as_they_are(generator):
    pyramid = SimpleFeaturePyramid(vit(drop_path_rate=0.1), 16, frozen_stages=3)
    frozen = {name for name, p in pyramid.named_parameters() if not p.requires_grad}
    stem = {"backbone.cls_token", "backbone.pos_embed", "backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias"}
    blocks = {f"backbone.blocks.{i}.{name}" for i in range(3) for name, _ in pyramid.backbone.blocks[i].named_parameters()}
    assert frozen == stem | blocks
    pyramid.train()
    assert [block.training for block in pyramid.backbone.blocks] == [False] * 3 + [True] * 3
    assert pyramid.branches.training and not pyramid.eval().branches.training
    pyramid.train()
    images = torch.randn(4, 3, 48, 48, generator=generator)
    before = deepcopy(pyramid.state_dict())
    optimizer = torch.optim.AdamW(pyramid.parameters(), lr=1e-2)
    grads(pyramid, images)
    optimizer.step()
    changed = {name for name, value in pyramid.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(before) - frozen
    all_frozen = SimpleFeaturePyramid(vit(), 16, frozen_stages=6)
    assert not any(p.requires_grad for p in all_frozen.backbone.parameters())
    assert not [name for name, grad in grads(all_frozen, images).items() if "branches" in name and grad is None]


def test_layer_decay_counts_from_the_neck():
    pyramid = SimpleFeaturePyramid(vit(), 16)
    optimizer = create_optimizer_v2(pyramid, opt="adamw", lr=1e-3, weight_decay=0.1, layer_decay=0.5)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in pyramid.named_parameters():
        parts = name.split(".")
        distance = 0 if parts[0] == "branches" else 6 - int(parts[2]) if parts[1] == "blocks" else 7
        group = group_of[id(parameter)]
        assert group["lr_scale"] == 0.5**distance, name
        exempt = parameter.ndim == 1 or name.endswith(("pos_embed", "cls_token"))
        assert group["weight_decay"] == (0 if exempt else 0.1), name


def test_backbone_keeps_its_names():
    names = set(vit().state_dict())
    pyramid = SimpleFeaturePyramid(vit(), 16)
    assert names - set(pyramid.backbone.state_dict()) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert len(ViTFeatures(vit(), indices=(0, 2)).backbone.blocks) == 3


def test_an_exponential_average_is_a_copy(generator):
    pyramid = SimpleFeaturePyramid(vit(), 16, window_size=2, frozen_stages=1).eval()
    images = torch.randn(1, 3, 50, 70, generator=generator)
    average = deepcopy(pyramid)
    with torch.no_grad():
        for parameter in pyramid.parameters():
            parameter.zero_()
    assert all(level.any() for level in average(images).values())


def tiny(**kwargs):
    return VisionTransformer(img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2, num_classes=0, **kwargs)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: SimpleFeaturePyramid(timm.create_model("test_resnet")), "ResNet: expected a plain VisionTransformer"),
        (lambda: SimpleFeaturePyramid(tiny(patch_drop_rate=0.5)), "patch_drop_rate above 0: expected 0"),
        (lambda: SimpleFeaturePyramid(VisionTransformer(32, (16, 8), embed_dim=16, depth=1, num_heads=2)), "patches of 16 x 8"),
        (lambda: SimpleFeaturePyramid(tiny(), scales=(3, 1)), r"scales=\[3, 1\]: expected powers of two"),
        (lambda: SimpleFeaturePyramid(tiny(), scales=(1, 2)), "largest first"),
        (lambda: SimpleFeaturePyramid(tiny(), scales=()), r"scales=\[\]"),
        (lambda: SimpleFeaturePyramid(tiny(), scales=(0,)), r"scales=\[0\]"),
        (lambda: SimpleFeaturePyramid(tiny(), scales=(32, 1)), "16 channels cannot be halved 5 times"),
        (lambda: SimpleFeaturePyramid(tiny(), 0), "out_channels=0"),
        (lambda: SimpleFeaturePyramid(tiny(), indices=(0, 1)), "one block, or one for each of 4 scales"),
        (lambda: ViTFeatures(tiny(), (2,)), r"indices=\[2\]: expected block numbers from -2 to 1"),
        (lambda: ViTFeatures(tiny(), ()), r"indices=\[\]"),
        (lambda: ViTFeatures(tiny(), window_size=-1), "window_size=-1"),
        (lambda: ViTFeatures(tiny(), window_size=2, global_blocks=(5,)), r"global_blocks=\[5\]"),
        (lambda: ViTFeatures(tiny(), frozen_stages=3), "frozen_stages=3: expected an integer of at least -1 and at most 2"),
        (lambda: ViTFeatures(vit("test_karat"), window_size=2), r"block 1 \(KArAtAttention\) has no windowed form"),
        (lambda: ViTFeatures(tiny())(torch.zeros(1, 1, 32, 32)), r"shape \(1, 1, 32, 32\): expected \(B, 3, H, W\)"),
        (lambda: ViTFeatures(tiny())(torch.zeros(3, 32, 32)), r"shape \(3, 32, 32\)"),
        (lambda: accept_any_size(torch.nn.Linear(1, 1)), "Linear: expected a VisionTransformer"),
        (lambda: accept_any_size(vit("test_karat")), "KArAt.*set_input_size"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_names_are_imported_when_used():
    package = Path(kat_zoo.__file__).parent / "dense" / "__init__.py"
    imports = [node for node in ast.parse(package.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {node.module for node in imports} == {"_lazy", "typing"}
    assert all(getattr(kat_zoo.dense, name) for name in kat_zoo.dense.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = kat_zoo.dense.absent
