import pytest
import yaml

from kat_zoo.cli import main
from kat_zoo.train.classification_config import Recipe
from kat_zoo.train.config import RECIPES, parse, to_yaml
from kat_zoo.train.detection_config import DetectionRecipe
from kat_zoo.train.segmentation_config import SegmentationRecipe
from kat_zoo.train.tasks import find_task

RECIPE_OF = {"classification": Recipe, "detection": DetectionRecipe, "segmentation": SegmentationRecipe}


def read(text, tmp_path, *argv):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return parse(Recipe, ["--config", str(path), *argv], "test")[0]


@pytest.mark.parametrize(
    "text, named",
    [
        ("output: x\nlr: 1.0\n", "lr"),
        ("output: x\noptimizer: {learning_rate: 1.0}\n", "learning_rate"),
        ("output: x\noptimizer: {lr: fast}\n", "fast"),
        ("output: x\naugment: {crop: centre}\n", "centre"),
        ("seed: 1\n", "output"),
        ("output: x\ndata: {holdout: 1.5}\n", "data.holdout"),
        ("output: x\ndata: {train_images: 0}\n", "data.train_images"),
        ("output: x\nschedule: {name: plateau}\n", "schedule.name"),
        ("output: x\ndata: {batch_size: 10}\noptimizer: {grad_accum: 3}\n", "grad_accum"),
        ("output: x\ndata: {batch_size: 9}\n", "even"),
        ("output: x\ntask: regression\n", "task 'regression'"),
        ("output: [x\n", "is not YAML"),
    ],
)
def test_bad_recipe_is_one_line_and_exit_code_2(text, named, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert main(["train", "--config", str(path)]) == 2
    error = capsys.readouterr().err.strip()
    assert named in error and len(error.splitlines()) == 1


def test_overrides_and_round_trip(tmp_path):
    recipe = read("output: x\nmodel: {kwargs: {depth: 2}}\naugment: {auto_augment: null}\n", tmp_path, "--optimizer.lr", "2e-3")
    assert recipe.optimizer.lr == 2e-3 and recipe.model.kwargs == {"depth": 2} and recipe.augment.auto_augment is None
    assert read(to_yaml(recipe), tmp_path) == recipe


def test_config_by_name_of_a_packaged_recipe(tmp_path):
    recipe, _ = parse(Recipe, ["--config", "kat_pico_fmnist", "--seed", "3"], "test")
    assert recipe.model.name == "kat_pico_patch4_28" and recipe.seed == 3
    with pytest.raises(FileNotFoundError, match="kat_pico_fmnist"):
        parse(Recipe, ["--config", "no_such_recipe"], "test")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_packaged_recipes_are_valid(path):
    recipe, _ = parse(RECIPE_OF[find_task(["--config", str(path)])], ["--config", str(path)], "test")
    assert yaml.safe_load(to_yaml(recipe))["output"] == f"runs/{path.stem}"
