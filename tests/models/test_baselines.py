"""Baselines: their sizes are those of the paper's table, and their mixers compute their formulas."""

import pytest
import timm
import torch
from timm.models._manipulate import reinit_non_persistent_buffers
from torch import nn

from kat_zoo.hub import registry as zoo
from kat_zoo.kernels.bspline_torch import bspline_basis_reference
from kat_zoo.layers.mixers import ChannelPReLU, KANMlp, LANMlp, mixer_layer
from kat_zoo.layers.spline_linear import SplineLinear


@pytest.mark.parametrize(("name", "params", "gflops"), [("tiny", 9.25, 1.78), ("small", 36.2, 7.05), ("base", 143.2, 28.04)])
def test_vit_kan_has_the_live_size_of_the_papers_table(name, params, gflops):
    size = zoo.entry(f"vit_kan_{name}_patch16_224").size
    assert round(size.params / 1e6, 2 if name == "tiny" else 1) == params
    norms = (2 * 12 + 1 + 2 * 12) * 197 * size.num_features  # the paper's counter takes a LayerNorm for 5 operations an element
    assert round(size.gmacs + 5 * norms / 1e9, 2) == gflops


@pytest.mark.parametrize("name", ["mlp", "swiglu", "lan"])
def test_twins_have_the_size_of_kat(name):
    twin, kat = (zoo.entry(n).size for n in (f"vit_{name}_pico_patch4_28", "kat_pico_patch4_28.fmnist"))
    assert twin.params == pytest.approx(kat.params, rel=0.04) and twin.gmacs == pytest.approx(kat.gmacs, rel=0.05)


def test_spline_linear_is_the_sum_of_splines(generator):
    layer = SplineLinear(5, 7, num_bases=6, spline_order=2, grid_range=(-1.5, 1))
    x = 2 * torch.randn(3, 4, 5, generator=generator)  # some of it outside the grid
    basis = bspline_basis_reference(x, layer.knots, 2)
    assert basis.shape[-1] == 6
    torch.testing.assert_close(layer(x), torch.einsum("bnij,ijo->bno", basis, layer.coef.double()).float())
    torch.testing.assert_close(layer(x[0, 0]), layer(x)[0, 0])
    assert layer(x[:0]).shape == (0, 4, 7) and list(layer.state_dict()) == ["coef"]
    for change in (lambda: layer.set_mask(layer.mask), lambda: layer.set_grid(layer.knots, layer.coef)):
        with pytest.raises(ValueError, match="SplineLinear"):
            change()
    with pytest.raises(ValueError, match="num_bases=3"):
        SplineLinear(5, 7, num_bases=3)


def test_saved_weights_of_vit_kan_are_enough():
    model, other = (timm.create_model("vit_kan_pico_patch4_28", depth=1) for _ in range(2))
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 1, 28, 28)
    nn.init.normal_(model.head.weight), other.head.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(other.double().float()(x), model(x))
    assert other.blocks[0].mlp.fc1.knots.dtype == torch.float64


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", ["vit_kan_pico_patch4_28", "kan_mlp_pico_28"])
def test_splines_built_on_meta_get_their_grid(name, assign):
    model, other = timm.create_model(name).eval(), timm.create_model(name, device="meta").eval()
    if not assign:
        other.to_empty(device="cpu")
        for buffer in other.buffers():
            buffer.fill_(torch.nan)  # as empty memory may be
    other.load_state_dict(model.state_dict(), assign=assign)
    reinit_non_persistent_buffers(other)
    x = torch.randn(2, 1, 28, 28)
    nn.init.normal_(model.get_classifier().weight), other.get_classifier().load_state_dict(model.get_classifier().state_dict())
    assert torch.equal(other(x), model(x))
    for key, value in model.named_buffers():
        assert torch.equal(other.get_buffer(key), value), key


def test_fourier_mixer_is_its_series(generator):
    mixer = mixer_layer("fourier", num_bases=4)(6, 5)
    x = torch.randn(2, 3, 6, generator=generator)
    for norm, layer in ((mixer.norm1, mixer.fc1), (mixer.norm2, mixer.fc2)):
        z, weight = norm(x), layer[1].weight.unflatten(1, (4, -1))  # (out, function, in)
        waves = torch.stack([z.cos(), (2 * z).cos(), z.sin(), (2 * z).sin()], -2)
        x = torch.einsum("bnfi,ofi->bno", waves, weight) + layer[1].bias
    torch.testing.assert_close(mixer(torch.randn(2, 3, 6, generator=generator.manual_seed(0))), x)


def test_prelu_is_torchs_on_the_last_axis(generator):
    act = ChannelPReLU(5)
    nn.init.normal_(act.weight, generator=generator)
    x = torch.randn(2, 3, 5, generator=generator)
    torch.testing.assert_close(act(x), torch.nn.functional.prelu(x.transpose(1, 2), act.weight).transpose(1, 2))


def test_lan_starts_as_the_perceptron_and_every_node_learns_its_own():
    lan, mlp = LANMlp(6, 9), mixer_layer("mlp")(6, 9)
    mlp.load_state_dict({k: v for k, v in lan.state_dict().items() if k.startswith("fc")})
    x = torch.randn(4, 6)
    torch.testing.assert_close(lan(x), mlp(x), atol=1e-2, rtol=0)
    lan(x).square().sum().backward()
    assert lan.act.weight_numerator.grad.shape == (9, 6) and len(lan.act.weight_numerator.grad.unique(dim=0)) == 9


@pytest.mark.parametrize("name", ["vit_kan_pico_patch4_28", "karat_pico_patch4_28"])
def test_swiglu_is_swiglu_in_every_block(name):
    mlp = timm.create_model(name, depth=1, mixer="swiglu").blocks[0].mlp
    x = torch.randn(3, 96)
    torch.testing.assert_close(mlp(x), mlp.fc2(nn.functional.silu(mlp.fc1_g(x)) * mlp.fc1_x(x)))


@pytest.mark.parametrize("name", ["in_features", "hidden_features", "drop", "bias", "norm_layer", "act_layer", "grid_range", "no_option"])
@pytest.mark.parametrize("options", [{"mixer": "fourier"}, {"mixer": "kan", "basis": "fourier"}, {"mixer": "gr_kan"}, {"mixer": "mlp"}])
def test_options_that_would_be_ignored_are_refused(name, options):
    basis = {key: value for key, value in options.items() if key == "basis"}
    with pytest.raises(ValueError, match=f"mixer_kwargs with {name}=3 for mixer=.*: expected "):
        timm.create_model("vit_kan_pico_patch4_28", depth=1, mixer=options["mixer"], mixer_kwargs={**basis, name: 3})


@pytest.mark.parametrize("mixer", ["mlp", "swiglu", "gr_kan", "fourier", "lan"])
def test_the_bases_of_a_model_do_not_reach_another_mixer(mixer):
    assert timm.create_model("vit_kan_pico_patch4_28", depth=1, mixer=mixer).blocks[0].mlp


@pytest.mark.parametrize("given, bases", [({}, 7), ({"grid_range": (-3, 3)}, 7), ({"num_bases": 5}, 5)])
def test_options_of_a_mixer_join_those_of_the_model(given, bases):
    layer = timm.create_model("vit_kan_pico_patch4_28", depth=1, mixer_kwargs=given).blocks[0].mlp.fc1
    assert layer.coef.shape[1] == bases and layer.grid_range == tuple(given.get("grid_range", (-2, 2)))


def test_the_combination_has_both():
    model = timm.create_model("karat_kat_pico_patch4_28", depth=1)
    kinds = {type(m).__name__ for m in model.modules()}
    assert {"GRKAN", "FourierHeads"} <= kinds and "Mlp" not in kinds


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mixer_layer("kna"), "mixer='kna'"),
        (lambda: timm.create_model("test_karat", mixer=["a"]), "mixer=\\['a'\\]"),
        (lambda: mixer_layer("fourier", num_bases=-2)(8), "num_bases=-2"),
        (lambda: KANMlp(8, basis="wave"), "basis='wave'"),
        (lambda: KANMlp(8, basis="fourier", num_bases=5), "num_bases=5"),
        (lambda: LANMlp(8, activation="relu"), "activation='relu'"),
        (lambda: SplineLinear(8, 2)(torch.zeros(3, 4)), r"x of shape .*3, 4.*: expected \(..., 8\)"),
        (lambda: SplineLinear(8, 2)(torch.zeros(())), "x of shape"),
        (lambda: timm.create_model("mlp_pico_28", hidden=()), "hidden=\\(\\)"),
        (lambda: timm.create_model("mlp_pico_28", hidden=64), "hidden=64: expected a list"),
        (lambda: timm.create_model("mlp_pico_28", hidden=[6.5]), "hidden=\\[6.5\\]: expected a list"),
        (lambda: timm.create_model("mlp_pico_28", num_classes=-1), "num_classes=-1: expected an integer of at least 0"),
        (lambda: timm.create_model("mlp_pico_28", layer="lan"), "layer='lan'"),
        (lambda: timm.create_model("mlp_pico_28", features_only=True), "features_only=True"),
    ],
)
def test_what_makes_no_sense_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
