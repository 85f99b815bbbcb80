"""`kat-zoo analyze` on runs that the trainer really made."""

import csv
from dataclasses import replace

import matplotlib
import pytest

matplotlib.use("Agg")

from kat_zoo import cli
from kat_zoo.train.analyze import ANALYSES, open_run
from kat_zoo.train.classification import train
from kat_zoo.train.classification_config import ModelConfig


def finished(recipe, folder, **kwargs):
    model = ModelConfig(name="karat_pico_patch4_28", kwargs={"depth": 2, "embed_dim": 24, **kwargs})
    system = replace(recipe.system, keep_checkpoints=9, eval_every=1)
    train(replace(recipe, output=str(folder), model=model, system=system))
    return folder


@pytest.fixture
def runs(recipe, tmp_path):
    return [finished(recipe, tmp_path / "karat"), finished(recipe, tmp_path / "softmax", layers=[])]


@pytest.mark.slow
def test_every_analysis_of_two_runs(runs, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--grid", "3", "--loss-images", "20", "--images", "2"]
    assert cli.main(["analyze", *map(str, runs), *arguments]) == 0
    pictures = sorted(p.stem for p in out.glob("*.png"))
    assert len(pictures) == len(ANALYSES) + 1  # histograms: one per run
    assert capsys.readouterr().out.count(".png") == len(pictures)
    for picture in out.glob("*.png"):
        with picture.with_suffix(".csv").open() as file:
            assert list(csv.DictReader(file))
    with (out / "landscape.csv").open() as file:
        kinds = [row["kind"] for row in csv.DictReader(file)]
    assert kinds.count("surface") == 2 * 9 and kinds.count("path") == 2 * 3  # the start and two epochs


def test_run_is_read_as_it_was_trained(recipe, tmp_path):
    folder = finished(recipe, tmp_path / "karat")
    assert cli.main(["analyze", str(folder), "--what", "curves", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "curves.png").exists()
    run = open_run(folder)
    assert list(run.states) == ["start", "epoch 1", "epoch 2"]
    last = run.states["epoch 2"]
    assert all((value == last[name]).all() for name, value in run.model.state_dict().items())
    assert any((value != last[name]).any() for name, value in run.states["start"].items())


def test_errors_name_what_is_wrong(tmp_path, capsys):
    assert cli.main(["analyze", str(tmp_path)]) == 2
    assert "recipe.yaml: no such file" in capsys.readouterr().err
    assert cli.main(["analyze", str(tmp_path), "--what", "colors"]) == 2
    assert "--what 'colors'" in capsys.readouterr().err
