"""KATs of timm's ViTs: each tag asks for timm's own repository, and computes what the ViT of that repository computes."""

import sys

import pytest
import timm
import torch
from safetensors.torch import save

import kat_zoo  # noqa: F401
from kat_zoo.hub.cards import render
from kat_zoo.hub.registry import entry
from kat_zoo.models._pretrained import create_model
from kat_zoo.models.kat_of_vit import SOURCES

SMALL = {"depth": 1, "img_size": 56}


@torch.no_grad()
def vit_of(name, **kwargs):
    """timm's ViT of a tag, of full width, with weights at the scale of trained ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = timm.create_model(SOURCES[name].split(".")[0], **{**SMALL, **kwargs}, num_classes=timm.get_pretrained_cfg(name).num_classes)
    generator = torch.Generator().manual_seed(0)
    for key, parameter in vit.named_parameters():
        if parameter.ndim == 2:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (1.5 if "fc1" in key else 1) / parameter.shape[1] ** 0.5)
        elif "gamma" in key:
            parameter.fill_(0.5)
        elif "fc1.bias" in key:
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator) - 0.5)
    return vit.eval()


def publish(hub, name, vit, **others):
    repo = timm.get_pretrained_cfg(SOURCES[name]).hf_hub_id
    hub.add(repo, {"model.safetensors": save({**vit.state_dict(), **others})})
    return repo


@pytest.mark.parametrize("name", SOURCES)
def test_every_tag_computes_what_its_vit_does(hub, name):
    vit = vit_of(name)
    repo = publish(hub, name, vit)
    kat = timm.create_model(name, pretrained=True, **SMALL).eval()
    assert {path for _, path in hub.log if "/resolve/" in path} == {f"/{repo}/resolve/main/model.safetensors"}
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = vit(x)
        assert (kat(x) - expected).norm() < 5e-3 * expected.norm()
    assert not torch.equal(kat.blocks[0].mlp.fc1.weight, vit.blocks[0].mlp.fc1.weight)  # channels moved
    assert torch.equal(kat.blocks[0].mlp.act1(torch.ones(2, 8)), torch.ones(2, 8))
    kept = ("input_size", "mean", "std", "crop_pct", "interpolation", "license")
    assert all(kat.pretrained_cfg[key] == timm.get_pretrained_cfg(SOURCES[name]).to_dict()[key] for key in kept)


@pytest.mark.parametrize("name", SOURCES)
def test_the_architecture_is_that_of_timms_vit(name):
    classes = timm.get_pretrained_cfg(name).num_classes
    kat, vit = (timm.create_model(n.split(".")[0], device="meta", num_classes=classes) for n in (name, SOURCES[name]))
    kat_shapes, vit_shapes = ({key: value.shape for key, value in model.state_dict().items()} for model in (kat, vit))
    assert {key: shape for key, shape in kat_shapes.items() if ".mlp.act" not in key} == vit_shapes
    assert kat.blocks[0].norm1.eps == vit.blocks[0].norm1.eps and kat.patch_embed.img_size == vit.patch_embed.img_size


def test_the_whole_small_dinov2_at_another_size(hub):
    """22M parameters under the published names, at 518 px, whose position embedding is resampled as timm does."""
    name = "kat_small_patch14_dinov2.lvd142m"
    publish(hub, name, vit_of(name, depth=12, img_size=518))
    x = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    kat, vit = (timm.create_model(n, pretrained=True, img_size=112).eval() for n in (name, SOURCES[name]))
    with torch.no_grad():
        expected = vit(x)
        assert (kat(x) - expected).norm() < 1e-2 * expected.norm()


def test_attention_pooling_that_siglip_does_not_use_is_left_out(hub):
    name = "kat_base_patch16_siglip_gap_224.v2_webli"
    publish(hub, name, vit_of(name), **{"attn_pool.latent": torch.zeros(1, 1, 768)})
    assert "attn_pool.latent" not in timm.create_model(name, pretrained=True, **SMALL).state_dict()


def test_a_converted_model_is_saved_and_loads_again_without_scipy(hub, tmp_path, monkeypatch):
    name = "kat_tiny_patch16_vit_224.augreg_in21k_ft_in1k"
    publish(hub, name, vit_of(name))
    kat = timm.create_model(name, pretrained=True, **SMALL).eval()
    (tmp_path / "model.safetensors").write_bytes(save(kat.state_dict()))
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    again = create_model(name.split(".")[0], checkpoint=tmp_path / "model.safetensors", **SMALL).eval()
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(x), kat(x))
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        timm.create_model(name, pretrained=True, **SMALL)


@pytest.mark.parametrize("name", ["kat_tiny_patch16_vit_224.augreg_in21k_ft_in1k", "kat_small_patch16_deit3_224.fb_in1k"])
def test_converted_weights_have_the_range_of_float16(hub, name):
    vit = vit_of(name)
    for block in vit.blocks:
        block.norm2.weight.data *= 10  # arguments as large as those of DINOv2's
    publish(hub, name, vit)
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    for kat in (
        timm.create_model(name, pretrained=True, **SMALL).half(),
        timm.create_model(name, pretrained=True, dtype=torch.float16, **SMALL),
    ):
        with torch.no_grad():
            expected = vit(x)
            assert (kat.eval()(x.half()).float() - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.parametrize("name", ["kat_base_patch16_clip_quickgelu_224.openai", "kat_base_patch16_clip_224.laion2b"])
def test_weights_of_a_vit_that_pass_no_filter_get_its_activation(name, tmp_path):
    vit = vit_of(name)
    (tmp_path / "vit.safetensors").write_bytes(save(vit.state_dict()))
    options = {**SMALL, "num_classes": vit.num_classes}
    kat = timm.create_model(name.split(".")[0], checkpoint_path=str(tmp_path / "vit.safetensors"), **options).eval()
    x = torch.linspace(-5, 5, 801)[:, None].repeat(1, 8)
    torch.testing.assert_close(kat.blocks[0].mlp.act2(x), vit.blocks[0].mlp.act(x.clone()), rtol=0, atol=4e-3)


@pytest.mark.parametrize("name", SOURCES)
def test_card_and_list_name_source_and_license(name):
    card, item = render(entry(name)), entry(name)
    source = timm.get_pretrained_cfg(SOURCES[name])
    assert item.license == source.license and item.weights == f"hub:{source.hf_hub_id}"
    assert f"license: {source.license}" in card and f"timm's `{SOURCES[name]}`" in card
    assert ("topk" in card) == (item.num_classes == 1000)
