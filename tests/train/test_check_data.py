"""All images and annotations of a recipe's data are read once, and what is wrong is said."""

import json

import numpy as np
import pytest
from PIL import Image

from kat_zoo.train.check_data import main

from .conftest import write_ade20k
from .detection_scenes import write_coco


def folder_of_classes(root):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.full((6 + i, 9), 50, np.uint8)).save(folder / f"{i}.png")
    return root


def test_classes_in_folders(tmp_path, capsys):
    root = folder_of_classes(tmp_path / "data")
    arguments = ["--data.dataset", "folder", "--data.root", str(root)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert (
        "training: 6 images, 9 to 9 pixels wide, 6 to 8 high; 2 classes, each in 3 to 3 images" in out and "Every image can be used." in out
    )
    cut = root / "train" / "dog" / "1.png"
    cut.write_bytes(cut.read_bytes()[:50])
    (root / "val" / "cat" / "2.png").write_text("no picture")
    assert main([*arguments, "--report", str(tmp_path / "report.txt")]) == 1
    out = capsys.readouterr().out
    assert "1 cannot be used; training takes others in the place of damaged images, up to data.max_unreadable=0" in out
    assert f"{cut}: " in out and "val/cat/2.png: it is not in a format" in out and "evaluation leaves no image out" in out
    lines = (tmp_path / "report.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["training", "evaluation"]


def test_scenes_of_coco(tmp_path, capsys):
    root = write_coco(tmp_path, train=4, val=3)
    arguments = ["--task", "detection", "--data.root", str(root), "--data.train_images", "train", "--data.train_annotations", "train.json",
                 "--data.val_images", "val", "--data.val_annotations", "val.json"]  # fmt: skip
    assert main(arguments) == 0
    assert "training: 4 images, 40 to 40 pixels wide" in capsys.readouterr().out
    Image.new("L", (36, 40)).save(root / "train" / "2.png")
    assert main(arguments) == 1
    assert "image 2, " in capsys.readouterr().out
    content = json.loads((root / "val.json").read_text())
    content["annotations"][0]["bbox"] = "x"
    (root / "val.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="bbox=x"):
        main(arguments)


def test_pixels_of_ade20k(tmp_path, capsys):
    root = write_ade20k(tmp_path)
    arguments = ["--task", "segmentation", "--data.root", str(root)]
    assert main(arguments) == 0
    assert "evaluation: 5 images, 32 to 32 pixels wide, 24 to 32 high; 3 classes" in capsys.readouterr().out
    for i in (1, 3):
        Image.fromarray(np.full((32, 32), 200, np.uint8)).save(root / "annotations" / "training" / f"{i}.png")
    (root / "images" / "validation" / "0.png").write_text("no picture")
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "2 cannot be used; training takes others in the place of damaged images, up to data.max_unreadable=0" in out
    assert "and stops at other faults" in out and "3.png has labels that are not classes: 200 (1024 pixels)" in out
    assert "validation/0.png: not a picture that can be read" in out


def test_streams_are_refused_and_nothing_is_needed_besides_the_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="data.root=.*nowhere"):
        main(["--data.dataset", "folder", "--data.root", str(tmp_path / "nowhere")])


def test_help_does_not_ask_for_a_run_folder(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "[--output OUTPUT]" in capsys.readouterr().out
