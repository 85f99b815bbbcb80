"""A folder that `kat-zoo train` wrote is a Hub repository: every command, timm and transformers read it, with its own classes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from kat_zoo.cli.main import main
from kat_zoo.hub.conversion import convert
from kat_zoo.hub.repository import Origin, lay_out, save_model
from kat_zoo.hub.source import open_model
from kat_zoo.hub.sync import push
from kat_zoo.train import read_run, train
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig, ModelConfig, Recipe
from kat_zoo.train.core import begin
from kat_zoo.train.core.config import EmaConfig, OptimizerConfig, ScheduleConfig, SystemConfig, to_yaml

from ..hub.server import TOKEN
from .detection_scenes import small_recipe, write_coco

CLASSES = ("cat", "dog", "newt")


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Pictures whose class is their color, in torchvision's folders."""
    root = tmp_path_factory.mktemp("data") / "pets"
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for channel, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 60, (28, 28, 3)).astype(np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def run(pets, tmp_path_factory):
    recipe = Recipe(
        output=str(tmp_path_factory.mktemp("runs") / "pets_run"),
        model=ModelConfig("kat_pico_patch4_28", {"depth": 1, "embed_dim": 24, "in_chans": 3}),
        data=DataConfig(
            "folder", str(pets), batch_size=6, workers=0, input_size=(3, 28, 28), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), crop_pct=1.0
        ),
        augment=AugmentConfig(crop="pad"),
        optimizer=OptimizerConfig(lr=1e-2),
        schedule=ScheduleConfig(epochs=8, warmup_epochs=1),
        ema=EmaConfig(decay=0.0),
        system=SystemConfig(log_every=1, trackers=()),
    )
    result = train(recipe)
    assert result.top1 == 100
    return read_run(recipe.output).folder


@pytest.fixture
def picture(pets):
    return str(pets / "val" / "newt" / "0.png")


def command(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_the_reader(run):
    found = read_run(run)
    assert (found.task, found.classes, found.weights.name) == ("classification", CLASSES, "model.safetensors")
    assert found.recipe(Recipe).model.name == "kat_pico_patch4_28" and found.result["top1"] == 100
    assert found.config["kat_zoo"]["dataset"] == "pets" and found.log[-1]["top1"] == 100
    with pytest.raises(ValueError, match="is a run of classification: expected one of detection"):
        read_run(run, "detection")


def test_commands_take_the_folder(run, picture, capsys, tmp_path):
    for model in ([run, picture], [picture, "--model", run], [f"local-dir:{run}", picture]):
        assert ": newt " in command(capsys, "predict", *model)
    assert ": newt " in command(capsys, "predict", picture, "--model", run, "--checkpoint", run / "best.safetensors")
    assert "newt  100.00 %" in command(capsys, "validate", run)
    assert "curves.png" in command(capsys, "analyze", run, "--out", tmp_path / "pictures", "--what", "curves")
    assert "differs by" in command(capsys, "export", run, "--format", "pt2", "--out", tmp_path / "pets.pt2", "--repeats", "1")
    assert "dry run" in command(capsys, "push", run, "--repo", "ours/pets", "--dry-run")


def test_timm_and_transformers_read_the_folder(run, picture):
    model = timm.create_model(f"local-dir:{run}", pretrained=True).eval()
    config = timm.data.resolve_data_config({}, model=model)
    assert list(config["mean"]) == [0.4, 0.5, 0.6] and list(config["std"]) == [0.2, 0.3, 0.4] and list(config["input_size"]) == [3, 28, 28]
    weights = load_file(run / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with torch.inference_mode():
        expected = model(timm.data.create_transform(**config)(Image.open(picture))[None]).softmax(1)[0]

    from transformers import pipeline

    answers = pipeline("image-classification", model=str(run))(picture)
    assert answers[0]["label"] == "newt" and answers[0]["score"] == pytest.approx(float(expected[2]), abs=1e-4)


def test_the_card_of_the_folder_runs(run, picture, monkeypatch):
    card = ModelCard.load(run / "README.md")
    assert card.data.eval_results[0].dataset_name == "pets" and card.data.license is None
    code = card.content.split("```python\n")[1].split("```")[0].replace("image.png", picture)
    monkeypatch.chdir(run)
    exec(code, names := {})
    assert names["top3"].indices[0, 0] == 2 and names["maps"][-1].shape[1] == 24


def test_what_is_pushed_says_what_the_folder_says(run, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    push(run, "ours/pets")
    pushed = hub.repos["ours/pets"].commits[hub.repos["ours/pets"].refs["main"]]
    card, own = ModelCard(pushed["README.md"].data.decode()), ModelCard.load(run / "README.md")
    assert pushed["model.safetensors"].data == (run / "model.safetensors").read_bytes()
    for key in ("dataset_name", "dataset_split", "metric_value"):
        assert getattr(card.data.eval_results[0], key) == getattr(own.data.eval_results[0], key)
    assert card.data.license is None and "hf-hub:ours/pets" in card.content and "checkpoints" not in pushed
    assert str(run.parent) not in pushed["recipe.yaml"].data.decode()


def test_classes_are_never_those_of_the_registry(run, picture, capsys, tmp_path):
    """The architecture's own weights know ten classes of clothes; a file of weights for ten others does not."""
    digits = timm.create_model("kat_pico_patch4_28", depth=1, num_classes=10)
    save_model(digits, tmp_path / "digits", [f"digit {i}" for i in range(10)], origin=Origin(dataset="digits"))
    assert open_model(str(tmp_path / "digits")).classes[9] == "digit 9"
    torch.save(timm.create_model("kat_pico_patch4_28", num_classes=10).state_dict(), tmp_path / "bare.pth")
    bare = command(capsys, "predict", picture, "--model", "kat_pico_patch4_28", "--checkpoint", tmp_path / "bare.pth")
    assert bare.split(": ")[1].split(" ")[0].isdecimal()
    convert(tmp_path / "bare.pth", "kat_pico_patch4_28", tmp_path / "converted")
    config = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert "label_names" not in config and "license" not in config["pretrained_cfg"]
    assert open_model(str(tmp_path / "converted")).classes == tuple(map(str, range(10)))
    with pytest.raises(ValueError, match="expected kat_pico_patch4_28, which the config.json beside it names"):
        open_model("kat_tiny_patch16_224", run / "best.safetensors")


def test_classes_of_other_data_are_refused(run, pets, capsys, tmp_path):
    other = tmp_path / "others"
    other.symlink_to(pets)
    assert "100.00 %" in command(capsys, "validate", run, "--data.root", other)
    renamed = tmp_path / "renamed"
    for split in ("train", "val"):
        for new, old in zip(("ant", "bee", "cow"), CLASSES, strict=True):
            (renamed / split).mkdir(parents=True, exist_ok=True)
            (renamed / split / new).symlink_to(pets / split / old)
    assert main(["validate", str(run), "--data.root", str(renamed)]) == 2
    assert "knows the classes cat, dog, newt: expected those of the data, ant, bee, cow" in capsys.readouterr().err


@pytest.fixture
def old(run, tmp_path):
    """The folder as older versions left it."""
    folder = tmp_path / "old"
    shutil.copytree(run, folder)
    for name in ("config.json", "README.md"):
        (folder / name).unlink()
    (folder / "model.safetensors").rename(folder / "last.safetensors")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(yaml.safe_load((run / "recipe.yaml").read_text()) | {"output": str(folder)}))
    return folder


def test_old_folders_validate_and_go_on(old, capsys):
    assert "newt  100.00 %" in command(capsys, "validate", old)
    assert main(["push", str(old), "--repo", "ours/pets", "--dry-run"]) == 2
    assert "--resume auto writes it" in capsys.readouterr().err
    assert main(["train", "--config", str(old / "recipe.yaml"), "--resume", "auto"]) == 0
    assert read_run(old).weights.name == "model.safetensors" and not (old / "last.safetensors").exists()


def test_a_run_that_goes_on_has_no_figures_of_other_weights(run, tmp_path, capsys):
    folder = tmp_path / "longer"
    shutil.copytree(run, folder)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text()) | {"output": str(folder)}
    recipe["schedule"]["epochs"] += 1
    begun = begin.JsonlLog
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(begin, "JsonlLog", lambda *arguments: [begun(*arguments), *stop()][0])

        def stop():
            assert not (folder / "result.json").exists() and not (folder / "README.md").exists()
            raise ValueError("seen")

        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        assert main(["train", "--config", str(tmp_path / "recipe.yaml"), "--resume", "auto"]) == 2
    assert "seen" in capsys.readouterr().err
    shutil.rmtree(folder / "checkpoints")
    assert main(["train", "--config", str(tmp_path / "recipe.yaml"), "--resume", "auto"]) == 2
    assert "has model.safetensors, best.safetensors, curves.png, curves.csv, but no checkpoint to go on from" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda c: [1], "expected an object"),
        (lambda c: c | {"kat_zoo": "x"}, "kat_zoo=x: expected an object"),
        (lambda c: c | {"kat_zoo": {"task": "flying"}}, "task='flying': expected one of"),
        (lambda c: {k: v for k, v in c.items() if k != "architecture"}, "architecture=None: expected a name"),
        (lambda c: c | {"architecture": "absent_model"}, "absent_model"),
        (lambda c: c | {"num_classes": "3"}, "num_classes=3: expected an integer"),
        (lambda c: c | {"num_classes": 5}, "cannot be loaded"),
        (lambda c: c | {"model_args": {"nonsense": 1}}, "cannot be loaded"),
        (lambda c: c | {"label_names": 3}, "label_names=3: expected a list of names"),
        (lambda c: c | {"label_names": [None, None, None]}, "expected a list of names"),
    ],
)
def test_a_hostile_config_is_one_sentence(run, picture, change, says, tmp_path, capsys):
    for name in ("model.safetensors", "recipe.yaml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(change(json.loads((run / "config.json").read_text()))))
    assert main(["predict", str(tmp_path), picture]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1


def test_what_else_lies_in_a_folder_stays_there(run, tmp_path, capsys):
    folder = tmp_path / "mine"
    shutil.copytree(run, folder)
    for name in (".env", "notes.pkl", "secret.png"):
        (folder / name).write_text("secret")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["model"]["init_from"] = "vit_tiny_patch16_224@/home/alice/w.pth"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    printed = command(capsys, "push", folder, "--repo", "ours/mine", "--dry-run")
    assert "model.safetensors" in printed and not any(name in printed for name in (".env", "notes", "secret"))
    (tmp_path / "out").mkdir()
    lay_out(folder, tmp_path / "out", "ours/mine")
    assert "alice" not in (tmp_path / "out" / "recipe.yaml").read_text()
    torch.save(timm.create_model("test_kat").state_dict(), tmp_path / "x.pth")
    assert main(["convert", str(tmp_path / "x.pth"), str(folder), "--model", "test_kat"]) == 2
    assert "expected a new folder" in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:1000])
    assert main(["push", str(folder), "--repo", "ours/mine", "--dry-run"]) == 2


def test_a_thousand_classes_of_ones_own_are_not_those_of_imagenet(tmp_path):
    save_model(timm.create_model("test_kat", depth=1), tmp_path / "k1000")
    assert open_model(str(tmp_path / "k1000")).classes[:2] == ("0", "1")


def test_detectors_are_pushed_and_pulled_as_folders(hub, tmp_path, capsys, monkeypatch):
    coco = tmp_path / "coco"
    write_coco(coco)
    run = tmp_path / "detector"
    recipe = small_recipe(coco, run)
    (tmp_path / "recipe.yaml").write_text(to_yaml(dataclasses.replace(recipe, schedule=ScheduleConfig(epochs=1, warmup_epochs=0))))
    assert main(["train", "--config", str(tmp_path / "recipe.yaml")]) == 0
    assert {"README.md", "config.json", "curves.png", "model.safetensors"} <= {path.name for path in run.iterdir()}
    card = ModelCard.load(run / "README.md")
    assert card.data.pipeline_tag == "object-detection" and "kat-zoo predict . image.png" in card.content
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    assert push(run, "ours/shapes").changed
    command(capsys, "pull", "ours/shapes")
    picture = str(coco / "val" / "1.png")
    found = [command(capsys, "predict", folder, picture, "--min-score", "0") for folder in (run, "shapes")]
    assert found[0] == found[1] and "objects" in found[0]
    assert main(["predict", "hf-hub:ours/shapes", picture]) == 2
    assert "kat-zoo pull ours/shapes" in capsys.readouterr().err
    assert main(["export", str(run), "--format", "onnx"]) == 2
    assert "is a run of detection: expected one of classification" in capsys.readouterr().err


def test_predict_takes_folders_and_patterns_and_writes_tables(run, pets, capsys, tmp_path):
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    for name, source in (("a.png", "cat"), ("deep/b.PNG", "dog"), (".hidden.png", "newt"), ("notes.txt", "newt")):
        (images / name).write_bytes((pets / "val" / source / "0.png").read_bytes())
    command(capsys, "predict", run, images, "--out", tmp_path / "out.csv", "--batch-size", "1", "--top", "1")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        [str(images / "a.png"), "1", "cat"],
        [str(images / "deep" / "b.PNG"), "1", "dog"],
    ]
    printed = command(capsys, "predict", run, f"{images}/*.png", "--out", tmp_path / "out.json", "--flip")
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["classes"][0]["class"] == "cat" and printed.count("\n") == 1
    (images / "deep" / "bad.jpg").write_text("no picture")
    assert main(["predict", str(run), str(images)]) == 1
    assert "bad.jpg is not an image that can be read" in capsys.readouterr().err
    assert main(["predict", str(run), str(tmp_path / "nothing*")]) == 2
    assert main(["predict", str(run), str(images), "--out", str(tmp_path / "x.txt")]) == 2


@pytest.mark.slow
def test_onnx_of_a_run_names_its_classes(run, capsys, tmp_path):
    import onnx

    command(capsys, "export", run, "--format", "onnx", "--out", tmp_path / "pets.onnx", "--repeats", "1")
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "pets.onnx").metadata_props}
    assert json.loads(facts["classes"]) == list(CLASSES) and json.loads(facts["mean"]) == [0.4, 0.5, 0.6]


def test_validate_counts_confusions_and_asks_the_neighbors(run, capsys, tmp_path):
    table = tmp_path / "confusion.csv"
    printed = command(capsys, "validate", run, "--confusion", table, "--knn", "3")
    assert "3 nearest neighbors: top-1 100.00 %" in printed
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert rows[0][1:] == list(CLASSES) and rows[1:] == [["cat", "3", "0", "0"], ["dog", "0", "3", "0"], ["newt", "0", "0", "3"]]
    assert main(["validate", str(run), "--knn", "-1"]) == 2 and main(["validate", str(run), "--confusion", str(tmp_path)]) == 2
