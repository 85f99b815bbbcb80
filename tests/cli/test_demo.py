"""What a newcomer runs first: the weights and images that ship, `kat-zoo demo` and `kat-zoo predict`."""

import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import kat_zoo  # noqa: F401
from kat_zoo.cli import demo
from kat_zoo.cli import main as cli
from kat_zoo.hub.samples import load_samples
from kat_zoo.images import open_image


def test_samples_are_what_they_say():
    samples = load_samples()
    assert samples.images.shape == (256, 28, 28) and len(samples.classes) == 10
    assert len(set(samples.indices.tolist())) == 256 and samples.indices.max() < 10_000
    assert 0 < samples.images.mean() < 255 and set(samples.labels.tolist()) == set(range(10))


def test_at_least_one_kat_ships():
    assert "kat_pico_patch4_28.fmnist" in demo.shipped_models()


# Of 256. They change with the files, by `benchmarks/pico.py --ship`, as do the figures of weights/results.json.
RIGHT = {
    "karat_pico_patch4_28.fmnist": 234,
    "kat_pico_patch4_28.fmnist": 239,
    "vit_kan_pico_patch4_28.fmnist": 236,
    "vit_mlp_pico_patch4_28.fmnist": 237,
}


@pytest.mark.parametrize("name", demo.shipped_models())
def test_shipped_weights_classify_the_shipped_images(name):
    """No network: the address of the Hub in the tests is a server without this model."""
    model = timm.create_model(name, pretrained=True).eval()
    samples = load_samples()
    right = demo.classify(model, demo.preprocess(name, samples)).argmax(1) == torch.from_numpy(samples.labels)
    assert abs(int(right.sum()) - RIGHT[name]) <= 1  # other processors round differently


def test_demo(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "ROUNDS", 2)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"kat_pico_patch4_28.*455,162.*\d\d\.\d %", out) and "Confusion" in out
    assert re.search(r"move by 0\.\d\d % of their size,\nand 2[45]\d of 256 images keep their class", out)
    assert "y = exp(x_2**2 + sin(pi*x_1))" in out
    pictures = {path.name for path in tmp_path.iterdir()}
    assert {"kat_pico_patch4_28.fmnist.predictions.png", "kat_pico_patch4_28.fmnist.activations.png"} <= pictures
    several = len(demo.shipped_models()) > 1
    assert ("comparison.png" in pictures) == several
    assert re.search(r"vit_mlp_pico_patch4_28.* 1\.00 x", out)
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 300


def test_confusion_counts():
    matrix = demo.confusion(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_predict(tmp_path, capsys):
    samples = load_samples()
    boot = next(i for i, label in enumerate(samples.labels) if samples.classes[label] == "Ankle boot")
    samples.pil(boot).convert("RGB").save(tmp_path / "boot.png")
    assert cli.main(["predict", str(tmp_path / "boot.png"), "--model", "kat_pico_patch4_28", "--top", "2"]) == 0
    assert re.search(r"boot\.png: Ankle boot \d+\.\d%, \w+", capsys.readouterr().out)
    assert cli.main(["predict", str(tmp_path / "boot.png"), "--model", "kat_pico_patch4_28", "--top", "0"]) == 2
    assert "--top=0" in capsys.readouterr().err


@pytest.mark.parametrize(("suffix", "big_endian"), [(".png", False), (".pgm", False), (".tif", False), (".tif", True)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix, big_endian, channels):
    """257 x is the 16-bit number for x: 255 becomes 65535."""
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    wide = gray.astype(">u2" if big_endian else "<u2") * np.array(257, "u2")
    mode = "I;16B" if big_endian else "I;16"
    path = tmp_path / f"wide{suffix}"
    Image.frombytes(mode, (16, 16), wide.astype(">u2" if big_endian else "<u2").tobytes()).save(path)
    read = np.asarray(open_image(path, channels))
    assert np.array_equal(read, gray if channels == 1 else np.repeat(gray[..., None], 3, 2))


def test_images_of_32_bit_numbers_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float.tif is not an image that can be read: .* 32-bit numbers \(mode F\)"):
        open_image(tmp_path / "float.tif", 1)
