import pytest
import yaml

from kat_zoo.cli.main import main
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.config import RECIPES, parse, to_yaml
from kat_zoo.train.detection.recipe import DetectionRecipe
from kat_zoo.train.segmentation.recipe import SegmentationRecipe
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
        ("output: x\naugment: {crop: center}\n", "center"),
        ("seed: 1\n", "output"),
        ("output: x\ndata: {holdout: 1.5}\n", "data.holdout"),
        ("output: x\ndata: {train_images: 0}\n", "data.train_images"),
        ("output: x\nschedule: {name: plateau}\n", "schedule.name"),
        ("output: x\ndata: {batch_size: 10}\noptimizer: {grad_accum: 3}\n", "grad_accum"),
        ("output: x\ndata: {batch_size: 9}\n", "even"),
        ("output: x\ntask: regression\n", "task='regression'"),
        ("output: [x\n", "is not YAML"),
        ("output: x\noptimizer: {layer_decay: 3}\n", "optimizer.layer_decay=3.0: expected in (0, 1]"),
        ("output: x\noptimizer: {clip_grad: -1}\n", "optimizer.clip_grad=-1.0"),
        ("output: x\noptimizer: {weight_decay: -1}\n", "optimizer.weight_decay=-1.0"),
        ("output: x\nsystem: {checkpoint_every: -5}\n", "system.checkpoint_every=-5"),
        ("output: x\nsystem: {max_skipped: 0}\n", "system.max_skipped=0"),
        ("output: x\nschedule: {warmup_epochs: -3}\n", "schedule.warmup_epochs=-3.0"),
        ("output: x\nschedule: {name: wsd, epochs: 6, decay_epochs: 2}\n", "schedule.decay_epochs=2.0: expected at most 1, what"),
        ("output: x\nschedule: {name: wsd, epochs: 5}\n", "schedule.warmup_epochs=5: expected below schedule.epochs = 5"),
        ("output: x\nschedule: {epochs: 3}\n", "schedule.warmup_epochs=5: expected below schedule.epochs = 3: give fewer, or 0"),
        ("output: x\nschedule: {min_lr: 0.1}\n", "schedule.min_lr=0.1: expected at most optimizer.lr = 0.001"),
        ("output: x\noptimizer: {lr: 5.0e-6}\n", "schedule.min_lr=1e-05: expected at most optimizer.lr = 5e-06"),
        ("output: x\nschedule: {warmup_lr: 0.1}\n", "schedule.warmup_lr=0.1: expected at most optimizer.lr = 0.001"),
        ("output: x\naugment: {mixup: -1}\n", "augment.mixup=-1.0"),
        ("output: x\naugment: {hflip: 2}\n", "augment.hflip=2.0"),
        ("output: x\naugment: {random_erasing: 5}\n", "augment.random_erasing=5.0"),
        ("output: x\ndata: {crop_pct: 7}\n", "data.crop_pct=7.0: expected in (0, 1]"),
        ("output: x\nmodel: {checkpoint: a, init_from: b}\n", "model.checkpoint and model.init_from all name the weights"),
        ("output: x\nmodel: {pretrained: true, checkpoint: a}\n", "model.pretrained and model.checkpoint all name the weights"),
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


def test_a_config_without_settings_is_named(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"--config .*empty.yaml holds no settings"):
        find_task(["--config", str(tmp_path / "empty.yaml")])
