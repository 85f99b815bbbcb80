"""Segmentation end to end, on a small KAT and pictures written in ADE20K's format."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.layers import set_fused_attn

from kat_zoo.cli import main as cli
from kat_zoo.hub.repository import save_model
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import to_yaml
from kat_zoo.train.core.optim import create_optimizer, create_scheduler
from kat_zoo.train.dense.pictures import colors, overlay_regions
from kat_zoo.train.segmentation.loop import build_model, rehearse, train
from kat_zoo.train.segmentation.predict import open_run
from kat_zoo.train.segmentation.recipe import SegmentationRecipe, SegmenterConfig

from .test_classification import change, figures, precisions_of_validate, same_run

SMALL = {"depth": 4, "embed_dim": 24}


@pytest.mark.parametrize("head", ["upernet", pytest.param("dpt", marks=pytest.mark.slow)])
def test_resume_is_bit_exact_wherever_a_run_was_cut(head, segmentation_recipe, tmp_path):
    """Random scale, crop, flip, photometric distortion, drop-path, batch norm, accumulation, EMA; other worker counts."""
    dpt = {"head": "dpt", "neck_args": {}, "kwargs": {"fusion_channels": 8, "intermediate_channels": [8, 8, 8, 8]}}
    recipe = change(segmentation_recipe, model=dpt if head == "dpt" else {})
    whole = change(recipe, system={"checkpoint_every": 1, "keep_checkpoints": 100}, output=str(tmp_path / "whole"))
    result = train(whole)
    assert result.samples == 5 and len(list_checkpoints(Path(whole.output))) == 4
    for update, workers in ((1, 1), (3, 0)):
        cut = tmp_path / f"cut{update}"
        shutil.copytree(whole.output, cut)
        for folder in list_checkpoints(cut)[update:]:
            shutil.rmtree(folder)
        assert train(change(whole, output=str(cut), data={"workers": workers}), resume="auto") == result
        same_run(Path(whole.output), cut)


def test_a_run_learns_and_leaves_what_predict_and_validate_read(segmentation_recipe, ade_root, tmp_path, capsys, monkeypatch):
    """The gray level tells the class: sixty updates find it."""
    recipe = change(segmentation_recipe, model={"backbone_args": SMALL}, schedule={"epochs": 30}, ema={"decay": 0.0},
                    optimizer={"lr": 1e-2, "grad_accum": 1, "layer_decay": None}, augment={"photometric": False, "scale": (1.0, 1.0)},
                    data={"evaluate": "whole"}, system={"eval_every": 30})  # fmt: skip
    result, run = train(recipe), Path(recipe.output)
    losses = [record for record in figures(run) if "loss" in record]
    assert result.miou > 40 and losses[-1]["loss"] < losses[0]["loss"]
    assert losses[0]["loss"] == pytest.approx(losses[0]["loss_decode"] + losses[0]["loss_auxiliary"])
    assert json.loads((run / "result.json").read_text())["classes"] == ["wall", "building", "sky"]

    capsys.readouterr()
    assert cli.main(["validate", "--run", str(run)]) == 0
    printed = capsys.readouterr().out
    assert f"mIoU {result.miou:.2f} %, pixel accuracy {result.aacc:.2f} %" in printed and f"sky       IoU {result.iou[2]:6.2f} %" in printed
    assert precisions_of_validate("segmentation", run, monkeypatch) == ["bf16", "no"]

    scene = ade_root / "images" / "validation" / "1.png"
    assert cli.main(["predict", str(run), str(scene), "--out", str(tmp_path / "out")]) == 0
    assert "1_segmentation.png" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "1_segmentation.png") as picture:
        assert min(picture.size) > 200
    segmenter = open_run(run)
    assert segmenter.predict(torch.zeros(1, 40, 32, dtype=torch.uint8)).shape == (40, 32)


def test_weights_of_a_classifier_start_the_backbone(tmp_path):
    torch.manual_seed(1)
    save_file(timm.create_model("kat_pico_patch4_28", **SMALL).state_dict(), tmp_path / "x.safetensors")
    config = SegmenterConfig(backbone="kat_pico_patch4_28", backbone_args=SMALL, checkpoint=str(tmp_path / "x.safetensors"))
    backbone, saved = build_model(config, 3).encoder.backbone.state_dict(), load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in backbone.items())
    fresh = build_model(dataclasses.replace(config, checkpoint=None), 3).encoder.backbone
    assert not torch.equal(fresh.pos_embed, saved["pos_embed"])
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        build_model(SegmenterConfig(checkpoint="absent.safetensors"), 3)

    save_file(build_model(config, 3).state_dict(), tmp_path / "y.safetensors")  # as a run leaves it
    again = build_model(dataclasses.replace(config, checkpoint=str(tmp_path / "y.safetensors")), 5).encoder.backbone.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in again.items())
    save_file({f"model.{name}": value for name, value in saved.items()}, tmp_path / "z.safetensors")
    with pytest.raises(ValueError, match="model.checkpoint .*z.safetensors has no (cls_token|pos_embed|patch_embed)"):
        build_model(dataclasses.replace(config, checkpoint=str(tmp_path / "z.safetensors")), 3)
    for name, options in {"vit_mlp_pico_patch4_28": {}, "kat_pico_patch4_28": {"depth": SMALL["depth"] - 1}}.items():
        other = dataclasses.replace(config, backbone=name, backbone_args=SMALL | options)
        with pytest.raises(ValueError, match=r"x.safetensors does not fit .*: the backbone has no place for blocks.\d"):
            build_model(other, 3)
    wider = dataclasses.replace(config, backbone_args=SMALL | {"embed_dim": 48})
    with pytest.raises(ValueError, match="checkpoint .*x.safetensors does not fit KAT: .*size mismatch"):
        build_model(wider, 3)


def test_poly_schedule_with_warm_up(segmentation_recipe):
    recipe = change(segmentation_recipe, optimizer={"lr": 1.0, "layer_decay": None}, schedule={"warmup_lr": 0.0, "epochs": 10})
    optimizer = create_optimizer(torch.nn.Linear(2, 2), recipe.optimizer)
    scheduler, rates = create_scheduler(optimizer, recipe.schedule, updates_per_epoch=10), []
    for update in range(100):
        scheduler.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:5] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert rates[5:] == pytest.approx([1 - update / 100 for update in range(5, 100)])


def test_ade20k_recipe_is_the_papers():
    from kat_zoo.train.core.config import RECIPES, parse

    recipe, _ = parse(SegmentationRecipe, ["--config", "kat_small_upernet_ade20k"], "test")
    assert recipe.schedule.epochs * recipe.data.updates_per_epoch == 160_000
    assert (recipe.data.crop, recipe.data.batch_size, recipe.optimizer.name, recipe.optimizer.lr) == (512, 16, "adamw", 1e-4)
    assert yaml.safe_load((RECIPES / "kat_small_upernet_ade20k.yaml").read_text())["model"]["backbone"] == "kat_small_patch16_224"


def test_regions_are_painted_in_the_colours_of_the_legend():
    labels = torch.tensor([[0, 0, 3], [9, 9, 3]])
    painted, present = overlay_regions(torch.zeros(1, 2, 3, dtype=torch.uint8), labels, 4, alpha=1.0)
    assert present == [0, 3] and painted.shape == (3, 2, 3)
    assert tuple(painted[:, 0, 0].tolist()) == colors(4)[0] and tuple(painted[:, 1, 2].tolist()) == colors(4)[3]
    assert not painted[:, 1, :2].any(), "what is no class stays unpainted"
    for count in (7, 11, 20, 150):
        assert len(set(colors(count))) == count


@pytest.mark.parametrize(
    "change_to, message",
    [
        ({"data": {"stride": 25}}, r"data.stride=25: expected at most data.crop = 24"),
        ({"data": {"long_side": 20}}, "data.long_side=20: expected at least data.short_side = 28"),
        ({"data": {"num_classes": 1}}, "data.num_classes=1: expected a number in \\[2, 255\\]"),
        ({"augment": {"cat_max_ratio": 0.0}}, "augment.cat_max_ratio=0.0"),
        ({"augment": {"scale": (2.0, 1.0)}}, "augment.scale"),
        ({"data": {"batch_size": 5}}, "not a multiple of optimizer.grad_accum"),
        ({"model": {"pretrained": True, "checkpoint": "x"}}, "both name weights"),
    ],
)
def test_bad_recipes(change_to, message, segmentation_recipe):
    with pytest.raises(ValueError, match=message):
        change(segmentation_recipe, **change_to)


@pytest.mark.parametrize("batch, accum", [(1, 1), (2, 2)])
def test_batch_norm_needs_two_images(batch, accum, segmentation_recipe):
    recipe = change(segmentation_recipe, data={"batch_size": batch}, optimizer={"grad_accum": accum})
    for function in (train, rehearse):
        with pytest.raises(ValueError, match=rf"data.batch_size={batch} with optimizer.grad_accum={accum} .* at least {2 * accum}"):
            function(recipe)
    assert not Path(recipe.output).exists()


def test_a_rehearsal_takes_gpus_for_the_processes(segmentation_recipe):
    """One image each, which they normalize together."""
    recipe = change(segmentation_recipe, system={"processes": 4}, optimizer={"grad_accum": 1})
    assert "one update on noise" in rehearse(recipe)


@pytest.mark.parametrize(
    ("sections", "held", "message"),
    [
        ({"data": {"batch_size": 16}}, False, "the training split of 8 images has 0 such batches"),
        ({"model": {"kwargs": {"hidden_sizes": 8}}}, False, "model.kwargs: hidden_sizes=8: expected an argument of UperNet; did you mean"),
        ({"model": {"neck_args": {"out_channel": 8}}}, False, "model.neck_args: out_channel=8: expected an argument of SimpleFeature"),
        ({"model": {"backbone_args": {"depth": "x"}}}, False, "model.backbone_args={'depth': 'x'}.*: expected arguments of upernet on kat"),
        ({}, True, "another process trains there"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_annotations_are_read(
    sections, held, message, segmentation_recipe, hold_by_another, monkeypatch
):
    if held:
        hold_by_another()
    monkeypatch.delattr("kat_zoo.train.segmentation.loop.check")
    with pytest.raises(ValueError, match=message):
        train(change(segmentation_recipe, **sections))


def test_attention_rounds_as_in_the_run(segmentation_recipe):
    recipe = change(segmentation_recipe, model={"backbone_args": SMALL}, system={"fused_attention": False, "eval_every": 2})
    train(recipe)
    set_fused_attn(True)
    blocks = open_run(Path(recipe.output)).model.encoder.backbone.blocks
    assert not any(block.attn.fused_attn for block in blocks) and timm.create_model("test_vit").blocks[0].attn.fused_attn


@pytest.mark.parametrize(
    "argv, message",
    [
        (["train", "--task", "segmentation", "--output", "x", "--model.head", "unet"], "upernet"),
        (["train", "--task", "segmentation", "--config", "RECIPE", "--data.root", "absent"], "absent/images/training is not a folder"),
        (["predict", "absent.png", "--task", "segmentation", "--model", "absent"], "no such image: absent.png"),
        (["predict", __file__, "--task", "segmentation", "--model", "absent"], "absent has no recipe.yaml"),
        (["validate", "--task", "segmentation", "--run", "absent"], "absent has no recipe.yaml"),
    ],
)
def test_bad_input_is_one_line(argv, message, segmentation_recipe, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(to_yaml(segmentation_recipe))
    assert cli.main([str(tmp_path / "recipe.yaml") if a == "RECIPE" else a for a in argv]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]


def test_mean_and_std_of_the_first_weights_stay_with_the_run(segmentation_recipe, tmp_path):
    """They came from the config.json beside those weights, which may be gone."""
    model, first = segmentation_recipe.model, tmp_path / "first"
    classifier = timm.create_model(model.backbone, num_classes=3, **model.backbone_args)
    channels = classifier.patch_embed.proj.in_channels
    save_model(classifier, first, list("abc"), {"mean": [0.5] * channels, "std": [0.25] * channels})
    start = {"checkpoint": str(first / "model.safetensors"), "pretrained": False}
    recipe = change(segmentation_recipe, model=start, schedule={"epochs": 1, "warmup_epochs": 0})
    train(recipe)
    shutil.rmtree(first)
    found = open_run(Path(recipe.output)).model
    assert found.image_mean.flatten().tolist() == [0.5] * channels and found.image_std.flatten().tolist() == [0.25] * channels
