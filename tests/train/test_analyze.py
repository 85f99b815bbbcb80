"""`kat-zoo analyze` on runs that the trainer really made."""

import argparse
import csv
import logging
from dataclasses import replace

import matplotlib
import pytest
import timm
import torch
from safetensors.torch import save_file

matplotlib.use("Agg")

from kat_zoo import analysis
from kat_zoo.cli import main as cli
from kat_zoo.train.classification import analyze
from kat_zoo.train.classification.analyze import ANALYSES, FinishedRun, open_run
from kat_zoo.train.classification.loop import train
from kat_zoo.train.classification.recipe import ModelConfig

from .test_hub_data import write_parquet


def finished(recipe, folder, name="karat_pico_patch4_28", **kwargs):
    size = {"depth": 2, "embed_dim": 24} if "karat" in name else {}
    model = ModelConfig(name=name, kwargs={**size, **kwargs})
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


def test_a_run_of_other_classes_is_analyzed(recipe, tmp_path, caplog):
    """Its start has a new head, and is needed where states are looked at alone."""
    given = timm.create_model("kat_pico_patch4_28", num_classes=5, **recipe.model.kwargs).state_dict()
    save_file(given, tmp_path / "given.safetensors")
    model = replace(recipe.model, checkpoint=str(tmp_path / "given.safetensors"), train_only="last:1")
    train(replace(recipe, mode="finetune", model=model, system=replace(recipe.system, keep_checkpoints=9)))
    run = open_run(tmp_path / "run")
    start = run.states["start"]
    assert start["head.weight"].shape[0] == 10 and torch.equal(start["pos_embed"], given["pos_embed"])
    assert "head.weight" in run.trainable and "pos_embed" not in run.trainable
    (tmp_path / "given.safetensors").unlink()
    assert cli.main(["analyze", str(tmp_path / "run"), "--what", "curves", "--out", str(tmp_path / "out")]) == 0
    assert "left out" not in caplog.text
    assert list(open_run(tmp_path / "run").states) == ["epoch 1", "epoch 2"]
    assert "run: its start is left out, which cannot be built again: checkpoint" in caplog.text


def test_a_kat_from_a_vit_starts_from_its_weights(recipe, tmp_path):
    vit = timm.create_model("test_vit", num_classes=10)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    model = ModelConfig(name="test_kat", init_from=f"test_vit@{tmp_path / 'vit.safetensors'}")
    run = FinishedRun("run", tmp_path, replace(recipe, model=model), vit, [])
    assert torch.equal(run.states["start"]["blocks.0.attn.qkv.weight"], vit.blocks[0].attn.qkv.weight)


def test_the_padding_of_a_stream_is_no_image(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    root = write_parquet(tmp_path / "parquet", test=10)
    data = replace(recipe.data, dataset="hub", root=root, streaming=True, samples=32, batch_size=8)
    train(replace(recipe, data=data, system=replace(recipe.system, keep_checkpoints=9)))
    images, labels, _ = analyze._images(open_run(tmp_path / "run"), 16)
    assert len(images) == len(labels) == 10 and labels.tolist() == [i % 2 for i in range(10)]
    arguments = ["--grid", "2", "--loss-images", "16", "--out", str(tmp_path / "out")]
    assert cli.main(["analyze", str(tmp_path / "run"), "--what", "landscape", *arguments]) == 0


def test_errors_name_what_is_wrong(tmp_path, capsys):
    assert cli.main(["analyze", str(tmp_path)]) == 2
    assert "has no recipe.yaml" in capsys.readouterr().err
    assert cli.main(["analyze", str(tmp_path), "--what", "colors"]) == 2
    assert "--what 'colors'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "kwargs", "groups"),
    [
        ("kan_mlp_pico_28", {"hidden": [8]}, {"spline coefficients"}),
        ("mlp_pico_28", {"hidden": [8]}, {"other layers"}),
        ("kat_mixer_pico_patch4_28", {"num_blocks": 1, "embed_dim": 24}, {"MLP", "numerator", "denominator"}),
    ],
)
def test_what_does_not_apply_is_left_out_unless_named(recipe, tmp_path, capsys, caplog, name, kwargs, groups):
    folder, out = finished(recipe, tmp_path / "run", name, **kwargs), tmp_path / "out"
    arguments = ["--out", str(out), "--grid", "2", "--loss-images", "8"]
    with caplog.at_level(logging.WARNING, logger="kat_zoo"):
        assert cli.main(["analyze", str(folder), *arguments]) == 0
    assert sorted(p.stem for p in out.glob("*.png")) == ["costs", "curves", "histograms_run", "landscape"]
    left_out = [r.message for r in caplog.records if "left out" in r.message]
    assert [line.split(" left out: ")[0] for line in left_out] == ["spectra", "maps", "quality"]
    assert all("without a timm Attention layer" in line for line in left_out)
    with (out / "histograms_run.csv").open() as file:
        assert {row["group"] for row in csv.DictReader(file)} == groups
    assert cli.main(["analyze", str(folder), "--what", "curves,spectra", *arguments]) == 2
    assert "--what spectra: model" in capsys.readouterr().err


def test_runs_on_different_images_are_not_compared(recipe, tmp_path, monkeypatch):
    run = open_run(finished(recipe, tmp_path / "one"))
    arguments = argparse.Namespace(images=2, loss_images=8)
    for key, value in {"mean": (0.5,), "holdout": 0.1, "dataset": "cifar10"}.items():
        other = replace(run, label="two", recipe=replace(run.recipe, data=replace(run.recipe.data, **{key: value})))
        for name in ("spectra", "maps", "quality", "costs"):
            with pytest.raises(analysis.NotApplicable, match=f"{key} of two is .*, of one .*: expected runs on the same images"):
                ANALYSES[name]([run, other], tmp_path / "out", arguments)
    assert not (tmp_path / "out").exists()


def test_no_pointing_game_where_the_object_is_not_known(recipe, tmp_path, monkeypatch, caplog):
    run = open_run(finished(recipe, tmp_path / "run"))
    columns = {}
    splits = analyze.open_splits(run.recipe.data)
    monkeypatch.setattr(analyze, "open_splits", lambda data, seed: splits)
    for dataset in ("fashion_mnist", "folder"):
        data = replace(run.recipe.data, dataset=dataset)
        path = ANALYSES["quality"]([replace(run, recipe=replace(run.recipe, data=data))], tmp_path, argparse.Namespace(loss_images=8))
        with path.with_suffix(".csv").open() as file:
            columns[dataset] = list(next(csv.DictReader(file)))
    assert columns["folder"] == ["model", "layer", "entropy", "effective_rank"]
    assert columns["fashion_mnist"] == [*columns["folder"], "pointing", "foreground", "chance"]
    assert [r.message for r in caplog.records if "no pointing game on folder" in r.message]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_runs_of_other_tasks_are_refused(tmp_path, capsys, task):
    (tmp_path / "recipe.yaml").write_text(f"task: {task}\n")
    assert cli.main(["analyze", str(tmp_path)]) == 2
    assert f"a run of {task}: expected one of classification" in capsys.readouterr().err
