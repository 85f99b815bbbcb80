"""All images and annotations of a recipe's data are read once, and what is wrong is said."""

import itertools
import json
import os

import numpy as np
import pytest
from PIL import Image

from kat_zoo.cli.main import main as cli
from kat_zoo.train.check_data import main
from kat_zoo.train.classification.datasets import open_splits
from kat_zoo.train.classification.loader import train_loader
from kat_zoo.train.classification.recipe import AugmentConfig, DataConfig
from kat_zoo.train.core.images import UnreadableImages

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


def test_names_that_are_not_text_and_more_damage_than_a_run_looks_at(tmp_path, capsys):
    root = tmp_path / "data"
    for split in ("train", "val"):
        for name in (b"cat", b"k\xfc"):
            folder = root / split / os.fsdecode(name)
            folder.mkdir(parents=True)
            for i in range(12):
                path = folder / os.fsdecode(b"%02d_\xe4.png" % i)
                if name == b"cat" and split == "train":
                    path.write_text("no picture")
                else:
                    Image.new("L", (28, 28), 10 * i).save(path)
    arguments = ["--data.dataset", "folder", "--data.root", str(root)]
    assert main([*arguments, "--report", str(tmp_path / "report.txt")]) == 1
    out = capsys.readouterr().out
    out.encode()
    assert "12 cannot be used" in out and "00_\ufffd.png: it is not in a format" in out
    assert len((tmp_path / "report.txt").read_text().splitlines()) == 12
    with pytest.raises(ValueError, match="the first 10 images cannot be read: .*00_\ufffd.png"):
        open_splits(DataConfig("folder", str(root)))
    config = DataConfig("folder", str(root), max_unreadable=12, batch_size=4, workers=0)
    splits, unreadable = open_splits(config), UnreadableImages(12)
    resolved = {
        "input_size": (1, 28, 28),
        "mean": (0.5,),
        "std": (0.5,),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    loader, sampler, _ = train_loader(splits.train, config, AugmentConfig(crop="none"), resolved, 0, 1, unreadable)
    sampler.seek(0)
    assert len(list(loader)) == 6 and len(unreadable.names) == 12 and all(name.endswith("_\ufffd.png") for name in unreadable.names)


def test_classes_whose_names_are_not_text_are_evaluated(tmp_path, capsys):
    root = tmp_path / "data"
    for split, name in itertools.product(("train", "val"), (b"cat", b"k\xfc")):
        folder = root / split / os.fsdecode(name)
        folder.mkdir(parents=True)
        for i in range(4):
            Image.new("L", (28, 28), 10 * i).save(folder / f"{i}.png")
    model = ["--model.name=kat_pico_patch4_28", "--model.kwargs={depth: 1, embed_dim: 24}", f"--data.root={root}", "--data.dataset=folder"]
    output = ["--output", str(tmp_path / "run"), "--schedule.epochs=1", "--schedule.warmup_epochs=0", "--system.trackers=[]"]
    assert cli(["train", *model, "--data.batch_size=4", "--data.workers=0", *output]) == 0
    assert cli(["validate", str(tmp_path / "run"), "--confusion", str(tmp_path / "confusion.csv")]) == 0
    assert "k\ufffd" in capsys.readouterr().out and b",cat,k\xfc" in (tmp_path / "confusion.csv").read_bytes()


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
