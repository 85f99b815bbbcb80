"""to_kat: any timm model with timm's MLPs computes the same with rationals in their place."""

import copy

import pytest
import timm
import torch
from timm.layers.mlp import ConvMlp, GluMlp, SwiGLU
from torch import nn

from kat_zoo import to_kat
from kat_zoo.hub import save_model
from kat_zoo.layers import GroupRational
from kat_zoo.transfer.calibration import may_permute, permute_hidden

# Small models, one of each way to hold an MLP.
MODELS = {
    "test_convnext": {},
    "test_convnext2": {},
    "convnext_atto": dict(conv_mlp=True, depths=(1, 1, 1, 1)),
    "test_vit3": {},  # attention pooling
    "deit_tiny_distilled_patch16_224": dict(depth=2, img_size=64),
    "vit_relpos_small_patch16_224": dict(depth=2, img_size=64),
    "samvit_base_patch16_224": dict(depth=1, img_size=64),
    "vit_tiny_r_s16_p8_224": dict(depth=2, img_size=64),  # a convolutional stem
    "mixer_s32_224": dict(img_size=64),
    "swin_tiny_patch4_window7_224": dict(depths=(1, 1), num_heads=(3, 6), img_size=56),
    "beit_base_patch16_224": dict(depth=1, img_size=64),
    "cait_xxs24_224": dict(depth=2, img_size=64),
    "xcit_nano_12_p16_224": dict(depth=2, img_size=64),
    "vit_small_patch16_dinov3": dict(depth=2, img_size=64),  # RoPE, registers
    "eva02_tiny_patch14_224": dict(depth=2, img_size=56),  # a gate
}


@torch.no_grad()
def realistic(name, **kwargs):
    """A model whose pre-activations have a standard deviation of about 1.5, as in trained ones, and whose MLPs matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0, **kwargs).eval()
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1 and ("mlp" in key or "fc1" in key):
            fan_in = parameter[0].numel()
            parameter.copy_((1.5 if "fc1" in key else 1.0) * torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        elif key.endswith("gamma") or "gamma" in key.rpartition(".")[2]:
            parameter.fill_(0.7)
    return model


def inputs(model, count, seed, size):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_the_same(name):
    model = realistic(name, **MODELS[name])
    size = MODELS[name].get("img_size", 64 if "convnext" in name else model.pretrained_cfg["input_size"][1])
    before = copy.deepcopy(model.state_dict())
    kat, report = to_kat(model, inputs(model, 8, 1, size))
    rationals = [module for module in kat.modules() if isinstance(module, GroupRational)]
    assert len(rationals) == len(report.blocks) > 0 and not report.left and report.calibrated
    x = inputs(model, 4, 2, size)
    with torch.no_grad():
        expected, y = model(x), kat(x)
    assert (y - expected).norm() < 3e-3 * expected.norm()
    assert all(fit.output_error < 3e-3 and fit.output_error < fit.output_errors["default"] for fit in report.blocks)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    # The activations do matter: without them the model computes something else.
    for module in rationals:
        module.weight_numerator.data.zero_()
    with torch.no_grad():
        assert (kat(x) - expected).norm() > 0.01 * expected.norm()


def test_weights_load_again():
    model = realistic("test_convnext")
    x = inputs(model, 2, 1, 64)
    kat, _ = to_kat(model, x, num_groups=4)
    again, report = to_kat(timm.create_model("test_convnext", num_classes=0), order=(8, 7), num_groups=4)
    again.load_state_dict(kat.state_dict())
    assert not report.calibrated and torch.equal(again(x), kat(x))


def test_groups_divide_every_width():
    kat, _ = to_kat(realistic("test_convnext"), inputs(None, 2, 1, 64), num_groups=7)
    groups = {m.num_groups for m in kat.modules() if isinstance(m, GroupRational)}
    assert groups and all(96 % count == 0 and count <= 7 for count in groups)


@pytest.mark.parametrize("norm", [None, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm])
def test_hidden_channels_change_places_only_where_it_changes_nothing(norm):
    generator = torch.Generator().manual_seed(0)
    layer = (lambda width, **_: nn.GroupNorm(4, width)) if norm is nn.GroupNorm else norm
    mlp = timm.layers.Mlp(6, 16, 5, norm_layer=layer).double()
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    assert may_permute(mlp) == (norm is not nn.GroupNorm)
    if norm is not nn.GroupNorm:
        x = torch.randn(7, 6, generator=generator, dtype=torch.float64)
        y = mlp(x)
        permute_hidden(mlp, torch.randperm(16, generator=generator))
        torch.testing.assert_close(mlp(x), y)


@pytest.mark.parametrize("mlp", [GluMlp(6, 16), SwiGLU(6, 16)], ids=lambda mlp: type(mlp).__name__)
def test_channels_under_a_gate_stay(mlp):
    assert not may_permute(mlp)


def test_a_batch_norm_moves_with_its_channels():
    mlp = ConvMlp(6, 16, 5, norm_layer=nn.BatchNorm2d).eval()
    nn.init.uniform_(mlp.norm.running_var, 0.5, 2)
    nn.init.normal_(mlp.norm.running_mean)
    x = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    y = mlp(x)
    assert may_permute(mlp)
    permute_hidden(mlp, torch.randperm(16, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(mlp(x), y)


class Adapter(nn.Module):
    """A linear layer with a low-rank addition, under the names of the layer alone."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.a, self.b = (nn.Parameter(torch.randn(*shape) / 8) for shape in ((layer.out_features, 2), (2, layer.in_features)))

    @property
    def weight(self):
        return self.layer.weight

    @property
    def bias(self):
        return self.layer.bias

    def forward(self, x):
        return self.layer(x) + x @ self.b.T @ self.a.T


def adapt(blocks, name):
    for block in blocks:
        setattr(block.mlp, name, Adapter(getattr(block.mlp, name)))


def tie(blocks, name):
    setattr(blocks[0].mlp, name, getattr(blocks[1].mlp, name))


def tie_weights(blocks, name):
    getattr(blocks[0].mlp, name).weight = getattr(blocks[1].mlp, name).weight


def parametrize(blocks, name):
    for block in blocks:
        nn.utils.parametrizations.spectral_norm(getattr(block.mlp, name))


def weight_norm(blocks, name):
    for block in blocks:
        nn.utils.parametrizations.weight_norm(getattr(block.mlp, name))


@pytest.mark.parametrize("name", ["fc1", "fc2"])
@pytest.mark.parametrize("change", [adapt, tie, tie_weights, parametrize, weight_norm], ids=lambda change: change.__name__)
def test_layers_that_are_more_than_their_own_weights_stay_as_they_are(change, name):
    model = realistic("test_vit", depth=2, img_size=64)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        change(model.blocks, name)
    model.eval()
    report = to_kat(model, inputs(model, 4, 1, 64))[1]
    assert report.relative_logits_error < 3e-3 and max(fit.output_error for fit in report.blocks) < 3e-3


def test_one_module_may_be_every_activation():
    model, x = realistic("test_convnext"), inputs(None, 2, 1, 64)
    apart = to_kat(model, x)[1]
    mlps = [module for module in model.modules() if isinstance(module, timm.layers.Mlp)]
    for mlp in mlps:
        mlp.act = mlps[0].act
    assert to_kat(model, x)[1] == apart


@pytest.mark.parametrize(
    "name, options",
    [
        ("csatv2", {}),  # whose first convolution is not of the image
        ("test_vit", {"img_size": 64, "in_chans": 1}),
        ("mixer_s32_224", {"img_size": 64}),
    ],
)
def test_noise_has_the_shape_that_a_model_takes(name, options):
    report = to_kat(timm.create_model(name, **options))[1]
    assert report.blocks and report.relative_logits_error < 0.1


def test_a_model_in_others_is_converted():
    model = nn.Sequential(nn.Identity(), realistic("test_vit", depth=1, img_size=64))
    assert [fit.name for fit in to_kat(model)[1].blocks] == ["1.blocks.0.mlp"]


def test_where_no_noise_fits_images_are_asked_for():
    model = timm.create_model("hiera_tiny_224", img_size=64)
    with pytest.raises(ValueError, match=r"images=None, noise of shape \(3, 224, 224\): the model does not take them .*; pass images"):
        to_kat(model)
    assert to_kat(model, inputs(None, 2, 1, 64))[1].relative_logits_error < 3e-3


def test_mlps_of_other_kinds_are_named():
    report = to_kat(timm.create_model("efficientformer_l1"), inputs(None, 1, 1, 224))[1]
    assert len(report.left) == 14 and all(name.endswith(".mlp") for name in report.left)
    for name, kind in {"pvt_v2_b0": "MlpWithDepthwiseConv", "test_kat": "GRKAN", "resnet18": "no MLP"}.items():
        with pytest.raises(ValueError, match=f"with {kind}"):
            to_kat(timm.create_model(name))


def test_feature_maps_are_compared():
    model = timm.create_model("test_vit", features_only=True, img_size=64)
    assert to_kat(model, inputs(None, 2, 1, 64))[1].relative_logits_error < 3e-3
    model = realistic("test_vit", depth=1, img_size=64)
    model.forward = lambda x: {"logits": model.forward_features(x), "number": 3}
    with pytest.raises(ValueError, match="model that returns int: expected tensors"):
        to_kat(model, inputs(None, 2, 1, 64))


@pytest.mark.parametrize("model", [None, {}, "kat.pt"], ids=repr)
def test_models_without_modules_are_refused(model):
    with pytest.raises((ValueError, RuntimeError), match="expected a timm model|Unknown model"):
        to_kat(model)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="none of them on the meta device"):
        to_kat(timm.create_model("test_convnext", device="meta"))


def prelu():
    model = timm.create_model("test_convnext")
    for module in model.modules():
        if isinstance(module, timm.layers.Mlp):
            module.act = nn.PReLU(module.fc1.out_features)
    return model


REFUSED = {"ResNet with no MLP": lambda: timm.create_model("resnet18"), "ConvNeXt with Mlp": prelu}


@pytest.mark.parametrize("message", REFUSED)
def test_models_without_such_an_mlp_are_refused(message):
    with pytest.raises(ValueError, match=f"model of class {message}: expected timm's Mlp"):
        to_kat(REFUSED[message]())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(images=[]), "images without a batch: expected"),
        (dict(images=torch.zeros(2, 1, 64, 64)), r"images of shape \(2, 1, 64, 64\): the model does not take them \(.*3 channels"),
        (dict(num_groups=0), "num_groups=0: expected"),
        (dict(order=(9, 4)), "order"),
        (dict(init_range=(1, 1)), "init_range"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        to_kat(timm.create_model("test_convnext"), **arguments)


def test_a_conversion_is_not_saved_under_the_name_of_its_source(tmp_path):
    """timm would make the source, which its weights do not fit."""
    model, _ = to_kat(timm.create_model("test_vit"))
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.act, made by to_kat: expected one that timm"):
        save_model(model, tmp_path / "kat")
    assert not (tmp_path / "kat").exists()
