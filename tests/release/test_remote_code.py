"""A saved KAT in transformers, in a process that has no kat_zoo: the repository's own code gives the package's logits."""

import subprocess
import sys

import pytest
import timm
import torch

from kat_zoo.hub import modeling_kat_zoo
from kat_zoo.hub.repository import REMOTE_MODELS, save_model
from kat_zoo.models import _builder

LOAD = """
import sys
sys.modules["kat_zoo"] = None  # import kat_zoo fails
import torch
from transformers import AutoModelForImageClassification

folder, path = sys.argv[1:]
model, info = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
with torch.no_grad():
    logits = model.eval()(torch.load(path)).logits
assert not [name for name in sys.modules if name.startswith("kat_zoo.")]
torch.save(logits, path)
"""


@pytest.mark.parametrize("arguments", [{"pretrained": True}, {"depth": 2, "order": (3, 2), "num_groups": 4}])
def test_logits_without_the_package(arguments, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = timm.create_model("kat_pico_patch4_28.fmnist" if "pretrained" in arguments else "kat_pico_patch4_28", **arguments).eval()
    save_model(model, tmp_path / "saved", [f"class {i}" for i in range(model.num_classes)])
    images = torch.randn(3, model.patch_embed.proj.in_channels, 28, 28)
    torch.save(images, tmp_path / "images.pt")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    command = [sys.executable, "-c", LOAD, str(tmp_path / "saved"), str(tmp_path / "images.pt")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "images.pt"), model(images), rtol=1e-4, atol=1e-4)


def test_its_sizes_are_the_packages():
    sizes = [_builder.TINY, _builder.SMALL, _builder.BASE, _builder.PICO]
    assert dict(zip(REMOTE_MODELS, sizes, strict=True)) == modeling_kat_zoo.SIZES


def test_other_models_have_no_code(tmp_path):
    save_model(timm.create_model("vit_mlp_pico_patch4_28"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
