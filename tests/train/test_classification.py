"""Training end to end, on a small KAT and images written in Fashion-MNIST's format."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import timm
import torch
from accelerate import PartialState
from PIL import Image
from safetensors.torch import load_file

from kat_zoo.cli import main as cli
from kat_zoo.train.classification.datasets import open_dataset
from kat_zoo.train.classification.loop import main, train
from kat_zoo.train.core.checkpoint import list_checkpoints
from kat_zoo.train.core.config import to_yaml
from kat_zoo.train.core.log import read_log
from kat_zoo.train.core.processes import evaluation
from kat_zoo.train.core.run import TrainingDiverged

from .test_hub_data import write_parquet

PLAIN = {"crop": "none", "auto_augment": None, "random_erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "color_jitter": 0.0}


def change(recipe, **sections):
    values = {key: dataclasses.replace(getattr(recipe, key), **new) if isinstance(new, dict) else new
              for key, new in sections.items()}  # fmt: skip
    return dataclasses.replace(recipe, **values)


def figures(run):
    return [{k: v for k, v in record.items() if k != "images_per_second"} for record in read_log(run / "metrics.jsonl")]


def same_state(a, b):
    left, right = load_file(a), load_file(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def precisions_of_validate(task, run, monkeypatch):
    """Which precision `kat-zoo validate` takes, without --precision and with it, where the recipe of the run says bf16."""
    asked, stored = [], run / "recipe.yaml"
    stored.write_text(stored.read_text().replace("precision: 'no'", "precision: bf16"))
    with monkeypatch.context() as patch:
        patch.setattr(f"kat_zoo.train.{task}.validate.evaluation", lambda precision: (asked.append(precision), evaluation("no"))[1])
        for option in ([], ["--precision", "no"]):
            assert cli.main(["validate", "--task", task, "--run", str(run), *option]) == 0
    return asked


def same_run(a, b):
    last = [list_checkpoints(run)[-1] for run in (a, b)]
    assert figures(a) == figures(b)
    for name in ("model.safetensors", "ema.safetensors"):
        assert same_state(*(folder / name for folder in last))
    a_state, b_state = (torch.load(folder / "optimizer.bin", weights_only=True)["state"] for folder in last)
    assert all(torch.equal(a_state[i][k], b_state[i][k]) for i in a_state for k in ("exp_avg", "exp_avg_sq"))


def test_resume_is_bit_exact_wherever_a_run_was_cut(recipe, tmp_path):
    """RandAugment, erasing, mixup, drop-path, patch dropout, accumulation, EMA; cut in both epochs; other worker counts."""
    whole = change(recipe, system={"checkpoint_every": 1, "keep_checkpoints": 100}, output=str(tmp_path / "whole"))
    result = train(whole)
    assert len(list_checkpoints(Path(whole.output))) == 12
    for update, workers in ((3, 2), (6, 0), (8, 2)):
        # What a kill -9 leaves: checkpoints up to some update, a longer log, a checkpoint half written.
        cut = tmp_path / f"cut{update}"
        shutil.copytree(whole.output, cut)
        for folder in list_checkpoints(cut)[update:]:
            shutil.rmtree(folder)
        (cut / "checkpoints" / "update_00000099.partial").mkdir()
        with (cut / "metrics.jsonl").open("a") as log:
            log.write('{"update": 7, "lo')
        assert train(change(whole, output=str(cut), data={"workers": workers}), resume="auto") == result
        same_run(Path(whole.output), cut)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_checkpoint_leaves_the_one_before(recipe, tmp_path):
    whole = change(recipe, system={"checkpoint_every": 2}, output=str(tmp_path / "whole"))
    result, moments = train(whole), (14, 17, 23)
    (tmp_path / "recipe.yaml").write_text(to_yaml(whole))
    command = [sys.executable, str(Path(__file__).parent / "killed_runs.py"), str(tmp_path / "recipe.yaml"), *map(str, moments)]
    threads = str(torch.get_num_threads())  # sums of another number of threads round otherwise
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": threads}, capture_output=True, text=True)
    assert done.stdout.splitlines().count(str(-signal.SIGKILL)) == 3, done.stderr[-3000:]
    halves = 0
    for moment in moments:
        cut = change(whole, output=str(tmp_path / f"cut{moment}"))
        assert list_checkpoints(Path(cut.output))
        halves += len(list(Path(cut.output).glob("checkpoints/*.partial")))
        assert train(cut, resume="auto") == result
        same_run(Path(whole.output), Path(cut.output))
    assert halves >= 2  # the kills were where they were meant to be


def signal_after_first_record(log, number):
    while not (log.exists() and log.read_text()):
        time.sleep(0.005)
    os.kill(os.getpid(), number)


def test_a_stop_signal_saves_and_the_run_goes_on_as_if_nothing_had_happened(recipe, tmp_path, capsys):
    number = signal.SIGTERM
    recipe = change(recipe, system={"log_every": 1})
    whole = change(recipe, output=str(tmp_path / "whole"))
    train(whole)
    run, config, before = Path(recipe.output), tmp_path / "recipe.yaml", signal.getsignal(number)
    config.write_text(to_yaml(recipe))
    thread = threading.Thread(target=signal_after_first_record, args=(run / "metrics.jsonl", number))
    thread.start()
    assert main(["--config", str(config)]) == 0
    thread.join()
    assert f"stopped at update {len(figures(run))} by a signal" in capsys.readouterr().out
    assert signal.getsignal(number) is before and len(figures(run)) < 14
    assert main(["--config", str(config), "--resume", "auto"]) == 0
    same_run(Path(whole.output), run)


def test_a_run_leaves_weights_that_timm_loads(recipe, tmp_path):
    recipe = change(recipe, augment=PLAIN, optimizer={"lr": 1e-2, "grad_accum": 1}, schedule={"epochs": 6})
    result = train(recipe)
    run = Path(recipe.output)
    assert result.samples == 50 and 20 < result.top1 <= 100
    assert {path.name for path in run.iterdir()} == {
        "README.md", "best.safetensors", "checkpoints", "config.json", "curves.csv", "curves.png", "metrics.jsonl", "model.safetensors",
        "modeling_kat_zoo.py", "recipe.yaml", "result.json",
    }  # fmt: skip
    card = (run / "README.md").read_text()
    assert f"| {result.top1:g} | measured by us: `kat-zoo train --config recipe.yaml` |" in card and "6 epochs, seed 0" in card
    Image.new("L", (30, 30), 90).save(run / "image.png")
    example = card.split("```python\n")[1].split("```")[0]
    for name in ("local-dir:.", "image.png"):
        example = example.replace(name, name.replace(".", str(run)) if ":" in name else str(run / name))
    exec(example, names := {})
    assert names["top5"].indices.shape == (1, 5) and names["maps"][-1].shape == (1, 24, 7, 7)
    (run / "image.png").unlink()
    curves = (run / "curves.csv").read_text()
    for metric in ("top1", "ema_top1"):
        assert f"run,{metric},6.0,{read_log(run / 'metrics.jsonl')[-1][metric]}" in curves
    assert len(list_checkpoints(run)) == 2
    timm.create_model(recipe.model.name, checkpoint_path=str(run / "model.safetensors"), **recipe.model.kwargs)
    losses = [record["loss"] for record in figures(run) if "loss" in record]
    assert losses[-1] < losses[0]
    evaluations = [record for record in figures(run) if "top1" in record]
    assert [record["epoch"] for record in evaluations] == [1, 2, 3, 4, 5, 6]
    assert evaluations[-1]["ema_top1"] == result.top1
    assert train(recipe, resume="auto") == result and len(figures(run)) == len(losses) + 6


def test_a_second_run_in_the_same_folder_is_refused(recipe, tmp_path):
    Path(recipe.output).mkdir()
    (Path(recipe.output) / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="--resume auto"):
        train(recipe)
    with pytest.raises(FileNotFoundError, match="folder of a checkpoint"):
        train(recipe, resume=str(tmp_path / "nowhere"))


def test_without_finite_gradients_the_run_stops_and_names_the_last_good_checkpoint(recipe, caplog):
    recipe = change(recipe, optimizer={"lr": 1e30, "clip_grad": None}, schedule={"warmup_epochs": 0},
                    system={"max_skipped": 2, "checkpoint_every": 1})  # fmt: skip
    with pytest.raises(TrainingDiverged, match="update_000000"):
        train(recipe)
    assert "skipped: the gradient norm is" in caplog.text


def test_wrong_world_is_refused(recipe, monkeypatch):
    PartialState()  # of one process; set up with two, it would wait for the other
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="torchrun"):
        train(recipe)


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"data": {"input_size": (1, 30, 30)}}, "data.input_size is \\[1, 30, 30\\], which the model cannot take"),
        ({"data": {"input_size": (3, 28, 28)}}, "data.input_size is \\[3, 28, 28\\].* other channels, in_chans"),
        ({"augment": {"auto_augment": "nonsense"}}, "augment.auto_augment='nonsense': expected a policy of timm"),
        ({"augment": {"auto_augment": "rand-q9"}}, "augment.auto_augment='rand-q9': expected a policy of timm"),
    ],
)
def test_what_timm_would_refuse_in_the_midst_is_refused_before(sections, message, recipe):
    with pytest.raises(ValueError, match=message):
        train(change(recipe, **sections))
    assert not Path(recipe.output).exists()


def test_progressive_resolution_is_resumed_where_it_stood(recipe, tmp_path):
    model = {"kwargs": recipe.model.kwargs | {"dynamic_img_size": True}}
    whole = change(recipe, model=model, data={"sizes": {0: 16, 1: 20}}, system={"checkpoint_every": 1, "keep_checkpoints": 100},
                   output=str(tmp_path / "whole"))  # fmt: skip
    result = train(whole)
    for update in (3, 8):
        cut = tmp_path / f"cut{update}"
        shutil.copytree(whole.output, cut)
        for folder in list_checkpoints(cut)[update:]:
            shutil.rmtree(folder)
        assert train(change(whole, output=str(cut)), resume="auto") == result
        same_run(Path(whole.output), cut)
    with pytest.raises(ValueError, match="data.sizes has 18, which the model cannot take"):
        train(change(whole, output=str(tmp_path / "other"), data={"sizes": {0: 18}}))
    with pytest.raises(ValueError, match="dynamic_img_size: true"):
        train(change(recipe, output=str(tmp_path / "static"), data={"sizes": {0: 16}}))


def test_a_stream_is_resumed_where_it_stood(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    root = write_parquet(tmp_path / "parquet")
    data = {"dataset": "hub", "root": root, "streaming": True, "samples": 32, "batch_size": 8, "shuffle_buffer": 4}
    whole = change(recipe, data=data, system={"checkpoint_every": 1, "keep_checkpoints": 100}, output=str(tmp_path / "whole"))  # fmt: skip
    result = train(whole)
    assert result.samples == 10
    cut = tmp_path / "cut"
    shutil.copytree(whole.output, cut)
    for folder in list_checkpoints(cut)[6:]:
        shutil.rmtree(folder)
    assert train(change(whole, output=str(cut)), resume="auto") == result
    same_run(Path(whole.output), cut)


def test_trackers_are_fed_or_refused(recipe):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(ValueError, match="system.trackers has clearml; installed are: .*tensorboard"):
        train(change(recipe, system={"trackers": ("tensorboard", "clearml")}))
    recipe = change(recipe, system={"trackers": ("tensorboard",)})
    train(recipe)
    events = EventAccumulator(str(Path(recipe.output) / "tensorboard" / "kat_zoo"))
    events.Reload()
    logged = [(event.step, event.value) for event in events.Scalars("loss")]
    expected = [(record["update"], record["loss"]) for record in figures(Path(recipe.output)) if "loss" in record]
    assert [step for step, _ in logged] == [step for step, _ in expected]
    assert [value for _, value in logged] == pytest.approx([value for _, value in expected])


def test_weights_and_biases_is_fed_without_a_network(recipe, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(change(recipe, system={"trackers": ("wandb",)}, schedule={"epochs": 1, "warmup_epochs": 0}))
    run = Path(recipe.output)
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    content = log.read_bytes()  # records whose values are JSON
    figured = [json.dumps(record["loss"]).encode() for record in figures(run) if "loss" in record]
    assert len(figured) == 3 and all(figure in content for figure in figured)
    assert b"kat_zoo" in content and b"kat_pico_patch4_28" in content  # the project, and the recipe


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # timm's reader leaves files open
def test_weights_give_the_same_figures_in_timms_own_validation(recipe, tmp_path):
    """What timm's validate.py does with --checkpoint: its loader, its transforms, its way of loading."""
    from timm.data import create_dataset, create_loader, resolve_data_config

    images = open_dataset("fashion_mnist", recipe.data.root)
    for split in ("train", "test"):
        for i, (image, label) in enumerate(getattr(images, split)):
            (tmp_path / "folder" / split / str(label)).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "folder" / split / str(label) / f"{i:03d}.png")
    recipe = change(recipe, augment=PLAIN, data={"dataset": "folder", "root": str(tmp_path / "folder")}, optimizer={"lr": 1e-2})
    result = train(recipe)
    model = timm.create_model(recipe.model.name, num_classes=10, **recipe.model.kwargs).eval()
    timm.models.load_checkpoint(model, str(Path(recipe.output) / "model.safetensors"))
    config = resolve_data_config({}, model=model)
    dataset = create_dataset("", root=str(tmp_path / "folder" / "test"), input_img_mode="L")
    batches = create_loader(
        dataset, batch_size=16, use_prefetcher=False, num_workers=0, device=torch.device("cpu"), crop_pct=config["crop_pct"],
        **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_mode")},
    )  # fmt: skip
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    assert result.top1 == pytest.approx(100 * right / 50)
