"""Running out of memory, acted by a model that takes four images at a time."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.utils import DistributedType
from timm.models.vision_transformer import VisionTransformer

from kat_zoo.train.classification.loop import main, train
from kat_zoo.train.classification.memory import explain_out_of_memory, micro_batches
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import to_yaml
from kat_zoo.train.core.run import OutOfMemory, Run
from kat_zoo.train.tasks import train_main

from .test_classification import change, same_run


@pytest.fixture
def room(monkeypatch):
    """Sets how many images fit in training."""
    forward, limit = VisionTransformer.forward, {"images": 4}

    def small(self, x, *args, **kwargs):
        if self.training and len(x) > limit["images"]:
            raise torch.OutOfMemoryError("Tried to allocate 7 GiB: out of memory.")
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(VisionTransformer, "forward", small)
    return limit


def test_the_batch_is_cut_into_passes_that_fit(recipe, room, tmp_path, capsys):
    found = change(recipe, auto_batch_size=True, system={"checkpoint_every": 1, "keep_checkpoints": 100})
    train(found)
    assert "4 images per process fit into memory: optimizer.grad_accum is 4" in capsys.readouterr().out
    run = Path(found.output)
    assert yaml.safe_load((run / "recipe.yaml").read_text())["optimizer"]["grad_accum"] == 4
    given = change(found, auto_batch_size=False, optimizer={"grad_accum": 4}, output=str(tmp_path / "given"))
    train(given)  # the trial has left no trace in weights and random states
    same_run(run, tmp_path / "given")
    room["images"] = 16  # a continued run keeps the number it was begun with
    train(change(found, schedule={"epochs": 3}), resume="auto")
    assert yaml.safe_load((run / "recipe.yaml").read_text())["optimizer"]["grad_accum"] == 4


def test_what_another_run_has_found_is_kept_for_as_many_processes_only(recipe, room, tmp_path):
    """Continued in another folder, with another number of processes, and from a run that has not searched."""
    found = change(recipe, auto_batch_size=True, schedule={"epochs": 2})
    train(found)
    first = list_checkpoints(Path(found.output))[0]
    progress = json.loads((first / "progress.json").read_text())
    assert progress["processes"] == 1
    room["images"] = 16

    def passes(name, **sections):
        again = change(found, output=str(tmp_path / name), **sections)
        train(again, resume=str(first))
        return yaml.safe_load((tmp_path / name / "recipe.yaml").read_text())["optimizer"]["grad_accum"]

    assert passes("moved") == 4
    (first / "progress.json").write_text(json.dumps(progress | {"processes": 2}))
    assert passes("others") == 2
    (first / "progress.json").write_text(json.dumps(progress))
    stored = Path(found.output) / "recipe.yaml"
    stored.write_text(stored.read_text().replace("auto_batch_size: true", "auto_batch_size: false"))
    assert passes("searched") == 2


def test_without_the_option_there_is_a_hint(recipe, room, tmp_path, caplog):
    with pytest.raises(OutOfMemory, match="with 8 images per process at a time; 4 would fit: set optimizer.grad_accum to 4"):
        train(recipe)
    room["images"] = 1
    with pytest.raises(OutOfMemory, match="no smaller batch fits"):  # mixup needs pairs
        train(change(recipe, output=str(tmp_path / "second")))
    with pytest.raises(OutOfMemory, match="not even 2 image"):
        train(change(recipe, auto_batch_size=True, output=str(tmp_path / "third")))
    (tmp_path / "recipe.yaml").write_text(to_yaml(change(recipe, output=str(tmp_path / "fourth"))))
    assert main(["--config", str(tmp_path / "recipe.yaml")]) == 1 and "out of memory" in caplog.text


@pytest.mark.parametrize("sharding", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_nothing_is_tried_where_the_other_processes_would_have_to_take_part(sharding, recipe):
    class Alone:
        accelerator = SimpleNamespace(distributed_type=sharding, num_processes=2)

        def __call__(self, batch):
            raise AssertionError("it waits for the others")

    with pytest.raises(OutOfMemory, match="raise optimizer.grad_accum"), explain_out_of_memory(recipe, Alone()):
        raise torch.OutOfMemoryError("Tried to allocate 7 GiB: out of memory.")


def test_every_task_says_so_in_a_line(segmentation_recipe, monkeypatch, tmp_path, caplog):
    def fail(self, losses):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0")

    monkeypatch.setattr(Run, "backward", fail)
    (tmp_path / "recipe.yaml").write_text(to_yaml(segmentation_recipe))
    assert train_main(["--config", str(tmp_path / "recipe.yaml")]) == 1
    (line,) = [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]
    assert "data.batch_size 4 and optimizer.grad_accum 2: raise grad_accum" in line and "\n" not in line


def test_passes_that_make_up_a_batch(recipe):
    assert micro_batches(recipe, 1) == [8, 4, 2]  # batch 16 from 2 passes on; mixup takes pairs
    assert micro_batches(recipe, 2) == [4, 2]
    assert micro_batches(change(recipe, augment={"mixup": 0.0, "cutmix": 0.0}), 1) == [8, 4, 2, 1]
    assert micro_batches(recipe, 3) == []


def test_other_errors_are_left_alone(recipe, monkeypatch):
    forward = VisionTransformer.forward

    def fail(self, x):
        if torch.is_grad_enabled():  # in training, not when the image size is tried
            raise RuntimeError("something else")
        return forward(self, x)

    monkeypatch.setattr(VisionTransformer, "forward", fail)
    with pytest.raises(RuntimeError, match="^something else$") as error:
        train(recipe)
    assert not isinstance(error.value, OutOfMemory)
