"""benchmarks/pico.py: the runs behind the weights that ship, and how their best get into the package."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from kat_zoo.hub import cards, registry
from kat_zoo.train.classification.recipe import Recipe
from kat_zoo.train.core.config import parse

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
TINY = (
    "--schedule.epochs=1",
    "--schedule.warmup_epochs=0",
    "--schedule.decay_epochs=null",
    "--schedule.name=cosine",
    "--data.batch_size=16",
)


@pytest.fixture
def pico(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import pico

    monkeypatch.setattr(pico, "RESULTS", tmp_path / "results")
    yield pico
    sys.modules.pop("pico")


def test_families_differ_in_model_start_and_rate_only(pico):
    plans = []
    for family in pico.FAMILIES:
        plan = dataclasses.asdict(parse(Recipe, pico.student(family, 1e-3, 5), "test")[0])
        assert (plan["model"].pop("name"), plan["model"].pop("kwargs")) == (pico.FAMILIES[family], pico.INITIAL[family])
        plans.append(plan)
    assert all(plan == plans[0] for plan in plans) and plans[0]["seed"] == 5 and plans[0]["ema"]["decay"] > 0


def test_a_student_learns_from_the_teacher_of_its_folder(pico, tmp_path, data_root):
    data = [f"--data.root={data_root}", *TINY]
    pico.run(["--config=resnet_pico_fmnist", *data], tmp_path / "teacher")  # trained already, so that the next line keeps it alone
    assert pico.teach(tmp_path)["family"] == "teacher"
    kept = load_file(tmp_path / "results" / "teacher" / "model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float16, torch.int64}
    arguments = [*pico.student("KAT", 1e-3, 0), f"--distill.teacher={tmp_path / 'results' / 'teacher'}", *data]
    row = pico.run(arguments, tmp_path / "student")
    records = [json.loads(line) for line in (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()]
    assert any("kd_loss" in record for record in records)
    result = json.loads((tmp_path / "student" / "result.json").read_text())
    assert float(row["top1"]) == pytest.approx(result["top1"], abs=0.01) and float(row["cpu_minutes"]) >= 0
    before = (tmp_path / "student" / "metrics.jsonl").read_bytes()
    assert pico.run(arguments, tmp_path / "student") == row and (tmp_path / "student" / "metrics.jsonl").read_bytes() == before


def test_a_search_goes_on_below_its_first_rate(pico):
    for family, best in (("ViT", 0.0024), ("KArAt", 0.0006)):
        for lr in (0.0006, 0.0012, 0.0024):
            assert pico.rates(family) == [0.0006, 0.0012, 0.0024]
            pico.add("sweep", {"family": family, "lr": f"{lr:g}", "top1": f"{80 + (lr == best)}", "loss": "0.5"})
        assert max(pico.scores(family), key=pico.scores(family).__getitem__) == best
    assert len(pico.rates("ViT")) == 3 and pico.rates("KArAt") == [0.0003, 0.0006, 0.0012, 0.0024]
    assert [row["family"] for row in pico.rows_of("sweep")] == ["ViT"] * 3 + ["KArAt"] * 3


def test_the_best_seed_ships_with_the_figures_of_all(pico, tmp_path, monkeypatch, capsys):
    model = pico.FAMILIES["KAT"]
    for seed, top1 in enumerate(("90.10", "91.30", "90.70")):
        pico.add("runs", {"family": "KAT", "seed": str(seed), "lr": "0.001", "top1": top1, "loss": "0.3", "cpu_minutes": "9.0"})
        (tmp_path / f"{model}_{seed}").mkdir()
        save_file({"weight": torch.full((3,), 0.1 + seed)}, tmp_path / f"{model}_{seed}" / "model.safetensors")
    shipped = json.loads(registry.RESULTS.read_text())
    (tmp_path / "results.json").write_text(registry.RESULTS.read_text())
    monkeypatch.setattr(registry, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(pico, "WEIGHTS", tmp_path)
    monkeypatch.setattr(pico, "test_accuracy", lambda name: 91.287)
    pico.ship(tmp_path)
    (weight,) = load_file(tmp_path / f"{model}.fmnist.safetensors").values()
    assert weight.dtype == torch.float16 and weight.tolist() == torch.full((3,), 1.1).half().tolist()
    known = json.loads(registry.RESULTS.read_text())
    for name in known:
        changed = {"top1": 91.29, "seeds": [90.1, 91.3, 90.7]} if name.startswith(model) else {}
        assert known[name] == [{**row, **changed} for row in shipped[name]]
    shown = cards._results([registry.Result("fashion_mnist", "test", 91.3, "ours", "", "", (90.1, 91.3, 90.7))])
    assert "91.3, the best of 3 seeds: 90.70 ± 0.60" in shown
    capsys.readouterr()
    pico.report()
    expected = "KAT: 90.70 +- 0.60 % top-1 (seeds: 90.10, 91.30, 90.70), rate 0.001, 9 CPU minutes a run, median"
    assert capsys.readouterr().out.startswith(expected)


def test_a_family_without_its_best_run_keeps_its_weights(pico, tmp_path, monkeypatch):
    """Its seeds are of the weights that ship only while those are of the best of them."""
    shipped = json.loads(registry.RESULTS.read_text())
    (tmp_path / "results.json").write_text(registry.RESULTS.read_text())
    monkeypatch.setattr(registry, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(pico, "WEIGHTS", tmp_path)
    name = f"{pico.FAMILIES['KAT']}.fmnist"
    best = max(shipped[name][0]["seeds"])
    for seed, top1, listed in ((0, best, [best]), (1, best - 1, [best, best - 1]), (2, best + 1, [best, best - 1])):
        pico.add("runs", {"family": "KAT", "seed": str(seed), "lr": "0.001", "top1": f"{top1:.2f}", "loss": "0.3", "cpu_minutes": "9.0"})
        pico.ship(tmp_path)
        known = json.loads(registry.RESULTS.read_text())
        assert known[name] == [{**shipped[name][0], "seeds": pytest.approx(listed)}]
    assert not list(tmp_path.glob("*.safetensors"))


def test_no_run_begins_after_one_has_failed(pico, tmp_path):
    from parallel import in_processes

    paths = [tmp_path / "a", tmp_path / "missing" / "b", tmp_path / "c", tmp_path / "d"]
    ended = []
    with pytest.raises(FileNotFoundError):
        for (path,), _ in in_processes(Path.touch, [(path,) for path in paths], 1):
            ended.append(path)
    assert ended == paths[:1] and [path.exists() for path in paths] == [True, False, False, False]


def test_processes_end_with_the_one_that_started_them():
    """Killed, it cannot tell them, and they would train on."""
    code = "import time; from parallel import in_processes\nif __name__ == '__main__': list(in_processes(time.sleep, [(600,)], 1))"
    program = subprocess.Popen([sys.executable, "-c", code], cwd=BENCHMARKS)
    parent, children = psutil.Process(program.pid), []
    while not any(child.num_threads() > 1 and "spawn_main" in " ".join(child.cmdline()) for child in children):
        assert program.poll() is None
        time.sleep(0.2)
        children = parent.children(recursive=True)
    time.sleep(0.5)
    program.kill()
    program.wait()
    assert not psutil.wait_procs(children, timeout=60)[1]
