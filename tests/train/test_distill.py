"""Distillation through timm's tasks."""

from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from kat_zoo.train.classification.distill import create_task, load_teacher
from kat_zoo.train.classification.loop import train
from kat_zoo.train.core.runs import read_run

from .test_classification import PLAIN, change, figures

SMALL = {"img_size": 28, "patch_size": 14, "embed_dim": 24, "depth": 1, "num_heads": 2, "in_chans": 1}
STUDENT = dict(input_size=(1, 28, 28), mean=(0.25,), std=(0.5,))


@pytest.fixture
def taught(recipe, tmp_path):
    """A recipe with a ViT of random weights as its teacher, and that ViT."""
    torch.manual_seed(3)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, **SMALL)
    torch.nn.init.normal_(vit.head.weight)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    teacher = f"vit_tiny_patch16_224@{tmp_path / 'vit.safetensors'}"
    return change(recipe, distill={"teacher": teacher, "kwargs": SMALL, "weight": 0.3, "temperature": 2.0}), vit.eval()


@pytest.mark.parametrize("kind", ["soft", "token_soft", "token_hard"])
def test_the_loss_is_what_the_papers_say(kind, taught):
    recipe, vit = taught
    recipe = change(recipe, distill={"kind": kind})
    if kind == "soft":
        student = timm.create_model(recipe.model.name, num_classes=10, depth=1, embed_dim=24)
    else:
        student = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, **SMALL)
        torch.nn.init.normal_(student.head_dist.weight)
    task = create_task(recipe, student, torch.nn.CrossEntropyLoss(), STUDENT, torch.device("cpu")).train()
    x, y = torch.randn(6, 1, 28, 28), torch.randint(10, (6,))
    loss = task(x, y)["loss"]

    # The teacher sees the image with its own normalization, whose mean and std are 0.5.
    with torch.no_grad():
        taught_logits = vit((x * 0.5 + 0.25 - 0.5) / 0.5)
    outputs = student(x)
    main, distilled = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    if kind == "token_hard":
        second = F.cross_entropy(distilled, taught_logits.argmax(1))
    else:
        p = (taught_logits / 2).softmax(1)
        second = 4 * (p * (p.log() - F.log_softmax(distilled / 2, 1))).sum(1).mean()
    assert loss.item() == pytest.approx((0.7 * F.cross_entropy(main, y) + 0.3 * second).item(), rel=1e-5)

    loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in task.teacher.parameters())
    assert not any(module.training for module in task.teacher.modules()) and student.training


def test_a_kat_learns_from_a_vit(taught):
    recipe, _ = taught
    recipe = change(recipe, augment=PLAIN, optimizer={"lr": 1e-2, "grad_accum": 1}, schedule={"epochs": 4}, distill={"weight": 0.8})
    train(recipe)
    run = Path(recipe.output)
    records = [record for record in figures(run) if "kd_loss" in record]
    assert records[-1]["kd_loss"] < records[0]["kd_loss"]
    assert records[0]["loss"] == pytest.approx(0.2 * records[0]["task_loss"] + 0.8 * records[0]["kd_loss"], rel=1e-5)
    assert yaml.safe_load((run / "recipe.yaml").read_text())["distill"]["teacher"] == recipe.distill.teacher
    names = {path.name for path in run.glob("checkpoints/*/*") if path.suffix == ".safetensors"}
    assert names == {"model.safetensors", "ema.safetensors"}  # the teacher is in the recipe, not in the checkpoints


def test_teachers_that_do_not_fit(taught, recipe):
    taught, _ = taught
    student = timm.create_model(recipe.model.name, num_classes=10, depth=1, embed_dim=24)

    def create(recipe, **resolved):
        return create_task(recipe, student, torch.nn.CrossEntropyLoss(), STUDENT | resolved, torch.device("cpu"))

    with pytest.raises(ValueError, match="distillation token"):
        create(change(taught, distill={"kind": "token_hard"}))
    with pytest.raises(ValueError, match="distill.teacher .* does not fit"):
        create(taught, input_size=(1, 32, 32))
    with pytest.raises(ValueError, match=r"distill.input_size=\[3, 32, 32\]: expected 1 channels"):
        create(change(taught, distill={"input_size": (3, 32, 32)}))
    with pytest.raises(ValueError, match="^distill.kwargs={'imgsize': 32}: .* did you mean img_size"):
        load_teacher(change(taught, distill={"kwargs": {"imgsize": 32}}), 10, (1, 28, 28), weights=False)
    with pytest.raises(ValueError, match="know 1000 classes"):
        create(change(recipe, distill={"teacher": "vit_tiny_patch16_224"}))
    with pytest.raises(ValueError, match="distill.teacher='vit_huge@x': expected a timm name, .* did you mean"):
        create(change(recipe, distill={"teacher": "vit_huge@x"}))


def test_a_teacher_that_sees_larger_images(taught):
    recipe, _ = taught
    torch.manual_seed(4)
    kwargs = SMALL | {"img_size": 56}
    large = timm.create_model("vit_tiny_patch16_224", num_classes=10, **kwargs).eval()
    torch.nn.init.normal_(large.head.weight)
    file = Path(recipe.distill.teacher.split("@")[1])
    save_file(large.state_dict(), file)
    recipe = change(recipe, distill={"kwargs": kwargs, "input_size": (1, 56, 56), "weight": 1.0, "temperature": 1.0})
    student = timm.create_model(recipe.model.name, num_classes=10, depth=1, embed_dim=24)
    task = create_task(recipe, student, torch.nn.CrossEntropyLoss(), STUDENT, torch.device("cpu")).train()
    x, y = torch.rand(3, 1, 1, 1).expand(3, 1, 28, 28), torch.zeros(3, dtype=torch.long)
    with torch.no_grad():  # an image of one gray is so at any size
        p = large((x[..., :1, :1] * 0.5 + 0.25 - 0.5).div(0.5).expand(3, 1, 56, 56)).softmax(1)
    right = (p * (p.log() - F.log_softmax(student(x), 1))).sum(1).mean()
    assert task(x, y)["loss"].item() == pytest.approx(right.item(), rel=1e-4)


def test_a_run_teaches_another(recipe, tmp_path):
    short = {"epochs": 1, "warmup_epochs": 0}
    first = change(recipe, augment=PLAIN, schedule=short)
    train(first)
    classes = read_run(first.output).classes
    second = change(
        recipe,
        augment=PLAIN,
        schedule={"epochs": 1, "warmup_epochs": 0},
        output=str(tmp_path / "second"),
        distill={"teacher": first.output},
    )
    train(second)
    assert any("kd_loss" in record for record in figures(Path(second.output)))
    teacher = load_teacher(second, 10, (1, 28, 28), classes=classes)
    weights = load_file(Path(first.output) / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in teacher.state_dict().items())

    with pytest.raises(ValueError, match="expected those of the data, Ankle boot, Bag"):
        load_teacher(second, 10, (1, 28, 28), classes=classes[::-1])
    with pytest.raises(ValueError, match="expected those of the data, 9 of them"):
        load_teacher(second, 9, (1, 28, 28))
    with pytest.raises(ValueError, match=r"distill.kwargs={'depth': 3}: expected none"):
        load_teacher(change(second, distill={"kwargs": {"depth": 3}}), 10, (1, 28, 28))
