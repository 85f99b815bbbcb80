import dataclasses
import re

import pytest
import yaml

from kat_zoo.cli.main import main
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.config import RECIPES, parse, to_yaml
from kat_zoo.train.core.explain import settings_of
from kat_zoo.train.core.runs import run_task
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
        ("output: x\noptimizer: {layer_decay: 3}\n", "optimizer.layer_decay=3.0: expected a number in (0, 1]"),
        ("output: x\noptimizer: {clip_grad: -1}\n", "optimizer.clip_grad=-1.0"),
        ("output: x\noptimizer: {weight_decay: -1}\n", "optimizer.weight_decay=-1.0"),
        ("output: x\nsystem: {checkpoint_every: -5}\n", "system.checkpoint_every=-5"),
        ("output: x\nsystem: {max_skipped: 0}\n", "system.max_skipped=0"),
        ("output: x\nschedule: {warmup_epochs: -3}\n", "schedule.warmup_epochs=-3.0"),
        ("output: x\nschedule: {name: wsd, epochs: 6, decay_epochs: 2}\n", "schedule.decay_epochs=2.0: expected at most 1, which"),
        ("output: x\nschedule: {name: wsd, epochs: 5}\n", "schedule.warmup_epochs=5: expected below schedule.epochs = 5"),
        (
            "output: x\nschedule: {epochs: 3}\n",
            "schedule.warmup_epochs=5: expected below schedule.epochs = 3: give fewer, as --schedule.warmup_epochs 0.3, or 0",
        ),
        ("output: x\nschedule: {min_lr: 0.1}\n", "schedule.min_lr=0.1: expected at most optimizer.lr = 0.001"),
        ("output: x\noptimizer: {lr: 5.0e-6}\n", "schedule.min_lr=1e-05: expected at most optimizer.lr = 5e-06"),
        ("output: x\nschedule: {warmup_lr: 0.1}\n", "schedule.warmup_lr=0.1: expected at most optimizer.lr = 0.001"),
        ("output: x\nschedule: {name: none}\n", "schedule.name='none': expected one of cosine, tanh"),
        ("output: x\nschedule: {name: multistep, milestones: [4, 2]}\n", "schedule.milestones=(4.0, 2.0): expected epochs in rising order"),
        ("output: x\nschedule: {name: step, epochs: 60}\n", "schedule.decay_epochs=None: expected the length of a step, below schedule."),
        ("output: x\nschedule: {name: step, epochs: 60, decay_epochs: 60}\n", "schedule.decay_epochs=60.0: expected the length of a step"),
        ("output: x\nschedule: {name: cosine, decay_epochs: 30}\n", "schedule.decay_epochs=30: expected with schedule.name wsd, rsqrt or"),
        ("output: x\nschedule: {name: constant, decay_epochs: 0.5}\n", "give --schedule.decay_epochs null with constant"),
        ("output: x\naugment: {auto_augment: rand-mfoo}\n", "augment.auto_augment='rand-mfoo': expected a policy of timm, as rand-m9"),
        ("output: x\naugment: {auto_augment: rand-m9-tall}\n", "augment.auto_augment='rand-m9-tall': expected a policy of timm"),
        ("output: x\naugment: {auto_augment: rand-m9.5}\n", "augment.auto_augment='rand-m9.5': expected a policy of timm"),
        ("output: x\naugment: {mixup: -1}\n", "augment.mixup=-1.0"),
        ("output: x\naugment: {hflip: 2}\n", "augment.hflip=2.0"),
        ("output: x\naugment: {random_erasing: 5}\n", "augment.random_erasing=5.0"),
        ("output: x\ndata: {crop_pct: 7}\n", "data.crop_pct=7.0: expected a number in (0, 1]"),
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


def test_steps_that_a_shorter_run_does_not_reach_are_refused():
    shorter = ["--config", "kat_small_maskrcnn_coco", "--schedule.epochs", "12"]
    with pytest.raises(ValueError, match=r"milestones=\(32.0, 34.67\): expected below schedule.epochs = 12: give others, .*'\[8, 10.7\]'"):
        parse(DetectionRecipe, shorter, "test")
    assert parse(DetectionRecipe, [*shorter, "--schedule.milestones", "[8, 10.7]"], "test")[0].schedule.milestones == (8, 10.7)
    parse(Recipe, ["--output", "x", "--schedule.name", "step"], "test")  # timm's 90 epochs of 300


@pytest.mark.parametrize("cls", RECIPE_OF.values())
def test_a_run_has_an_epoch(cls):
    with pytest.raises(ValueError, match="schedule.epochs=0: expected at least 1"):
        parse(cls, ["--output", "x", "--schedule.epochs", "0"], "test")


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("--optimizer.kwargs={beta: 0.9}", "optimizer.kwargs={'beta': 0.9}: adamw has no argument beta; did you mean betas?"),
        ("--optimizer.kwargs={betas: [0.9]}", "optimizer.name='adamw', optimizer.kwargs={'betas': [0.9]}: expected arguments that it"),
        ("--optimizer.name=adamww", "optimizer.name='adamww': expected the name of one of timm's optimizers; did you mean adamw"),
        ("--optimizer.name=lbfgs", "optimizer.name='lbfgs': expected"),
    ],
)
@pytest.mark.parametrize(("task", "dry"), [("classification", True), *((task, False) for task in RECIPE_OF)])
def test_an_optimizer_is_tried_before_the_data_is_read(task, dry, argument, expected, capsys, tmp_path):
    options = ["--model.name=kat_pico_patch4_28", "--dry-run"] if dry else []
    assert main(["train", "--task", task, "--output", str(tmp_path), "--data.root", str(tmp_path / "absent"), *options, argument]) == 2
    assert expected in capsys.readouterr().err


def test_overrides_and_round_trip(tmp_path):
    recipe = read("output: x\nmodel: {kwargs: {depth: 2}}\naugment: {auto_augment: null}\n", tmp_path, "--optimizer.lr", "2e-3")
    assert recipe.optimizer.lr == 2e-3 and recipe.model.kwargs == {"depth": 2} and recipe.augment.auto_augment is None
    assert read(to_yaml(recipe), tmp_path) == recipe


def test_config_by_name_of_a_packaged_recipe(tmp_path):
    recipe, _ = parse(Recipe, ["--config", "kat_pico_fmnist", "--seed", "3"], "test")
    assert recipe.model.name == "kat_pico_patch4_28" and recipe.seed == 3


@pytest.mark.parametrize(
    "value", ["kat_pico_fmnist.yaml", "configs/kat_pico_fmnist.yaml", "/elsewhere/kat_zoo/train/configs/kat_pico_fmnist.yaml"]
)
def test_config_by_the_path_of_a_packaged_recipe(value):
    assert parse(Recipe, ["--config", value], "test")[0].model.name == "kat_pico_patch4_28"


@pytest.mark.parametrize("value", ["nosuch/dir/kat_pico_fmnist.yaml", "/runs/kat_pico_fmnist", "my/configs/kat_pico_fmnist.yaml"])
@pytest.mark.parametrize("command", ["train", "plan", "validate", "check-data"])
def test_a_path_of_ones_own_is_not_a_packaged_recipe(command, value, capsys):
    assert main([command, "--config", value]) == 2
    expected = f"--config {value}: no such file, and not the name of a packaged recipe; did you mean kat_pico_fmnist"
    assert expected in capsys.readouterr().err


def test_the_folder_of_a_run_is_not_its_recipe(tmp_path, capsys):
    run = tmp_path / "runs" / "kat_pico_fmnist"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("output: x\n")
    assert main(["train", f"--config={run}"]) == 2
    assert f"--config {run} is the folder of a run: expected its recipe, {run}/recipe.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--config"], ["--config="], ["--config", "--seed", "3"]])
@pytest.mark.parametrize("command", ["train", "plan", "validate", "check-data"])
def test_a_config_without_a_value_is_named(command, arguments, capsys):
    assert main([command, *arguments]) == 2
    assert "--config: expected a file of settings, or the name of a packaged recipe" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_packaged_recipes_are_valid(path):
    recipe, _ = parse(RECIPE_OF[find_task(["--config", str(path)])], ["--config", str(path)], "test")
    assert yaml.safe_load(to_yaml(recipe))["output"] == f"runs/{path.stem}"


def test_a_config_without_settings_is_named(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"empty.yaml holds no settings"):
        find_task(["--config", str(tmp_path / "empty.yaml")])


LAUGHS = "\n".join(["a0: &a0 {x: 1}", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"output: x\n{LAUGHS}\n", "more than 100,000 values, its aliases written out"),
        ("output: x\nmodel:\n  kwargs:\n" + "".join(f"    {line}\n" for line in LAUGHS.splitlines()), "its aliases written out"),
        ("output: x\nmodel: {kwargs: &a {b: *a}}\n", "an alias that contains itself"),
        ("output: x\nmodel: {kwargs: " + "[" * 5000 + "]" * 5000 + "}\n", "nested in more than 50 levels"),
        ("output: x # " + "x" * 1_000_000, "more than 1,000,000 bytes"),
        ("- output\n- x\n", "holds no settings"),
        ("output: x\n3: 4\n", "holds no settings"),
        ("output: x\nmodel: !!python/object/apply:os.system [id]\n", "is not YAML"),
    ],
)
def test_a_file_of_a_stranger_is_refused(text, named, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    for read in (
        lambda: find_task(["--config", str(path)]),
        lambda: parse(Recipe, ["--config", str(path)], "test"),
        lambda: run_task(tmp_path),
    ):
        with pytest.raises(ValueError, match=named):
            read()


def test_aliases_are_written_out_within_bounds(tmp_path):
    text = "output: x\nmodel:\n  kwargs: &shared {depth: 2}\ndistill:\n  kwargs:\n    <<: *shared\n    embed_dim: 8\n"
    recipe = read(text, tmp_path)
    assert recipe.model.kwargs == {"depth": 2} and recipe.distill.kwargs == {"depth": 2, "embed_dim": 8}


@pytest.mark.parametrize(
    "content", ["root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:secret\n", "secret\n", "a: [secret\nsecret", "\x00\x01secret"]
)
@pytest.mark.parametrize("command", ["train", "validate", "plan"])
def test_the_content_of_a_wrong_file_is_not_printed(command, content, tmp_path, capsys):
    (tmp_path / "passwd").write_text(content)
    assert main([command, "--config", str(tmp_path / "passwd")]) == 2
    error = capsys.readouterr().err
    assert "secret" not in error and "/bin" not in error and "passwd" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("cls", "argument", "expected"),
    [
        (Recipe, "--optimizer.lr=.inf", "optimizer.lr=inf: expected a finite number"),
        (Recipe, "--optimizer.lr=.nan", "optimizer.lr=nan: expected a finite number"),
        (Recipe, "--optimizer.lr=0", "optimizer.lr=0.0: expected a number in (0, inf)"),
        (Recipe, "--optimizer.clip_grad=.inf", "optimizer.clip_grad=inf: expected a finite number"),
        (Recipe, "--optimizer.kwargs={eps: .nan}", "optimizer.kwargs.eps=nan: expected a finite number"),
        (Recipe, "--optimizer.kwargs={betas: [0.9, .nan]}", "optimizer.kwargs.betas=nan: expected a finite number"),
        (Recipe, "--data.std=[0.5, 0, 0.5]", "data.std=(0.5, 0.0, 0.5): expected numbers in (0, inf)"),
        (Recipe, "--data.mean=[.nan]", "data.mean=nan: expected a finite number"),
        (Recipe, "--data.mean=[127]", "data.mean=(127.0,): expected numbers in [0, 1]"),
        (Recipe, "--data.input_size=[3, 0, 224]", "data.input_size=(3, 0, 224): expected numbers in [1, 65536]"),
        (Recipe, "--seed=-1", "seed=-1: expected a number in [0, 4294967296)"),
        (Recipe, "--seed=4294967296", "seed=4294967296: expected a number in [0, 4294967296)"),
        (Recipe, "--schedule.epochs=1000000000000000000", "schedule.epochs=1000000000000000000: expected a number in [0, 1e6]"),
        (Recipe, "--data.workers=-1", "data.workers=-1: expected a number in [0, 1024]"),
        (Recipe, "--data.batch_size=0", "data.batch_size=0: expected a number in [1, 1e7]"),
        (Recipe, "--output=", "output='': expected the path of a folder"),
        (DetectionRecipe, "--data.min_size=[0]", "data.min_size=(0,): expected numbers in [1, 65536]"),
        (DetectionRecipe, "--augment.scale=[0.1, .inf]", "augment.scale=inf: expected a finite number"),
        (SegmentationRecipe, "--data.num_classes=1", "data.num_classes=1: expected a number in [2, 255]"),
        (SegmentationRecipe, "--data.stride=0", "data.stride=0: expected a number in [1, 65536]"),
    ],
)
def test_numbers_out_of_range(cls, argument, expected):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        parse(cls, ["--output", "x", argument], "test")


@pytest.mark.parametrize("cls", RECIPE_OF.values())
def test_every_number_of_a_recipe_has_a_range(cls):
    """Numbers that no table holds, because any finite one is right: there are none."""
    described = settings_of(cls)
    number = {key for key, hint in described.items() if not dataclasses.is_dataclass(hint) and re.search(r"\b(int|float)\b", str(hint))}
    assert number - {"data.sizes"} == set(cls.ranges)


NO_RECIPE = "no such file, and not the name of a packaged recipe"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--optimizer.lr", "fast"], "optimizer.lr='fast': expected a number"),
        (["--seed", "1.5"], "seed='1.5': expected an integer"),
        (["--augment.crop", "center"], "augment.crop='center': expected one of rrc, pad, none"),
        (["--data.input_size", "[1, 2]"], "data.input_size='[1, 2]': expected a list of 3 integers in brackets or null"),
        (["--data.mean", "0.5"], "data.mean='0.5': expected a list of numbers in brackets or null"),
        (["--data.interpolation", "bicubicc"], "data.interpolation='bicubicc': expected one of nearest, bilinear, bicubic, box, hamming"),
        (["--system.trackers", "wandb"], "system.trackers='wandb': expected a list of names in brackets"),
        (["--system.compile", "3"], "system.compile='3': expected true or false"),
        (["--model.kwargs", "3"], "model.kwargs='3': expected settings, as {key: value}"),
        (["--optim.lr", "3"], "--optim.lr: there is not a setting optim.lr; did you mean optimizer.lr?"),
        (["--lr", "3"], "--lr: there is not a setting lr; did you mean optimizer.lr?"),
        (["--model.pre", "true"], "--model.pre: there is not a setting model.pre; there are model.name"),
        (["--data.bach_size", "3"], "--data.bach_size: there is not a setting data.bach_size; did you mean data.batch_size"),
        (["stray"], "stray: expected options such as --seed 0"),
        (
            ["--config", "kat_pico_fmist"],
            "--config kat_pico_fmist: no such file, and not the name of a packaged recipe; did you mean kat_pico_fmnist",
        ),
        (["--config", "nonsense"], "--config nonsense: no such file, and not the name of a packaged recipe; `kat-zoo recipes` lists"),
    ],
)
def test_errors_say_what_was_meant_without_types(arguments, expected):
    with pytest.raises((ValueError, FileNotFoundError), match=f"^{re.escape(expected)}") as raised:
        parse(Recipe, ["--output", "x", *arguments], "test")
    assert "<class" not in str(raised.value) and "typing." not in str(raised.value)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["train", "--seed", "3"], "--output is needed, a run folder, or --config with a recipe, which has one"),
        (["scenes"], "--out is needed (see --help)"),
        (["check-data"], "no data is named: expected --data.dataset folder --data.root DIR"),
    ],
)
def test_an_option_that_is_missing_is_named(arguments, expected, capsys):
    assert main(arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_wrong_section_or_key_of_a_file_is_named(tmp_path):
    for text, expected in (
        ("output: x\noptimizer: 3\n", "recipe.yaml: optimizer='3': expected a section, as optimizer: {...}"),
        ("output: x\noptimizer: {lrr: 3}\n", "recipe.yaml: there is not a setting optimizer.lrr; did you mean optimizer.lr"),
        ("output: x\nfoo: 3\n", "recipe.yaml: there is not a setting foo; there are output, seed, optimizer"),
        ("seed: 3\n", "recipe.yaml does not have output"),
    ):
        with pytest.raises(ValueError, match=re.escape(expected)):
            read(text, tmp_path)
