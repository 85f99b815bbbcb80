"""The shipped model for images with three channels: the gray model's logits, in programs that know RGB alone."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.models import adapt_input_conv

from kat_zoo.hub.repository import save_model
from kat_zoo.hub.samples import load_samples
from kat_zoo.hub.source import open_model
from kat_zoo.models._pretrained import create_model, load_backbone

GRAY, COLOR = "kat_pico_patch4_28.fmnist", "kat_pico_patch4_28.fmnist_rgb"


def created(name, **kwargs):
    return timm.create_model(name, pretrained=True, **kwargs).eval()


def test_an_image_whose_channels_are_alike_gets_the_logits_of_the_gray_model():
    gray, color = created(GRAY).double(), created(COLOR).double()
    weight = color.patch_embed.proj.weight
    assert weight.shape == (96, 3, 4, 4) and torch.equal(weight.sum(1, keepdim=True), gray.patch_embed.proj.weight)
    rest = [{name: value for name, value in model.state_dict().items() if "proj.weight" not in name} for model in (gray, color)]
    assert rest[0].keys() == rest[1].keys() and all(torch.equal(rest[0][name], rest[1][name]) for name in rest[0])
    x = torch.randn(8, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(color(x.expand(-1, 3, -1, -1)), gray(x), rtol=0, atol=1e-12)
    assert open_model(COLOR).classes == open_model(GRAY).classes == load_samples().classes


def test_the_gray_weights_load_into_any_model_with_three_channels(tmp_path):
    expected = created(COLOR).patch_embed.proj.weight
    assert torch.equal(created(GRAY, in_chans=3).patch_embed.proj.weight, expected)
    save_file(created(GRAY).state_dict(), tmp_path / "gray.safetensors")
    assert torch.equal(create_model(GRAY, checkpoint=tmp_path / "gray.safetensors", in_chans=3).patch_embed.proj.weight, expected)
    backbone = timm.create_model(GRAY, in_chans=3, num_classes=0)
    load_backbone(backbone, tmp_path / "gray.safetensors")
    assert torch.equal(backbone.patch_embed.proj.weight, expected)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_weights_for_colors_load_into_models_with_other_channels(channels, caplog):
    weight = created(COLOR, in_chans=channels).patch_embed.proj.weight
    torch.testing.assert_close(weight, adapt_input_conv(channels, created(COLOR).patch_embed.proj.weight.detach()))  # timm's way
    if channels == 1:
        assert torch.equal(weight, created(GRAY).patch_embed.proj.weight)
    assert not caplog.records


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm's dataset leaves its files open
def test_timms_scripts_and_transformers_pipeline_classify_pictures(tmp_path):
    from transformers import pipeline

    samples = load_samples()
    (tmp_path / "pictures").mkdir()
    for i in range(24):
        samples.pil(i).convert("RGB").save(tmp_path / "pictures" / f"{i:02}.png")
    model = created(COLOR, in_chans=3, num_classes=None)  # as timm's inference.py and benchmark.py create it
    config = resolve_data_config({"model": COLOR}, model=model)
    assert config["input_size"] == (3, 28, 28)
    dataset = create_dataset(root=str(tmp_path / "pictures"), name="", class_map="")
    loader = create_loader(dataset, batch_size=8, use_prefetcher=False, num_workers=0, device=torch.device("cpu"),
                           **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")})  # fmt: skip
    answers = torch.cat([model(images).argmax(1) for images, _ in loader])
    assert (answers == torch.from_numpy(samples.labels[:24])).float().mean() > 0.8
    save_model(model, tmp_path / "repository", samples.classes)
    classify = pipeline("image-classification", model=str(tmp_path / "repository"))
    found = classify([str(path) for path in sorted((tmp_path / "pictures").iterdir())])
    assert [one[0]["label"] for one in found] == [samples.classes[i] for i in answers]
