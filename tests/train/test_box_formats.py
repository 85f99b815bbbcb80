"""Pascal VOC's XML and YOLO's text files are the same objects as COCO's JSON, and what is wrong in them is named."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kat_zoo.train.check_data import main as check_data
from kat_zoo.train.detection.data import EvalScenes, open_splits
from kat_zoo.train.detection.formats import read_split
from kat_zoo.train.detection.loop import train
from kat_zoo.train.detection.recipe import DetectionDataConfig
from kat_zoo.train.detection.validate import main as validate

from .detection_scenes import HEIGHT, WIDTH, small_recipe, write_coco

NAMES = {5: "square", 9: "cross"}


def boxes_of(split):
    """Name and corners of every object, by the file of its picture."""
    return {
        record["file_name"].rsplit(".")[0]: sorted(
            (split.classes[int(label) - 1], *np.round([x, y, x + w, y + h], 3))
            for a, label in zip(objects, split.labels(objects), strict=True)
            for x, y, w, h in [a["bbox"]]
        )
        for record in split.images
        for objects in [split.objects(record["id"])]
    }


def voc_xml(name, objects, size=(WIDTH, HEIGHT)):
    parts = [
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for label, difficult, x0, y0, x1, y1 in objects
    ]
    sizes = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>1</depth></size>"
    return f"<annotation><filename>{name}</filename>{sizes}{''.join(parts)}</annotation>"


def as_voc(root, split, annotations, images):
    """The objects of a split of COCO's format as VOC's files: the first pixel has the number 1, and the last belongs to the box."""
    content = json.loads((root / f"{split}.json").read_text())
    annotations.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    for record in content["images"]:
        objects = []
        for a in content["annotations"]:
            if a["image_id"] == record["id"]:
                x, y, w, h = a["bbox"]
                objects.append((NAMES[a["category_id"]], 0, x + 1, y + 1, x + w, y + h))
        name = f"{split}_{record['id']}"
        (annotations / f"{name}.xml").write_text(voc_xml(f"C:\\pictures\\{name}.png", objects))
        shutil.copy(root / split / record["file_name"], images / f"{name}.png")


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path / "coco", train=5, val=4)


@pytest.fixture
def voc(tmp_path, coco):
    """A folder as VOC's own: all pictures together, and lists of the names of each split."""
    root = tmp_path / "voc"
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split in ("train", "val"):
        as_voc(coco, split, root / "Annotations", root / "JPEGImages")
        names = sorted(path.stem for path in (root / "Annotations").glob(f"{split}_*.xml"))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}  1\n" for name in names))
    return root


@pytest.fixture
def yolo(tmp_path, coco):
    root = tmp_path / "yolo"
    (root).mkdir()
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: square, 1: cross}\n")
    for split in ("train", "val"):
        shutil.copytree(coco / split, root / "images" / split / "deeper")
        labels = root / "labels" / split / "deeper"
        labels.mkdir(parents=True)
        content = json.loads((coco / f"{split}.json").read_text())
        for record in content["images"]:
            lines = []
            for a in content["annotations"]:
                if a["image_id"] == record["id"]:
                    x, y, w, h = a["bbox"]
                    parts = ((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT)
                    lines.append(f"{(5, 9).index(a['category_id'])} " + " ".join(f"{part:.7f}" for part in parts))
            (labels / f"{record['id']}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_vocs_files_are_the_objects_of_cocos(coco, voc):
    expected = boxes_of(read_split(coco / "train.json", coco / "train", masks=False))
    split = read_split(voc / "ImageSets" / "Main" / "train.txt", voc / "JPEGImages", masks=False)
    assert split.classes == ("cross", "square")
    assert boxes_of(split) == {f"train_{name}": found for name, found in expected.items()}
    beside = coco.parent / "beside"
    as_voc(coco, "train", beside / "a", beside / "a")  # XML beside its picture, in a folder below
    assert boxes_of(read_split(beside, beside, masks=False)) == {f"a/{name}": found for name, found in boxes_of(split).items()}


def test_yolos_files_are_the_objects_of_cocos(coco, yolo):
    expected = boxes_of(read_split(coco / "val.json", coco / "val", masks=False))
    found = boxes_of(read_split(yolo / "data.yaml", yolo / "images" / "val", masks=False))
    assert {name.removeprefix("deeper/"): objects for name, objects in found.items()} == expected


def test_yolos_polygons_are_masks(yolo):
    path = yolo / "labels" / "val" / "deeper" / "1.txt"
    path.write_text(f"1 {10 / WIDTH} {6 / HEIGHT} {20 / WIDTH} {6 / HEIGHT} {20 / WIDTH} {18 / HEIGHT} {10 / WIDTH} {18 / HEIGHT}\n")
    for other in path.parent.glob("[2-9].txt"):
        other.unlink()
    split = read_split(yolo / "data.yaml", yolo / "images" / "val", masks=True)
    (record,) = [a for image in split.images for a in split.objects(image["id"])]
    assert split.classes == ("square", "cross") and record["area"] == 120 and np.allclose(record["bbox"], [10, 6, 10, 12])


def flags(root, train, val):
    keys = ("train_images", "train_annotations", "val_images", "val_annotations")
    return ["--task", "detection", "--data.root", str(root), "--model.head", "faster_rcnn"] + [
        part for key, value in zip(keys, (*train, *val), strict=True) for part in (f"--data.{key}", value)
    ]


VOC = (("JPEGImages", "ImageSets/Main/train.txt"), ("JPEGImages", "ImageSets/Main/val.txt"))
YOLO = (("images/train", "data.yaml"), ("images/val", "data.yaml"))


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_data_is_checked_trained_on_and_evaluated(kind, request, capsys, tmp_path):
    root, places = request.getfixturevalue(kind), {"voc": VOC, "yolo": YOLO}[kind]
    assert check_data(flags(root, *places)) == 0
    assert "training: 5 images, 40 to 40 pixels wide, 36 to 36 high; 2 classes" in capsys.readouterr().out
    recipe = small_recipe(root, tmp_path / "run", "faster_rcnn")
    settings = dict(zip(("train_images", "train_annotations", "val_images", "val_annotations"), (*places[0], *places[1]), strict=True))
    vars(recipe.data).update(settings, batch_size=2)
    vars(recipe.schedule).update(epochs=1, warmup_epochs=0)
    result = train(recipe)
    assert result is not None and result.images == 4
    capsys.readouterr()
    assert validate(["--run", str(tmp_path / "run")]) == 0
    assert f"AP {result.box['ap']:.2f} %" in capsys.readouterr().out.replace("ap ", "AP ")


def test_a_class_that_one_split_of_voc_lacks_keeps_its_number(voc, tmp_path):
    for path in (voc / "Annotations").glob("val_*.xml"):
        path.write_text(path.read_text().replace("cross", "square"))
    recipe = small_recipe(voc, tmp_path / "run", "faster_rcnn")
    vars(recipe.data).update(zip(("train_images", "train_annotations", "val_images", "val_annotations"), (*VOC[0], *VOC[1]), strict=True))
    train_split, test_split = open_splits(recipe.data, masks=False)
    assert train_split.classes == test_split.classes == ("cross", "square") and test_split.category_ids == [1, 2]


def test_difficult_objects_are_crowds_and_a_size_of_zero_is_that_of_the_picture(tmp_path):
    Image.new("L", (50, 30)).save(tmp_path / "a.tif")
    (tmp_path / "a.xml").write_text(voc_xml("other.jpg", [("dog", 1, 1, 1, 50, 30), ("cat", 0, 5, 6, 10, 20)], (0, 0)))
    split = read_split(tmp_path, tmp_path, masks=False)
    assert [a["bbox"] for a in split.objects(1)] == [[4, 5, 6, 15]] and split.classes == ("cat", "dog")
    assert [a["bbox"] for a in split.api.loadAnns(split.api.getAnnIds(iscrowd=True))] == [[0, 0, 50, 30]]
    image, number = EvalScenes(split, 1)[0]
    assert image.shape == (1, 30, 50) and number == 1 and isinstance(image, torch.Tensor)


BOMB = '<!DOCTYPE a [<!ENTITY b "{0}">]><annotation><object><name>&b;</name></object></annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB.format("b" * 100), "a.xml declares a document type: expected plain XML, without entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
        (BOMB.format("x").encode("utf-16"), "declares a document type"),
        ("<annotation>" + " " * (1 << 20) + "</annotation>", "expected an annotation of at most"),
        ("<annotation><object></annotation>", "a.xml is not XML"),
        ("<html/>", "begins with <html>: expected <annotation>"),
        (voc_xml("a.png", [("", 0, 1, 1, 2, 2)]), "<object> has no name"),
        (voc_xml("a.png", [("dog", 0, "1e", 1, 2, 2)]), "bndbox/xmin='1e': expected a number of pixels"),
        (voc_xml("a.png", [("dog", 0, "nan", 1, 2, 2)]), r"bbox=\[nan, "),
        (voc_xml("a.png", [("dog", 0, 1, 1, 2, 2)], ("x", 3)), "size/width='x': expected a number"),
    ],
)
def test_a_hostile_or_damaged_xml_file_is_refused_by_name(tmp_path, text, message):
    Image.new("L", (40, 36)).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path, tmp_path, masks=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", "1.txt, line 2: '0 0.5 0.5 0.1': expected `class x y width height`"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "expected `class"),
        ("dog 0.5 0.5 0.1 0.1", "expected `class"),
        ("0.5 0.5 0.5 0.1 0.1", "expected `class"),
        ("nan 0.5 0.5 0.1 0.1", "expected `class"),
        ("2 0.5 0.5 0.1 0.1", "class 2: expected an integer from 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1: expected an integer from 0 to 1"),
        ("0 20 20 10 10", "expected parts of the picture's width and height, from 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "expected parts of the picture"),
    ],
)
def test_a_wrong_line_of_labels_is_named(yolo, line, message):
    (yolo / "labels" / "val" / "deeper" / "1.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_split(yolo / "data.yaml", yolo / "images" / "val", masks=False)


def test_other_things_that_are_missing_are_named(voc, yolo):
    with pytest.raises(ValueError, match=r"data.yaml: names=None: expected a list of different names"):
        (yolo / "data.yaml").write_text("nc: 2")
        read_split(yolo / "data.yaml", yolo / "images" / "val", masks=False)
    (yolo / "data.yaml").write_text("names: [square, cross]")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        read_split(yolo / "data.yaml", yolo / "images" / "test", masks=False)
    with pytest.raises(ValueError, match="there is no segmentation.*faster_rcnn learns boxes alone"):
        read_split(yolo / "data.yaml", yolo / "images" / "val", masks=True)
    shutil.rmtree(yolo / "labels")
    with pytest.raises(FileNotFoundError, match="has no text file of labels for the 4 pictures"):
        read_split(yolo / "data.yaml", yolo / "images" / "val", masks=False)
    with pytest.raises(FileNotFoundError, match="has no picture in .*expected val_1.jpg"):
        (voc / "JPEGImages" / "val_1.png").unlink()
        read_split(voc / "ImageSets" / "Main" / "val.txt", voc / "JPEGImages", masks=False)
    with pytest.raises(FileNotFoundError, match="1 of 4 names have no XML file"):
        (voc / "Annotations" / "val_2.xml").unlink()
        read_split(voc / "ImageSets" / "Main" / "val.txt", voc / "JPEGImages", masks=False)
    with pytest.raises(FileNotFoundError, match=r"has no \*.xml"):
        read_split(voc / "JPEGImages", voc / "JPEGImages", masks=False)


def labeled(folder, name, stated=None, objects=(("square", 0, 2, 2, 9, 9),)):
    """A picture with an XML file beside it that states a name, its own by default."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("L", (WIDTH, HEIGHT)).save(folder / f"{name}.png")
    (folder / f"{name}.xml").write_text(voc_xml(stated or f"{name}.png", objects))


def test_a_picture_has_one_xml_file(tmp_path):
    labeled(tmp_path, "a")
    labeled(tmp_path, "b", "a.png")
    (tmp_path / "b.png").unlink()
    with pytest.raises(ValueError, match=r"a.xml and .*b.xml both annotate .*a.png: expected one XML file"):
        read_split(tmp_path, tmp_path, masks=False)
    (tmp_path / "b.xml").unlink()
    (tmp_path / "Annotations").mkdir()
    shutil.copy(tmp_path / "a.xml", tmp_path / "Annotations")
    (tmp_path / "train.txt").write_text("a\na\n")
    with pytest.raises(ValueError, match="train.txt names 'a' twice"):
        read_split(tmp_path / "train.txt", tmp_path, masks=False)


def test_hidden_folders_do_not_count_and_names_may_hold_spaces(tmp_path):
    labeled(tmp_path / "Annotations", "my tree 1")
    labeled(tmp_path / "Annotations", "b", objects=(("square", "True", 2, 2, 9, 9),))
    labeled(tmp_path / "Annotations" / ".ipynb_checkpoints", "my tree 1-checkpoint")
    (tmp_path / "Annotations" / "b.xml").rename(tmp_path / "Annotations" / "b.XML")
    assert set(boxes_of(read_split(tmp_path / "Annotations", tmp_path / "Annotations", masks=False))) == {"my tree 1", "b"}
    (tmp_path / "train.txt").write_text("my tree 1\n")
    split = read_split(tmp_path / "train.txt", tmp_path / "Annotations", masks=False)
    assert [len(found) for found in boxes_of(split).values()] == [1]


def test_pictures_and_labels_without_each_other_are_counted(tmp_path, yolo, caplog):
    for name in "abc":
        labeled(tmp_path / "voc", name)
    (tmp_path / "voc" / "c.xml").unlink()
    read_split(tmp_path / "voc", tmp_path / "voc", masks=False)
    assert "1 of 3 pictures have no XML file and are left out, first" in caplog.text and "c.png" in caplog.text
    labels = yolo / "labels" / "val" / "deeper"
    (labels / "1.txt").rename(labels / "one.txt")
    (yolo / "labels" / "val" / "classes.txt").write_text("square\ncross\n")
    read_split(yolo / "data.yaml", yolo / "images" / "val", masks=False)
    assert "1 of 4 pictures have no labels and show nothing, first" in caplog.text
    assert "1 of 4 label files have no picture and are left out, first" in caplog.text and "one.txt" in caplog.text


def test_a_class_of_the_evaluation_alone_is_named(tmp_path, caplog):
    labeled(tmp_path / "train", "a")
    labeled(tmp_path / "val", "b", objects=(("squaer", 0, 2, 2, 9, 9),))
    places = {"train_images": "train", "train_annotations": "train", "val_images": "val", "val_annotations": "val"}
    open_splits(DetectionDataConfig(root=str(tmp_path), **places), masks=False)
    assert "train has no object of squaer: evaluated, but not trained on" in caplog.text


def test_messages_name_the_picture(tmp_path, caplog):
    labeled(tmp_path, "a", objects=(("square", 0, 200, 200, 230, 230), ("square", 0, 2, 2, 9, 9)))
    read_split(tmp_path, tmp_path, masks=False)
    assert "1 objects with a box outside the image are left out, first in image 1 (a.png)" in caplog.text


def test_sizes_are_compared_before_training(voc, tmp_path):
    path = voc / "Annotations" / "val_2.xml"
    path.write_text(path.read_text().replace(f"<width>{WIDTH}<", f"<width>{2 * WIDTH}<"))
    recipe = small_recipe(voc, tmp_path / "run", head="faster_rcnn")
    places = ("train_images", "train_annotations", "val_images", "val_annotations")
    data = dataclasses.replace(recipe.data, **dict(zip(places, (*VOC[0], *VOC[1]), strict=True)))
    with pytest.raises(ValueError, match=r"val_2.png, has the size \(width, height\) .*; its annotations are for"):
        train(dataclasses.replace(recipe, data=data))
    assert not (tmp_path / "run").exists()
