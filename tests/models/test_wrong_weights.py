"""Values that torch would convert in silence, in weights on every way into a model: a file, a folder, a backbone."""

import json

import pytest
import safetensors.torch
import timm
import torch
from safetensors.torch import load_file, save_file

from kat_zoo._weights import check_weights
from kat_zoo.hub.repository import save_model
from kat_zoo.hub.source import open_model
from kat_zoo.models._pretrained import create_model, load_backbone

NAME, SMALL = "kat_pico_patch4_28", {"depth": 1, "embed_dim": 24}


def put(value):
    def change(tensor):
        tensor = tensor.double() if value > 1e39 else tensor.clone()
        tensor.flatten()[3] = value
        return tensor

    return change


WRONG = {
    "nan": (put(float("nan")), r"head.bias\[3\]=nan: expected finite numbers"),
    "infinite": (put(float("-inf")), r"head.bias\[3\]=-inf: expected finite numbers"),
    "overflow": (put(1e300), r"head.bias\[3\]=1e\+300: expected numbers in the range of float32"),
    "bool": (lambda tensor: tensor > 0, "head.bias of dtype bool: expected floating-point numbers, as float32"),
    "int64": (lambda tensor: tensor.long(), "head.bias of dtype int64: expected floating-point numbers"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "head.bias of dtype complex64: expected floating-point numbers"),
}


@pytest.fixture
def folder(tmp_path):
    save_model(timm.create_model(NAME, **SMALL), tmp_path / "run")
    return tmp_path / "run"


OLD = pytest.mark.skipif(torch.complex64 not in safetensors.torch._SIZE, reason="safetensors before 0.7 has no complex numbers")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=OLD) if kind == "complex" else kind for kind in WRONG])
def test_every_way_into_a_model_names_the_tensor_and_the_value(kind, folder):
    change, message = WRONG[kind]
    path = folder / "model.safetensors"
    weights = {key: value.clone() for key, value in load_file(path).items()}  # the file they are mapped from is written again
    save_file(weights | {"head.bias": change(weights["head.bias"])}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=message):
        create_model(NAME, checkpoint=path, **SMALL)
    with pytest.raises(ValueError, match=message):
        timm.create_model(f"local-dir:{folder}", pretrained=True)
    with pytest.raises(ValueError, match=message) as error:
        open_model(str(folder))
    assert str(folder) in str(error.value)


def test_a_backbone_and_a_model_of_timms_own(folder, tmp_path):
    path = folder / "model.safetensors"
    weights = {key: value.clone() for key, value in load_file(path).items()}
    name = "blocks.0.norm1.weight"
    save_file(weights | {name: put(float("nan"))(weights[name])}, path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"blocks.0.norm1.weight\[3\]=nan"):
        load_backbone(timm.create_model(NAME, num_classes=0, **SMALL), path)
    vit = timm.create_model("test_vit")
    vit.state_dict()["head.bias"][3] = torch.nan
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"head.bias\[3\]=nan: expected finite numbers"):
        create_model("test_vit", checkpoint=tmp_path / "vit.pth")


def test_narrower_and_wider_numbers_that_fit_are_right(folder):
    path = folder / "model.safetensors"
    weights = {key: value.clone() for key, value in load_file(path).items()}
    for dtype in (torch.bfloat16, torch.float64):
        save_file({key: value.to(dtype) for key, value in weights.items()}, path, {"format": "pt"})
        model = open_model(str(folder)).model
        assert all(torch.equal(value, weights[key].to(dtype).float()) for key, value in model.state_dict().items())
    assert json.loads((folder / "config.json").read_text())["architecture"] == NAME


def test_values_that_are_no_tensors_and_scalars():
    with pytest.raises(ValueError, match="file: a=3: expected a tensor"):
        check_weights({"a": 3}, {"a": torch.zeros(1)}, "file")
    with pytest.raises(ValueError, match="file: a=inf: expected finite numbers"):
        check_weights({"a": torch.tensor(torch.inf)}, {"a": torch.zeros(())}, "file")
    check_weights({"more": torch.tensor(torch.nan)}, {"a": torch.zeros(1)}, "file")


def test_mean_and_std_are_those_of_the_config_beside_the_weights(tmp_path):
    """Both of a classifier that is fine-tuned and of a backbone; of another architecture's folder they are not."""
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.1]}
    save_model(timm.create_model("test_kat", num_classes=3), tmp_path / "run", list("abc"), statistics)
    path = tmp_path / "run" / "model.safetensors"
    backbone = timm.create_model("test_kat", num_classes=0)
    load_backbone(backbone, path)
    for model in (create_model("test_kat", checkpoint=path), backbone):
        assert {key: list(model.pretrained_cfg[key]) for key in statistics} == statistics
    text = (tmp_path / "run" / "config.json").read_text()
    (tmp_path / "run" / "config.json").write_text(text.replace('"architecture": "test_kat"', '"architecture": "test_vit"'))
    assert list(create_model("test_kat", checkpoint=path).pretrained_cfg["mean"]) != statistics["mean"]
