"""Scripts that know nothing of the package, by `python -m kat_zoo.timm`.

timm's own train.py and validate.py are in its repository and in no package. They are taken from the folder KAT_ZOO_TIMM_SCRIPTS, a
checkout of the installed version of timm, or downloaded; a script of the same shape is tested everywhere.
"""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from kat_zoo.hub.samples import load_samples

MODULE = [sys.executable, "-m", "kat_zoo.timm"]
SCRIPT = """
import sys
import helper
from timm import create_model
from timm.models import list_models

if __name__ == "__main__":
    print(sys.argv, helper.VALUE)
    print(create_model(sys.argv[1], pretrained=True).num_classes, "kat_tiny_patch16_224" in list_models())
"""


def test_a_script_finds_the_models_its_arguments_and_its_neighbors(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "helper.py").write_text("VALUE = 7")
    command = [*MODULE, str(tmp_path / "script.py"), "kat_pico_patch4_28.fmnist", "--amp"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    first, second = done.stdout.splitlines()
    assert first == f"{[str(tmp_path / 'script.py'), 'kat_pico_patch4_28.fmnist', '--amp']} 7"
    assert second == "10 True"


@pytest.mark.parametrize(("arguments", "message"), [([], "usage: "), (["absent.py"], "script='absent.py': expected a file")])
def test_what_is_not_a_script_is_refused(arguments, message, tmp_path):
    done = subprocess.run([*MODULE, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(message)


@pytest.fixture
def scripts(tmp_path):
    """A folder with train.py and validate.py of the installed version of timm."""
    if folder := os.environ.get("KAT_ZOO_TIMM_SCRIPTS"):
        return Path(folder)
    address = f"https://raw.githubusercontent.com/huggingface/pytorch-image-models/v{timm.__version__}"
    for name in ("train.py", "validate.py"):
        try:
            with urllib.request.urlopen(f"{address}/{name}", timeout=20) as answer:
                (tmp_path / name).write_bytes(answer.read())
        except urllib.error.URLError as error:
            pytest.skip(f"timm's scripts are in its repository alone, which does not answer ({error}); set KAT_ZOO_TIMM_SCRIPTS")
    return tmp_path


@pytest.mark.slow
def test_timms_train_and_validate_unmodified(scripts, tmp_path):
    """A pass over eight pictures of two classes."""
    for split in ("train", "validation"):
        for number in range(8):
            path = tmp_path / "pictures" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (30 * number,) * 3).save(path)
    data = ["--data-dir", str(tmp_path / "pictures"), "--model", "kat_pico_patch4_28", "--num-classes", "2", "--device", "cpu"]
    sizes = ["--img-size", "28", "--workers", "0", "-b", "4"]
    options = ["--in-chans", "3", "--epochs", "1", "--output", str(tmp_path / "out"), "--experiment", "run"]
    subprocess.run([*MODULE, str(scripts / "train.py"), *data, *sizes, *options], check=True, cwd=tmp_path)
    checkpoint = str(tmp_path / "out" / "run" / "last.pth.tar")
    command = [*MODULE, str(scripts / "validate.py"), *data, *sizes, "--in-chans", "3", "--checkpoint", checkpoint, "--split", "validation"]
    done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert '"top1"' in done.stdout


@pytest.mark.slow
def test_timms_validate_finds_the_accuracy_of_the_shipped_weights(scripts, tmp_path):
    samples = load_samples()
    for number, label in enumerate(samples.labels):
        path = tmp_path / "pictures" / "validation" / f"{label}" / f"{number:03}.png"  # folders in the order of the classes
        path.parent.mkdir(parents=True, exist_ok=True)
        samples.pil(number).save(path)
    model = "kat_pico_patch4_28.fmnist_rgb"
    options = ["--data-dir", str(tmp_path / "pictures"), "--split", "validation", "--model", model, "--pretrained", "--device", "cpu"]
    command = [*MODULE, str(scripts / "validate.py"), *options, "--workers", "0"]
    found = float(
        re.search(r'"top1": ([\d.]+)', subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True).stdout)[1]
    )
    with torch.no_grad():
        images = (torch.from_numpy(samples.images)[:, None] / 255 - 0.2860) / 0.3530
        answers = timm.create_model(model.removesuffix("_rgb"), pretrained=True).eval()(images)
    right = 100 * (answers.argmax(1) == torch.from_numpy(samples.labels)).double().mean().item()
    assert found == pytest.approx(right, abs=0.4)  # one image of 256, where resizing rounds
