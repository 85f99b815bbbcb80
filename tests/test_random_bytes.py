"""Files that anybody may have made: whatever bytes they hold, a loader takes them, or refuses them in a sentence that names the file."""

import json
import math
import re

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from kat_zoo.hub.conversion import convert
from kat_zoo.hub.repository import CONFIG, model_config, read_config
from kat_zoo.kan import KAN
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.config import parse
from kat_zoo.train.core.yaml_file import read_settings
from kat_zoo.train.detection.formats import read_split
from kat_zoo.train.detection.recipe import DetectionRecipe

RECIPE = """
output: run
seed: 3
model: {name: test_kat}
optimizer: {lr: 1.0e-3, weight_decay: 0.05}
schedule: {epochs: 4, warmup_epochs: 1}
data: {batch_size: 8}
"""
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}],
    "categories": [{"id": 5, "name": "square"}, {"id": 9, "name": "cross"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 5, "bbox": [2, 3, 8, 9], "area": 72, "iscrowd": 0, "segmentation": [[2, 3, 10, 3, 10, 12]]}
    ],
}
VOC = (
    "<annotation><filename>a.png</filename><size><width>32</width><height>24</height><depth>3</depth></size><object><name>square</name>"
    "<difficult>0</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>10</xmax><ymax>12</ymax></bndbox></object></annotation>"
)
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1e308, math.nan, math.inf, "", "0", "\udcff", [], {}, [[]], [None], {"a": None}]),
    st.text(max_size=4),
)


def replaced(draw, value):
    """A tree of JSON, one of whose values is something else, or missing, or there twice."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        copy = value.copy()
        key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        if draw(st.integers(0, 5)) == 0:
            del copy[key]
        else:
            copy[key] = replaced(draw, value[key])
        return copy
    return draw(STRANGE)


def damaged(draw, raw):
    """Bytes of any kind, or those of a good file with a piece left out, put in, turned around or repeated."""
    kind = draw(st.sampled_from(["random", "cut", "splice", "flip", "nest"]))
    if kind == "random" or not raw:
        return draw(st.binary(max_size=200))
    start = draw(st.integers(0, len(raw) - 1))
    stop = min(len(raw), start + draw(st.integers(0, 40)))
    if kind == "cut":
        return raw[:start]
    if kind == "splice":
        return raw[:start] + draw(st.binary(max_size=20)) + raw[stop:]
    if kind == "nest":
        opening = draw(st.sampled_from([b"[", b"{", b'{"a":', b"<a>", b"- ", b"&a [*a,"]))
        return raw[:start] + opening * draw(st.sampled_from([3, 5000])) + raw[stop:]
    return raw[:start] + bytes(byte ^ draw(st.integers(0, 255)) for byte in raw[start : start + 3]) + raw[start + 3 :]


def kan_file(folder):
    path = folder / "kan.safetensors"
    KAN([2, [1, 1], 1], 3).save(path)
    return path, path, lambda: KAN.load(path)


def weights(folder):
    path = folder / "weights.safetensors"
    save_file(timm.create_model("test_kat", num_classes=2).state_dict(), path)

    def load():
        for old in (folder / "out").glob("*"):
            old.unlink()
        convert(path, "test_kat", folder / "out")

    return path, path, load


def config(folder):
    path = folder / CONFIG
    path.write_text(json.dumps(model_config(timm.create_model("test_kat", num_classes=2))))
    return path, path, lambda: read_config(folder)


def recipe(folder):
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path, path, lambda: (read_settings(path), parse(Recipe, ["--config", str(path)], "test"))


def detection_recipe(folder):
    path = folder / "recipe.yaml"
    path.write_text("output: run\ntask: detection\ndata: {train_annotations: a.json, batch_size: 2}\n")
    return path, path, lambda: (read_settings(path), parse(DetectionRecipe, ["--config", str(path)], "test"))


def pictures(folder):
    (folder / "images").mkdir()
    Image.new("RGB", (32, 24)).save(folder / "images" / "a.png")
    return folder / "images"


def coco(folder):
    images, path = pictures(folder), folder / "train.json"
    path.write_text(json.dumps(COCO))
    return path, path, lambda: read_split(path, images, masks=True)


def voc(folder):
    images, annotations = pictures(folder), folder / "annotations"
    annotations.mkdir()
    (annotations / "a.xml").write_text(VOC)
    return annotations / "a.xml", annotations, lambda: read_split(annotations, images, masks=False)


def yolo(folder):
    images, path = pictures(folder), folder / "data.yaml"
    path.write_text("names: [square, cross]\n")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.3\n1 0.1 0.1 0.4 0.1 0.4 0.5\n")
    return folder / "labels" / "a.txt", folder / "labels", lambda: read_split(path, images, masks=False)


LOADERS = (kan_file, weights, config, recipe, detection_recipe, coco, voc, yolo)


def check(loader, folder, capsys, max_examples):
    path, named, load = loader(folder)
    good = path.read_bytes()
    load()

    @given(st.data())
    @settings(max_examples=max_examples, suppress_health_check=list(HealthCheck))
    def refused_or_taken(data):
        if path.suffix == ".json" and data.draw(st.booleans()):
            path.write_text(json.dumps(replaced(data.draw, json.loads(good))))
        else:
            path.write_bytes(damaged(data.draw, good))
        try:
            load()
        except (ValueError, FileNotFoundError) as error:
            of_a_setting = "recipe" in path.name and re.search(r"\w+(=.*)?: expected|required: \w+", str(error))
            assert str(folder) in str(error) or named.name in str(error) or of_a_setting, error
        except SystemExit as error:  # of a command, which has printed the sentence
            assert error.code == 2 and capsys.readouterr().err.strip()

    refused_or_taken()


@pytest.mark.filterwarnings("ignore")  # of values that numpy or PyTorch finds strange
@pytest.mark.parametrize("loader", LOADERS)
def test_any_bytes_are_refused_by_name_or_taken(loader, tmp_path, capsys):
    check(loader, tmp_path, capsys, 40)


@pytest.mark.parametrize("loader", [config, coco, kan_file])
def test_json_deeper_than_python_reads_is_refused_by_name(loader, tmp_path):
    path, _, load = loader(tmp_path)
    nested = "[" * 100_000
    if path.suffix == ".json":
        path.write_text(nested)
    else:
        save_file({"a": torch.zeros(1)}, path, {"version": "1", "kan": nested})
    with pytest.raises(ValueError, match=path.name):
        load()


def test_a_recipe_with_one_empty_setting_is_refused_in_our_words(tmp_path):
    path, _, load = recipe(tmp_path)
    path.write_text("output:\n")
    with pytest.raises(ValueError, match="--config: expected a file of settings"):
        load()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loader", LOADERS)
def test_many_bytes_are_refused_by_name_or_taken(loader, tmp_path, capsys):
    check(loader, tmp_path, capsys, 1000)
