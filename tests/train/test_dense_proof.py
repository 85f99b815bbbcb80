"""benchmarks/dense_proof.py: what its runs share, and what its report says of them."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from kat_zoo.train.scenes import SceneConfig, write_scenes

from .test_classification import change

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def proof(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import dense_proof

    monkeypatch.setattr(dense_proof, "RESULTS", tmp_path / "results")
    yield dense_proof
    sys.modules.pop("dense_proof")


@pytest.mark.parametrize("task, neck", [("detection", "pyramid_args"), ("segmentation", "neck_args")])
def test_runs_differ_in_their_backbone_only(task, neck, proof):
    plans = {name: dataclasses.asdict(proof.plan(task, name, 3, Path("work"))) for name in proof.BACKBONES}
    told = {}
    for name, plan in plans.items():
        assert plan.pop("output") == f"work/{task}_{name}_3" and plan["seed"] == 3
        told[name] = plan["model"].pop("backbone"), plan["model"].pop("pretrained"), plan["model"][neck].pop("frozen_stages")
    assert plans["KAT"] == plans["ViT"] == plans["random"]
    assert told == {
        "KAT": ("kat_pico_patch4_28", True, -1),
        "ViT": ("vit_mlp_pico_patch4_28", True, -1),
        "random": ("kat_pico_patch4_28", False, 4),
    }


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_run_is_trained_counted_and_not_trained_again(task, proof, tmp_path, monkeypatch):
    write_scenes(SceneConfig(out=str(tmp_path / "scenes"), **proof.SCENES | {"train": 8, "val": 2}))
    monkeypatch.setattr(proof, "plan", lambda *run, plan=proof.plan: change(plan(*run), schedule={"epochs": 1, "warmup_epochs": 0}))
    for _ in range(2):
        assert proof.run(task, "KAT", 0, tmp_path)
    folder = tmp_path / f"{task}_KAT_0"
    assert proof.is_finished(folder) and proof.cpu_minutes(folder) > 0
    proof.collect([(task, "KAT", 0)], tmp_path)
    assert {row["metric"] for row in proof.read_table(tmp_path / "results" / "runs.csv")} == set(proof.METRICS[task])


def test_report_of_finished_runs(proof, tmp_path, capsys):
    finished = []
    for backbone, ap50 in (("KAT", 61.0), ("random", 9.0)):
        for seed in range(2):
            folder = tmp_path / f"detection_{backbone}_{seed}"
            folder.mkdir()
            figures = {"ap": 30.0, "ap50": ap50 + seed}
            (folder / "result.json").write_text(json.dumps({"images": 2, "box": figures, "mask": figures, "classes": ["a"]}))
            (folder / "cpu.json").write_text(json.dumps({"seconds": 90.0, "finished": True}))
            records = [{"update": 10, "loss": 2.0}, {"update": 20, "loss": 1.0}, {"update": 20, "box_ap": 3.0}]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
            assert proof.run("detection", backbone, seed, tmp_path)  # finished: nothing is trained
            finished.append(("detection", backbone, seed))
    proof.collect(finished, tmp_path)
    proof.report()
    text = capsys.readouterr().out
    assert "detection box_ap50 KAT: mean 61.5 % (seeds: 61.0, 62.0); 1.5 CPU minutes a run" in text
    assert "detection mask_ap50 random: mean 9.5 %" in text and "segmentation" not in text and "ViT" not in text
    assert (tmp_path / "results" / "curves.png").exists() and len(proof.read_table(tmp_path / "results" / "curves.csv")) == 8
