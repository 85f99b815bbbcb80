"""Sizes of images and grids of patches that do not fit, and a second import, are told in a sentence."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from kat_zoo.hub.repository import save_model
from kat_zoo.models._pretrained import create_model, load_backbone


@pytest.mark.parametrize("name", ["test_karat", "test_kat"])
def test_as_many_patches_in_another_shape_are_refused(name, tmp_path, caplog):
    square, wide = {"img_size": 128, "depth": 1}, {"img_size": (64, 256), "depth": 1}
    model = timm.create_model(name, **square)
    save_model(model, tmp_path)
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="its grid of patches is 8x8: expected 4x16, the model's"):
        create_model(name, checkpoint=path, **wide)
    with pytest.raises(ValueError, match="its grid of patches is 8x8: expected 4x16"):
        load_backbone(timm.create_model(name, num_classes=0, **wide), path)
    assert torch.equal(create_model(name, checkpoint=path, **square).pos_embed, model.pos_embed) and not caplog.text
    save_file(load_file(path), tmp_path / "silent.safetensors")  # does not state its grid
    create_model(name, checkpoint=tmp_path / "silent.safetensors", **wide)
    assert "silent.safetensors does not state its grid of patches: it is taken for 4x16" in caplog.text
    resized = create_model(name, checkpoint=path, img_size=96, depth=1)  # fewer patches are resampled, as ever
    assert resized.pos_embed.shape[1] < model.pos_embed.shape[1]


@pytest.mark.parametrize("value", ["224", (224,), 0, 22.5, (224, "224"), [1, 2, 3]])
@pytest.mark.parametrize("argument", ["img_size", "patch_size"])
def test_sizes_are_integers(argument, value):
    for name in ("kat_tiny_patch16_224", "karat_pico_patch4_28", "vit_kan_pico_patch4_28"):
        with pytest.raises(ValueError, match=f"{argument}=.*: expected an integer of at least 1, or"):
            timm.create_model(name, **{argument: value})


def test_an_import_after_the_package_was_taken_out_of_sys_modules_says_what_to_do():
    script = (
        "import sys, kat_zoo\nfor name in [n for n in sys.modules if n.split('.')[0] == 'kat_zoo']: del sys.modules[name]\n"
        "try: import kat_zoo\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("kat_zoo was imported before in this process") and "restart" in done.stdout
