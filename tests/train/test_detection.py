"""Detection end to end: training, exact resume, the commands, drawings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from kat_zoo.cli import main as cli
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import to_yaml
from kat_zoo.train.core.log import read_log
from kat_zoo.train.dense.pictures import colors
from kat_zoo.train.detection.loop import build_model, train
from kat_zoo.train.detection.predict import draw

from .detection_scenes import HEIGHT, WIDTH, small_recipe, write_coco
from .test_classification import change, precisions_of_validate, same_run


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"))


# ---- Training --------------------------------------------------------------------------------------------------------


def test_resume_is_bit_exact_wherever_a_run_was_cut(coco, tmp_path):
    """Jitter, flip, drop-path, sampled proposals, accumulation, EMA; cut in both epochs; other worker counts."""
    whole = change(small_recipe(coco, tmp_path / "whole"), system={"checkpoint_every": 1, "keep_checkpoints": 100, "eval_every": 2})
    result = train(whole)
    assert len(list_checkpoints(Path(whole.output))) == 4
    for update, workers in ((1, 1), (3, 0)):
        cut = tmp_path / f"cut{update}"
        shutil.copytree(whole.output, cut)
        for folder in list_checkpoints(cut)[update:]:
            shutil.rmtree(folder)
        again = train(change(whole, output=str(cut), data={"workers": workers}), resume="auto")
        assert again.values() == pytest.approx(result.values(), nan_ok=True, abs=0)
        same_run(Path(whole.output), cut)


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps the precision of a process's first Accelerator."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("head", ["faster_rcnn", "retinanet", "fcos"])
def test_every_head_trains_in_bf16(head, coco, tmp_path, fresh_accelerate):
    recipe = change(small_recipe(coco, tmp_path / "run", head), system={"precision": "bf16"}, schedule={"epochs": 1, "warmup_epochs": 0})
    result = train(recipe)
    assert result.images == 5 and result.mask is None and len(result.box_per_class) == 2
    record = read_log(tmp_path / "run" / "metrics.jsonl")[0]
    parts = {key: value for key, value in record.items() if "loss" in key or "classification" in key or "bbox" in key}
    assert parts.pop("loss") == pytest.approx(sum(parts.values()), rel=1e-3)


def test_commands(coco, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    (tmp_path / "recipe.yaml").write_text(to_yaml(small_recipe(coco, run)))
    assert cli.main(["train", "--config", str(tmp_path / "recipe.yaml")]) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["classes"] == ["square", "cross"] and "box AP" in capsys.readouterr().out
    assert {"best.safetensors", "model.safetensors"} <= {path.name for path in run.iterdir()}

    assert cli.main(["validate", str(run)]) == 0
    text = capsys.readouterr().out
    assert f"box: ap {result['box']['ap']:.2f} %" in text and f"mask AP {result['mask_per_class'][1]:6.2f} %" in text
    assert precisions_of_validate("detection", run, monkeypatch) == ["bf16", "no"]

    out, picture = tmp_path / "out", str(coco / "val" / "1.png")
    assert cli.main(["predict", str(run), picture, "--min-score", "0", "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["1_detection.png"]
    assert "with a score of 0 or more" in capsys.readouterr().out
    for bad, named in (
        (["predict", picture, "--task", "detection", "--model", str(coco)], "has no recipe.yaml"),
        (["predict", picture, "--task", "detection", "--model", str(run), "--min-score", "2"], "--min-score 2.0"),
        (["validate", "--task", "detection", "--run", str(run), "--images", str(coco)], "give both"),
        (["predict", picture, "--task", "tracking", "--model", str(run)], "'tracking'"),
    ):
        assert cli.main(bad) == 2 and named in capsys.readouterr().err


def test_weights_of_a_detector_start_the_backbone(tmp_path):
    recipe = small_recipe("unused", "unused")
    saved = build_model(recipe.model, 2, recipe.data).state_dict()
    save_file(saved, tmp_path / "model.safetensors")
    model = build_model(change(recipe, model={"checkpoint": str(tmp_path / "model.safetensors")}).model, 5, recipe.data)
    assert all(value.equal(saved[f"backbone.backbone.{name}"]) for name, value in model.backbone.backbone.state_dict().items())


def test_overlapping_objects_are_all_drawn():
    """The surest object is on top; boxes and masks grow with the picture; nothing else is painted."""
    masks = torch.zeros(2, 40, 40, dtype=torch.bool)
    masks[0, 5:20, 5:20] = masks[1, 10:30, 10:30] = True
    found = {"boxes": torch.tensor([[5.0, 5, 20, 20], [10, 10, 30, 30]]), "labels": torch.tensor([1, 2]), "masks": masks}
    image = torch.full((1, 40, 40), 100, dtype=torch.uint8)
    first, second = (torch.tensor(color) for color in colors(2))
    picture = draw(image, found, ("a", "b"))
    zoom = picture.shape[1] // 40
    assert picture.shape == (3, 480, 480) and zoom == 12

    def blend(color, below):
        return 0.4 * color + 0.6 * below

    def at(x, y):
        return picture[:, y * zoom + 6, x * zoom + 6].float()

    gray = torch.full((3,), 100.0)
    assert (at(35, 35) - gray).abs().max() == 0
    assert (at(25, 25) - blend(second, gray)).abs().max() <= 2
    assert (at(15, 15) - blend(first, blend(second, gray))).abs().max() <= 2
    assert torch.equal(draw(image, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}, ("a", "b")).unique(), torch.tensor([100]))


@pytest.mark.parametrize(
    "section, values, named",
    [
        ("data", {"min_size": ()}, "data.min_size"),
        ("data", {"max_size": 20}, "data.max_size=20"),
        ("data", {"batch_size": 3}, "grad_accum"),
        ("augment", {"scale": (2.0, 1.0)}, "augment.scale"),
        ("augment", {"hflip": 1.5}, "augment.hflip"),
        ("model", {"pretrained": True, "checkpoint": "x.safetensors"}, "give one"),
        ("schedule", {"name": "multistep"}, "schedule.milestones"),
        ("schedule", {"milestones": (3.0,)}, "schedule.milestones"),
    ],
)
def test_bad_values_are_named(section, values, named):
    with pytest.raises(ValueError, match=named):
        change(small_recipe("unused", "unused"), **{section: values})


def test_too_few_images_are_refused(coco, tmp_path):
    with pytest.raises(ValueError, match="batch_size 16 is larger than the training split of 9"):
        train(change(small_recipe(coco, tmp_path / "run"), data={"batch_size": 16}))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_train_and_count_as_one(coco, tmp_path):
    """Five images on two processes of two: one is evaluated twice, and counted once."""
    recipe = small_recipe(coco, tmp_path / "two")
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python", sys.executable,
         "-m", "kat_zoo.train.detection", "--config", str(tmp_path / "recipe.yaml")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["images"] == 5
    # One process, evaluating the weights of the two, says the same.
    assert cli.main(["validate", "--task", "detection", "--run", str(tmp_path / "two")]) == 0
    weights = load_file(tmp_path / "two" / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.slow
def test_eight_images_can_be_learned_by_heart(tmp_path):
    """Capacity, losses, targets and figures fit each other: AP50 of boxes and masks reaches 95 % on the training images."""
    coco = write_coco(tmp_path / "coco", train=8, val=1)
    recipe = small_recipe(coco, tmp_path / "run")
    few = {
        "rpn_pre_nms_top_n_train": 200, "rpn_post_nms_top_n_train": 40, "rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 40,
        "box_batch_size_per_image": 16, "box_positive_fraction": 0.5,
    }  # fmt: skip
    recipe = change(
        recipe,
        model={"backbone_args": {}, "kwargs": few, "pyramid_args": {"out_channels": 32, "scales": [2, 1]}, "pretrained": True},
        data={"val_images": "train", "val_annotations": "train.json", "batch_size": 8, "min_size": (HEIGHT,), "max_size": WIDTH},
        augment={"resize": "shortest", "hflip": 0.0},
        optimizer={"lr": 1e-3, "grad_accum": 1, "layer_decay": None},
        schedule={"epochs": 180, "warmup_epochs": 10},
        ema={"decay": 0.0},
        system={"eval_every": 180, "log_every": 20},
    )
    result = train(recipe)
    assert result.box["ap50"] >= 95 and result.mask["ap50"] >= 95


def test_labels_of_a_drawing_lie_on_their_color():
    found = {"boxes": torch.tensor([[8.0, 8, 56, 56]]), "labels": torch.tensor([2])}
    picture = draw(torch.zeros(1, 64, 64, dtype=torch.uint8), found, ("Shoe", "Bag"))
    color = torch.tensor(colors(2)[1])[:, None, None]
    zoom = picture.shape[-1] // 64
    label = picture[:, 8 * zoom + 2 : 8 * zoom + 20, 8 * zoom + 2 : 8 * zoom + 40]
    on_color, white = (label == color).all(0), (label == 255).all(0)
    assert on_color[:14, :20].float().mean() > 0.3 and white.sum() > 20  # letters, large enough to read
