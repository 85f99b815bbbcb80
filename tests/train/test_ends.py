"""The end of a run, good or bad: figures are kept whatever the card does, and the last line says what was wrong and what to write."""

import json

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core import run as core_run
from kat_zoo.train.core.command import launched
from kat_zoo.train.core.config import parse

from .test_classification import change


@pytest.mark.parametrize("broken", ["folder_card", "plot_curves"])
def test_a_card_or_a_drawing_that_fails_does_not_lose_the_run(broken, recipe, monkeypatch, caplog):
    def fail(*arguments, **options):
        raise RuntimeError("no such font")

    monkeypatch.setattr(core_run, broken, fail)
    assert train(change(recipe, schedule={"epochs": 1, "warmup_epochs": 0})) is not None
    folder = core_run.Path(recipe.output)
    assert json.loads((folder / "result.json").read_text())["samples"] == 50 and (folder / "model.safetensors").is_file()
    name = {"folder_card": "README.md", "plot_curves": "curves.png"}[broken]
    assert f"{folder / name} could not be written: no such font" in caplog.text and not (folder / name).exists()


@pytest.mark.parametrize(("epochs", "rest"), [(3, "decay_epochs"), (1, "warmup_epochs")])
def test_a_recipe_that_is_too_short_for_its_phases_names_the_line_that_works(epochs, rest):
    command = ["--config", "kat_pico_fmnist", "--schedule.epochs", str(epochs)]
    for _ in range(2):  # each refusal says what to add, until none is left
        with pytest.raises(ValueError, match=f"schedule.{rest}=") as error:
            parse(Recipe, command, "test")
        command += str(error.value).partition("fewer, as ")[2].partition(", or")[0].split()
        rest = "decay_epochs"
        if epochs == 3:
            break
    recipe = parse(Recipe, command, "test")[0]
    assert recipe.schedule.epochs == epochs and recipe.schedule.warmup_epochs + recipe.schedule.decay_epochs <= epochs


def test_the_summary_of_torchrun_repeats_the_line(tmp_path, monkeypatch, capsys):
    def fail():
        raise ValueError("data.root=None:\nexpected a folder")

    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    assert launched(fail, "kat_zoo.train.detection") == 2
    line = "kat_zoo.train.detection: data.root=None: expected a folder"
    assert capsys.readouterr().err == f"{line}\n"
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(path))
    assert f"traceback : {line}" in str(ChildFailedError("kat_zoo.train.detection", {0: failure}))
