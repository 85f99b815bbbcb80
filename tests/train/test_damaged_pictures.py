"""A damaged picture among many: named and passed over in training as far as a recipe allows, and by predict, which does the others."""

import csv
import dataclasses

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kat_zoo.cli.main import main
from kat_zoo.hub.repository import save_model
from kat_zoo.train.core.log import read_log
from kat_zoo.train.detection.loop import train as train_detector
from kat_zoo.train.segmentation.loop import train as train_segmenter

from .conftest import write_ade20k
from .detection_scenes import small_recipe, write_coco


def truncate(path):
    """Cut a picture in the middle: its header, and so its size, can still be read."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def short(recipe, root, limit, workers=0):
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, root=str(root), max_unreadable=limit, workers=workers),
        schedule=dataclasses.replace(recipe.schedule, epochs=1, warmup_epochs=0),
    )


def segmentation(root, recipe, run):
    write_ade20k(root)
    return recipe, train_segmenter, root / "images" / "training" / "1.png", root / "images" / "validation" / "1.png"


def detection(root, recipe, run):
    write_coco(root, train=8)
    return small_recipe(root, run), train_detector, root / "train" / "2.png", root / "val" / "2.png"


@pytest.mark.parametrize("task", [detection, segmentation])
def test_another_picture_takes_the_place_of_a_damaged_one_up_to_a_limit(task, segmentation_recipe, tmp_path, caplog, capsys):
    run = tmp_path / "run"
    recipe, train, bad, bad_in_val = task(tmp_path / "data", segmentation_recipe, run)
    truncate(bad)
    with pytest.raises(ValueError, match=f"1 unreadable images, more than data.max_unreadable 0: .*{bad.name}"):
        train(short(dataclasses.replace(recipe, output=str(tmp_path / "none")), tmp_path / "data", 0))
    assert train(short(recipe, tmp_path / "data", 1, workers=2)) is not None
    assert f"unreadable image {bad}" in caplog.text and caplog.text.count("another takes its place") >= 1
    assert [record["unreadable_images"] for record in read_log(run / "metrics.jsonl") if "unreadable_images" in record] == [1]

    # predict of the run: the damaged picture is named, the others are drawn
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.open(bad_in_val).save(tmp_path / "pictures" / name)
    truncate(tmp_path / "pictures" / "b.png")
    capsys.readouterr()
    assert main(["predict", "--out", str(tmp_path / "out"), str(run), str(tmp_path / "pictures")]) == 1
    printed = capsys.readouterr()
    assert {path.name[0] for path in (tmp_path / "out").iterdir()} == {"a", "c"}
    assert "b.png is not an image that can be read" in printed.err and "1 of 3 images could not be read" in printed.err

    truncate(bad_in_val)
    with pytest.raises(ValueError, match=bad_in_val.name):
        train(short(dataclasses.replace(recipe, output=str(tmp_path / "again")), tmp_path / "data", 1))

    weights = load_file(run / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    save_file(weights | {name: torch.full_like(weights[name], torch.nan)}, run / "model.safetensors")
    assert main(["predict", str(run), str(tmp_path / "pictures")]) == 2
    assert f"model.safetensors: {name}[" in capsys.readouterr().err


def test_a_file_that_is_no_picture_at_all_counts_as_damaged(segmentation_recipe, tmp_path, caplog):
    recipe, train, bad, _ = segmentation(tmp_path / "data", segmentation_recipe, tmp_path / "run")
    bad.write_text("no picture")
    with pytest.raises(ValueError, match=f"{bad.name}: not a picture that can be read"):
        train(short(dataclasses.replace(recipe, output=str(tmp_path / "none")), tmp_path / "data", 0))
    assert train(short(recipe, tmp_path / "data", 1)) is not None
    assert f"{bad}: not a picture that can be read" in caplog.text


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, name in enumerate(("a", "b", "c", "d")):
        Image.linear_gradient("L").resize((28, 28)).rotate(90 * i).save(folder / f"{name}.png")
    return folder


def test_classes_of_the_other_pictures_are_told_and_written(pictures, tmp_path, capsys):
    save_model(timm.create_model("kat_pico_patch4_28", depth=1), tmp_path / "run", "abcdefghij")
    command = ["predict", str(tmp_path / "run"), str(pictures), "--out", str(tmp_path / "out.csv"), "--batch-size", "2", "--top", "1"]
    assert main(command) == 0
    with (tmp_path / "out.csv").open() as file:
        whole = list(csv.reader(file))
    truncate(pictures / "b.png")
    (pictures / "c.png").write_text("no picture")
    capsys.readouterr()
    assert main(command) == 1
    printed = capsys.readouterr()
    with (tmp_path / "out.csv").open() as file:
        assert list(csv.reader(file)) == [row for row in whole if not row[0].endswith(("b.png", "c.png"))]
    assert "b.png is not an image that can be read" in printed.err and "c.png is not an image" in printed.err
    assert "2 of 4 images could not be read; the others are done" in printed.err and printed.out.count(": ") == 2
    assert main(["predict", str(tmp_path / "run"), str(pictures / "c.png")]) == 2
    assert "c.png is not an image that can be read" in capsys.readouterr().err


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0)])
def test_options_and_the_folder_of_a_run_come_in_any_order(order, pictures, tmp_path, capsys):
    save_model(timm.create_model("kat_pico_patch4_28", depth=1), tmp_path / "run", "abcdefghij")
    parts = [[str(tmp_path / "run")], [str(pictures / "a.png")], ["--top", "1"]]
    if order == (1, 2, 0):  # the picture first: then the folder has to be named
        parts[0] = ["--model", *parts[0]]
    assert main(["predict", *(part for i in order for part in parts[i])]) == 0
    assert capsys.readouterr().out.count("%") == 1
