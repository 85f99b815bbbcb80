"""Folders and data sets of strangers: nothing in them is executed, and the file that is wrong is named."""

import io
import json
import logging
import pickle
import random
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from kat_zoo.train.classification.datasets import open_dataset
from kat_zoo.train.classification.loop import train
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.states import METADATA, check_files, load_random_state, load_state

from .test_classification import PLAIN, change
from .test_hub_data import png, write_parquet


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def bombs(marker):
    """A bomb as a plain pickle, and as torch writes it."""
    file = io.BytesIO()
    torch.save({"state": Bomb(marker)}, file)
    return pickle.dumps(Bomb(marker)), file.getvalue()


@pytest.fixture
def short(recipe):
    return change(recipe, augment=PLAIN, ema={"decay": 0.9}, schedule={"epochs": 1, "warmup_epochs": 0})


def test_no_file_of_a_checkpoint_is_executed(short, tmp_path):
    train(short)
    run, marker = Path(short.output), tmp_path / "executed"
    (checkpoint,) = list_checkpoints(run)
    names = sorted(path.name for path in checkpoint.iterdir())
    assert {"optimizer.bin", "random_states_0.pkl", "model.safetensors", "ema.safetensors", "progress.json"} == set(names)
    for name in [*names, "custom_checkpoint_0.pkl", "pytorch_model_fsdp.bin", METADATA]:
        file = checkpoint / name
        whole = file.read_bytes() if file.exists() else None
        for bomb in bombs(marker):
            file.write_bytes(bomb)
            with pytest.raises(ValueError, match=f"{name} (holds more than plain values|is damaged)"):
                train(short, resume="auto")
            assert not marker.exists(), name
        if whole is None:
            file.unlink()
        else:
            file.write_bytes(whole)
    assert train(short, resume="auto") is not None


def test_a_bomb_that_nothing_looked_at_is_not_executed_either(short, tmp_path):
    train(short)
    (checkpoint,) = list_checkpoints(Path(short.output))
    marker = tmp_path / "executed"
    torch.save({"state": Bomb(marker)}, checkpoint / "optimizer.bin")
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]))
    with pytest.raises(ValueError, match="update_00000006 cannot be loaded"):
        load_state(accelerator, checkpoint)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage is deprecated")  # the second in torch 2.8
def test_the_layout_of_a_sharded_checkpoint_is_read(tmp_path):
    import torch.distributed.checkpoint as sharded

    content = {"model": {"a": torch.ones(4, dtype=torch.bfloat16)}, "groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]}
    sharded.save(content, checkpoint_id=tmp_path / "pytorch_model_fsdp_0", no_dist=True)
    check_files(tmp_path)
    (tmp_path / "pytorch_model_fsdp_0" / METADATA).write_bytes(bombs(tmp_path / "executed")[0])
    with pytest.raises(ValueError, match="metadata holds more than plain values .*io.open.* could run code"):
        check_files(tmp_path)


def test_the_state_of_a_stream_of_an_older_version_is_read(short, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    root = write_parquet(tmp_path / "parquet")
    data = {"dataset": "hub", "root": root, "streaming": True, "samples": 32, "batch_size": 8}
    recipe = change(short, data=data)
    train(recipe)
    (checkpoint,) = list_checkpoints(Path(recipe.output))
    assert not list(checkpoint.glob("custom_checkpoint*"))
    progress = json.loads((checkpoint / "progress.json").read_text())
    assert progress.pop("stream") == {"processes": 1, "workers": 0}
    (checkpoint / "progress.json").write_text(json.dumps(progress))
    torch.save({"processes": 3, "workers": 2}, checkpoint / "custom_checkpoint_0.pkl")
    with caplog.at_level(logging.WARNING, "kat_zoo"):
        train(recipe, resume="auto")
    assert "the stream continues in another order: it was read by {'processes': 3, 'workers': 2}" in caplog.text


def test_a_run_does_not_go_on_without_its_random_state(short, tmp_path, caplog):
    train(short)
    run = Path(short.output)
    file = list_checkpoints(run)[-1] / "random_states_0.pkl"
    torch.save({"random_state": 1}, file)
    with pytest.raises(ValueError, match="random_states_0.pkl does not hold the random state of a run"):
        train(short, resume="auto")
    file.unlink()
    with pytest.raises(ValueError, match="random_states_0.pkl: no such file, and without it the run would go on with other"):
        train(short, resume="auto")
    with caplog.at_level(logging.WARNING, "kat_zoo"):
        load_random_state(Accelerator(cpu=True), file.parent, processes=4)
    assert "process 0 has no random state" in caplog.text


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_the_random_state_of_other_gpus_is_restored_as_far_as_it_goes(gpus, tmp_path, monkeypatch, caplog):
    states = [torch.Generator().manual_seed(seed).get_state() for seed in range(2)]
    state = {"random_state": random.getstate(), "numpy_random_seed": np.random.get_state(), "torch_manual_seed": torch.get_rng_state()}
    torch.save({**state, "torch_cuda_manual_seed": states}, tmp_path / "random_states_0.pkl")
    generators = tuple(torch.Generator() for _ in range(gpus))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.default_generators", generators)
    monkeypatch.setattr("torch.cuda.random._lazy_call", lambda call, **_: call())
    load_random_state(SimpleNamespace(process_index=0, num_processes=1), tmp_path, processes=1)
    assert all(torch.equal(generator.get_state(), state) for generator, state in zip(generators, states, strict=False))
    assert (f"saw 2 GPUs, now it sees {gpus}" in caplog.text) == (gpus != 2)


@pytest.mark.parametrize(("field", "value"), [("update", -1), ("update", "x"), ("images", 1.5), ("window", 3), ("unknown", 1)])
def test_a_damaged_progress_is_named(short, field, value):
    train(short)
    file = list_checkpoints(Path(short.output))[-1] / "progress.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(ValueError, match="progress.json (has|is damaged)"):
        train(short, resume="auto")


def test_no_decoder_touches_the_pickles_of_a_webdataset(tmp_path):
    """The sample of webdataset's own writer may have a member .pkl or .pyd, which its decoders unpickle."""
    marker = tmp_path / "executed"
    plain, zipped = bombs(marker)
    ignored = {"pkl": plain, "pyd": plain, "pickle": plain, "pt": zipped}
    splits = open_dataset("webdataset", write_members(tmp_path / "tars", ignored), num_classes=2, samples=4)
    assert len(list(splits.train.rows)) == len(list(splits.test.rows)) == 4
    with pytest.raises(ValueError, match="could not be read as a dataset: Weights only load failed"):
        open_dataset("webdataset", write_members(tmp_path / "tensors", {"pth": zipped}), num_classes=2, samples=4)
    assert not marker.exists()


def write_members(folder, members):
    """Two tars of four images each, with further members for each of them."""
    folder.mkdir()
    for split in ("train", "val"):
        with tarfile.open(folder / f"{split}.tar", "w") as tar:
            for i in range(4):
                for extension, content in ({"png": png(i), "cls": b"%d" % (i % 2)} | members).items():
                    entry = tarfile.TarInfo(f"{i:04d}.{extension}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return str(folder)


def test_files_of_a_checkpoint_may_be_links(short, tmp_path):
    train(short)
    run = Path(short.output)
    shutil.move(run / "checkpoints", tmp_path / "store")
    (run / "checkpoints").symlink_to(tmp_path / "store")
    assert train(short, resume="auto") is not None
