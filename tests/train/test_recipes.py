"""The list of packaged recipes."""

import json

import pytest

from kat_zoo.train.core.config import RECIPES
from kat_zoo.train.recipes import header, main, read_recipes


def test_every_recipe_is_described():
    found = {facts.name: facts for facts in read_recipes()}
    assert set(found) == {path.stem for path in RECIPES.glob("*.yaml")}
    for facts in found.values():
        assert facts.about.endswith((".", ")")) and facts.time and facts.task in ("classification", "detection", "segmentation"), facts
        assert len(facts.expected) <= 40 and len(facts.time) <= 30, facts
    pico = found["kat_pico_fmnist"]
    assert (pico.expected, pico.time, pico.run, pico.data) == ("91.04 % top-1, 99.83 % top-5", "about 65 minutes", True, "fashion_mnist")
    assert (found["kat_base_patch16_224_in1k"].expected, found["kat_base_patch16_224_in1k"].run) == ("82.3 % top-1", False)
    assert found["kat_tiny_patch4_32_cifar10"].expected == ""
    assert found["kat_small_maskrcnn_coco"].expected == "47.5 box AP, 41.5 mask AP"
    assert found["kat_pico_upernet_scenes"].run


def test_the_header_is_split_at_its_keys(tmp_path):
    (tmp_path / "x.yaml").write_text("# A model\n#   of two lines.\n# Result:   1 %.\n# Paper:    none.\noutput: x\n# Run here: no\n")
    assert header(tmp_path / "x.yaml") == {"": "A model of two lines.", "Result": "1 %.", "Paper": "none."}


def test_recipes_are_listed_and_searched(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["recipe", "task"] and len(lines) == len(list(RECIPES.glob("*.yaml"))) + 3
    assert main(["detection", "coco", "--json"]) == 0
    assert {facts["name"] for facts in json.loads(capsys.readouterr().out)} == {"kat_small_maskrcnn_coco", "kat_pico_maskrcnn_scenes"}
    with pytest.raises(ValueError, match="nonsense: expected words of a recipe"):
        main(["nonsense"])
