"""Continuing a run with other settings, and stop signals before there is anything to continue."""

import dataclasses
import json
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from kat_zoo.train import tasks
from kat_zoo.train.classification.evaluate import main as validate
from kat_zoo.train.classification.loop import train
from kat_zoo.train.core import begin
from kat_zoo.train.core.checkpoint import find_resume, list_checkpoints
from kat_zoo.train.core.config import OptimizerConfig, to_yaml
from kat_zoo.train.core.log import JsonlLog, read_log
from kat_zoo.train.core.optim import create_optimizer
from kat_zoo.train.core.resume import check_resume
from kat_zoo.train.core.run import Run
from kat_zoo.train.core.states import load_state

from .conftest import write_fashion_mnist
from .test_classification import PLAIN, change


def short(recipe):
    """Twelve updates, without anything slow."""
    return change(recipe, augment=PLAIN, ema={"decay": 0.0})


def test_a_run_is_continued_with_settings_that_fit_its_checkpoint(recipe, tmp_path, caplog):
    recipe = short(recipe)
    result = train(recipe)
    before = {path: path.stat().st_mtime_ns for path in Path(recipe.output).rglob("*") if path.is_file()}
    refused = [
        ({"model": {"name": "karat_pico_patch4_28"}}, "model.name is 'karat_pico_patch4_28', but .* was made with 'kat_pico_patch4_28'"),
        ({"model": {"kwargs": {"depth": 2}}}, "model.kwargs is {'depth': 2}, but .*, which the model depends on"),
        ({"optimizer": {"weight_decay": 0.5}}, "optimizer.weight_decay is 0.5, .* which the state of the optimizer depends on"),
        ({"data": {"batch_size": 32}}, "data.batch_size is 32, but .* was made with 16, which the order of the data depends on"),
        ({"data": {"train_images": 64}}, "data.train_images is 64, but .* was made with None"),
        ({"ema": {"decay": 0.9}}, "ema.decay is 0.9, but .* was made with 0.0"),
        ({"schedule": {"epochs": 1, "warmup_epochs": 0}}, "epochs 1 is 6 updates, but .*update_00000012 stands at update 12; give"),
    ]
    for sections, message in refused:
        with pytest.raises(ValueError, match=message):
            train(change(recipe, **sections), resume="auto")
    more = write_fashion_mnist(tmp_path / "more", train=97)  # as many updates an epoch, in another order
    with pytest.raises(ValueError, match="there are 97 training images, but .* was made with 96: the training images must stay"):
        train(change(recipe, data={"root": str(more)}), resume="auto")
    assert before == {path: path.stat().st_mtime_ns for path in before}

    caplog.clear()
    with caplog.at_level(logging.WARNING, "kat_zoo"):
        assert train(recipe, resume="auto") == result
        assert "other settings" not in caplog.text
        train(change(recipe, optimizer={"lr": 1e-3}, data={"workers": 1}, schedule={"epochs": 3}), resume="auto")
    (line,) = [record.getMessage() for record in caplog.records if "other settings" in record.getMessage()]
    assert line == "continued with other settings: optimizer.lr 0.002 -> 0.001, schedule.epochs 2 -> 3, data.workers 0 -> 1"
    assert list_checkpoints(Path(recipe.output))[-1].name == "update_00000018"


def test_labels_keep_their_meaning(segmentation_recipe, tmp_path):
    recipe = change(segmentation_recipe, output=str(tmp_path))
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    with pytest.raises(ValueError, match="data.reduce_zero_label is False, but .* made with True, which the meaning of the labels depends"):
        check_resume(change(recipe, data={"reduce_zero_label": False}), tmp_path / "checkpoints" / "update_00000001")


def test_a_checkpoint_of_another_run_does_not_replace_a_run(tmp_path):
    folders = [tmp_path / run / "checkpoints" / "update_00000012" for run in ("mine", "other")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "progress.json").write_text("{}")
    with pytest.raises(ValueError, match="is of another run than output .*mine, which holds one already"):
        find_resume(tmp_path / "mine", str(folders[1]))
    assert find_resume(tmp_path / "mine", str(folders[0])) == folders[0]
    assert find_resume(tmp_path / "new", str(folders[1])) == folders[1]


@pytest.mark.parametrize("resume", ["no", "auto", "checkpoint"])
@pytest.mark.parametrize(
    "name", ["README.md", "config.json", "result.json", "model.safetensors", "curves.png", "metrics.jsonl", "recipe.yaml"]
)
def test_files_of_the_user_are_not_overwritten(name, resume, recipe, tmp_path):
    """Nothing of a folder changes that is not a run to go on in; what a start that failed leaves there is no hindrance."""
    mine, checkpoint = Path(recipe.output), tmp_path / "other" / "checkpoints" / "update_00000012"
    mine.mkdir()
    checkpoint.mkdir(parents=True)
    (checkpoint / "progress.json").write_text("{}")
    (mine / name).write_text("# mine\nseed: 0\n")
    (mine / "notes.txt").write_text("mine too")
    expected = f"output .*run has {name}, but no checkpoint to go on from, and a run would overwrite that"
    if (name, resume) == ("metrics.jsonl", "no"):  # taken for that of a run, with whose log another would be mixed
        expected = "output .*run already holds a run"
    resume = str(checkpoint) if resume == "checkpoint" else resume
    with pytest.raises(ValueError, match=expected):
        train(recipe, resume)
    assert {path.name: path.read_text() for path in mine.iterdir()} == {name: "# mine\nseed: 0\n", "notes.txt": "mine too"}
    (mine / name).unlink()
    for left, text in (("recipe.yaml", to_yaml(recipe)), ("config.json", "{}"), ("run.lock", "")):
        (mine / left).write_text(text)
    assert find_resume(mine, resume) == (checkpoint if resume == str(checkpoint) else None)


def test_weights_to_begin_with_are_not_those_that_a_run_overwrites(recipe, tmp_path):
    train(change(short(recipe), schedule={"epochs": 1, "warmup_epochs": 0}))
    first = shutil.copytree(recipe.output, tmp_path / "first", ignore=shutil.ignore_patterns("checkpoints", "metrics.jsonl"))
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    with pytest.raises(ValueError, match="output .*first has model.safetensors, best.safetensors, result.json, README.md"):
        train(change(recipe, output=str(first), model={"checkpoint": str(first / "model.safetensors")}, mode="finetune"))
    assert before == {path.name: path.read_bytes() for path in first.iterdir()}


def test_a_checkpoint_continued_elsewhere_finds_its_best_anew(recipe, tmp_path):
    recipe = short(recipe)
    train(recipe)
    (first, _) = list_checkpoints(Path(recipe.output))
    progress = json.loads((first / "progress.json").read_text())
    (first / "progress.json").write_text(json.dumps(progress | {"best": 1000.0}))
    other = change(recipe, output=str(tmp_path / "other"))
    more = write_fashion_mnist(tmp_path / "more", train=97)
    with pytest.raises(ValueError, match="there are 97 training images"):  # only the loader knows
        train(change(other, data={"root": str(more)}), str(first))
    assert not Path(other.output).exists()
    train(other, str(first))
    found = json.loads((list_checkpoints(Path(other.output))[-1] / "progress.json").read_text())["best"]
    assert found < 1000 and (Path(other.output) / "best.safetensors").is_file()


def test_a_rolled_back_run_leaves_nothing_of_what_was_abandoned(recipe, caplog):
    """Three epochs; the best evaluation, the last one, is abandoned for other updates of the same numbers."""
    recipe = change(short(recipe), schedule={"epochs": 3}, system={"keep_checkpoints": 3})
    train(recipe)
    run = Path(recipe.output)
    first, second, _ = list_checkpoints(run)
    save_file(load_file(run / "model.safetensors"), run / "best.safetensors", {"update": "18"})
    for folder in (first, second):  # no figure of the continued run is better than this
        progress = json.loads((folder / "progress.json").read_text())
        (folder / "progress.json").write_text(json.dumps(progress | {"best": 1000.0}))
    abandoned = load_file(second / "model.safetensors")
    caplog.clear()
    train(change(recipe, optimizer={"lr": 1e-5}, schedule={"epochs": 2}, system={"keep_checkpoints": 1}), resume=str(first))
    assert "removed the checkpoints after it, update_00000012, update_00000018" in caplog.text
    assert "removed best.safetensors" in caplog.text
    (last,) = list_checkpoints(run)
    assert last.name == "update_00000012"
    weights = load_file(last / "model.safetensors")
    assert any(not weights[name].equal(value) for name, value in abandoned.items())
    evaluations = [record for record in read_log(run / "metrics.jsonl") if "top1" in record]
    assert [record["update"] for record in evaluations] == [6, 12]
    best = max(record["top1"] for record in evaluations)
    assert json.loads((last / "progress.json").read_text())["best"] == best
    with safe_open(run / "best.safetensors", "pt") as file:
        assert int(file.metadata()["update"]) == next(record["update"] for record in evaluations if record["top1"] == best)


def test_copies_that_the_user_made_of_checkpoints_are_left_alone(recipe):
    recipe = change(short(recipe), system={"keep_checkpoints": 1})
    train(recipe)
    (checkpoint,) = list_checkpoints(Path(recipe.output))
    copies = [checkpoint.with_name(name) for name in ("update_00000012_good", "update_best", "update_7")]
    for copy in copies:
        shutil.copytree(checkpoint, copy)
    train(change(recipe, schedule={"epochs": 3}), resume="auto")
    assert all(copy.is_dir() for copy in copies)
    train(change(recipe, schedule={"epochs": 3}), resume=str(copies[0]))  # the checkpoint after it goes, the copy stays
    assert all(copy.is_dir() for copy in copies) and [c.name for c in list_checkpoints(Path(recipe.output))] == ["update_00000018"]


def test_a_run_begun_without_fused_kernels_goes_on_with_them(recipe, monkeypatch, caplog):
    """As from CPUs to a GPU; the fused optimizer leaves out by itself an update whose gradient is not finite."""
    recipe, create, made = short(recipe), begin.create_optimizer, []
    train(recipe)
    monkeypatch.setattr(
        begin, "create_optimizer", lambda model, config, fused: (made.append(create(model, config, fused=True)), made[-1])[1]
    )
    backward = Run.backward

    def spoil(self, losses):
        backward(self, {name: value * (float("nan") if self.progress.update == 13 else 1.0) for name, value in losses.items()})

    monkeypatch.setattr(Run, "backward", spoil)
    train(change(recipe, schedule={"epochs": 3}), resume="auto")
    (optimizer,) = made
    assert all(group["fused"] for group in optimizer.param_groups) and "update 14 skipped" in caplog.text
    assert all(weight.isfinite().all() for weight in load_file(Path(recipe.output) / "model.safetensors").values())
    assert json.loads((list_checkpoints(Path(recipe.output))[-1] / "progress.json").read_text())["skipped"] == 1


@pytest.mark.parametrize("name", ["adamw", "lookahead_adamw"])
def test_the_kind_of_an_optimizer_is_not_that_of_its_checkpoint(name, tmp_path):
    """Its step counts, which fused kernels want on the device, are moved by torch where the groups say so: before the load."""
    config, model = OptimizerConfig(name=name), nn.Linear(2, 2)
    for kwargs, kind in (({}, None), ({"foreach": True}, True), ({"fused": True}, None)):
        accelerator = Accelerator(cpu=True)
        optimizer = accelerator.prepare(create_optimizer(model, dataclasses.replace(config, kwargs=kwargs)))
        if kwargs:
            load_state(accelerator, tmp_path)
        assert [group["foreach"] for group in optimizer.param_groups] == [kind] * len(optimizer.param_groups)
        assert all(group["fused"] == kwargs.get("fused") for group in optimizer.param_groups)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        accelerator.save_state(str(tmp_path))
        accelerator.free_memory()


def test_the_records_of_the_last_update_stay_in_tensorboard(recipe):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = change(short(recipe), system={"trackers": ("tensorboard",)})
    train(recipe)
    train(change(recipe, schedule={"epochs": 3}), resume="auto")
    events = EventAccumulator(str(Path(recipe.output) / "tensorboard" / "kat_zoo"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert [event.step for event in events.Scalars("top1")] == [6, 12, 18]


def test_the_rate_that_is_logged_is_that_of_the_head(recipe):
    recipe = change(short(recipe), optimizer={"layer_decay": 0.1, "lr": 1e-3}, schedule={"name": "constant", "warmup_epochs": 0})
    train(recipe)
    assert {record["lr"] for record in read_log(Path(recipe.output) / "metrics.jsonl") if "lr" in record} == {1e-3}


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', "\udcff"])
def test_a_damaged_line_of_the_log_is_named(line, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"update": 1}}\n\n{line}\n{{"upd', errors="surrogateescape")
    for read in (read_log, JsonlLog):
        with pytest.raises(ValueError, match="metrics.jsonl, line 3, is damaged"):
            read(path)


def test_an_epoch_is_saved_before_its_evaluation_and_without_one(recipe, monkeypatch):
    recipe = change(short(recipe), schedule={"epochs": 2}, system={"eval_every": 2})

    def fail(*_):
        raise RuntimeError("a damaged image")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="a damaged image"):
        patch.setattr("kat_zoo.train.classification.loop.evaluate", fail)
        train(recipe)
    assert [path.name for path in list_checkpoints(Path(recipe.output))] == ["update_00000006", "update_00000012"]
    assert train(recipe, resume="auto") is not None
    assert json.loads((list_checkpoints(Path(recipe.output))[-1] / "progress.json").read_text())["evaluated"] == 12


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_signal_before_the_first_update_saves_too(number, recipe, tmp_path, monkeypatch, capsys):
    find, called = tasks.find_task, []
    monkeypatch.setattr(tasks, "find_task", lambda argv: (called or called.append(os.kill(os.getpid(), number)), find(argv))[1])
    before = signal.getsignal(number)
    (tmp_path / "recipe.yaml").write_text(to_yaml(short(recipe)))
    assert tasks.train_main(["--config", str(tmp_path / "recipe.yaml")]) == 0
    assert "stopped at update 0 by a signal" in capsys.readouterr().out and signal.getsignal(number) is before
    assert [path.name for path in list_checkpoints(Path(recipe.output))] == ["update_00000000"]


def test_validate_gives_the_figures_of_a_run(recipe, capsys):
    """Of one with a held-out part, chosen by a seed that is not the default."""
    recipe = change(short(recipe), seed=3, data={"holdout": 0.3}, schedule={"epochs": 1, "warmup_epochs": 0})
    result = train(recipe)
    capsys.readouterr()
    assert validate(["--run", recipe.output]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert f"top-1 {result.top1:.2f} %" in line and f"loss {result.loss:.4f}, {result.samples} images" in line
    other = ["--data.holdout=0.3", f"--data.root={recipe.data.root}", f"--model.checkpoint={recipe.output}/model.safetensors"]
    for seed in (3, 0):
        assert validate([*other, "--model.kwargs", str(recipe.model.kwargs), "--seed", str(seed)]) == 0
        assert (f"loss {result.loss:.4f}," in capsys.readouterr().out) == (seed == 3)
    with pytest.raises(FileNotFoundError, match="nowhere has no recipe.yaml"):
        validate(["--run", "nowhere"])
