"""A saved KAT or KArAt in transformers, in a process that has no kat_zoo: the repository's own code gives the package's logits."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from kat_zoo.hub import modeling_kat_zoo
from kat_zoo.hub.repository import REMOTE_MODELS, save_model

LOAD = """
import sys
sys.modules["kat_zoo"] = None  # import kat_zoo fails
import torch
from transformers import AutoModelForImageClassification

for folder in sys.argv[1:]:
    model, info = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with torch.no_grad():
        logits = model.eval()(torch.load(f"{folder}/images.pt")).logits
    torch.save(logits, f"{folder}/logits.pt")
assert not [name for name in sys.modules if name.startswith("kat_zoo.")]
"""

MODELS = {
    "kat_pico_patch4_28.fmnist": {"pretrained": True},
    "kat_pico_patch4_28": {"depth": 2, "order": (3, 2), "num_groups": 4, "norm_eps": 1e-3},
    "kat_tiny_patch16_224": {"depth": 2, "embed_dim": 48, "img_size": 32, "num_classes": 3, "act_scaled": True},
    "kat_small_patch16_224": {"depth": 2, "embed_dim": 48, "img_size": 32, "num_classes": 3, "norm_layer": "rmsnorm", "norm_eps": 1e-3},
    "karat_pico_patch4_28.fmnist": {"pretrained": True},
    "karat_kat_pico_patch4_28": {"depth": 2, "qk_norm": True},
    "karat_tiny_g3u_patch16_224": {"depth": 2, "embed_dim": 48, "img_size": 32, "num_classes": 3, "rank": 4, "reg_tokens": 1},
}


def test_logits_without_the_package(tmp_path, monkeypatch):
    """All in one process, for importing transformers takes long."""
    torch.manual_seed(0)
    expected = {}
    for name, arguments in MODELS.items():
        model, folder = timm.create_model(name, **arguments).eval(), tmp_path / name.replace(".", "_")
        for module in model.modules():
            if isinstance(getattr(module, "scale", None), torch.Tensor):
                module.scale.uniform_(1, 4)
        save_model(model, folder, [f"class {i}" for i in range(model.num_classes)])
        images = torch.randn(3, model.patch_embed.proj.in_channels, *model.patch_embed.img_size)
        torch.save(images, folder / "images.pt")
        with torch.no_grad():
            expected[folder] = model(images)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    done = subprocess.run([sys.executable, "-c", LOAD, *map(str, expected)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for folder, logits in expected.items():
        torch.testing.assert_close(torch.load(folder / "logits.pt"), logits, rtol=1e-4, atol=1e-4)


def test_it_knows_the_models_of_the_list():
    assert tuple(modeling_kat_zoo.SIZES) == REMOTE_MODELS


@pytest.mark.parametrize("name", REMOTE_MODELS)
def test_its_parameters_are_the_packages(name):
    with torch.device("meta"):
        own, theirs = timm.create_model(name), modeling_kat_zoo.build(name)
    assert {key: value.shape for key, value in theirs.state_dict().items()} == {key: v.shape for key, v in own.state_dict().items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"basis": "morlet"}, "basis: expected 'fourier'; other values need the package kat_zoo"),
        ({"hybrid_heads": 1}, "hybrid_heads: expected 0"),
        ({"rank": [8] * 6}, "expected integers; one for each layer"),
        ({"mixer": "rational"}, "mixer='rational': expected 'mlp' or 'gr_kan'"),
    ],
)
def test_operators_that_need_the_package_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        modeling_kat_zoo.build("karat_pico_patch4_28", **arguments)


def test_other_models_have_no_code(tmp_path):
    save_model(timm.create_model("vit_mlp_pico_patch4_28"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_zero_denominators_learn_as_in_the_package():
    torch.manual_seed(0)
    own = timm.create_model("kat_pico_patch4_28", depth=1)
    theirs = modeling_kat_zoo.build("kat_pico_patch4_28", depth=1)
    theirs.load_state_dict(own.state_dict())
    images = torch.randn(2, 1, 28, 28)
    for model in (own, theirs):
        nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
        model(images).square().sum().backward()
    found, expected = (model.blocks[0].mlp.act1.weight_denominator.grad for model in (theirs, own))
    assert expected.abs().min() > 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_numerator_for_each_group_needs_the_package(tmp_path, caplog):
    model = timm.create_model("kat_pico_patch4_28", depth=1)
    values = model.state_dict()
    name = "blocks.0.mlp.act1.weight_numerator"
    model.load_state_dict({**values, name: values[name] * torch.arange(1, 9)[:, None]})
    save_model(model, tmp_path, [str(i) for i in range(10)])
    assert "auto_map" not in (tmp_path / "config.json").read_text() and not list(tmp_path.glob("*.py"))
    assert "transformers can load this model with the package kat_zoo alone" in caplog.text
