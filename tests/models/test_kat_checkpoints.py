"""Every checkpoint format gives the same model: ours, upstream's wrappers, FlashKAT, timm/DeiT ViT, Google's .npz."""

import argparse

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

import kat_zoo  # noqa: F401
from kat_zoo.models._pretrained import create_model
from kat_zoo.models.kan_vit import MixerViT
from kat_zoo.models.karat import KArAt
from kat_zoo.models.kat import checkpoint_filter_fn
from kat_zoo.transfer.architecture import architecture

X = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


def perturbed(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def kat():
    return perturbed(timm.create_model("test_kat", num_classes=10))


@pytest.fixture(scope="module")
def vit():
    return perturbed(timm.create_model("test_vit", num_classes=10))


def flashkat(state_dict):
    renamed = {}
    for key, value in state_dict.items():
        if key.endswith("weight_numerator"):
            key, value = key.replace("weight_numerator", "numerator_v"), value.repeat(8, 1)
        renamed[key.replace("weight_denominator", "denominator_v")] = value
    return renamed


def noise(state_dict):
    return {key: torch.randn_like(value) for key, value in state_dict.items()}


FORMATS = {
    "ours": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "arch": "kat", "args": argparse.Namespace(lr=0.1)},
    "model": lambda s: {"model": s},
    "ema preferred": lambda s: {"state_dict": noise(s), "state_dict_ema": s},
    "model ema preferred": lambda s: {"model": noise(s), "model_ema": s},
    "module prefix": lambda s: {f"module.{key}": value for key, value in s.items()},
    "ema with prefixes": lambda s: {"state_dict_ema": {f"module._orig_mod.{key}": value for key, value in s.items()}},
    "flashkat": flashkat,
    "flashkat in model": lambda s: {"model": flashkat(s)},
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_as_checkpoint_path_as_file_and_through_the_filter(kat, name, tmp_path):
    wrapped = FORMATS[name](kat.state_dict())
    path = tmp_path / "checkpoint.pth"
    torch.save(wrapped, path)
    expected = kat(X)
    filtered = checkpoint_filter_fn(dict(wrapped), kat)
    assert set(filtered) == set(kat.state_dict())
    direct = timm.create_model("test_kat", num_classes=10)
    direct.load_state_dict(filtered)
    by_path = timm.create_model("test_kat", num_classes=10, checkpoint_path=str(path))
    overlay = dict(file=str(path), num_classes=10)
    by_file = timm.create_model("test_kat", num_classes=10, pretrained=True, pretrained_cfg_overlay=overlay)
    for model in (direct, by_path, by_file):
        assert torch.equal(model.eval()(X), expected)


NESTED = {
    "ema in state_dict": lambda s: {"model": noise(s), "model_ema": {"state_dict": s}},
    "thrice": lambda s: {"state_dict": {"model": {"state_dict": s, "epoch": 3}}},
    "AveragedModel": lambda s: {"n_averaged": torch.tensor(7), **{f"module.{key}": value for key, value in s.items()}},
    "AveragedModel in model_ema": lambda s: {"model_ema": NESTED["AveragedModel"](s)},
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_formats_through_the_filter(kat, name):
    filtered = checkpoint_filter_fn(NESTED[name](kat.state_dict()), kat)
    assert filtered.keys() == kat.state_dict().keys()
    assert all(torch.equal(value, filtered[key]) for key, value in kat.state_dict().items())


@pytest.mark.parametrize(
    ("name", "kwargs", "adapt"),
    [
        ("test_kat", {}, checkpoint_filter_fn),
        ("test_kat", {}, None),
        ("kat_mixer_pico_patch4_28", {}, None),
        ("vit_lan_pico_patch4_28", {"mixer": "gr_kan"}, None),
    ],
)
def test_a_block_without_activations_is_damage(name, kwargs, adapt):
    """Not an MLP, as other blocks have activations; for DDP's and other wrappers too."""
    model = timm.create_model(name, **kwargs)
    state_dict = model.state_dict()
    first = next(key for key in state_dict if ".act1." in key).rpartition(".act1.")[0]
    state_dict = {key: value for key, value in state_dict.items() if not key.startswith(first + ".act")}
    state_dict = adapt(state_dict, model) if adapt else state_dict
    for root, prefix in ((model, ""), (torch.nn.ModuleDict({"module": model}), "module.")):
        with pytest.raises(RuntimeError, match=f"{prefix}{first} has no act1 and act2 in the checkpoint"):
            root.load_state_dict({prefix + key: value for key, value in state_dict.items()}, strict=False)


def test_safetensors(kat, tmp_path):
    safetensors.torch.save_file(kat.state_dict(), tmp_path / "model.safetensors")
    model = timm.create_model("test_kat", num_classes=10, checkpoint_path=str(tmp_path / "model.safetensors"))
    assert torch.equal(model.eval()(X), kat(X))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}], ids=["timm", "DeiT"])
def test_vit_as_checkpoint_path(vit, wrap, tmp_path):
    torch.save(wrap(vit.state_dict()), tmp_path / "vit.pth")
    model = timm.create_model("test_kat", num_classes=10, checkpoint_path=str(tmp_path / "vit.pth")).eval()
    assert torch.equal(model.blocks[1].mlp.fc1.weight, vit.blocks[1].mlp.fc1.weight)
    filtered = checkpoint_filter_fn(wrap(vit.state_dict()), model)
    assert all(torch.equal(value, filtered[key]) for key, value in model.state_dict().items())
    z = torch.linspace(-6, 6, 800).reshape(100, 8)
    assert torch.equal(model.blocks[0].mlp.act1(z), z)
    torch.testing.assert_close(model.blocks[0].mlp.act2(z), torch.nn.functional.gelu(z), atol=3.2e-3, rtol=0)
    assert (model(X) - vit(X)).norm() < 2e-2 * vit(X).norm()


@pytest.mark.parametrize("kept", [".act", "blocks.0.mlp.fc1.weight"], ids=["no activations", "one tensor"])
def test_activations_that_a_partial_checkpoint_lacks_stay(kat, kept):
    weights = kat.state_dict()
    part = {name: value for name, value in weights.items() if (kept == name if "fc1" in kept else kept not in name)}
    model = perturbed(timm.create_model("test_kat", num_classes=10))
    before = {name: value.clone() for name, value in model.state_dict().items() if ".act" in name}
    missing = model.load_state_dict(part, strict=False).missing_keys
    assert set(before) <= set(missing) and set(missing) == set(weights) - set(part)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_embeddings_are_resampled(kat):
    small = timm.create_model("test_kat", num_classes=10, img_size=96, patch_size=8)
    state_dict = checkpoint_filter_fn(kat.state_dict(), small)
    small.load_state_dict(state_dict)
    assert small.pos_embed.shape[1] == 145 and small.eval()(X[..., :96, :96]).isfinite().all()


def google(vit):
    """The state dict of a timm ViT in the layout of Google's augreg .npz files."""
    s = {key: value.numpy() for key, value in vit.state_dict().items()}
    out = {
        "embedding/kernel": s["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": s["patch_embed.proj.bias"],
        "cls": s["cls_token"],
        "Transformer/posembed_input/pos_embedding": s["pos_embed"],
        "Transformer/encoder_norm/scale": s["norm.weight"],
        "Transformer/encoder_norm/bias": s["norm.bias"],
        "head/kernel": s["head.weight"].T,
        "head/bias": s["head.bias"],
    }
    dim, heads = vit.embed_dim, vit.blocks[0].attn.num_heads
    for i in range(len(vit.blocks)):
        old, new = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention, mlp = new + "MultiHeadDotProductAttention_1/", new + "MlpBlock_3/"
        for norm, target in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out[f"{new}{target}/scale"], out[f"{new}{target}/bias"] = s[f"{old}{norm}.weight"], s[f"{old}{norm}.bias"]
        for j, part in enumerate(("query", "key", "value")):
            rows = slice(j * dim, (j + 1) * dim)
            out[f"{attention}{part}/kernel"] = s[old + "attn.qkv.weight"][rows].T.reshape(dim, heads, -1)
            out[f"{attention}{part}/bias"] = s[old + "attn.qkv.bias"][rows].reshape(heads, -1)
        out[attention + "out/kernel"] = s[old + "attn.proj.weight"].T.reshape(heads, -1, dim)
        out[attention + "out/bias"] = s[old + "attn.proj.bias"]
        for j in (0, 1):
            out[f"{mlp}Dense_{j}/kernel"] = s[f"{old}mlp.fc{j + 1}.weight"].T
            out[f"{mlp}Dense_{j}/bias"] = s[f"{old}mlp.fc{j + 1}.bias"]
    return out


def test_google_npz(vit, tmp_path):
    np.savez(tmp_path / "augreg.npz", **google(vit))
    model = timm.create_model("test_kat", num_classes=10, checkpoint_path=str(tmp_path / "augreg.npz")).eval()
    state_dict = model.state_dict()
    for key, value in vit.state_dict().items():
        assert torch.equal(state_dict[key], value), key
    assert (model(X) - vit(X)).norm() < 2e-2 * vit(X).norm()


@pytest.mark.parametrize(
    "of", [lambda arguments: MixerViT("gr_kan", **arguments), lambda arguments: KArAt(layers=[], mixer="gr_kan", **arguments)]
)
def test_google_npz_in_other_models_of_gr_kans(of, vit, tmp_path):
    np.savez(tmp_path / "augreg.npz", **google(vit))
    model = of(architecture(vit)).eval()
    model.load_pretrained(str(tmp_path / "augreg.npz"))
    assert (model(X) - vit(X)).norm() < 2e-2 * vit(X).norm()


WRAPPED = ("kat_pico_patch4_28", "karat_kat_pico_patch4_28", "vit_kan_pico_patch4_28", "vit_mlp_pico_patch4_28",
           "kat_mixer_pico_patch4_28", "kan_mlp_pico_28")  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_training_checkpoints_of_every_model(name, tmp_path):
    model = timm.create_model(name, num_classes=10)
    weights = model.state_dict()
    averaged = {"n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in weights.items()}}
    for number, wrapped in enumerate((averaged, {"state_dict": {"model": weights}}, {"model": {"model_ema": weights}})):
        path = tmp_path / f"{number}.pt"
        torch.save(wrapped, path)
        loaded = create_model(name, checkpoint=path, num_classes=10).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in weights.items())


def test_pickles_with_code_are_refused(kat, tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"state_dict": kat.state_dict(), "extra": Payload()}, tmp_path / "bad.pth")
    with pytest.raises(RuntimeError, match="weights_only"):
        timm.create_model("test_kat", num_classes=10, checkpoint_path=str(tmp_path / "bad.pth"))


def test_foreign_keys_are_refused(kat, tmp_path):
    torch.save({**kat.state_dict(), "dist_token": torch.zeros(1, 1, 64)}, tmp_path / "distilled.pth")
    with pytest.raises(RuntimeError, match="dist_token"):
        timm.create_model("test_kat", num_classes=10, checkpoint_path=str(tmp_path / "distilled.pth"))


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
@pytest.mark.parametrize("tag, suffix", [("adamdad_in1k", ""), ("adamdad_vitft_in1k", ".vitft")])
def test_published_tags_point_at_the_real_repositories(size, tag, suffix):
    cfg = timm.get_pretrained_cfg(f"kat_{size}_patch16_224.{tag}")
    assert cfg.hf_hub_id == f"adamdad/kat_{size}_patch16_224{suffix}"
    assert (cfg.crop_pct, cfg.interpolation, cfg.input_size) == (0.875, "bicubic", (3, 224, 224))
    assert cfg.mean == (0.485, 0.456, 0.406) and cfg.license == "mit"
