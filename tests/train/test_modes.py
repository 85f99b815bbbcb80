"""Fine-tuning, the linear probe, and LP-FT from the probe's head."""

import json
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from kat_zoo.train.classification.datasets import open_splits
from kat_zoo.train.classification.loader import data_config, eval_loader
from kat_zoo.train.classification.loop import main, train
from kat_zoo.train.classification.model import build_model
from kat_zoo.train.classification.probe import STRENGTHS, features, fit
from kat_zoo.train.classification.recipe import ModelConfig
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import to_yaml

from .test_classification import PLAIN, change, figures, same_run
from .test_hub_data import write_parquet


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_the_minimum_of_the_regularised_loss(classes):
    random = np.random.default_rng(0)
    labels = random.permutation(np.arange(120) % classes)
    x = random.normal(size=(120, 5)) + 0.7 * np.eye(5)[labels]
    probe = fit(x.astype(np.float32), labels, classes, holdout=0.25, max_iter=1000, seed=0)
    assert list(probe.accuracies) == STRENGTHS.tolist()
    best = max(probe.accuracies.values())
    assert probe.accuracies[probe.strength] == best > 100 / classes

    w, b = torch.tensor(probe.weight).double().requires_grad_(), torch.tensor(probe.bias).double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(torch.tensor(x) @ w.T + b, torch.tensor(labels), reduction="sum")
    penalty = (w[1] - w[0]).square().sum() / 2 if classes == 2 else w.square().sum() / 2  # two classes have one logit
    (probe.strength * loss + penalty).backward()
    scale = probe.strength * np.abs(x).sum()
    assert w.grad.abs().max() < 1e-4 * scale and b.grad.abs().max() < 1e-4 * scale


def test_a_probe_that_cannot_err_is_sure():
    labels = np.arange(12) % 2
    x = np.random.default_rng(0).normal(size=(12, 5)) + 9.0 * np.eye(5)[labels]
    probe = fit(x.astype(np.float32), labels, 2, holdout=0.2, max_iter=1000, seed=0)
    assert list(probe.accuracies.values()).count(100.0) > 3  # of which that of the smallest loss is taken
    logits = torch.tensor(x @ probe.weight.T + probe.bias)
    assert torch.nn.functional.cross_entropy(logits, torch.tensor(labels)) < 0.01


def test_the_probe_needs_images_of_every_class():
    with pytest.raises(ValueError, match="class 2 has 0"):
        fit(np.zeros((4, 2), np.float32), np.array([0, 0, 1, 1]), 3, 0.5, 100, 0)
    with pytest.raises(ValueError, match="probe.holdout 0.1 of 8 training images is 1; both parts"):
        fit(np.zeros((8, 2), np.float32), np.arange(8) % 3, 3, 0.1, 100, 0)


@pytest.fixture
def start(recipe, tmp_path):
    """A recipe that begins with given weights, and the path of those."""
    torch.manual_seed(7)
    model = timm.create_model(recipe.model.name, num_classes=10, **recipe.model.kwargs)
    with torch.no_grad():  # features that tell the classes apart
        model.pos_embed.normal_()
        model.head.weight.normal_()
    path = tmp_path / "start.safetensors"
    save_file(model.state_dict(), path)
    return change(recipe, model={"checkpoint": str(path)}, system={"checkpoint_every": 1, "keep_checkpoints": 100}), path


def test_linear_probe_and_lp_ft(start, tmp_path):
    recipe, path = start
    recipe = change(recipe, probe={"holdout": 0.3})
    probe = change(recipe, mode="linear_probe", output=str(tmp_path / "probe"))
    result = train(probe)

    # The backbone is bit-identical; the head is that of features without drop-path, patch dropout and augmentation.
    before, after = load_file(path), load_file(tmp_path / "probe" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}
    model = timm.create_model(recipe.model.name, checkpoint_path=str(path), num_classes=10, **recipe.model.kwargs).eval()
    splits = open_splits(recipe.data)
    images, labels = zip(*eval_loader(splits.train, recipe.data, data_config(recipe.data, model)), strict=True)
    with torch.no_grad():
        x = model.forward_head(model.forward_features(torch.cat(images)), pre_logits=True)
    head = fit(x.numpy(), torch.cat(labels).numpy(), 10, recipe.probe.holdout, recipe.probe.max_iter, recipe.seed)
    assert np.allclose(after["head.weight"], head.weight, rtol=1e-3, atol=1e-4 * abs(head.weight).max())
    report = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert report["strength"] == head.strength and len(report["accuracies"]) == len(STRENGTHS)

    # LP-FT begins at the probe's figures and trains everything.
    whole = change(recipe, mode="lp_ft", output=str(tmp_path / "whole"), schedule={"epochs": 1, "warmup_epochs": 0})
    final = train(whole)
    first = figures(tmp_path / "whole")[0]
    assert (first["update"], first["top1"], first["eval_loss"]) == (0, result.top1, result.loss)
    tuned = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(not torch.equal(tuned[name], after[name]) for name in ("head.weight", "blocks.0.attn.qkv.weight", "pos_embed"))

    # Killed in the probe, between the stages, and in the second: the run ends where it would have.
    for update in (None, 0, 3):
        cut = tmp_path / f"cut{update}"
        if update is None:
            cut.mkdir()
            shutil.copy(tmp_path / "whole" / "probe.json", cut)
        else:
            shutil.copytree(tmp_path / "whole", cut)
            for folder in list_checkpoints(cut)[update + 1 :]:
                shutil.rmtree(folder)
            best = cut / "best.safetensors"  # as if the best was of an update that is repeated: it is found anew, at the usual places
            save_file(load_file(best), best, {"update": "6"})
        assert train(change(whole, output=str(cut)), resume="auto") == final
        same_run(tmp_path / "whole", cut)


def test_features_are_kept_by_the_main_process_alone(start, monkeypatch):
    recipe, _ = start
    model, images = build_model(recipe.model, 10), open_splits(recipe.data).train
    for main_process, kept in ((True, 96), (False, 0)):
        monkeypatch.setattr("accelerate.Accelerator.is_main_process", main_process)
        x, labels = features(Accelerator(cpu=True), model, images, recipe.data, data_config(recipe.data, model), lambda: False)
        assert len(x) == len(labels) == kept


def test_a_linear_probe_has_no_schedule(start, tmp_path, capsys):
    """One that could not be fitted into the run does not matter, nor a batch larger than the data; so it is in its rehearsal."""
    recipe, _ = start
    schedule = {"name": "wsd", "epochs": 3, "warmup_epochs": 5}
    recipe = change(recipe, mode="linear_probe", probe={"holdout": 0.3}, schedule=schedule, data={"batch_size": 1023})
    (tmp_path / "probe.yaml").write_text(to_yaml(recipe))
    assert main(["--config", str(tmp_path / "probe.yaml"), "--dry-run"]) == 0
    assert " 0 updates" in capsys.readouterr().out
    assert train(recipe).samples == 50


@pytest.mark.parametrize(
    ("sections", "held", "message"),
    [
        ({"data": {"batch_size": 128}}, False, "data.batch_size 128 is larger than the training split of 96 images"),
        ({"data": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}}, False, "data.mean is .* the model takes 1 channel"),
        ({"schedule": {"name": "wsd", "warmup_epochs": 1, "decay_epochs": 0.01}}, False, "schedule.name wsd, .* are refused by timm"),
        ({"optimizer": {"kwargs": {"betas": [0.9]}}}, False, "optimizer.kwargs"),
        ({}, True, "another process trains there"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_features(start, sections, held, message, hold_by_another, monkeypatch):
    if held:
        hold_by_another()
    monkeypatch.delattr("kat_zoo.train.classification.loop.fit_head")
    with pytest.raises(ValueError, match=message):
        train(change(start[0], mode="lp_ft", **sections))


def test_a_stop_in_the_probe_leaves_nothing_half_done(start, capsys, monkeypatch):
    recipe, _ = start
    monkeypatch.setattr("kat_zoo.train.classification.loop.signaled", lambda accelerator, signals: True)
    assert train(change(recipe, mode="lp_ft")) is None
    assert "--resume auto begins it again" in capsys.readouterr().out
    assert not list_checkpoints(Path(recipe.output))


def test_a_head_for_other_classes_is_replaced_in_fine_tuning_only(start, caplog):
    recipe, path = start
    config = ModelConfig(name=recipe.model.name, kwargs=recipe.model.kwargs, checkpoint=str(path))
    with pytest.raises(ValueError, match="checkpoint .*start.safetensors does not fit kat_pico_patch4_28: .*size mismatch"):
        build_model(config, 5)
    model, weights = build_model(config, 5, adapt=True), load_file(path)
    assert "10 classes, the data has 5" in caplog.text and model.head.out_features == 5
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items() if not name.startswith("head."))
    assert torch.equal(build_model(config, 10, adapt=True).head.weight, weights["head.weight"])
    fresh = build_model(ModelConfig(**{**vars(config), "new_head": True}), 10, adapt=True)
    assert not torch.equal(fresh.head.weight, weights["head.weight"])
    assert torch.equal(fresh.pos_embed, weights["pos_embed"])
    save_file({name: value for name, value in weights.items() if name != "pos_embed"}, path)
    for classes in (5, 10):
        with pytest.raises(ValueError, match="start.safetensors does not fit .*: .*pos_embed"):
            build_model(config, classes, adapt=True)


def test_a_backbone_without_a_head_is_fine_tuned(start, caplog):
    recipe, path = start
    weights = {name: value for name, value in load_file(path).items() if not name.startswith("head.")}
    save_file(weights, path)
    settings = {"name": recipe.model.name, "kwargs": recipe.model.kwargs, "checkpoint": str(path)}
    model = build_model(ModelConfig(**settings), 5, adapt=True)
    assert "start.safetensors has no head: the head is new" in caplog.text and model.head.out_features == 5
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items() if not name.startswith("head."))
    with pytest.raises(ValueError, match="does not fit .*head.weight"):
        build_model(ModelConfig(**settings), 10)
    with pytest.raises(ValueError, match="model.train_only is 'rationals', .* the head is new"):
        build_model(ModelConfig(train_only="rationals", **settings), 5, adapt=True)
    save_file({name: value for name, value in weights.items() if name != "pos_embed"}, path)
    with pytest.raises(ValueError, match="start.safetensors does not fit .*: .*pos_embed"):
        build_model(ModelConfig(**settings), 5, adapt=True)


def test_a_checkpoint_of_another_image_size_is_resampled(start):
    recipe, path = start
    model = build_model(ModelConfig(name=recipe.model.name, kwargs=recipe.model.kwargs | {"img_size": 32}, checkpoint=str(path)), 10)
    weights = load_file(path)
    assert model.pos_embed.shape[1] == 8 * 8 and torch.equal(model.head.weight, weights["head.weight"])
    assert torch.equal(model.patch_embed.proj.weight, weights["patch_embed.proj.weight"])


@pytest.mark.parametrize("train_only", ["rationals", "blocks.0.*"])
def test_a_new_head_is_not_left_untrained(start, train_only):
    recipe, path = start
    settings = {"name": recipe.model.name, "kwargs": recipe.model.kwargs, "checkpoint": str(path)}
    for classes, more in ((5, {}), (10, {"new_head": True})):
        with pytest.raises(ValueError, match=f"model.train_only is '{train_only}', .* the head is new"):
            build_model(ModelConfig(train_only=train_only, **settings, **more), classes, adapt=True)
        model = build_model(ModelConfig(train_only=f"{train_only},head", **settings, **more), classes, adapt=True)
        assert {"head.weight", "head.bias"} < {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    build_model(ModelConfig(train_only=train_only, **settings), 10, adapt=True)
    with pytest.raises(ValueError, match="the head is new"):
        build_model(ModelConfig(name="kat_pico_patch4_28", pretrained=True, train_only=train_only), 5, adapt=True)


def test_the_last_blocks_alone():
    config = {"name": "kat_pico_patch4_28", "kwargs": {"depth": 3, "embed_dim": 24}}
    model = build_model(ModelConfig(**config, train_only="last:2"), 10)
    trained = {".".join(name.split(".")[:2]) for name, p in model.named_parameters() if p.requires_grad}
    after = {name for name, _ in model.named_parameters() if name.startswith(("norm", "fc_norm", "head"))}
    assert after and trained == {"blocks.1", "blocks.2", *after}
    for bad in ("last:0", "last:4", "last:x"):
        with pytest.raises(ValueError, match=r"last:N with N in \[1, 3\]"):
            build_model(ModelConfig(**config, train_only=bad), 10)


def test_the_heads_of_a_distilled_model():
    model = build_model(ModelConfig("deit_tiny_distilled_patch16_224", {"depth": 1}, train_only="head"), 10)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"head", "head_dist"}


def test_a_model_without_blocks_has_no_last_ones():
    with pytest.raises(ValueError, match=r"train_only='last:1': ResNet has no blocks that last:N counts: .*, as fc\.\* or"):
        build_model(ModelConfig("test_resnet", train_only="last:1"), 10)


def test_frozen_batch_norms_keep_their_statistics():
    model = build_model(ModelConfig("test_resnet", train_only="layer4.*,head"), 10)
    for copy in (model.train(), deepcopy(model).train()):  # as an average is
        before = {name: value.clone() for name, value in copy.state_dict().items() if "running" in name}
        copy(torch.randn(4, 3, 64, 64) + 1)
        moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, copy.state_dict()[name])}
        assert moved == {"layer4"}


@pytest.mark.parametrize(
    "sections, named",
    [
        ({"mode": "finetune"}, "mode finetune needs weights"),
        ({"mode": "lp_ft"}, "mode lp_ft needs weights"),
        ({"model": {"train_only": "head"}}, "mode finetune takes"),
        ({"mode": "lp_ft", "model": {"train_only": "head", "pretrained": True}}, "mode finetune takes"),
        ({"probe": {"holdout": 1.0}}, "probe.holdout"),
        ({"distill": {"temperature": 0.0}}, "distill.temperature"),
        ({"schedule": {"epochs": 0}}, "schedule.epochs"),
        ({"data": {"sizes": {3: 16}}}, "begin at epoch 0"),
        ({"data": {"max_unreadable": -1}}, "max_unreadable"),
    ],
)
def test_modes_and_their_settings_are_checked(recipe, sections, named):
    with pytest.raises(ValueError, match=named):
        change(recipe, **sections)


@pytest.mark.slow
def test_two_processes(start, tmp_path):
    """The probe's head and the fine-tuning are those of one process; a stream is shared, continued, and evaluated exactly."""
    recipe, _ = start
    kwargs = recipe.model.kwargs | {"drop_path_rate": 0.0, "patch_drop_rate": 0.0}
    plain = change(recipe, mode="lp_ft", augment=PLAIN, model={"kwargs": kwargs}, optimizer={"name": "sgd", "lr": 0.05},
                   schedule={"epochs": 1, "warmup_epochs": 0}, output=str(tmp_path / "lp_ft1"))  # fmt: skip
    data = {"dataset": "hub", "root": write_parquet(tmp_path / "parquet"), "streaming": True, "samples": 32, "batch_size": 8, "workers": 1}
    stream = change(recipe, data=data, model={"checkpoint": None}, auto_batch_size=True)
    (tmp_path / "lp_ft.yaml").write_text(to_yaml(plain))
    (tmp_path / "stream.yaml").write_text(to_yaml(stream))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python", sys.executable]
    done = subprocess.run(
        [sys.executable, *command, str(Path(__file__).parent / "two_processes_modes.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    train(plain)
    probes = [json.loads((tmp_path / run / "probe.json").read_text()) for run in ("lp_ft1", "lp_ft2")]
    assert probes[0] == probes[1]
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("lp_ft1", "lp_ft2"))
    assert max((one[key] - two[key]).abs().max().item() for key in one) <= 1e-5
    assert json.loads((tmp_path / "whole2" / "result.json").read_text())["samples"] == 10
    same_run(tmp_path / "whole2", tmp_path / "cut2")
