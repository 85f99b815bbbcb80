"""KAT against an independent float64 implementation of its formulas, its sizes, its initialisations and its errors."""

import math

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import kat_zoo  # noqa: F401


class Magnitude(torch.autograd.Function):
    """|x| with the convention of the published weights: slope +1 at 0."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.abs()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (1 - 2 * (x < 0).to(x))


def rational(x, a, b, groups=8):
    """y = sum a_i x^i / (1 + sum |b_j| |x|^j), channels cut into groups."""
    a = a.expand(groups, -1).repeat_interleave(x.shape[-1] // groups, 0)
    b = Magnitude.apply(b).expand(groups, -1).repeat_interleave(x.shape[-1] // groups, 0)
    p = sum(a[:, i] * x**i for i in range(a.shape[1]))
    return p / (1 + sum(b[:, j] * Magnitude.apply(x) ** (j + 1) for j in range(b.shape[1])))


def layer_norm(x, p, name):
    centered = x - x.mean(-1, keepdim=True)
    return centered / (centered.square().mean(-1, keepdim=True) + 1e-6).sqrt() * p[name + ".weight"] + p[name + ".bias"]


def linear(x, p, name):
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def attention(x, p, name, heads):
    batch, tokens, dim = x.shape
    q, k, v = linear(x, p, name + ".qkv").reshape(batch, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-1, -2) / math.sqrt(dim // heads)).exp()
    y = scores / scores.sum(-1, keepdim=True) @ v
    return linear(y.transpose(1, 2).reshape(batch, tokens, dim), p, name + ".proj")


def oracle(p, images, patch, depth, heads, class_token):
    """Logits of a KAT from its parameters p (name -> float64 tensor)."""
    batch, channels, height, width = images.shape
    grid = images.reshape(batch, channels, height // patch, patch, width // patch, patch).permute(0, 2, 4, 1, 3, 5)
    x = grid.reshape(batch, -1, channels * patch**2) @ p["patch_embed.proj.weight"].flatten(1).T
    x = x + p["patch_embed.proj.bias"]
    if class_token:
        x = torch.cat([p["cls_token"].expand(batch, -1, -1), x], 1)
    x = x + p["pos_embed"]
    for i in range(depth):
        name = f"blocks.{i}."
        x = x + attention(layer_norm(x, p, name + "norm1"), p, name + "attn", heads)
        y = layer_norm(x, p, name + "norm2")
        for act, fc in (("act1", "fc1"), ("act2", "fc2")):
            a, b = (p[f"{name}mlp.{act}.weight_{part}"] for part in ("numerator", "denominator"))
            y = linear(rational(y, a, b), p, f"{name}mlp.{fc}")
        x = x + y
    x = layer_norm(x, p, "norm")[:, 0] if class_token else layer_norm(x.mean(1), p, "fc_norm")
    return linear(x, p, "head")


@pytest.mark.parametrize("name, size, class_token", [("test_kat", 64, True), ("kat_pico_patch4_28", 28, False)])
def test_logits_and_all_gradients_are_the_formulas(name, size, class_token):
    model = timm.create_model(name, img_size=size, num_classes=7, depth=3, weight_init="kan").double()
    images = torch.randn(2, model.in_chans, size, size, dtype=torch.float64)
    heads, patch = model.blocks[0].attn.num_heads, model.patch_embed.patch_size[0]
    parameters = {k: v.detach().clone().requires_grad_() for k, v in model.named_parameters()}
    # Zero denominators (act1 starts as the identity) are where the convention sign(0) = +1 shows.
    assert (parameters["blocks.0.mlp.act1.weight_denominator"] == 0).all()
    expected = oracle(parameters, images, patch, 3, heads, class_token)
    logits = model(images)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(logits)
    gradients = torch.autograd.grad((expected * weights).sum(), list(parameters.values()))
    (logits * weights).sum().backward()
    for (key, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        assert gradient.any(), key
        scale = gradient.abs().max().item()
        assert (parameter.grad - gradient).abs().max() <= 1e-10 * scale, key


SIZES = {
    "kat_tiny_patch16_224": (5_718_328, 1.08, 1.13),
    "kat_small_patch16_224": (22_051_576, 4.25, 4.35),
    "kat_base_patch16_224": (86_568_568, 16.87, 17.1),
}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_multiply_adds(name):
    parameters, low, high = SIZES[name]
    model = timm.create_model(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == 200
    # Counted as in the paper: linear layers, the patch embedding and the rationals (10 multiply-adds an element, the
    # division being one), not the products inside attention.
    rationals = {torch.ops.kat_zoo.rational: lambda x, *a, out_shape=None, **k: 2 * 10 * math.prod(x)}
    with FlopCounterMode(display=False, custom_mapping=rationals) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    counts = counter.get_flop_counts()["Global"]
    total = sum(value for op, value in counts.items() if "attention" not in str(op) and "bmm" not in str(op)) / 2e9
    assert low <= round(total, 2) <= high


def test_pico_fits_its_budget():
    model = timm.create_model("kat_pico_patch4_28")
    assert sum(p.numel() for p in model.parameters()) <= 700_000
    cfg = model.pretrained_cfg
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    assert (cfg["input_size"], cfg["mean"], cfg["std"]) == ((1, 28, 28), (0.2860,), (0.3530,))
    assert cfg.get("hf_hub_id") is None
    assert cfg["tag"] == "fmnist" and cfg["file"].endswith("kat_zoo/weights/kat_pico_patch4_28.fmnist.safetensors")


@pytest.mark.parametrize("mode", ["upstream", "upstream_mimetic", "kan", "kan_mimetic"])
def test_weight_init(mode):
    block = timm.create_model("kat_tiny_patch16_224", depth=1, weight_init=mode).blocks[0]
    fc1, fc2 = (0.02, 0.02) if mode.startswith("upstream") else ((1 / 192) ** 0.5, (2.8178 / 768) ** 0.5)
    assert block.mlp.fc1.weight.std().item() == pytest.approx(fc1, rel=0.03)
    assert block.mlp.fc2.weight.std().item() == pytest.approx(fc2, rel=0.03)
    product = block.attn.qkv.weight[384:].T @ block.attn.proj.weight.T
    assert product.diag().mean().item() == pytest.approx(-0.4 if mode.endswith("mimetic") else 0, abs=0.02)


@pytest.mark.parametrize("mode", ["upstream", "upstream_mimetic", "kan", "kan_mimetic"])
def test_fix_init_scales_what_was_drawn(mode):
    weights = []
    for fix_init in (False, True):
        torch.manual_seed(0)
        block = timm.create_model("test_kat", depth=2, weight_init=mode, fix_init=fix_init).blocks[1]
        weights.append((block.attn.proj.weight, block.mlp.fc2.weight))
    for plain, fixed in zip(*weights, strict=True):
        torch.testing.assert_close(fixed, plain / 2)  # sqrt(2 * 2)


def test_init_weights_refuses_what_the_constructor_does():
    with pytest.raises(ValueError, match="mode='jaxx': expected one of upstream"):
        timm.create_model("test_kat", depth=1).init_weights("jaxx")


def test_skipped_init_is_the_modules_own():
    torch.manual_seed(0)
    model = timm.create_model("test_kat", depth=1, weight_init="skip")
    assert model.blocks[0].mlp.fc1.weight.std().item() == pytest.approx((1 / 3 / 64) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    "act_init, act1, act2",
    [("gelu", "identity", "gelu"), ("swish-swish", "swish", "swish"), ("identity-identity", "identity", "identity")],
)
def test_act_init(act_init, act1, act2):
    mlp = timm.create_model("test_kat", depth=1, act_init=act_init).blocks[0].mlp
    assert (mlp.act1.init, mlp.act2.init) == (act1, act2)


def test_groups_and_order():
    mlp = timm.create_model("test_kat", depth=1, act_init="identity", num_groups=4, order=[3, 2]).blocks[0].mlp
    assert mlp.act2.weight_numerator.shape == (1, 4) and mlp.act2.weight_denominator.shape == (4, 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weight_init": "xavier"}, "weight_init='xavier': expected one of upstream"),
        ({"weight_init": "kan_mimetic", "attn_layer": "diff"}, "weight_init='kan_mimetic' with DiffAttention: expected no attn_layer"),
        ({"act_init": "sinus"}, "init='sinus'"),
        ({"num_groups": 7}, "in_features=64: expected a multiple of num_groups=7"),
        ({"act_layer": "relu"}, "act_layer='relu': expected None, .* act_init"),
        ({"order": [5]}, "order"),
        ({"order": 5}, r"order=5: expected \(m, n\)"),
        ({"num_groups": 0}, "num_groups=0: expected an integer"),
        ({"num_groups": "8"}, "num_groups='8': expected an integer"),
        ({"num_groups": True}, "num_groups=True: expected an integer"),
        ({"act_init": nn.GELU}, "act_init=.*GELU.*: expected names"),
        ({"norm_layer": nn.LayerNorm}, "norm_layer=.*LayerNorm.*: expected a string or a number"),
        ({"norm_eps": "1e-6"}, "norm_eps='1e-6': expected a finite number above 0"),
        ({"embed_layer": nn.Linear}, "embed_layer=.*Linear.*: expected a string or a number"),
        ({"mlp_layer": nn.Linear}, "mlp_layer=.*: expected None, .* GRKAN"),
        ({"block_fn": ParallelScalingBlock}, "block_fn=.*: expected None"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("test_kat", **arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_groups": 0}, "num_groups=0: expected an integer of at least 1"),
        ({"num_groups": 2.5}, "num_groups=2.5: expected an integer"),
        ({"act_init": 5}, "act_init=5: expected names"),
        ({"norm_layer": "groupnorm"}, "norm_layer='groupnorm': expected one of layernorm"),
        ({"norm_layer": 5}, "norm_layer=5: expected one of layernorm"),
        ({"act_init": nn.GELU}, "act_init=.*GELU.*: expected a string"),
        ({"norm_layer": nn.LayerNorm}, "norm_layer=.*LayerNorm.*: expected a string"),
        ({"mlp_layer": nn.Linear}, "mlp_layer=.*: expected None, .* GRKAN"),
    ],
)
def test_bad_arguments_of_the_mixer(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model("kat_mixer_pico_patch4_28", **arguments)


def test_the_mixer_takes_a_norm_by_its_name():
    model = timm.create_model("kat_mixer_pico_patch4_28", num_blocks=1, norm_layer="rmsnorm")
    assert {type(m).__name__ for m in (model.norm, model.blocks[0].norm1)} == {"RmsNorm"}
