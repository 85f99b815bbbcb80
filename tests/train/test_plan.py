"""The planner: its counts against what PyTorch really saves, against formulas written by hand, and against arithmetic."""

import dataclasses
import re
from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from kat_zoo import train
from kat_zoo.analysis.costs import SavedBytes
from kat_zoo.cli import main as cli
from kat_zoo.train.classification.recipe import ModelConfig, Recipe
from kat_zoo.train.core.config import OptimizerConfig, parse
from kat_zoo.train.detection import loop as detection
from kat_zoo.train.detection.recipe import DetectionRecipe
from kat_zoo.train.planning.footprint import FLOPS, count
from kat_zoo.train.planning.plan import RECIPES, Machine, find_task, optimizer_state, plan
from kat_zoo.train.segmentation import loop as segmentation
from kat_zoo.train.segmentation.recipe import SegmentationRecipe

SIZE, N, D, H, DEPTH = (1, 28, 28), 49, 24, 3, 2
KWARGS = {"embed_dim": D, "depth": DEPTH, "num_heads": H}


def build(name, device="meta", **kwargs):
    return timm.create_model(name, device=device, num_classes=10, **{**KWARGS, **kwargs})


def loss(model, batch):
    return model(torch.zeros(batch, *SIZE)).float().square().mean()


@pytest.mark.parametrize("name, kwargs", [("kat_pico_patch4_28", {"drop_path_rate": 0.1}), ("karat_pico_patch4_28", {})])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_saved_bytes_are_those_of_a_real_step(name, kwargs, precision):
    counts = count(lambda: build(name, **kwargs), loss, precision)
    for footprint, checkpointing in zip(counts, (False, True), strict=True):
        model = build(name, device="cpu", **kwargs).train()
        model.set_grad_checkpointing(checkpointing)
        for batch in (1, 3):
            with SavedBytes(list(model.parameters())) as saved, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss(model, batch)
            # 4 bytes an image: the mask of drop-path is one number
            assert saved.total == pytest.approx(footprint.copies + batch * footprint.saved, abs=8 * DEPTH)


def test_counter_sees_what_autograd_saves():
    x, w = torch.randn(5, 7, requires_grad=True), torch.randn(7, 7, requires_grad=True)
    with SavedBytes([w]) as saved:
        (x @ w).exp()[:2].sum()  # x, and the result of exp; w is known, a view counts as its storage, once
    assert saved.total == 4 * (35 + 35)


@pytest.mark.parametrize("precision, s", [("no", 4), ("bf16", 2)])
def test_a_block_holds_what_the_formula_says(precision, s):
    plain, checkpointed = count(lambda: build("kat_pico_patch4_28"), loss, precision)
    block = N * D * (4 + 5 * s) + 4 * H * N + N * D * (4 + s + 2 * 4 * s) + s * N * D + 16 * N
    assert checkpointed.recomputed == block
    assert 1 <= plain.saved / (DEPTH * block) < 1.2  # patches, final norm, head
    assert checkpointed.saved < plain.saved - DEPTH * (block - 4 * N * D) + 8


def test_flops_of_a_block_by_hand():
    one, _ = count(lambda: build("kat_pico_patch4_28", depth=DEPTH - 1), loss)
    two, checkpointed = count(lambda: build("kat_pico_patch4_28"), loss)
    linear, attention, activations = 12 * N * D * D, 2 * N * N * D, 10 * 5 * N * D  # multiply-adds
    assert two.forward_flops - one.forward_flops == 2 * (linear + attention + activations)
    backward = 2 * linear + 2.5 * attention + 3 * activations  # attention's is 5 products: the logits again
    assert two.backward_flops - one.backward_flops == 2 * backward
    again = linear - 4 * N * D * D + attention + activations  # nothing needs the output of fc2 again
    assert checkpointed.backward_flops == two.backward_flops + DEPTH * 2 * again


@pytest.mark.parametrize("train_only", ["head", "rationals"])
def test_frozen_parameters_cost_no_gradients(train_only):
    model = ModelConfig("kat_pico_patch4_28", KWARGS, pretrained=True, train_only=train_only)
    recipe = dataclasses.replace(small(), mode="finetune", model=model)
    full, part = plan(small(), Machine(1)), plan(recipe, Machine(1))
    trained = 10 * D + 10 if train_only == "head" else 2 * DEPTH * (6 + 8 * 4)
    assert part.footprint[0].trained == trained and part.memory[0].gradients == 4 * trained
    assert part.memory[0].optimizer == 8 * trained
    assert part.footprint[0].backward_flops < full.footprint[0].backward_flops
    assert part.footprint[0].forward_flops == full.footprint[0].forward_flops


def small():
    return parse(Recipe, ["--config", "kat_pico_fmnist", "--model.kwargs", str(KWARGS), "--schedule.epochs", "12"], "test")[0]


def test_arithmetic_of_a_run():
    recipe, machine = small(), Machine(gpus=2, gpu_memory=0.02, tflops=1e-3, utilization=0.5, reserve=0.25)
    needs = plan(recipe, machine)
    params = needs.footprint[0].parameters
    memory = needs.memory[0]
    assert params == sum(p.numel() for p in build("kat_pico_patch4_28").parameters())
    assert (memory.weights, memory.gradients, memory.optimizer, memory.average) == (4 * params, 8 * params, 8 * params, 4 * params)
    assert needs.updates_per_epoch == 60_000 // 64 and needs.updates == 12 * 937 and needs.images_per_pass == 32
    fits = (0.75 * 0.02e9 - memory.fixed) / memory.per_image
    assert needs.fits[0] == int(fits) and 0 < fits < 1000
    flops = needs.footprint[0].forward_flops + needs.footprint[0].backward_flops
    assert needs.hours[0] == pytest.approx(12 * 937 * 64 * flops / (2 * 0.5e9) / 3600)
    assert plan(recipe, dataclasses.replace(machine, gpu_memory=1e-4)).grad_accum[0] is None
    sharded = plan(recipe, dataclasses.replace(machine, strategy="fsdp2")).memory[0]
    assert (sharded.gradients, sharded.optimizer, sharded.average) == (2 * params, 4 * params, 2 * params)


def test_a_linear_probe_has_no_updates():
    recipe = dataclasses.replace(small(), mode="linear_probe", model=ModelConfig("kat_pico_patch4_28", KWARGS, pretrained=True))
    needs = plan(recipe, Machine(gpus=1))
    assert needs.updates == needs.hours[0] == needs.memory[0].average == 0


def test_accumulation_is_what_makes_the_batch_fit():
    recipe = small()
    memory = plan(recipe, Machine(1)).memory[0]
    room = (memory.fixed + 20 * memory.per_image) / 1e9
    assert plan(recipe, Machine(1, gpu_memory=room, reserve=0)).grad_accum[0] == 4  # 16 of 64 at a time; 32 would be too many


@pytest.mark.parametrize("name, per_element", [("adamw", 2), ("lion", 1), ("sgd", 1), ("lamb", 2)])
def test_optimizer_state_is_what_the_optimizer_makes(name, per_element):
    model = build("kat_pico_patch4_28", device="cpu")
    config = OptimizerConfig(name=name, layer_decay=0.7)
    assert optimizer_state(model, config) == per_element * sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("precision", ["bf16", pytest.param("no", marks=pytest.mark.slow)])
def test_segmentation_counts_what_its_model_saves(precision):
    argv = ["--config", "kat_pico_upernet_scenes", "--data.num_classes", "5", "--system.fused_attention", "true"]
    recipe = parse(SegmentationRecipe, [*argv, "--system.precision", precision], "test")[0]
    found = plan(recipe, Machine(1)).footprint[0]
    model = segmentation.build_model(recipe.model.untrained(), 5).train()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with SavedBytes([*model.parameters(), *model.buffers()]) as saved, autocast:
        images = torch.rand(2, model.image_mean.numel(), 64, 64)
        losses = model(images, torch.zeros(2, 64, 64, dtype=torch.long))  # noqa: F841  (alive until counted)
    assert saved.total == pytest.approx(found.copies + 2 * found.saved, rel=1e-3)
    assert found.parameters == sum(p.numel() for p in model.parameters())


def crowded(model, side, batch):
    """Images whose left half holds so many objects, right on anchors, that every sample of a two-stage detector is full."""
    torch.manual_seed(0)
    images = [torch.rand(1, side, side) for _ in range(batch)]
    padded, _ = model.transform(images, None)
    with torch.no_grad():
        generate = model.rpn.anchor_generator if hasattr(model, "rpn") else model.anchor_generator
        anchors = generate(padded, list(model.backbone(padded.tensors).values()))[0]
    inside = anchors[(anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= side / 2) & (anchors[:, 3] <= side)]
    count = len(inside) if hasattr(model, "rpn") else 1
    masks = torch.ones(count, side, side, dtype=torch.uint8)
    return images, [{"boxes": inside[:count], "labels": torch.ones(count, dtype=torch.long), "masks": masks} for _ in range(batch)]


@pytest.mark.parametrize(
    "head, precision",
    [("mask_rcnn", "bf16"), ("retinanet", "bf16"),
     *(pytest.param(*case, marks=pytest.mark.slow) for case in (("mask_rcnn", "no"), ("faster_rcnn", "bf16"), ("fcos", "bf16")))],
)  # fmt: skip
def test_detection_counts_what_its_model_computes_and_saves(head, precision):
    overrides = ["--model.head", head, "--system.precision", precision, "--system.fused_attention", "true", "--model.pretrained", "false"]
    if "rcnn" in head:  # as many positive anchors and proposals as there are objects for
        overrides += ["--model.kwargs.rpn_batch_size_per_image", "64", "--model.kwargs.rpn_post_nms_top_n_train", "200"]
    else:  # no anchor between the thresholds
        kwargs = {"fg_iou_thresh": 0.5, "bg_iou_thresh": 0.5} if head == "retinanet" else {}
        overrides += ["--model.kwargs", str(kwargs)]
    recipe = parse(DetectionRecipe, ["--config", "kat_pico_maskrcnn_scenes", *overrides], "test")[0]
    needs = plan(recipe, Machine(1))
    found, side, batch = needs.footprint[0], 64, 2
    assert "64 x 64 pixels" in needs.assumed and needs.updates_per_epoch == detection.COCO[1] // 4
    model = detection.build_model(recipe.model, detection.COCO[0], recipe.data).train()
    images, targets = crowded(model, side, batch)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        with SavedBytes([*model.parameters(), *model.buffers()]) as saved, autocast:
            losses = model(images, targets)
        forward = counter.get_total_flops()
        torch.stack(list(losses.values())).sum().backward()
    assert saved.total == pytest.approx(found.copies + batch * found.saved, rel=1e-3)
    assert forward == batch * found.forward_flops and counter.get_total_flops() - forward == batch * found.backward_flops


@pytest.mark.parametrize(
    "argv, named",
    [
        (["--gpus", "7"], "data.batch_size=64: expected a multiple"),
        (["--gpus", "0"], "--gpus=0"),
        (["--strategy", "zero"], "--strategy='zero'"),
        (["--utilization", "1.5"], "--utilization=1.5"),
        (["--model.name", "kat_huge"], "kat_huge"),
        (["--gpus", "4", "--augment.mixup", "0.2", "--data.batch_size", "60", "--optimizer.grad_accum", "5"], "expected a multiple of 40"),
    ],
)
def test_what_cannot_be_planned_is_named(argv, named, capsys):
    assert cli.main(["plan", "--config", "kat_pico_fmnist", *argv]) == 2
    assert named in capsys.readouterr().err


def test_a_plan_refuses_what_batch_norm_refuses(capsys):
    arguments = ["--config", "kat_pico_upernet_scenes", "--data.num_classes", "3", "--data.batch_size", "2", "--optimizer.grad_accum", "2"]
    assert cli.main(["plan", *arguments, "--gpus", "1"]) == 2
    assert "gives batch norm 1 image(s) at a time" in capsys.readouterr().err


def test_images_are_counted_at_their_largest():
    """As they are tried by auto_batch_size; the table says so."""
    model = ModelConfig("kat_pico_patch4_28", {**KWARGS, "dynamic_img_size": True})
    plain, grown, small_at_first = (
        plan(dataclasses.replace(small(), model=model, data=dataclasses.replace(small().data, sizes=sizes)), Machine(1))
        for sizes in ({}, {0: 28, 3: 56}, {0: 20})
    )
    assert grown.memory[0].per_image > 4 * plain.memory[0].per_image and "Images are 56 x 56 pixels" in grown.assumed
    assert small_at_first.memory[0] == plain.memory[0] and not plain.assumed


def test_passes_hold_pairs():
    recipe = dataclasses.replace(small(), data=dataclasses.replace(small().data, batch_size=36))
    memory = plan(recipe, Machine(1)).memory[0]
    for mixup, found in ((0.0, 4), (0.2, 6)):  # 9 of 36 at a time, or 6
        machine = Machine(1, gpu_memory=(memory.fixed + 9.5 * memory.per_image) / 1e9, reserve=0)
        augment = dataclasses.replace(recipe.augment, mixup=mixup, cutmix=0.0)
        assert plan(dataclasses.replace(recipe, augment=augment), machine).grad_accum[0] == found


def test_a_plan_needs_no_folder(capsys):
    assert cli.main(["plan", "--model.name", "test_kat"]) == 0
    assert "test_kat" in capsys.readouterr().out


PLANNED = [path for path in sorted(Path(train.__file__).parent.glob("configs/*.yaml")) if "by kat-zoo plan" in path.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("path", PLANNED, ids=lambda path: path.stem)
def test_recipes_announce_the_time_that_is_planned(path):
    gpus, hours, unit = re.search(r"(\d+) GPU.*Expected time: ([\d.]+) (hours|minutes), by kat-zoo plan", path.read_text()).groups()
    recipe = parse(RECIPES[find_task(["--config", str(path)])], ["--config", str(path)], "test")[0]
    found = plan(recipe, Machine(gpus=int(gpus))).hours[0]
    assert found == pytest.approx(float(hours) / (60 if unit == "minutes" else 1), rel=0.05)


def test_command_prints_the_table(capsys):
    assert cli.main(["plan", "--config", "kat_pico_fmnist", "--gpus", "8"]) == 0
    text = capsys.readouterr().out
    assert "455,162" in text and "11,244" in text and "with checkpointing" in text


@pytest.mark.parametrize("gpus, found", [(1, None), (2, 4)])
def test_no_accumulation_leaves_batch_norm_one_image(gpus, found, tmp_path):
    arguments = [
        "--config",
        "kat_pico_upernet_scenes",
        f"--output={tmp_path}",
        "--data.num_classes=3",
        "--data.crop=32",
        "--data.stride=32",
    ]
    recipe = parse(SegmentationRecipe, arguments, "test")[0]
    needs = plan(recipe, Machine(gpus=gpus, gpu_memory=1e3))
    room = (needs.memory[0].fixed + 1.5 * needs.memory[0].per_image) / 1e9
    assert plan(recipe, Machine(gpus=gpus, gpu_memory=room, reserve=0.0)).grad_accum[0] == found
