"""Claims of the page of Adamdad/kat."""

import re

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg
from timm.models.vision_transformer import VisionTransformer

import kat_zoo.dense
from kat_zoo.layers import GRKAN, GroupRational

from .pages import PAGES, ROOT, configuration, holds, read, run


@holds("kat", "`import kat_zoo`, the same name")
def _():
    model = timm.create_model("kat_tiny_patch16_224", device="meta")
    assert isinstance(model, VisionTransformer) and type(model).__module__.startswith("kat_zoo")


@holds("kat", "`kat_tiny_patch16_224.adamdad_vitft_in1k`")
def _():
    assert get_pretrained_cfg("kat_tiny_patch16_224.adamdad_vitft_in1k").hf_hub_id == "adamdad/kat_tiny_patch16_224.vitft"
    assert get_pretrained_cfg("kat_tiny_patch16_224.adamdad_in1k").hf_hub_id == "adamdad/kat_tiny_patch16_224"
    assert get_pretrained_cfg("kat_tiny_patch16_224").tag == "adamdad_in1k"


def pico(**options):
    return timm.create_model("kat_pico_patch4_28", **options).eval()


@holds("kat", "`kat-zoo convert`, or `checkpoint_path` of `create_model`")
def _():
    model = pico()
    torch.save(model.state_dict(), "kat.pth")
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(pico(checkpoint_path="kat.pth")(x), model(x))
    assert run(["convert", "kat.pth", "folder", "--model", "kat_pico_patch4_28"]) == 0
    assert torch.equal(timm.create_model("local-dir:folder", pretrained=True).eval()(x), model(x))


@holds("kat", "`kat_zoo.layers.GroupRational`; the gelu fit is right for the formula that is computed")
def _():
    x = torch.linspace(-3, 3, 80)[:, None].expand(80, 8)
    layer = GroupRational(init="gelu")
    assert (layer(x) - torch.nn.functional.gelu(x)).abs().max() < 0.01
    a, b = layer.weight_numerator[0], layer.weight_denominator[0].abs()
    written = sum(a[n] * x**n for n in range(6)) / (1 + sum(b[n] * x.abs() ** (n + 1) for n in range(4)))
    torch.testing.assert_close(layer(x), written, rtol=1e-4, atol=1e-5)


@holds("kat", "`kat_zoo.layers.GRKAN`")
def _():
    layer = GRKAN(in_features=16, hidden_features=32)
    assert layer(torch.rand(2, 5, 16)).shape == (2, 5, 16) and layer.fc1.out_features == 32


@holds("kat", "ValueError")
def _():
    for call in (lambda: GroupRational(8)(torch.rand(2, 30)), lambda: GRKAN(30), lambda: GRKAN(32, 30)):
        with pytest.raises(ValueError, match="8"):
            call()


@holds("kat", "any shape and strides; `channel_dim` for convolutions")
def _():
    check_shapes_and_strides()
    x = torch.rand(2, 16, 5, 7)
    torch.testing.assert_close(GroupRational(channel_dim=1)(x), GroupRational()(x.movedim(1, -1)).movedim(-1, 1))


@holds("flashkat", "any shape and strides")
def check_shapes_and_strides():
    layer, x = GroupRational(), torch.rand(7, 16, 5)
    expected = layer(x.transpose(1, 2).contiguous())
    assert torch.equal(layer(x.transpose(1, 2)), expected) and torch.equal(layer(x[0, :, 0]), expected[0, 0])


@holds("kat", "compiled; see [the activation](../results.md#the-activation)")
def _():
    check_cpu_library()
    rows = read(ROOT / "benchmarks" / "rational.csv")
    eager = [float(row["ratio_to_gelu"]) for row in rows if row["method"] == "eager PyTorch" and row["pass"] == "forward"]
    claimed = re.search(r"formula in plain PyTorch, (\d+) to (\d+) times", (PAGES / "kat.md").read_text())
    assert [round(min(eager)), round(max(eager))] == [int(number) for number in claimed.groups()]


@holds("flashkat", "compiled C++")
def check_cpu_library():
    from kat_zoo.kernels import cpu_library

    assert cpu_library._library_path().is_file()


@holds("kat", "`kat-zoo train --config kat_tiny_patch16_224_in1k`, or timm's own: `python -m kat_zoo.timm train.py`")
def _():
    assert configuration(["train", "--config", "kat_tiny_patch16_224_in1k"])["model"]["name"] == "kat_tiny_patch16_224"


@holds("kat", "`kat-zoo validate --model.name kat_tiny_patch16_224`")
def _():
    model = configuration(["validate", "--model.name", "kat_tiny_patch16_224"])["model"]
    assert (model["name"], model["pretrained"]) == ("kat_tiny_patch16_224", True)


@holds("kat", "`kat_zoo.dense`")
def _():
    names = " ".join(kat_zoo.dense.__all__).lower()
    assert "detect" in names or "rcnn" in names
    assert "upernet" in names


@holds("kat", "both work, with torch.export and ONNX")  # the last two: tests/test_export.py
def _():
    model, x = pico(), torch.rand(2, 1, 28, 28)
    for other in (torch.jit.script(model), torch.fx.symbolic_trace(model)):
        torch.testing.assert_close(other(x), model(x))


def test_state_dicts_have_upstreams_names():
    upstream = ["act1.weight_denominator", "act1.weight_numerator", "act2.weight_denominator", "act2.weight_numerator"]
    upstream += ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]
    assert sorted(pico().blocks[0].mlp.state_dict()) == upstream
