"""What a mistake with names, classes, channels and the network is answered with: one sentence that says what to write."""

import csv
import json
import os
import shutil
import sys

import pytest
import timm
from safetensors.torch import save_file

from kat_zoo.cli import classify
from kat_zoo.cli.main import main
from kat_zoo.hub import cards, registry
from kat_zoo.hub.repository import check_config, class_names, save_model
from kat_zoo.hub.samples import load_samples
from kat_zoo.hub.source import open_model
from kat_zoo.hub.sync import pull, push
from kat_zoo.models._pretrained import create_model
from kat_zoo.train.classification.model import load_model
from kat_zoo.train.classification.recipe import ModelConfig

NAME = "kat_pico_patch4_28"


@pytest.fixture
def folder(tmp_path):
    save_model(timm.create_model(NAME, depth=1), tmp_path / "run", load_samples().classes)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{NAME}.fminst", f"model='{NAME}.fminst' with an unknown tag: .*; did you mean {NAME}.fmnist?"),
        ("kat_pico_patch4_82", f"expected a registered model; did you mean .*{NAME}.*`kat-zoo list` prints"),
        ("kat_tiny_patch16_224.nothing", "expected one of kat_tiny_patch16_224.adamdad_in1k"),
    ],
)
def test_a_name_that_is_not_registered_is_answered_with_those_that_are(name, message):
    with pytest.raises(ValueError, match=message):
        registry.entry(name)
    with pytest.raises(ValueError, match=message):
        open_model(name)


def test_an_argument_that_the_model_does_not_have_is_answered_with_the_one_that_was_meant(folder):
    for checkpoint in (None, str(folder / "model.safetensors")):
        with pytest.raises(ValueError, match=rf"model.kwargs=.*: {NAME} has no argument depht; did you mean depth\?$"):
            load_model(ModelConfig(NAME, {"depht": 1}, checkpoint=checkpoint), 10)
        with pytest.raises(ValueError, match="has no argument zzz; expected one of .*depth.*num_groups"):
            create_model(NAME, checkpoint=checkpoint, zzz=1)
    with pytest.raises(ValueError, match="does not fit"):
        create_model(NAME, checkpoint=folder / "model.safetensors", depth=2)


def test_predict_with_an_argument_in_config_json_that_does_not_exist(folder, capsys):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_args": {"depht": 1}}))
    samples = load_samples()
    samples.pil(0).save(folder.parent / "a.png")
    assert main(["predict", str(folder), str(folder.parent / "a.png")]) == 2
    assert "argument" in capsys.readouterr().err


def test_an_older_config_of_one_level_is_read():
    flat = {"architecture": "resnet18", "num_classes": 3, "input_size": [3, 224, 224], "label_names": ["a", "b", "c"]}
    for config in (flat, {"architecture": "resnet18", "pretrained_cfg": flat}):
        read = check_config(config, "org/name")
        assert (read["architecture"], read["num_classes"], read["pretrained_cfg"]["input_size"]) == ("resnet18", 3, [3, 224, 224])


@pytest.mark.parametrize("model", ["kat_small_patch14_dinov2", "kat_base_patch16_clip_224.laion2b", "a folder"])
def test_a_model_without_classes_is_refused_before_its_weights_are_fetched(model, tmp_path, no_network, capsys):
    if model == "a folder":
        model = str(tmp_path / "run")
        save_model(timm.create_model(NAME, depth=1, num_classes=0), model)
    load_samples().pil(0).save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "a.png"), "--model", model]) == 2
    assert f"model {model} gives features and not classes: expected a classifier" in capsys.readouterr().err


def test_weights_are_named_once(folder, capsys):
    weights = str(folder / "model.safetensors")
    with pytest.raises(ValueError, match="--checkpoint .* with hf-hub:ours/x: expected a name of the list or a folder"):
        open_model("hf-hub:ours/x", weights)
    assert main(["export", NAME, "--format", "onnx", "--pretrained", "--checkpoint", weights, "--out", str(folder / "x.onnx")]) == 2
    assert "--pretrained with --checkpoint" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names of files whose bytes are not text")
def test_names_of_files_that_are_not_text(folder, tmp_path, capsys):
    name = os.fsencode(tmp_path) + b"/\xe9.png"
    load_samples().pil(0).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", name)  # noqa: PTH104 (a path of bytes)
    out = tmp_path / "answers.csv"
    assert main(["predict", str(folder), os.fsdecode(name), "--out", str(out)]) == 0
    assert "\ufffd.png" in capsys.readouterr().out and "\ufffd.png" in out.read_text(encoding="utf-8")


def test_an_interrupted_predict_keeps_its_answers(folder, tmp_path, monkeypatch):
    for number in range(3):
        load_samples().pil(number).save(tmp_path / f"{number}.png")
    opened = classify.open_images

    def interrupted(*arguments):
        yield next(opened(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(classify, "open_images", interrupted)
    out = tmp_path / "answers.csv"
    assert main(["predict", str(folder), str(tmp_path / "[0-9].png"), "--batch-size", "1", "--out", str(out)]) == 130
    assert {row["file"] for row in csv.DictReader(out.read_text().splitlines())} == {str(tmp_path / "0.png")}
    assert not out.with_name("answers.csv.partial").exists()


def test_four_channels_are_refused_where_images_are_read(tmp_path, capsys):
    save_model(timm.create_model(NAME, depth=1, in_chans=4), tmp_path / "run", load_samples().classes)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [4, 28, 28], "mean": [0.5] * 4, "std": [0.5] * 4}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    load_samples().pil(0).save(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "a.png")]) == 2
    assert "the model takes images of 4 channels: expected 1 (gray) or 3 (RGB)" in capsys.readouterr().err


def test_convert_with_another_number_of_classes(folder, tmp_path, capsys):
    command = ["convert", str(folder / "model.safetensors"), str(tmp_path / "out"), "--model", NAME]
    (tmp_path / "deep").mkdir()
    weights = timm.create_model(NAME).state_dict()
    save_file(weights, tmp_path / "whole.safetensors")
    command[1] = str(tmp_path / "whole.safetensors")
    assert main([*command, "--num-classes", "7"]) == 2
    error = capsys.readouterr().err
    assert "num_classes=7: expected 10, the number of classes of" in error and len(error) < 300 and not (tmp_path / "out").exists()
    assert main([*command, "--num-classes", "10"]) == 0


def test_synsets_are_shown_as_the_words_they_mean():
    model = timm.create_model(NAME, num_classes=2)
    model.pretrained_cfg = {"label_names": ["n01440764", "n99999999"]}
    assert class_names(model, False) == ["tench, Tinca tinca", "n99999999"]
    model.pretrained_cfg = {"label_names": ["a", "b"], "label_descriptions": {"a": "apple"}}
    assert class_names(model, False) == ["apple", "b"]
    model.pretrained_cfg = {"label_names": ["cat", "n01440764"]}
    assert class_names(model, False) == ["cat", "n01440764"]


def test_other_files_beside_the_cards_are_left_alone(tmp_path):
    assert main(["cards", "--out", str(tmp_path)]) == 0
    (tmp_path / "notes.md").write_text("# Notes\n")
    (tmp_path / "page.md").write_text("---\nlibrary_name: timm\ntags:\n- other\n---\n# Another project's card\n")
    assert cards.stale(tmp_path) == []
    shutil.copy(tmp_path / f"{NAME}.fmnist.md", tmp_path / "gone.md")
    assert cards.stale(tmp_path) == ["gone.md"]


@pytest.fixture
def no_network(monkeypatch):
    """An address at which nobody listens."""
    import socket

    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_TOKEN", "hf_x")


def test_push_and_pull_without_a_network_are_one_sentence(folder, no_network, tmp_path, capsys):
    assert main(["push", str(folder), "--repo", "ours/test"]) == 2
    error = capsys.readouterr().err
    assert "the Hub does not answer (ours/test)" in error and len(error.splitlines()) == 1
    assert main(["pull", "ours/test", str(tmp_path / "pulled")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("kat-zoo pull: the Hub does not answer (ours/test)")
    for call in (lambda: push(folder, "nonsense"), lambda: pull("nonsense")):
        with pytest.raises(ValueError, match="repo='nonsense': expected org/name"):
            call()
