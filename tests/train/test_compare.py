"""benchmarks/compare.py: a run's figures, the statistics of the report, and what is said of what has not run."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def compare(monkeypatch):
    """The scripts import each other from their folder, as they do when called."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    import compare
    import compare_evaluate
    import compare_report
    import compare_rows

    yield compare, compare_rows, compare_evaluate, compare_report
    for name in ("compare", "compare_rows", "compare_evaluate", "compare_report"):
        sys.modules.pop(name)


def test_a_run_resumes_and_is_evaluated(compare, tmp_path, data_root):
    script, rows, _, _report = compare
    scale, run = rows.SCALES["toy"], rows.Run("main", "vit", 0, 1e-3)
    script.train_and_evaluate(run, scale, tmp_path, data_root)
    figures = script.finished(run, tmp_path)
    result = json.loads((tmp_path / run.name / "result.json").read_text())
    assert figures["top1"] == pytest.approx(result["top1"], abs=5) and figures["loss"] == pytest.approx(result["loss"], rel=0.02)
    assert {"noise", "blur", "contrast", "shift", "ece"} <= figures.keys() and figures["images"] == 64
    before = (tmp_path / run.name / "metrics.jsonl").read_bytes()
    (tmp_path / run.name / "evaluation.json").unlink()
    script.train_and_evaluate(run, scale, tmp_path, data_root)
    assert script.finished(run, tmp_path) == figures and (tmp_path / run.name / "metrics.jsonl").read_bytes() == before


def note(script, rows, folder, lr, top1, loss, row="kat"):
    path = folder / rows.sweep_run(row, lr).name
    path.mkdir()
    (path / "evaluation.json").write_text(json.dumps({"top1": top1, "loss": loss}))


def test_the_rate_is_chosen_from_a_complete_sweep(compare, tmp_path):
    script, rows, *_ = compare
    for lr, top1, loss in zip(rows.RATES[1:-1], (80.0, 85.0, 85.0), (0.6, 0.5, 0.6), strict=True):
        assert script.chosen_rate(script.sweep_scores("kat", tmp_path)) is None
        note(script, rows, tmp_path, lr, top1, loss)
    assert script.chosen_rate(script.sweep_scores("kat", tmp_path)) == rows.RATES[2]
    chosen = script.wanted(["main", "extra"], rows.SCALES["toy"], tmp_path)
    assert {rows.ROWS[run.row].family for run in chosen} == {"kat"}
    assert sum(run.row == "kat" for run in chosen) == 2 and sum(run.row == "kat_g4" for run in chosen) == 1


def test_a_row_with_a_sweep_of_its_own_takes_its_rate_from_it(compare, tmp_path):
    script, rows, *_ = compare
    for row, scores in (("vit", (70, 80, 85, 84)), ("vit_prelu", (70, 85, 84, 80))):
        for lr, top1 in zip(rows.RATES, scores, strict=False):
            note(script, rows, tmp_path, lr, top1, 0.5, row)
    assert {"vit", "vit_prelu", "vit_lan"} <= set(script.swept(["extra"])) and "vit_relu" not in script.swept(["extra"])
    rates = {run.row: run.lr for run in script.wanted(["extra"], rows.SCALES["toy"], tmp_path)}
    assert (rates["vit_relu"], rates["vit_prelu"]) == (rows.RATES[2], rows.RATES[1]) and "vit_lan" not in rates


@pytest.mark.parametrize(("scores", "beyond"), [((90, 85, 80), 0), ((80, 85, 90), -1)])
def test_a_sweep_goes_on_beyond_an_edge(compare, tmp_path, scores, beyond):
    script, rows, *_ = compare
    for lr, top1 in zip(rows.RATES[1:-1], scores, strict=True):
        note(script, rows, tmp_path, lr, top1, 0.5)
    assert script.chosen_rate(script.sweep_scores("kat", tmp_path)) is None
    note(script, rows, tmp_path, rows.RATES[beyond], 88, 0.5)
    assert script.chosen_rate(script.sweep_scores("kat", tmp_path)) == rows.RATES[1:-1][beyond]


def test_calibration_error_by_hand(compare):
    *_, evaluate, _ = compare
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert evaluate.calibration_error(probabilities, np.array([0, 1, 1, 1])) == pytest.approx(100 * (0.5 * 0.4 + 0.5 * 0.4))


def test_shift_moves_three_pixels(compare):
    *_, evaluate, _ = compare
    image = torch.rand(1, 1, 28, 28)
    assert torch.equal(evaluate.shift(image)[..., 3:, 3:], image[..., :-3, :-3])


def test_report_of_partial_results(compare, tmp_path):
    script, rows, evaluate, report = compare
    fields = evaluate.RUN_FIELDS
    base = dict.fromkeys(fields, 1.0)
    runs = [{**base, "row": "vit", "seed": s, "top1": 80.0 + s} for s in range(3)]
    runs += [{**base, "row": "kat", "seed": s, "top1": 82.0 + s + 0.1 * s} for s in range(3)]
    runs += [{**base, "row": "karat", "seed": 0, "top1": 70.0}]
    script.write_csv(tmp_path / "runs.csv", runs, fields)
    script.write_csv(tmp_path / "curves.csv", [], script.CURVE_FIELDS)
    sizes = [{"row": key, "params": n, "mmacs": 20} for key, n in (("vit", 1e6), ("kat", 1.05e6), ("karat", 1.2e6))]
    script.write_csv(tmp_path / "sizes.csv", sizes, ["row", "params", "mmacs"])
    report.report(tmp_path, "small", rows.SCALES["small"])
    text = (tmp_path / "tables.md").read_text()
    assert "Partial: 7 of " in text and "| KAT + KArAt G3B |" in text and "not run" in text
    # 2, 2.1, 2.2: t(0.975, 2) = 4.303, standard error 0.1 / sqrt(3)
    assert "+2.10 [+1.85, +2.35]" in text and "KAT against ViT (GELU): +2.10 points: better." in text
    assert "KArAt G3B against ViT (GELU): -10.00 points: one seed" in text
    assert "* equal parameters (M): KAT 83.10 (cost 1.05); ViT (GELU) 81.00 (cost 1.00).\n" in text
    assert "* equal multiply-adds per image (M): KAT" in text and "equal training time" not in text and "not measured yet" in text
    with (tmp_path / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 7


@pytest.mark.slow
def test_the_command(compare, tmp_path, data_root):
    script, *_ = compare
    arguments = ["--scale", "toy", "--rows", "main", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--data", data_root]
    script.main(arguments)
    assert "12 of 33 runs" in (tmp_path / "toy" / "tables.md").read_text()
    assert {path.name for path in (tmp_path / "toy").iterdir()} >= {"accuracy.png", "curves.png", "robustness.png", "runs.csv"}
    with pytest.raises(SystemExit):
        script.main(arguments)


def test_scaling(compare, tmp_path, data_root, monkeypatch):
    """Two widths and data sizes of one family: the sizes are those of the models, and a second call trains nothing."""
    import scaling

    monkeypatch.setattr(scaling, "FAMILIES", ("vit",))
    monkeypatch.setattr(scaling, "WIDTHS", (24, 48))
    monkeypatch.setattr(scaling, "IMAGES", {"toy": (32, 64)})
    arguments = ["--scale", "toy", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path), "--data", data_root]
    scaling.main(arguments)
    with (tmp_path / "toy" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["images"], r["width"]) for r in rows] == [("32", "24"), ("32", "48"), ("64", "24"), ("64", "48")]
    assert int(rows[0]["params"]) < int(rows[1]["params"]) < 4 * int(rows[0]["params"])
    assert float(rows[2]["pflops"]) == pytest.approx(2 * float(rows[0]["pflops"]), rel=1e-3)
    with (tmp_path / "toy" / "fits.csv").open() as file:
        assert {r["against"] for r in csv.DictReader(file)} >= {"parameters", "images"}
    monkeypatch.setattr(scaling, "train_recipe", lambda plan: json.loads((Path(plan.output) / "evaluation.json").read_text()))
    scaling.main([*arguments, "--resume"])
    sys.modules.pop("scaling")


def test_frontier(compare):
    import scaling

    compute, loss = np.array([4.0, 1.0, 2.0, 3.0]), np.array([0.5, 1.0, 1.2, 0.9])
    assert scaling.frontier(compute, loss).tolist() == [1, 3, 0]
    sys.modules.pop("scaling")
